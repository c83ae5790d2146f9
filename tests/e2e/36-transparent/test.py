"""identity: transparent: the primary sees each client's own address, through routing that brings its answers back.

All runs in a network of its own: clients and the primary in a namespace each, and this one, with Holdfast, is the gateway between them.
"""
import ctypes
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from harness import *

GATEWAY, PRIMARY, GATEWAY6, PRIMARY6 = "198.18.2.1", "198.18.2.2", "2001:db8:2::1", "2001:db8:2::2"
ADA, BOB, ADA6 = "198.18.1.7", "198.18.1.8", "2001:db8:1::7"
TRANSPARENT = "identity: transparent"
FAILOVER = "failover:\n  probe_interval: 200ms\n  takeover_after: 1s\n  release_after: 300ms\n  retry_min: 200ms\ndirectory:\n  catch_all: [example.org]\n"


class World:
    """The network: clients -- Holdfast -- primary."""

    def __init__(self, scene):
        self.scene = scene
        self.clients = self.namespace("clients", ("198.18.1.1", "2001:db8:1::1"), (ADA, BOB, ADA6))
        self.there = self.namespace("there", (GATEWAY, GATEWAY6), (PRIMARY, PRIMARY6))
        for version in ("-4", "-6"):
            ip(version, "rule", "add", "fwmark", "0x1157", "lookup", "1157")
            scene.stack.callback(run, "ip", version, "rule", "del", "fwmark", "0x1157")
            ip(version, "route", "replace", "local", "default", "dev", "lo", "table", "1157")
        nft("-f", os.path.join(ROOT, "deploy", "holdfast.nft"))

    def namespace(self, name, gateways, addresses):
        """At the other end of a virtual cable; the gateways' addresses are at this end."""
        full = f"holdfast-{os.getpid()}-{name}"
        ip("netns", "add", full)
        for at in ([], ["ip", "netns", "exec", full]):  # a link's own address serves at once
            equal(run(*at, "sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0").returncode, 0)
        self.scene.stack.callback(run, "ip", "netns", "del", full)
        ip("link", "add", name, "type", "veth", "peer", "name", "far", "netns", full)
        self.scene.stack.callback(run, "ip", "link", "del", name)
        for at, device, theirs in ((("-d",), name, gateways), (("-n", full), "far", addresses)):
            for address in theirs:
                ip(*at, "addr", "add", *([f"{address}/64", "nodad"] if ":" in address else [f"{address}/24"]), "dev", device)
            ip(*at, "link", "set", device, "up")
        ip("-n", full, "link", "set", "lo", "up")
        self.set_gateways(full, gateways)
        return full

    @staticmethod
    def set_gateways(namespace, gateways):
        for gateway in gateways:
            ip("-n", namespace, "route", "replace", "default", "via", gateway)

    @contextlib.contextmanager
    def inside(self, namespace):
        """Sockets and processes that are made in this block belong to the namespace."""
        def enter(path):
            with open(path) as file:
                equal(ctypes.CDLL(None, use_errno=True).setns(file.fileno(), 0), 0)
        with open("/proc/thread-self/ns/net") as home:
            enter(f"/run/netns/{namespace}")
            try:
                yield
            finally:
                equal(ctypes.CDLL(None).setns(home.fileno(), 0), 0)

    def client(self, port, address, host=None, greeting=True, source_port=0):
        host = host or ("2001:db8:1::1" if ":" in address else "198.18.1.1")
        with self.inside(self.clients):
            return self.scene.client(port, host=host, source=(address, source_port), greeting=greeting)

    def primary(self, host=PRIMARY, **options):
        with self.inside(self.there):
            return self.scene.primary(host=host, **options)

    def holdfast(self, *primaries, yaml="", port=0):
        port = port or free_port()
        holdfast = self.scene.holdfast(upstreams=list(primaries), route=TRANSPARENT, yaml=yaml, listeners=f'- address: "[::]:{port}"')
        holdfast.public_port = port
        return holdfast


def ip(*arguments):
    done = run("ip", *arguments)
    equal(done.returncode, 0, " ".join(arguments) + ": " + done.stderr)


