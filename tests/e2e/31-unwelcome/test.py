"""Clients whom the primary does not want: what it says to one of them, or does to him, is no sign that the primary is out."""
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from harness import *

# Live traffic alone decides: no probe comes to the breaker's help, or in its way.
QUIET = "failover:\n  probe_interval: 1h\n  takeover_after: 2s\n"
# Comes after the first route in the configuration.
OTHER = '- name: other\n  domains: ["other.example.org"]\n  upstreams: ["127.0.0.1:{}"]'
WELCOME = "friend.example.net"


def state(holdfast, name="primary"):
    return next(route["state"] for route in holdfast.status()["routes"] if route["name"] == name)


def by_helo(refusal, otherwise):
    """Answers so to whoever did not greet with the welcome name."""
    return lambda session, line: otherwise if any(WELCOME.encode() in one for one in session.lines) else refusal


def stays_in_service(scene, holdfast):
    equal(state(holdfast), "pass")
    equal(scene.client(holdfast.port).send_mail(helo=WELCOME), "250 2.0.0 Ok: taken")


@test("a 421 about the client (4.7) is the client's, however many get one")
def _(scene):
    primary = scene.primary(replies={"RCPT": by_helo(b"421 4.7.1 You are on a list\r\n", b"250 2.1.5 Ok\r\n")})
    holdfast = scene.holdfast(primary, yaml=QUIET)
    for _ in range(8):
        client = scene.client(holdfast.port)
        equal(client.send_mail(helo="spammer.example.net"), "421 4.7.1 You are on a list")
        equal(client.rest(), "")
    stays_in_service(scene, holdfast)


@test("a greeting that refuses the client (4.7) is the client's, however many get one")
def _(scene):
    turn = []
    primary = scene.primary(replies={"greeting": lambda session, line: b"421 4.7.0 Too many connections from you\r\n" if turn.append(1) or len(turn) <= 8 else b"220 primary.example.org ESMTP\r\n"})
    holdfast = scene.holdfast(primary, yaml=QUIET)
    for _ in range(8):
        equal(scene.client(holdfast.port).greeting, "421 4.7.0 Too many connections from you")
    stays_in_service(scene, holdfast)


@test("a primary that hangs up on a client after each refusal (Exim's drop) is there")
def _(scene):
    def refuse_and_go(session, line):
        if any(WELCOME.encode() in one for one in session.lines):
            return b"250 2.1.5 Ok\r\n"
        session.connection.sendall(b"550 5.7.1 Not for you\r\n")
        return None
    holdfast = scene.holdfast(scene.primary(replies={"RCPT": refuse_and_go}), yaml=QUIET)
    for _ in range(3):
        client = scene.client(holdfast.port)
        client.ask("EHLO spammer.example.net")
        equal(client.ask("MAIL FROM:<spam@example.net>"), "250 2.1.0 Ok")
        for number in range(6):
            equal(client.ask(f"RCPT TO:<guess{number}@example.org>"), "550 5.7.1 Not for you")
        client.close()
    stays_in_service(scene, holdfast)


@test("a primary that goes without a word at every RCPT is out, whoever asks")
def _(scene):
    primary = scene.primary(replies={"RCPT": lambda session, line: None})
    holdfast = scene.holdfast(primary, yaml=QUIET)
    scene.client(holdfast.port).send_mail()
    equal(state(holdfast), "hold")


@test("a client that changes over to a route whose primary refuses it, its greeting or its sender gets that primary's word, and goes on")
def _(scene):
    refusals = {"greeting": b"554 5.7.1 No service for you\r\n", "EHLO": b"550 5.7.1 Bad name\r\n", "MAIL": b"552 5.3.4 Message too big\r\n"}
    for step, refusal in refusals.items():
        first, second = scene.primary(), scene.primary(replies={step: refusal})
        holdfast = scene.holdfast(first, yaml=QUIET, routes=OTHER.format(second.port))
        for _ in range(4):
            client = scene.client(holdfast.port)
            client.ask("EHLO client.example.net")
            equal(client.ask("MAIL FROM:<a@example.net> SIZE=1000"), "250 2.1.0 Ok")
            equal(client.ask("RCPT TO:<x@other.example.org>"), refusal.decode().strip(), step)
            equal(client.ask("RSET"), "250 2.0.0 Ok")
            equal(client.send_mail(helo=None), "250 2.0.0 Ok: taken", step)
            equal(client.ask("QUIT"), "221 2.0.0 Bye")
        equal([state(holdfast), state(holdfast, "other")], ["pass", "pass"], step)
        equal(len(second.messages), 0)


