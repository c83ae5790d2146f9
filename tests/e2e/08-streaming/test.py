"""Large messages, slow clients and slow primaries: memory stays bounded, whatever the size."""
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from harness import *

LINE = b"0123456789abcdef" * 4 + b"\r\n"
BLOCK = LINE * 1000


class SlowPrimary:
    """Takes content only when it is allowed to; counts it instead of keeping it."""

    def __init__(self, gate):
        self.gate, self.bytes, self.done = gate, 0, threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.run, daemon=True).start()

    def stop(self):
        self.listener.close()

    def run(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        connection.sendall(b"220 slow\r\n")
        buffer = b""
        while True:
            while b"\r\n" not in buffer:
                data = connection.recv(65536)
                if not data:
                    return
                buffer += data
            line, buffer = buffer.split(b"\r\n", 1)
            if line.startswith(b"EHLO"):
                connection.sendall(b"250-slow\r\n250 PIPELINING\r\n")
            elif line == b"DATA":
                connection.sendall(b"354 go\r\n")
                self.gate.wait(60)
                tail = b""
                while not tail.endswith(b"\r\n.\r\n"):
                    data = connection.recv(262144)
                    if not data:
                        return
                    self.bytes += len(data)
                    tail = (tail + data)[-5:]
                connection.sendall(b"250 taken\r\n")
            else:
                connection.sendall(b"250 ok\r\n")


def open_content(scene, port):
    client = scene.client(port)
    client.send("EHLO client.example.net\r\nMAIL FROM:<a@example.net>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n")
    for _ in range(4):
        client.reply()
    return client


@test("a message of 100 MB passes a primary that stops reading, in less than 1 MiB of memory, and is journaled whole")
def _(scene):
    gate = threading.Event()
    primary = SlowPrimary(gate)
    scene.stack.callback(primary.stop)
    holdfast = scene.holdfast(primary, yaml="threads: 1\nlimits:\n  message_size: 200MiB")
    warm = open_content(scene, holdfast.port)
    warm.send(BLOCK * 20 + b".\r\n")
    gate.set()
    warm.reply()
    gate.clear()
    warm.close()
    wait_for(lambda: holdfast.status()["connections"] == 0, what="the first session's end")
    before = holdfast.memory("RssAnon")
    client = open_content(scene, holdfast.port)
    total = 100 * 1000 * 1000 // len(BLOCK) + 1
    sent, highest = [0], 0

    def feed():
        for _ in range(total):
            client.send(BLOCK)
            sent[0] += 1
        client.send(b".\r\n")
    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    # The primary reads nothing: what the client can send must come to a stop.
    last = -1
    def has_stopped():
        nonlocal last
        last, before_that = sent[0], last
        time.sleep(0.3)
        return sent[0] == last == before_that
    wait_for(has_stopped, what="back-pressure")
    assert sent[0] < total / 2, f"{sent[0]} of {total} blocks went in with nobody reading"
    highest = max(highest, holdfast.memory("RssAnon"))
    gate.set()
    while feeder.is_alive():
        highest = max(highest, holdfast.memory("RssAnon"))
        feeder.join(0.01)
    equal(client.reply(), "250 taken")
    # The group that the writer has open is not the session's, whoever fills it: it has at most 1 MiB of content.
    group = 1024 + 512
    assert highest - before < 1024 + group, f"{highest - before} KiB more"
    entry = holdfast.entries()[-1]
    equal(entry["size"], total * len(BLOCK))
    assert "all is well" in holdfast.run("journal", "verify").stdout


@test("a client that reads nothing does not make Holdfast's memory grow")
def _(scene):
    primary = scene.primary(replies={"HELP": b"".join(b"214-" + b"x" * 500 + b"\r\n" for _ in range(50)) + b"214 end\r\n"})
    holdfast = scene.holdfast(primary, yaml="limits:\n  commands: 100000")
    client = scene.client(holdfast.port)
    client.ask("EHLO client.example.net")
    before = holdfast.memory("RssAnon")
    client.socket.settimeout(2)
    with contextlib.suppress(socket.timeout):
        for _ in range(5000):
            client.send("HELP\r\n" * 10)
    assert holdfast.memory("RssAnon") - before < 2048, holdfast.memory("RssAnon") - before


@test("a message larger than limits.message_size gets 552, and the session goes on")
def _(scene):
    primary = scene.primary()
    holdfast = scene.holdfast(primary, yaml="limits:\n  message_size: 1MiB")
    client = scene.client(holdfast.port)
    assert "250-SIZE 1048576" in client.ask("EHLO client.example.net")
    for size in (16, 40):
        for command in ("MAIL FROM:<a@example.net>", "RCPT TO:<b@example.org>", "DATA"):
            client.ask(command)
        client.send(BLOCK * size + b".\r\n")
        equal(client.reply(), "552 5.3.4 Error: message file too big")
    equal(client.send_mail(helo=None), "250 2.0.0 Ok: taken")
    equal(len(primary.messages), 1)
    equal(len(holdfast.entries()), 1)


@test("what the primary would refuse as too large is not held for it either")
def _(scene):
    primary = scene.primary(replies={"EHLO": ScriptedPrimary.EHLO.replace(b"SIZE 200000000", b"SIZE 20000")})
    holdfast = scene.holdfast(primary, yaml="failover:\n  probe_interval: 100ms\n  takeover_after: 200ms")
    equal(scene.client(holdfast.port).send_mail(), "250 2.0.0 Ok: taken")
    primary.stop()
    wait_for(lambda: holdfast.status()["routes"][0]["state"] == "hold", what="the hold")
    client = scene.client(holdfast.port)
    assert "SIZE 20000" in client.ask("EHLO client.example.net")
    equal(client.ask("MAIL FROM:<a@example.net> SIZE=20001"), "552 5.3.4 Message size exceeds fixed limit")
    equal(client.ask("MAIL FROM:<a@example.net> SIZE=20000")[:3], "250")
    client.ask("RSET")
    text = "x" * 78 + "\r\n"
    equal(client.send_mail("Subject: x\r\n\r\n" + text * 260, helo=None), "552 5.3.4 Error: message file too big")
    equal(client.send_mail("Subject: x\r\n\r\n" + text * 240, helo=None)[:3], "250")
    equal([entry["size"] for entry in holdfast.entries()][1:], [14 + 80 * 240])


@test("a message whose lines all begin with a dot goes out in as few pieces as another")
def _(scene):
    primary = scene.primary()
    holdfast = scene.holdfast(primary, yaml="failover:\n  probe_interval: 1h")
    client = open_content(scene, holdfast.port)
    client.send(b"..\r\n" * 200000 + b".\r\n")
    equal(client.reply(), "250 2.0.0 Ok: taken")
    equal(primary.messages[-1][1], b".\r\n" * 200000)
    session = next(one for one in primary.sessions if b"DATA" in one.lines)
    segments_in = struct.unpack_from("I", session.connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192), 140)[0]
    assert segments_in < 1000, f"{segments_in} segments for 800 KB"


@test("twenty large messages at once all arrive")
def _(scene):
    # The primary is a script: with a hundred megabytes before it, it has no time for probes, and is not to be taken for dead.
    primary = scene.primary()
    holdfast = scene.holdfast(primary, yaml="failover:\n  probe_interval: 1h\n  takeover_after: 1m")
    content = BLOCK * 80
    answers = []

    def one():
        client = open_content(scene, holdfast.port)
        client.send(content + b".\r\n")
        answers.append(client.reply())
    threads = [threading.Thread(target=one) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    equal(answers, ["250 2.0.0 Ok: taken"] * 20)
    assert all(got == content for _, got in primary.messages) and len(primary.messages) == 20
    assert "all is well" in holdfast.run("journal", "verify").stdout


main()