def nft(*arguments):
    done = run("nft", *arguments)
    equal(done.returncode, 0, " ".join(arguments) + ": " + done.stderr)


def peers(primary):
    """Whose mail each message was, by the address that the primary saw."""
    return [session.peer for session in primary.sessions if any(line.startswith(b"RCPT") for line in session.lines)]


def route_of(holdfast):
    return holdfast.status()["routes"][0]


@test("a real Postfix sees the clients' own addresses, by IPv4 and IPv6, and never another client's")
def _(scene):
    world = World(scene)
    with world.inside(world.there):
        postfix = scene.postfix("inet_interfaces = all", "inet_protocols = all", "smtpd_peername_lookup = no", "smtpd_recipient_restrictions = permit")
    holdfast = world.holdfast(f"{PRIMARY}:{postfix.port}", f"[{PRIMARY6}]:{postfix.port}")
    for address in (ADA, BOB, ADA6, ADA):
        client = world.client(holdfast.public_port, address)
        equal(client.greeting, "220 trial.example.org ESMTP Postfix")
        assert client.send_mail(f"Subject: from {address}\r\n\r\nx\r\n").startswith("250 2.0.0 Ok: queued as ")
        client.ask("QUIT")
    wait_for(lambda: len(postfix.mails()) == 4, what="four mails")
    for mail in postfix.mails():
        address = mail.split(b"Subject: from ")[1].split(b"\n")[0].decode()
        first = mail.split(b"Received: ")[1].decode()
        assert f"[IPv6:{address}]" in first or f"[{address}]" in first, first
    equal([entry["client"].rsplit(":", 1)[0].strip("[]") for entry in holdfast.entries()], [ADA, BOB, ADA6, ADA])


@test("inserted by redirection, between clients and a primary whose addresses and MX stay as they are, on the very same ports")
def _(scene):
    world = World(scene)
    primary = world.primary(port=25)
    nft("add", "element", "inet", "holdfast", "primaries", f"{{ {PRIMARY} }}")
    # The client's port is one that Holdfast will use in its name.
    with open("/proc/sys/net/ipv4/ip_local_port_range", "r+") as ports:
        usual = ports.read()
        scene.stack.callback(lambda: open("/proc/sys/net/ipv4/ip_local_port_range", "w").write(usual))
        ports.seek(0)
        ports.write("40000 40000")
        ports.flush()
    holdfast = world.holdfast(f"{PRIMARY}:25", port=25)
    for address in (ADA, BOB):
        client = world.client(25, address, host=PRIMARY, source_port=40000)
        equal((client.greeting, client.send_mail()), ("220 primary.example.org ESMTP", "250 2.0.0 Ok: taken"))
        client.ask("QUIT")
    equal(peers(primary), [ADA, BOB])
    equal([entry["client"] for entry in holdfast.entries()], [f"{ADA}:40000", f"{BOB}:40000"])


@test("a client that the primary cannot answer is turned away, with a log line that says why; the route passes, and others are served")
def _(scene):
    world = World(scene)
    primary = world.primary()
    ip("-n", world.there, "route", "add", "blackhole", f"{BOB}/32")
    holdfast = world.holdfast(f"{PRIMARY}:{primary.port}", yaml=FAILOVER)
    for _ in range(3):
        equal(world.client(holdfast.public_port, BOB).greeting, f"421 4.7.0 holdfast.example.org The mail server cannot be reached from {BOB}, try again later or from another address")
        equal(world.client(holdfast.public_port, ADA).send_mail(), "250 2.0.0 Ok: taken")
    equal((route_of(holdfast)["state"], route_of(holdfast)["upstreams"][0]["healthy"]), ("pass", True))
    assert holdfast.logged(f"it answers Holdfast, but not {BOB}") and holdfast.logged("its answers must come back by way of this machine")