@test("a client that was accepted and is refused by the primary that took over keeps what it was told; the route stays as it is")
def _(scene):
    for step, refusal in {"greeting": b"554 5.7.1 No service for you\r\n", "EHLO": b"550 5.7.1 Bad name\r\n", "MAIL": b"550 5.7.1 Bad sender\r\n"}.items():
        primary = scene.primary()
        kind = primary.replies[step]
        primary.replies["DATA"] = None  # it goes
        primary.replies[step] = lambda session, line: kind if len(primary.sessions) == 1 else refusal
        # The held message is tried too, and refused: that is not what is looked at here.
        holdfast = scene.holdfast(primary, yaml=QUIET + "  retry_min: 1h\n  trip_after: 1h\n")
        equal(scene.client(holdfast.port).send_mail()[:20], "250 2.0.0 Ok: queued", step)
        equal(state(holdfast), "pass", step)
        equal([one["outcome"] for one in holdfast.entries()[0]["recipients"]], ["held"], step)


@test("a message that the primary does not survive is held, alone: everybody else's passes, and drains, before it")
def _(scene):
    def dies_of_poison(session, line):
        return None if b"POISON" in primary.messages[-1][1] else b"250 2.0.0 Ok: taken\r\n"
    primary = scene.primary(replies={"content": dies_of_poison})
    holdfast = scene.holdfast(primary, route="unknown_recipients: accept", yaml="failover:\n  retry_min: 1h\n")
    equal(scene.client(holdfast.port).send_mail("Subject: POISON\r\n\r\n")[:20], "250 2.0.0 Ok: queued")
    stays_in_service(scene, holdfast)
    holdfast.run("failover", "hold", "--reason", "test")
    for recipient in ("one@example.org", "two@example.org"):
        equal(scene.client(holdfast.port).send_mail("Subject: POISON\r\n\r\n", recipient=recipient)[:20], "250 2.0.0 Ok: queued")
    for number in range(10):
        equal(scene.client(holdfast.port).send_mail(recipient=f"other{number}@example.org")[:20], "250 2.0.0 Ok: queued")
    holdfast.run("failover", "auto", "--reason", "test")
    def is_all_put_off():
        waiting = [json.loads(line) for line in holdfast.run("queue", "list", "--json").stdout.splitlines()]
        return len(waiting) == 3 and all(one["recipients"][0]["next_attempt"] for one in waiting)
    wait_for(is_all_put_off, what="the others to be delivered, and the three to be put off")
    equal(state(holdfast), "drain")
    outcomes = [one["recipients"][0]["outcome"] for one in holdfast.entries()]
    equal(sorted(outcomes), ["delivered"] * 10 + ["forwarded"] + ["held"] * 3)
    # Delivered or not, the primary had it: it is tried with patience, and may be there more than once.
    tried = sum(b"POISON" in content for _, content in primary.messages)
    equal(scene.client(holdfast.port).send_mail(), "250 2.0.0 Ok: taken")
    equal(sum(b"POISON" in content for _, content in primary.messages), tried)


@test("a primary that refuses in the middle of a message, and hangs up, is heard: by the client, and when held mail goes to it")
def _(scene):
    def refuse_in_the_middle(session, line):
        command = line.split()[0]
        if command == b"DATA":
            session.connection.sendall(b"354 Go ahead\r\n")
        while len(session.buffer) < 100000:
            session.more()
        session.connection.sendall(b"552 5.3.4 Too big for me\r\n")
        return None
    authority = scene.certificate("authority", "primary.example.org")
    large = "Subject: large\r\n\r\n" + ("x" * 70 + "\r\n") * 60000
    for tls in (None, server_tls(*authority)):
        primary = scene.primary(replies={"DATA": refuse_in_the_middle}, tls=tls)
        if tls:
            primary.replies["EHLO"] = primary.EHLO.replace(b"250 CHUNKING", b"250-CHUNKING\r\n250 STARTTLS")
        holdfast = scene.holdfast(primary, route="unknown_recipients: accept\ntls: " + ("required" if tls else "off"), yaml=QUIET)
        for _ in range(5):
            equal(scene.client(holdfast.port).send_mail(large), "552 5.3.4 Too big for me")
        equal(state(holdfast), "pass")
        equal(len(primary.sessions), 5)
        holdfast.run("failover", "hold", "--reason", "test")
        equal(scene.client(holdfast.port).send_mail(large)[:20], "250 2.0.0 Ok: queued")
        holdfast.run("failover", "auto", "--reason", "test")
        wait_for(lambda: state(holdfast) == "pass", what="the backlog to be settled")
        equal([one["status"] + ": " + one["reply"] for one in json.loads(holdfast.run("queue", "list", "--json").stdout)["recipients"]], ["kept: 552 5.3.4 Too big for me"])


