"""Accounts of the emergency mailboxes: who has one, when it opens, and who guesses passwords."""
import os
import pty
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from mailboxes import *
from offices import *


@test("logins open when the route is held, close after the grace, and never for those who are shut out")
def _(scene):
    world = World(scene, people=("ada", "bob"), mailbox="open: hold\ngrace: 2s\npeople:\n  bob@example.org: never")
    world.send("one", "ada")
    refused(lambda: world.log_in("ada"), "closed")
    world.holdfast.run("failover", "hold", "--reason", "test")
    ada = wait_for(lambda: log_in_or_nothing(world, "ada"), what="the mailbox to open")
    wait_for(lambda: subjects(ada) == ["one"], what="yesterday's mail")
    refused(lambda: world.log_in("bob"), "closed")
    world.holdfast.run("failover", "auto", "--reason", "over")
    wait_for(lambda: is_closed(ada), what="the mailbox to close")
    refused(lambda: world.log_in("ada"), "closed")
    accesses = world.holdfast.run("journal", "accesses").stdout
    assert "ada@example.org from 127.0.0.1" in accesses and "imap login" in accesses, accesses


def log_in_or_nothing(world, person):
    try:
        return world.log_in(person)
    except imaplib.IMAP4.error:
        return None


def is_closed(session):
    try:
        session.noop()
        return False
    except (imaplib.IMAP4.abort, imaplib.IMAP4.error, OSError):
        return True


@test("accounts: added, listed, disabled, a new password, imported; without a daemon too; wrong passwords are slowed down")
def _(scene):
    world = World(scene, people=("ada",))
    holdfast = world.holdfast

    def mailbox(*arguments, password=None):
        return subprocess.run([BINARY, "-c", holdfast.config, "mailbox", *arguments], input=password, text=True, capture_output=True)
    equal(mailbox("add", "ada@example.org", "--password-file", "-", password="another one\n").returncode, 78)
    equal(mailbox("add", "eve@example.org", "--password-file", "-", password="\n").returncode, 64)
    assert "is short" in mailbox("add", "eve@example.org", "--password-file", "-", password="short\n").stderr
    world.log_in("eve", "short")
    equal(mailbox("disable", "nobody@example.org").returncode, 66)
    mailbox("disable", "ada@example.org")
    refused(lambda: world.log_in("ada"), "wrong")
    mailbox("enable", "ada@example.org")
    world.log_in("ada")
    holdfast.stop()
    equal(mailbox("passwd", "ada@example.org", "--password-file", "-", password="a new password\n").returncode, 0)
    with open(scene.path("people.csv"), "w") as file:
        file.write("address,password\nada@example.org,ignored because she is there\nbob@example.org,bobs own password\ncarl@example.org\n")
    done = mailbox("import", scene.path("people.csv"))
    assert done.returncode == 64 and "--passwords-to" in done.stderr, done.stderr
    done = mailbox("import", scene.path("people.csv"), "--passwords-to", scene.path("made.csv"))
    assert "2 accounts added, 1 were there" in done.stdout, (done.stdout, done.stderr)
    equal(os.stat(scene.path("made.csv")).st_mode & 0o777, 0o600)
    made = open(scene.path("made.csv")).read().splitlines()[1].split(",")
    equal(made[0], "carl@example.org")
    # As spreadsheets write it: a mark at the begin, semicolons, quotes. What could be read in two ways is refused.
    with open(scene.path("sheet.csv"), "wb") as file:
        file.write(b'\xef\xbb\xbfAddress;Password\r\n"frida@example.org";"a ""quoted""; password "\r\n')
    assert "1 accounts added" in mailbox("import", scene.path("sheet.csv")).stdout
    with open(scene.path("comma.csv"), "w") as file:
        file.write("gina@example.org,half a password, and the rest\n")
    done = mailbox("import", scene.path("comma.csv"))
    assert done.returncode != 0 and 'comma.csv:1: there are 3 fields, not two; put a password with "," in it in quotes' in done.stderr, done.stderr
    holdfast.start()
    world.log_in("ada", "a new password")
    world.log_in("bob", "bobs own password")
    world.log_in("carl", made[1])
    world.log_in("frida", 'a "quoted"; password ')
    mailbox("remove", "frida@example.org")
    generated = mailbox("add", "dora@example.org", "--generate").stdout.strip()
    world.log_in("dora", generated)
    equal([json.loads(line)["address"] for line in mailbox("list", "--json").stdout.splitlines()],
          [f"{name}@example.org" for name in ("ada", "bob", "carl", "dora", "eve")])
    # Whoever is logged in when an account is changed must log in again; an account that is taken away takes its drafts along.
    carl = world.log_in("carl", made[1])
    checked(carl.append("Drafts", None, None, b"Subject: unsent\r\n\r\n"))
    mailbox("disable", "carl@example.org")
    wait_for(lambda: is_closed(carl), what="the end of his session")
    mailbox("enable", "carl@example.org")
    carl = world.log_in("carl", made[1])
    equal(subjects(carl, "Drafts"), ["unsent"])
    equal((holdfast.status()["mailboxes"]["accounts"], holdfast.status()["mailboxes"]["people"]), (5, 4))
    assert "emergency mailboxes: OPEN for route primary, 5 accounts, 4 people logged in" in holdfast.run("status").stdout
    equal(mailbox("remove", "carl@example.org").returncode, 0)
    wait_for(lambda: is_closed(carl), what="the end of his session")
    equal(mailbox("remove", "carl@example.org").returncode, 66)
    mailbox("add", "carl@example.org", "--password-file", "-", password="carls new password\n")
    equal(subjects(world.log_in("carl", "carls new password"), "Drafts"), [])
    for _ in range(5):
        refused(lambda: world.log_in("ada", "a wrong password"), "wrong")
    refused(lambda: world.log_in("ada", "a new password"), "too many wrong passwords")
    assert PASSWORD not in open(holdfast.log).read()


