"""The directory is synced from LDAP: a real slapd, with Active Directory's attributes."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from harness import *
from clock import Clock

BASE = "dc=example,dc=org"

CONFIG = """include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
attributetype ( 1.2.840.113556.1.2.210 NAME 'proxyAddresses' EQUALITY caseIgnoreMatch SUBSTR caseIgnoreSubstringsMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
objectclass ( 1.2.840.113556.1.5.6.1 NAME 'mailRecipient' SUP top AUXILIARY MAY ( mail $ proxyAddresses $ displayName ) )
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {folder}/slapd.pid
TLSCertificateFile {certificate}
TLSCertificateKeyFile {key}
database mdb
suffix {base}
directory {folder}/data
maxsize 104857600
rootdn cn=admin,{base}
rootpw secret
limits * size.prtotal=unlimited size=100
access to * by anonymous auth by users read
"""


def answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Slapd:
    """OpenLDAP's server, unprivileged, on loopback; what ldapmodify sends is LDIF."""

    def __init__(self, scene, name="slapd"):
        self.scene, self.folder, self.port = scene, scene.path(name), free_port()
        os.makedirs(os.path.join(self.folder, "data"))
        self.certificate, key = scene.certificate(f"{name}.localhost", "localhost", socket.gethostname(), socket.getfqdn())  # libldap takes the machine's own name for localhost
        for path in (self.certificate, key):
            os.chmod(path, 0o644)
        with open(os.path.join(self.folder, "slapd.conf"), "w") as file:
            file.write(CONFIG.format(folder=self.folder, base=BASE, certificate=self.certificate, key=key))
        subprocess.run(["chown", "-R", "openldap:", self.folder], check=True)
        scene.stack.callback(self.stop)

    def start(self):
        self.process = subprocess.Popen(["slapd", "-u", "openldap", "-g", "openldap", "-f", os.path.join(self.folder, "slapd.conf"), "-h", f"ldap://127.0.0.1:{self.port}", "-d", "0"],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(lambda: answers(self.port), what="slapd to answer")
        return self

    def stop(self):
        self.process.terminate()
        self.process.wait()

    def learn(self, ldif):
        """As a copy does from the first: with the times that it says."""
        self.stop()
        done = subprocess.run(["slapmodify", "-f", os.path.join(self.folder, "slapd.conf")], input=ldif, text=True, capture_output=True, user="openldap")
        assert done.returncode == 0, done.stdout + done.stderr
        self.start()

    def modify(self, ldif):
        done = subprocess.run(["ldapmodify", "-x", "-H", f"ldap://127.0.0.1:{self.port}", "-D", f"cn=admin,{BASE}", "-w", "secret"],
                              input=ldif, text=True, capture_output=True)
        assert done.returncode == 0, done.stdout + done.stderr


def person(uid, *lines, unit="people"):
    return "\n".join([f"dn: uid={uid},ou={unit},{BASE}", "changetype: add", "objectClass: inetOrgPerson", "objectClass: mailRecipient", f"uid: {uid}", f"cn: {uid}",
                      "sn: x", *lines, "", ""])


PEOPLE = f"""dn: {BASE}
changetype: add
objectClass: dcObject
objectClass: organization
dc: example
o: Example

dn: ou=people,{BASE}
changetype: add
objectClass: organizationalUnit
ou: people

dn: uid=holdfast,{BASE}
changetype: add
objectClass: account
objectClass: simpleSecurityObject
uid: holdfast
userPassword: reader

""" + person("ada", "mail: ada@example.org", "proxyAddresses: SMTP:ada@example.org", "proxyAddresses: smtp:countess@example.org", "proxyAddresses: x500:/o=Example/cn=ada",
             "displayName: Ada Lovelace", "telephoneNumber: +44 20 7946 0001") + \
    person("bob", "proxyAddresses: smtp:robert@example.org", "proxyAddresses: SMTP:bob@example.org") + \
    person("printer") + f"""dn: cn=engineers,ou=people,{BASE}
changetype: add
objectClass: groupOfNames
objectClass: mailRecipient
cn: engineers
mail: engineers@example.org
member: UID=ada, OU=people, {BASE}
member: uid=bob,ou=people,{BASE}
member: uid=printer,ou=people,{BASE}

"""


def settings(scene, slapd, more=""):
    password = scene.path("ldap-password")
    with open(password, "w") as file:
        file.write("reader\n")
    return f"""failover:
  probe_interval: 100ms
  takeover_after: 200ms
directory:
  ldap:
    url: ldap://localhost:{slapd.port}
    ca_file: {slapd.certificate}
    bind_dn: uid=holdfast,{BASE}
    password_file: {password}
    base: {BASE}
    interval: 1h
    timeout: 5s
{more}"""


def people(holdfast):
    return {one["address"]: one for one in map(json.loads, holdfast.run("directory", "list", "--json").stdout.splitlines())}


def ldap(holdfast):
    return holdfast.status()["ldap"]


def reload(holdfast, yaml):
    def reloads():
        with open(holdfast.log) as log:
            return sum("reload" in line for line in log)
    before = reloads()
    holdfast.yaml = yaml
    holdfast.write_config()
    holdfast.signal(signal.SIGHUP)
    wait_for(lambda: reloads() > before, what="the reload")


@test("people with name, telephone and aliases, and groups with their members, come from LDAP by StartTLS; changes and departures follow, incrementally")
def _(scene):
    slapd = Slapd(scene).start()
    slapd.modify(PEOPLE)
    holdfast = scene.holdfast(scene.primary(), yaml=settings(scene, slapd).replace("interval: 1h", "interval: 1s"))
    wait_for(lambda: ldap(holdfast)["last_success"], what="the first sync")
    found = people(holdfast)
    equal(sorted(found), ["ada@example.org", "bob@example.org", "engineers@example.org"])
    equal((found["ada@example.org"]["name"], found["ada@example.org"]["telephone"], found["ada@example.org"]["aliases"], found["ada@example.org"]["source"]),
          ("Ada Lovelace", "+44 20 7946 0001", ["countess@example.org"], "ldap"))
    equal(found["bob@example.org"]["aliases"], ["robert@example.org"])
    equal(found["engineers@example.org"]["members"], ["ada@example.org", "bob@example.org"])
    holdfast.run("mailbox", "import", "--directory", "--passwords-to", scene.path("made.csv"))
    accounts = [line.split(",")[0] for line in open(scene.path("made.csv")).read().splitlines()[1:]]
    equal(accounts, sorted(address for address, one in found.items() if not one["members"]), "a group logs in nowhere")
    refused = holdfast.run("directory", "remove", "ada@example.org", check=False)
    assert refused.returncode == 78 and "remove it there" in refused.stderr, refused
    slapd.modify(person("eve", "mail: eve@example.org") + f"dn: uid=bob,ou=people,{BASE}\nchangetype: delete\n\n" +
                 f"dn: uid=ada,ou=people,{BASE}\nchangetype: modify\nreplace: telephoneNumber\ntelephoneNumber: +44 20 7946 0002\n\n")
    # The entry of the newcomer is unknown by name and changed: it is read as a change, not by reading everything anew.
    wait_for(lambda: sorted(people(holdfast)) == ["ada@example.org", "engineers@example.org", "eve@example.org"], what="the newcomer, and the departure")
    assert "incremental" in ldap(holdfast)["last_run"], ldap(holdfast)
    found = people(holdfast)
    equal(found["ada@example.org"]["telephone"], "+44 20 7946 0002")
    equal(found["engineers@example.org"]["members"], ["ada@example.org"], "who is gone is in no group")
    # A branch gets another name, and what is below it, unchanged, is found again. (Changes of the last second are read twice.)
    written = int(time.time())
    wait_for(lambda: int(time.time()) > written, what="the next second")
    slapd.modify(f"dn: uid=ada,ou=people,{BASE}\nchangetype: modify\nreplace: telephoneNumber\ntelephoneNumber: +44 20 7946 0003\n\n")
    wait_for(lambda: ldap(holdfast)["last_run"] == "incremental: 1 read", what="a run that reads one")
    slapd.modify(f"dn: ou=people,{BASE}\nchangetype: modrdn\nnewrdn: ou=staff\ndeleteoldrdn: 1\n\n")
    wait_for(lambda: "full" in ldap(holdfast)["last_run"], what="a full run")
    equal(sorted(people(holdfast)), ["ada@example.org", "engineers@example.org", "eve@example.org"])


def telephone(holdfast):
    return people(holdfast)["ada@example.org"]["telephone"]


def after_runs(holdfast, more):
    runs = ldap(holdfast)["runs"]
    wait_for(lambda: ldap(holdfast)["runs"] >= runs + more, what="runs")


@test("a change that a copy of the directory learned late, with the time of the first, is found on another server, after a day, and when asked for")
def _(scene):
    new = f"dn: uid=ada,ou=people,{BASE}\nchangetype: modify\nreplace: telephoneNumber\ntelephoneNumber: +44 %s\n-\nreplace: modifyTimestamp\nmodifyTimestamp: 20260101000000Z\n"
    servers = [Slapd(scene, name).start() for name in ("slapd", "copy")]
    for slapd in servers:
        slapd.modify(PEOPLE)
    servers[1].learn(new % 1)
    yaml = settings(scene, servers[0]).replace("interval: 1h", "interval: 1s")
    yaml = yaml.replace(f"url: ldap://localhost:{servers[0].port}", f"url: ldap://localhost:{servers[0].port} ldap://localhost:{servers[1].port}")
    with open(servers[0].certificate, "a") as trusted:
        trusted.write(open(servers[1].certificate).read())
    clock = Clock(scene)
    holdfast = scene.holdfast(scene.primary(), yaml=yaml, before=clock.before)
    wait_for(lambda: ldap(holdfast)["last_success"], what="the first sync")
    equal(telephone(holdfast), "+44 20 7946 0001")
    servers[0].stop()
    wait_for(lambda: telephone(holdfast) == "+44 1", what="the other server's people")
    servers[1].learn(new % 2)
    after_runs(holdfast, 2)
    equal((telephone(holdfast), ldap(holdfast)["problem"]), ("+44 1", ""))
    holdfast.run("directory", "sync")
    equal(telephone(holdfast), "+44 2")
    servers[1].learn(new % 3)
    after_runs(holdfast, 2)
    equal((telephone(holdfast), ldap(holdfast)["problem"]), ("+44 2", ""))
    clock.says("+25h")
    wait_for(lambda: telephone(holdfast) == "+44 3", what="the day to be over")


@test("a thousand people come page by page from a server that gives a hundred at a time")
def _(scene):
    slapd = Slapd(scene).start()
    slapd.modify(PEOPLE + "".join(person(f"u{i}", f"mail: u{i}@example.org") for i in range(1000)))
    holdfast = scene.holdfast(scene.primary(), yaml=settings(scene, slapd, "    page_size: 100\n"))
    wait_for(lambda: ldap(holdfast)["people"] == 1003, what="all pages")
    equal(len(people(holdfast)), 1003)


@test("a group of more members than Active Directory tells at once has all of them")
def _(scene):
    port, many = free_port(), 3200
    server = subprocess.Popen(["/usr/bin/python3", os.path.join(os.path.dirname(__file__), "ranged_directory.py"), str(port), str(many), "1500"])
    scene.stack.callback(server.kill)
    wait_for(lambda: answers(port), what="the server")
    password = scene.path("ldap-password")
    with open(password, "w") as file:
        file.write("reader\n")
    holdfast = scene.holdfast(scene.primary(), yaml=f"""directory:
  ldap:
    url: ldap://127.0.0.1:{port}
    start_tls: false
    bind_dn: CN=holdfast
    password_file: {password}
    base: DC=example,DC=org
    filter: (mail=*)
""")
    wait_for(lambda: ldap(holdfast)["people"] == many + 1, what="the sync")
    members = people(holdfast)["all@example.org"]["members"]
    equal((len(members), sorted(members) == sorted(f"u{i}@example.org" for i in range(many))), (many, True))


@test("aliases are in the attributes that alias_attributes names; what is no address in them is left out")
def _(scene):
    slapd = Slapd(scene).start()
    slapd.modify(PEOPLE + person("eve", "mail: eve@example.org", "description: mother@example.org", "description: first of all", "proxyAddresses: smtp:e@example.org"))
    holdfast = scene.holdfast(scene.primary(), yaml=settings(scene, slapd, "    alias_attributes: [description]\n"))
    wait_for(lambda: ldap(holdfast)["last_success"], what="the first sync")
    equal(people(holdfast)["eve@example.org"]["aliases"], ["mother@example.org"])


@test("when most people are gone from LDAP at once, they stay until an operator says that this is right")
def _(scene):
    slapd = Slapd(scene).start()
    slapd.modify(PEOPLE + "".join(person(f"u{i}", f"mail: u{i}@example.org") for i in range(40)))
    holdfast = scene.holdfast(scene.primary(), yaml=settings(scene, slapd).replace("interval: 1h", "interval: 1s"))
    wait_for(lambda: len(people(holdfast)) == 43, what="all people")

    def leave(numbers):
        slapd.modify("".join(f"dn: uid=u{i},ou=people,{BASE}\nchangetype: delete\n\n" for i in numbers))
    leave(range(10))
    wait_for(lambda: len(people(holdfast)) == 33, what="some to leave")
    leave(range(10, 40))
    wait_for(lambda: "only 3 of 33" in ldap(holdfast)["problem"], what="the doubt")
    equal(len(people(holdfast)), 33)
    holdfast.stop()
    holdfast.start()  # also not by a restart
    wait_for(lambda: "only 3 of 33" in ldap(holdfast)["problem"], what="the doubt after a restart")
    equal(len(people(holdfast)), 33)
    holdfast.run("directory", "sync")
    equal(sorted(people(holdfast)), ["ada@example.org", "bob@example.org", "engineers@example.org"])
    equal(ldap(holdfast)["problem"], "")


@test("a directory file that is gone, or no list of people any more, keeps Holdfast from no start: the last good copy decides; at the first start it is refused")
def _(scene):
    listed = scene.path("people.csv")
    with open(listed, "w") as file:
        file.write("address,name\nada@example.org,Ada\n")
    holdfast = scene.holdfast(scene.primary(), yaml=f"directory:\n  file: {listed}\n")
    holdfast.stop()
    for spoil in (lambda: open(listed, "w").write("\0\1no list\n"), lambda: os.unlink(listed)):
        spoil()
        holdfast.start()
        assert holdfast.logged("the last good copy stays in use")
        assert "ada@example.org" in people(holdfast)
        holdfast.stop()
    shutil.rmtree(holdfast.journal_path)
    done = run(BINARY, "-c", holdfast.config, "serve")
    assert done.returncode != 0 and listed in done.stderr, done


@test("while LDAP is gone, over a restart and in hold too, the last good copy decides; the problem is named")
def _(scene):
    slapd = Slapd(scene).start()
    slapd.modify(PEOPLE)
    primary = scene.primary()
    holdfast = scene.holdfast(primary, yaml=settings(scene, slapd))
    wait_for(lambda: ldap(holdfast)["last_success"], what="the first sync")
    slapd.stop()
    failed = holdfast.run("directory", "sync", check=False)
    assert failed.returncode != 0 and "last good copy" in failed.stderr and "directory.ldap.url" in failed.stderr, failed.stderr
    assert "NOT SYNCED" in holdfast.run("status").stdout
    equal(len(people(holdfast)), 3)
    holdfast.stop()
    holdfast.start()
    wait_for(lambda: ldap(holdfast)["problem"], what="the problem to be seen")
    primary.stop()
    client = scene.client(holdfast.port)
    client.ask("EHLO client.example.net")
    client.ask("MAIL FROM:<a@example.net>")
    for address in ("ada@example.org", "COUNTESS@example.org", "bob+tag@example.org", "engineers@example.org"):
        equal(client.ask(f"RCPT TO:<{address}>")[:3], "250", address)
    equal(client.ask("RCPT TO:<stranger@example.org>")[:3], "450")
    slapd.start()
    holdfast.run("directory", "sync")
    equal(ldap(holdfast)["problem"], "")


@test("a wrong password, an untrusted certificate, a base where nobody is: each is named, and the copy stays")
def _(scene):
    slapd = Slapd(scene).start()
    slapd.modify(PEOPLE)
    good = settings(scene, slapd)
    holdfast = scene.holdfast(scene.primary(), yaml=good)
    wait_for(lambda: ldap(holdfast)["last_success"], what="the first sync")
    other = scene.certificate("other.example.org")[0]
    for change, said in (((f"uid=holdfast,{BASE}", f"uid=nobody,{BASE}"), "bind_dn and password_file"), ((slapd.certificate, other), "ca_file"),
                         ((f"base: {BASE}", f"base: ou=people,{BASE}\n    filter: (cn=nothing)"), "nobody with a mail address")):
        assert change[0] in good
        reload(holdfast, good.replace(*change))
        failed = holdfast.run("directory", "sync", check=False)
        assert failed.returncode != 0 and said in failed.stderr, (change, failed.stderr)
        equal(len(people(holdfast)), 3, change)
    reload(holdfast, good)
    assert "3 entries" in holdfast.run("directory", "sync").stdout
    # Taken out of the configuration, its people leave.
    reload(holdfast, "")
    wait_for(lambda: not people(holdfast), what="the people to leave")
    assert "not configured" in holdfast.run("directory", "sync", check=False).stderr


main()
