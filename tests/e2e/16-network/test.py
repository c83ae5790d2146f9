"""Torture C: the network between Holdfast and its primary fails in every way; the breaker trips within its bound, no session hangs, nothing is lost.

The primary runs in a network namespace that the test makes for itself, at the other end of a virtual cable; nftables is the fault.
"""
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from harness import *
from name_server import A, NameServer

HERE, THERE, PORT = "198.18.77.1", "198.18.77.2", 2525
BOUND = 8  # seconds: a probe's two, three of them, and takeover_after
YAML = "failover:\n  probe_interval: 200ms\n  trip_after: 2\n  takeover_after: 300ms\n  release_after: 300ms"

FAULTS = {
    "blackholed": ["add rule inet fault in tcp dport 2525 drop"],
    "half-open: what it sends is lost": ["add rule inet fault out tcp sport 2525 drop"],
    "established connections lost, new ones too": ["add rule inet fault in tcp dport 2525 ct state established drop", "add rule inet fault in tcp dport 2525 ct state new drop"],
    "refuses": ["add rule inet fault in tcp dport 2525 tcp flags syn reject with tcp reset", "add rule inet fault in tcp dport 2525 drop"],
    "resets": ["add rule inet fault in tcp dport 2525 reject with tcp reset"],
    "out of reach, as routers say": ["add rule inet fault in tcp dport 2525 reject with icmpx host-unreachable"],
    "accepts and says nothing": ["add rule inet fault in tcp dport 2525 tcp flags psh drop"],
    "drops the FIN": ["add rule inet fault out tcp sport 2525 tcp flags fin drop", "add rule inet fault in tcp dport 2525 tcp flags psh drop"],
}
# What status says of the primary then, where the network says why.
SHOWN = {"refuses": "it refuses the connection", "resets": "it refuses the connection", "out of reach, as routers say": "cannot connect: No route to host"}


class Far:
    """The far end: a namespace with a primary in it."""

    def __init__(self, scene):
        self.name = f"holdfast-{os.getpid()}"
        self.near = f"hf{os.getpid()}a"
        self.messages = scene.path("far.messages")
        for left in re.findall(r"hf\d+a", run("ip", "-o", "addr", "show", "to", HERE).stdout):  # by a run that was killed
            run("ip", "link", "del", left)
        for command in (f"netns add {self.name}", f"link add {self.near} type veth peer name far netns {self.name}", f"addr add {HERE}/30 dev {self.near}", f"link set {self.near} up",
                        f"-n {self.name} addr add {THERE}/30 dev far", f"-n {self.name} link set far up", f"-n {self.name} link set lo up"):
            made = run("ip", *command.split())
            equal(made.returncode, 0, command + made.stderr)
            if command.startswith("netns"):
                scene.stack.callback(run, "ip", "netns", "del", self.name)
        primary = subprocess.Popen(["ip", "netns", "exec", self.name, sys.executable, __file__, "primary", self.messages])
        scene.stack.callback(primary.wait)
        scene.stack.callback(primary.terminate)
        wait_for(self.answers, what="the far primary")

    @staticmethod
    def answers():
        with contextlib.suppress(OSError), socket.create_connection((THERE, PORT), timeout=1) as probe:
            return probe.recv(100).startswith(b"220")

    def nft(self, *commands):
        done = run("ip", "netns", "exec", self.name, "nft", "\n".join(commands))
        equal(done.returncode, 0, done.stderr)

    def break_down(self, rules):
        self.nft("add table inet fault", "add chain inet fault in { type filter hook input priority 0 ; }", "add chain inet fault out { type filter hook output priority 0 ; }", *rules)

    def repair(self):
        self.nft("delete table inet fault")

    def subjects(self):
        return open(self.messages).read().split() if os.path.exists(self.messages) else []


def serve(path):
    """What runs in the namespace."""
    primary = ScriptedPrimary(host="0.0.0.0", port=PORT)
    seen = 0
    while True:
        time.sleep(0.02)
        with open(path, "a") as file:
            while seen < len(primary.messages):
                file.write(primary.messages[seen][1].split(b"Subject: ")[1].split(b"\r\n")[0].decode() + "\n")
                seen += 1


def state(holdfast):
    return holdfast.status()["routes"][0]["state"]


