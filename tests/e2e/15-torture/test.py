"""Torture: under load, primaries and Holdfast itself are killed with SIGKILL, again and again. No client sees an error; nothing is missing."""
import os
import random
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from harness import *

POSTFIX_KILLS = int(os.environ.get("HOLDFAST_POSTFIX_KILLS", "50"))
SCRIPTED_KILLS = int(os.environ.get("HOLDFAST_SCRIPTED_KILLS", "50"))
OWN_KILLS = int(os.environ.get("HOLDFAST_OWN_KILLS", "25"))
QUICK = "failover:\n  probe_interval: 50ms\n  takeover_after: 200ms\n  release_after: 100ms\n  retry_min: 100ms\n  retry_max: 200ms"


class Load(threading.Thread):
    """One client that sends message after message until it is stopped. It counts what went wrong, and stops at it."""

    def __init__(self, port, number, seed, acknowledged, retries=False):
        super().__init__(daemon=True)
        self.port, self.number, self.noise, self.acknowledged = port, number, random.Random(seed), acknowledged
        self.retries, self.is_stopping, self.problem, self.sent = retries, False, None, 0
        self.uses_tls = number % 3 == 0
        self.start()

    def connect(self):
        client = Client(self.port)
        if not client.greeting.startswith("220"):
            raise AssertionError(client.greeting)
        self.expect(client.ask("EHLO load.example.net"), "250")
        if self.uses_tls:
            self.expect(client.ask("STARTTLS"), "220")
            client.start_tls()
            self.expect(client.ask("EHLO load.example.net"), "250")
        return client

    @staticmethod
    def expect(reply, code):
        if not reply.startswith(code):
            raise AssertionError(reply)

    def send(self, client, name):
        size = self.noise.choice([100, 100, 3000, 20000, 200000])
        content = (f"Message-ID: <{name}>\r\nSubject: {name}\r\n\r\n" + ("%064x\r\n" % self.noise.getrandbits(256)) * (size // 66)).encode()
        envelope = ["MAIL FROM:<a@example.net>", f"RCPT TO:<b{self.number}@example.org>"]
        kind = self.noise.choice(["one by one", "pipelined", "chunks"])
        if kind == "one by one":
            for command in envelope:
                self.expect(client.ask(command), "250")
            self.expect(client.ask("DATA"), "354")
        elif kind == "pipelined":
            client.send("\r\n".join([*envelope, "DATA", ""]))
            for code in ("250", "250", "354"):
                self.expect(client.reply(), code)
        if kind == "chunks":
            half = len(content) // 2
            client.send("\r\n".join([*envelope, f"BDAT {half}\r\n"]).encode() + content[:half])
            for _ in range(3):
                self.expect(client.reply(), "250")
            client.send(f"BDAT {len(content) - half} LAST\r\n".encode() + content[half:])
        else:
            client.send(content + b".\r\n")
        self.expect(client.reply(), "250")
        self.acknowledged.add(name)

    def run(self):
        while not self.is_stopping:
            try:
                client = self.connect()
                for _ in range(self.noise.randrange(1, 20)):
                    while len(self.acknowledged) > Pace.goal + 30 and not self.is_stopping:
                        time.sleep(0.005)
                    if self.is_stopping:
                        break
                    self.sent += 1
                    self.send(client, f"m{self.number}.{self.sent}")
                self.expect(client.ask("QUIT"), "221")
                client.close()
            except (OSError, EOFError, AssertionError) as problem:
                if not self.retries:
                    self.problem = repr(problem)
                    return


class Pace:
    """How far clients may be ahead of what the test waits for: a test of kills, not of speed."""
    goal = 0


def name_in(content):
    found = re.search(rb"Message-ID: <([^>]+)>", content)
    assert found, f"a message without its beginning: {content[:300]!r}, {len(content)} bytes"
    return found[1].decode()


def finish(clients):
    for client in clients:
        client.is_stopping = True
    for client in clients:
        client.join(60)


def tls(scene):
    certificate, key = scene.certificate("mx.example.org")
    return f"\ntls:\n  certificates:\n    - certificate: {certificate}\n      key: {key}"


def teach(scene, holdfast, count):
    client = scene.client(holdfast.port)
    client.ask("EHLO teacher.example.net")
    client.ask("MAIL FROM:<a@example.net>")
    for number in range(count):
        assert client.ask(f"RCPT TO:<b{number}@example.org>").startswith("250")
    client.ask("QUIT")


def settled(holdfast):
    route = holdfast.status()["routes"][0]
    return route["held"] == 0 and route["state"] == "pass"


def check(holdfast, acknowledged, delivered):
    """Everything acknowledged was delivered; twice only where the journal says so; and the journal is whole."""
    counts = {}
    for name in delivered:
        counts[name] = counts.get(name, 0) + 1
    missing = acknowledged - set(counts)
    assert not missing, f"{len(missing)} of {len(acknowledged)} acknowledged messages are missing, such as {sorted(missing)[:3]}"
    marked = {}
    for entry in holdfast.entries():
        marked.setdefault(entry["message_id"], []).append(entry["possible_duplicate"])
    for name, count in counts.items():
        # A client that retries makes an entry of each attempt, and each of these may arrive.
        allowed = len(marked[name]) + sum(marked[name]) * 100
        assert count <= allowed, f"{name} arrived {count} times, entries {marked[name]}"
    assert "all is well" in holdfast.run("journal", "verify").stdout


@test(f"Torture A: a real Postfix is killed {POSTFIX_KILLS} times under load; clients see no error, all mail arrives, twice only where marked")
def _(scene):
    noise = random.Random(5)
    postfix = scene.postfix("smtpd_client_connection_count_limit = 0", "in_flow_delay = 0")
    holdfast = scene.holdfast(postfix, listener="tls: starttls", yaml=QUICK + tls(scene))
    teach(scene, holdfast, 12)
    acknowledged = set()
    clients = [Load(holdfast.port, number, number, acknowledged) for number in range(12)]

    def more(count):
        goal = Pace.goal = len(acknowledged) + count
        wait_for(lambda: len(acknowledged) >= goal or any(client.problem for client in clients), seconds=60, what="messages")
        assert not any(client.problem for client in clients), [client.problem for client in clients if client.problem]
    for kill in range(POSTFIX_KILLS):
        more(noise.randrange(1, 40))
        postfix.kill()
        more(noise.randrange(1, 60))
        postfix.start()
    more(50)
    finish(clients)
    assert not any(client.problem for client in clients), [client.problem for client in clients]
    wait_for(lambda: settled(holdfast), seconds=120, what="the drain")
    wait_for(lambda: acknowledged <= set(postfix.subjects()), seconds=120, what="Postfix to deliver all")
    check(holdfast, acknowledged, postfix.subjects())
    print(f"{len(acknowledged)} messages over {POSTFIX_KILLS} kills")


@test(f"Torture A: a primary dies at {SCRIPTED_KILLS} chosen bytes of its sessions; clients see no error, all mail arrives, twice only where marked")
def _(scene):
    noise = random.Random(6)
    port = free_port()
    mortals = []

    class Mortal:
        """Dies after it has read so many bytes in all, at once and with all its sessions."""
        def __init__(self, lifetime):
            self.left, self.is_dead = lifetime, threading.Event()
            self.primary = scene.primary(port=port)
            self.original = PrimarySession.more
        def watch(self):
            mortal = self
            def more(session):
                mortal.original(session)
                if session.primary is mortal.primary:
                    mortal.left -= len(session.reads[-1])
                    if mortal.left < 0 and not mortal.is_dead.is_set():
                        mortal.primary.stop()
                        mortal.is_dead.set()
                        raise ConnectionError
            PrimarySession.more = more

    first = scene.primary(port=port)
    holdfast = scene.holdfast(first, listener="tls: starttls", yaml=QUICK + tls(scene))
    teach(scene, holdfast, 20)
    acknowledged = set()
    first.stop()
    Pace.goal = 1 << 60  # the primary dies of what they send
    clients = [Load(holdfast.port, number, number, acknowledged) for number in range(20)]
    for kill in range(SCRIPTED_KILLS):
        mortal = Mortal(noise.randrange(1, 400000))
        mortal.watch()
        wait_for(lambda: mortal.is_dead.is_set() or any(client.problem for client in clients), seconds=60, what=f"death {kill}")
        assert not any(client.problem for client in clients), [client.problem for client in clients if client.problem]
        PrimarySession.more = mortal.original
        mortals.append(mortal)
    mortals.append(Mortal(1 << 60))
    finish(clients)
    assert not any(client.problem for client in clients), [client.problem for client in clients]
    wait_for(lambda: settled(holdfast), seconds=400, what="the drain")
    delivered = [name_in(content) for mortal in mortals for _, content in mortal.primary.messages]
    check(holdfast, acknowledged, delivered)
    print(f"{len(acknowledged)} messages over {SCRIPTED_KILLS} deaths")


@test(f"Torture B: Holdfast is killed {OWN_KILLS} times while primaries come and go; clients retry; nothing acknowledged is missing at the end, nothing is there twice unmarked")
def _(scene):
    noise = random.Random(8)
    port = free_port()
    primaries = [scene.primary(port=port)]
    people = scene.path("people")
    with open(people, "w") as file:
        file.writelines(f"b{number}@example.org\n" for number in range(8))
    holdfast = scene.holdfast(primaries[0], listener="tls: starttls", yaml=QUICK + f"\ndirectory:\n  file: {people}" + tls(scene))
    acknowledged = set()
    clients = [Load(holdfast.port, number, number, acknowledged, retries=True) for number in range(8)]
    for kill in range(OWN_KILLS):
        goal = Pace.goal = len(acknowledged) + noise.randrange(1, 50)
        wait_for(lambda: len(acknowledged) >= goal, seconds=60, what="messages")
        if noise.random() < 0.5:
            primaries[-1].stop()
        holdfast.kill()
        holdfast.start()
        if noise.random() < 0.5:
            primaries[-1].stop()
            wait_for(lambda: socket.socket().connect_ex(("127.0.0.1", port)) != 0, what="the port")
        if socket.socket().connect_ex(("127.0.0.1", port)) != 0:
            primaries.append(scene.primary(port=port))
    finish(clients)
    if socket.socket().connect_ex(("127.0.0.1", port)) != 0:
        primaries.append(scene.primary(port=port))
    wait_for(lambda: settled(holdfast), seconds=120, what="the drain")
    check(holdfast, acknowledged, [name_in(content) for primary in primaries for _, content in primary.messages])
    print(f"{len(acknowledged)} messages over {OWN_KILLS} kills")


main()