@test("a client of another family than the primary's is turned away while the primary is there, and its mail is held when it is not")
def _(scene):
    world = World(scene)
    primary = world.primary()
    holdfast = world.holdfast(f"{PRIMARY}:{primary.port}", yaml=FAILOVER)
    equal(world.client(holdfast.public_port, ADA6).greeting, f"421 4.7.0 holdfast.example.org The mail server cannot be reached from {ADA6}, try again later or from another address")
    equal(world.client(holdfast.public_port, ADA).send_mail(), "250 2.0.0 Ok: taken")
    primary.leave()
    wait_for(lambda: route_of(holdfast)["state"] == "hold", what="the hold")
    assert world.client(holdfast.public_port, ADA6).send_mail("Subject: six\r\n\r\nx\r\n").startswith("250 2.0.0 Ok: queued")
    assert world.client(holdfast.public_port, BOB).send_mail("Subject: four\r\n\r\nx\r\n").startswith("250 2.0.0 Ok: queued")
    again = world.primary(port=primary.port)
    wait_for(lambda: route_of(holdfast)["state"] == "pass" and route_of(holdfast)["held"] == 0, what="the end of the drain")
    equal(sorted(peers(again)), sorted([GATEWAY, BOB]), "whom the primary saw")


@test("of several upstreams a client gets one that it can be shown to, whatever their order")
def _(scene):
    world = World(scene)
    four, six = world.primary(), world.primary(host=PRIMARY6)
    for upstreams in ((f"{PRIMARY}:{four.port}", f"[{PRIMARY6}]:{six.port}"), (f"[{PRIMARY6}]:{six.port}", f"{PRIMARY}:{four.port}")):
        holdfast = world.holdfast(*upstreams)
        for address in (ADA, ADA6):
            equal(world.client(holdfast.public_port, address).send_mail(), "250 2.0.0 Ok: taken")
    equal((peers(four), peers(six)), ([ADA] * 2, [ADA6] * 2))
    equal({session.peer for session in four.sessions + six.sessions}, {ADA, ADA6}, "no other connection was made")


@test("a primary whose network is cut while a client waits for its answer: the client's message is held, and arrives under its address")
def _(scene):
    world = World(scene)
    cut = []

    def answer(session, line):
        if not cut:
            cut.append(ip("-n", world.there, "link", "set", "far", "down"))
        return b"250 2.0.0 Ok: taken\r\n"
    primary = world.primary(replies={"content": answer})
    holdfast = world.holdfast(f"{PRIMARY}:{primary.port}", yaml=FAILOVER + "limits:\n  timeouts:\n    data_end: 1s\n")
    assert world.client(holdfast.public_port, ADA).send_mail().startswith("250 2.0.0 Ok"), "the client's answer"
    assert world.client(holdfast.public_port, BOB).send_mail().startswith("250 2.0.0 Ok: queued"), "a client of the hold"
    ip("-n", world.there, "link", "set", "far", "up")
    world.set_gateways(world.there, [GATEWAY])
    wait_for(lambda: route_of(holdfast)["state"] == "pass" and route_of(holdfast)["held"] == 0, what="the end of the drain")
    equal(sorted(peers(primary)), [ADA, ADA, BOB], "once in the dark, and once for each when it was back")


@test("who is on the gateway itself, or is the primary, is seen with the gateway's address")
def _(scene):
    world = World(scene)
    primary = world.primary()
    holdfast = world.holdfast(f"{PRIMARY}:{primary.port}")
    equal(scene.client(holdfast.port).send_mail(), "250 2.0.0 Ok: taken")
    with world.inside(world.there):
        client = scene.client(holdfast.public_port, host=GATEWAY)
    equal(client.send_mail(), "250 2.0.0 Ok: taken")
    equal(peers(primary), [GATEWAY] * 2)


@test("without the right to use foreign addresses it does not start, and says what is missing")
def _(scene):
    holdfast = Holdfast(scene, scene.primary(), route=TRANSPARENT)
    holdfast.before = ["setpriv", "--bounding-set", "-net_raw,-net_admin", "--inh-caps", "-net_raw,-net_admin"]
    holdfast.start(ready=False)
    equal(holdfast.process.wait(timeout=20), 78)
    assert holdfast.logged("identity: transparent needs root or CAP_NET_RAW") and holdfast.logged("systemctl edit holdfast")


be_root()
if not os.environ.get("HAS_OWN_NETWORK"):
    os.execvpe("unshare", ["unshare", "--net", sys.executable, __file__, *sys.argv[1:]], {**os.environ, "HAS_OWN_NETWORK": "1"})
ip("link", "set", "lo", "up")
main()