@test("an import that is cut off goes on from the passwords that it has made, and says so")
def _(scene):
    world = World(scene, people=())
    people, made = scene.path("people.csv"), scene.path("made.csv")
    with open(people, "w") as file:
        file.write("".join(f"p{number}@example.org,{'own password' if number % 10 == 0 else ''}\n" for number in range(40)))
    command = [BINARY, "-c", world.holdfast.config, "mailbox", "import", people, "--passwords-to", made]
    importing = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    accounts = lambda: world.holdfast.run("mailbox", "list").stdout.count("@")
    wait_for(lambda: accounts() > 3, what="some accounts")
    world.holdfast.kill()
    said = importing.communicate()[1]
    assert importing.returncode == 75 and "of 40 accounts were added. To go on: holdfast mailbox import " + made in said, said
    world.holdfast.start()
    assert 3 < accounts() < 40, accounts()
    again = run(*command)
    assert again.returncode == 75 and "go on with: holdfast mailbox import " + made in again.stderr, again.stderr
    world.holdfast.run("mailbox", "import", made)
    world.holdfast.run("mailbox", "import", people)
    equal(accounts(), 40)
    with open(made) as file:
        passwords = dict(line.strip().split(",") for line in file.readlines()[1:])
    equal(len(passwords), 36)
    for person, password in (("p39", passwords["p39@example.org"]), ("p30", "own password")):
        world.log_in(person, password)


@test("guesses over many connections at once are counted like others, and keep nobody elsewhere waiting")
def _(scene):
    world = World(scene)

    def connection(address):
        session = scene.client(world.imap_port, greeting=False)
        session.reply()
        assert session.ask(f'1 ID ("name" "webmail" "x-originating-ip" "{address}")').startswith("* ID")
        assert session.reply().startswith("1 OK")
        return session
    guessers = [connection("203.0.113.5") for _ in range(150)]
    for guesser in guessers:
        guesser.send(b"2 LOGIN ada@example.org guess\r\n")
    elsewhere = connection("198.51.100.7")
    assert "welcome" in elsewhere.ask(f'2 LOGIN ada@example.org "{PASSWORD}"'), elsewhere
    said = [guesser.reply() for guesser in guessers]
    equal(sum("is wrong" in one for one in said), 5, said[:10])
    equal(sum("too many wrong passwords" in one for one in said), 145)


@test("a stranger's guesses at the webmail keep nobody else out; without a word of whom it speaks for, a machine is one guesser")
def _(scene):
    world = World(scene)

    def try_from(address, person, password):
        session = imaplib.IMAP4("127.0.0.1", world.imap_port)
        scene.stack.callback(session.shutdown)
        imaplib.Commands["ID"] = ("NONAUTH",)
        if address:
            equal(session._simple_command("ID", f'("name" "webmail" "x-originating-ip" "{address}")')[0], "OK")
        session.login(f"{person}@example.org", password)
    for number in range(30):
        refused(lambda: try_from("203.0.113.5", f"person{number}", "guess"), "wrong")
    refused(lambda: try_from("203.0.113.9", "ada", PASSWORD), "too many wrong passwords")
    try_from("198.51.100.7", "ada", PASSWORD)
    for _ in range(6):
        with contextlib.suppress(imaplib.IMAP4.error):
            try_from("203.0.113.200", "bob", "guess")
    try_from("198.51.100.7", "bob", PASSWORD)
    try_from("", "ada", PASSWORD)
    for number in range(30):
        refused(lambda: try_from("", f"person{number}", "guess"), "wrong")
    refused(lambda: try_from("not an address", "bob", PASSWORD), "too many wrong passwords")
    try_from("", "ada", PASSWORD)  # who got in before from here
    logged = open(world.holdfast.log).read()
    assert "person=ada@example.org client=198.51.100.7 login=" in logged, logged[-2000:]
    for bad in ("ID", "ID (", 'ID ("a")', 'ID ("a" "b"', "ID NILX", 'ID ("a" "b") x'):
        raw = scene.client(world.imap_port, greeting=False)
        raw.line()
        raw.send(f"x {bad}\r\n")
        assert raw.line().startswith(b"x BAD"), bad