@test(f"a primary that is {', '.join(FAULTS)}: each time clients are answered within {BOUND} s, and all mail arrives when the network is back")
def _(scene):
    far = Far(scene)
    holdfast = scene.holdfast(upstreams=[f"{THERE}:{PORT}"], yaml=YAML)
    assert scene.client(holdfast.port).send_mail("Subject: first\r\n\r\nx\r\n").startswith("250")
    expected = {"first"}
    for number, (fault, rules) in enumerate(FAULTS.items()):
        wait_for(lambda: state(holdfast) == "pass", what="pass")
        middle = scene.client(holdfast.port)
        middle.ask("EHLO client.example.net")
        middle.ask("MAIL FROM:<a@example.net>")
        idle = scene.client(holdfast.port)
        idle.ask("EHLO client.example.net")
        far.break_down(rules)
        begin = time.monotonic()
        newcomer = scene.client(holdfast.port)
        for client, name, skip in ((newcomer, f"new.{number}", 0), (middle, f"middle.{number}", 2), (idle, f"idle.{number}", 1)):
            for command in ("EHLO client.example.net", "MAIL FROM:<a@example.net>", "RCPT TO:<b@example.org>", "DATA")[skip:]:
                reply = client.ask(command)
                assert reply[:3] in ("250", "354"), (fault, name, command, reply)
            client.send(f"Subject: {name}\r\n\r\nx\r\n.\r\n")
            reply = client.reply()
            assert reply.startswith("250"), (fault, name, reply)
            expected.add(name)
        taken = time.monotonic() - begin
        assert taken < BOUND, f"{fault}: {taken:.1f} s"
        wait_for(lambda: state(holdfast) == "hold", seconds=BOUND, what=f"{fault}: the breaker")
        shown = SHOWN.get(fault, "")
        wait_for(lambda: shown in holdfast.status()["routes"][0]["upstreams"][0]["last_error"], what=f"{fault}: {shown}")
        far.repair()
        wait_for(lambda: state(holdfast) == "pass" and holdfast.status()["routes"][0]["held"] == 0, seconds=60, what=f"{fault}: the drain")
        wait_for(lambda: expected <= set(far.subjects()), what=f"{fault}: the mail")
        marked = {one["subject"] for one in holdfast.entries() if one["possible_duplicate"]}
        twice = {one for one in far.subjects() if far.subjects().count(one) > 1}
        assert twice <= marked, (fault, twice - marked)


@test("a primary that sends a byte a second is given up within the bound, and no session hangs")
def _(scene):
    is_slow = threading.Event()
    def crawl(what):
        def answer(session, line):
            if is_slow.is_set():
                for byte in what[:-2]:
                    session.connection.sendall(bytes([byte]))
                    time.sleep(1)
            return what[-2:] if is_slow.is_set() else what
        return answer
    primary = scene.primary(replies={verb: crawl(text) for verb, text in (("greeting", b"220 primary ESMTP\r\n"), ("MAIL", b"250 2.1.0 Ok\r\n"), ("RCPT", b"250 2.1.5 Ok\r\n"))})
    holdfast = scene.holdfast(primary, yaml=YAML)
    client = scene.client(holdfast.port)
    equal(client.send_mail(), "250 2.0.0 Ok: taken")
    is_slow.set()
    begin = time.monotonic()
    assert client.send_mail(helo=None).startswith("250")
    assert time.monotonic() - begin < BOUND, time.monotonic() - begin
    equal(state(holdfast), "hold")


@test("while DNS says nothing about the primary's name, Holdfast starts, holds and reloads, and status answers at once")
def _(scene):
    with open(scene.path("resolv.conf"), "w") as file:
        file.write("nameserver 192.0.2.1\noptions timeout:25 attempts:1\n")
    holdfast = Holdfast(scene, None, upstreams=["mail.example.org:25"], yaml=YAML)
    # A network of its own, in which nobody is the name server.
    nowhere = "ip link set lo up && ip link add near type veth peer name far && ip addr add 192.0.2.2/24 dev near && ip link set near up && ip link set far up && "
    nowhere += f"ip neigh add 192.0.2.1 lladdr 02:00:00:00:00:01 dev near && mount --bind {scene.path('resolv.conf')} /etc/resolv.conf"
    holdfast.limited = ["unshare", "--net", "--mount", "sh", "-c", nowhere + ' && exec "$@"', "sh"]
    begin = time.monotonic()
    holdfast.start()
    assert time.monotonic() - begin < 15, time.monotonic() - begin
    assert holdfast.logged("there is no address for it yet")
    wait_for(lambda: state(holdfast) == "hold", what="hold")
    for _ in range(3):
        holdfast.signal(signal.SIGHUP)
        begin = time.monotonic()
        equal(state(holdfast), "hold")
        assert time.monotonic() - begin < 2, time.monotonic() - begin
    wait_for(lambda: holdfast.logged("nothing changed"), what="the reload")
    holdfast.signal(signal.SIGTERM)
    equal(holdfast.process.wait(10), 0)


@test("a name about which DNS is silent makes no other upstream's name wait")
def _(scene):
    names = NameServer(scene, {("away.example.org", A): None, ("mail.example.org", A): socket.inet_aton("127.0.0.1")}, "127.0.0.78")
    with open(scene.path("resolv.conf"), "w") as file:
        file.write(f"nameserver {names.address}\noptions timeout:30 attempts:3\n")
    primary = scene.primary()
    holdfast = scene.holdfast(None, upstreams=["away.example.org:25", f"mail.example.org:{primary.port}"], before=names.before)
    assert holdfast.logged("host=away.example.org problem=\"there is no address for it yet\"")
    equal(scene.client(holdfast.port).send_mail(), "250 2.0.0 Ok: taken")


if sys.argv[1:2] == ["primary"]:
    serve(sys.argv[2])
else:
    main()