@test("a 250 from a primary that did not have the whole message is not believed")
def _(scene):
    def take_half(session, line):
        if len(primary.sessions) > 1:
            return b"354 Go ahead\r\n"
        session.connection.sendall(b"354 Go ahead\r\n")
        while len(session.buffer) < 100000:
            session.more()
        session.connection.sendall(b"250 2.0.0 Ok: I have seen enough\r\n")
        return None
    primary = scene.primary(replies={"DATA": take_half})
    holdfast = scene.holdfast(primary, yaml=QUIET)
    content = "Subject: large\r\n\r\n" + ("x" * 70 + "\r\n") * 60000
    equal(scene.client(holdfast.port).send_mail(content), "250 2.0.0 Ok: taken")
    equal([message for _, message in primary.messages], [content.encode()])


@test("a client whom the primary does not want is refused its held mail too, which stands in nobody's way")
def _(scene):
    def greet(session, line):
        while len(session.buffer) < 16 or len(session.buffer) < 16 + int.from_bytes(session.buffer[14:16], "big"):
            session.more()
        source = session.buffer[16:20]
        session.buffer = session.buffer[16 + int.from_bytes(session.buffer[14:16], "big"):]
        return b"554 5.7.1 No service for you\r\n" if source == bytes([127, 0, 0, 66]) else b"220 primary.example.org ESMTP\r\n"
    holdfast = scene.holdfast(scene.primary(replies={"greeting": greet}), route="identity: proxy-v2\nunknown_recipients: accept", yaml=QUIET)
    scene.client(holdfast.port).send_mail(helo=WELCOME)
    holdfast.run("failover", "hold", "--reason", "test")
    for number in range(4):
        equal(scene.client(holdfast.port, source=("127.0.0.66", 0)).send_mail(recipient=f"r{number}@example.org")[:20], "250 2.0.0 Ok: queued")
    equal(scene.client(holdfast.port).send_mail()[:20], "250 2.0.0 Ok: queued")
    holdfast.run("failover", "auto", "--reason", "test")
    wait_for(lambda: state(holdfast) == "pass", what="the backlog to be settled")
    equal(holdfast.entries()[-1]["recipients"][0]["outcome"], "delivered")
    equal([one["recipients"][0]["status"] for one in json.loads("[" + ",".join(holdfast.run("queue", "list", "--json").stdout.split("\n")[:-1]) + "]")], ["kept"] * 4)
    equal(scene.client(holdfast.port, source=("127.0.0.66", 0)).greeting, "554 5.7.1 No service for you")
    stays_in_service(scene, holdfast)


@test("a message whose client has gone is not held when the primary dies, but on record as abandoned: the client will send it again")
def _(scene):
    client = []

    def die(session, line):
        client[0].socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client[0].close()  # with a reset
        threading.Thread(target=session.primary.stop).start()
        return None
    primary = scene.primary(replies={"content": die})
    holdfast = scene.holdfast(primary, yaml="threads: 1\nfailover:\n  probe_interval: 1h\n  takeover_after: 1s")
    client.append(scene.client(holdfast.port))
    client[0].ask("EHLO client.example.net")
    for command in ("MAIL FROM:<a@example.net>", "RCPT TO:<b@example.org>", "DATA"):
        client[0].ask(command)
    client[0].send("Subject: x\r\n\r\nx\r\n.\r\n")
    wait_for(lambda: [entry["recipients"][0]["outcome"] for entry in holdfast.entries()] in (["abandoned"], ["held"]), what="the outcome")
    recipient = holdfast.entries()[0]["recipients"][0]
    equal((recipient["outcome"], recipient["reply"]), ("abandoned", "the client left before the primary had answered"))
    equal(holdfast.status()["routes"][0]["messages"], {"forwarded": 0, "held": 0, "rejected": 0, "deferred": 0, "abandoned": 1})
    equal(holdfast.status()["routes"][0]["held"], 0)


main()