@test("a password is asked for on a terminal, twice, and not shown")
def _(scene):
    world = World(scene, people=())
    for first, second, expected in (("a good password", "a good password", 0), ("a good password", "a god password", 64)):
        ours, theirs = pty.openpty()
        process = subprocess.Popen([BINARY, "-c", world.holdfast.config, "mailbox", "passwd" if expected else "add", "ada@example.org"], stdin=theirs, stdout=theirs, stderr=theirs)
        seen = b""
        for question, answer in ((b"New password: ", first), (b"Once more: ", second)):
            while not seen.endswith(question):
                seen += os.read(ours, 1000)
            os.write(ours, answer.encode() + b"\n")
        equal(process.wait(20), expected)
        os.close(theirs)
        with contextlib.suppress(OSError):
            while more := os.read(ours, 1000):
                seen += more
        assert b"good" not in seen, seen
        assert (b"nothing was changed" if expected else b"the account is there") in seen, seen
        os.close(ours)
    equal(world.log_in("ada", "a good password").state, "AUTH")


@test("mailbox_open is about the people of its route")
def _(scene):
    world = World(scene, people=("ada",), mailbox="open: never", routes='- name: other\n  domains: ["example.com"]\n  upstreams: ["127.0.0.1:1"]\n  mailbox_open: always')
    done = subprocess.run([BINARY, "-c", world.holdfast.config, "mailbox", "add", "zoe@example.com", "--password-file", "-"], input=PASSWORD + "\n", text=True, capture_output=True)
    equal(done.returncode, 0, done)

    def log_in(address):
        session = imaplib.IMAP4("127.0.0.1", world.imap_port)
        scene.stack.callback(session.shutdown)
        return session.login(address, PASSWORD)
    equal(log_in("zoe@example.com")[0], "OK")
    refused(lambda: log_in("ada@example.org"), "closed")
    assert "emergency mailboxes: OPEN for route other, 2 accounts" in world.holdfast.run("status").stdout


def import_directory(world, path, *options):
    """What is said, and the passwords that were made."""
    done = run(BINARY, "-c", world.holdfast.config, "mailbox", "import", "--directory", "--passwords-to", path, *options)
    made = dict(line.split(",") for line in open(path).read().splitlines()[1:]) if os.path.exists(path) else {}
    return done, made


@test("accounts for everybody in the directory, with a daemon and without: people, no groups, no strangers that the primary relays to")
def _(scene):
    office = Office(scene, mailbox="open: always", people=("bob",))
    holdfast = office.holdfast
    # Both are learned: a colleague whom the file does not have, and somebody out in the world, to whom the primary relays mail.
    office.send("hello", "carl", "friend@gmail.example")
    for is_up in (True, False):
        if not is_up:
            holdfast.run("mailbox", "remove", "ada@example.org")
            holdfast.stop()
        done, made = import_directory(office, scene.path(f"made{is_up}.csv"))
        equal((done.returncode, sorted(made)), (0, ["ada@example.org"]), done)
        assert "1 accounts added, 1 were there already" in done.stdout, done.stdout
        assert "example.org (1), gmail.example (1)" in done.stderr and "--domain" in done.stderr, done.stderr
    holdfast.start()
    office.log_in("ada", made["ada@example.org"])
    done, made = import_directory(office, scene.path("carl.csv"), "--domain", "Example.ORG")
    equal((done.returncode, sorted(made), done.stderr), (0, ["carl@example.org"], ""))
    office.log_in("carl", made["carl@example.org"])
    done, made = import_directory(office, scene.path("nobody.csv"), "--domain", "elsewhere.example")
    equal((done.returncode, made), (66, {}), done)
    equal(run(BINARY, "-c", holdfast.config, "mailbox", "import", "some.csv", "--domain", "example.org").returncode, 64)
    assert "nobody" in done.stderr and "elsewhere.example" in done.stderr, done.stderr


main()
