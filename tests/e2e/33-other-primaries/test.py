"""Primaries that are not Postfix, and have ways of their own."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from harness import *

ALREADY = "503 5.5.1 Invalid command: Already identified"


def takes_one_greeting(scene, tls=None, offers_tls=False):
    """As OpenSMTPD does: one EHLO on a connection, one more after STARTTLS, and no mail without one."""
    def greet(session, line):
        is_first = getattr(session, "greeted_in", None) != session.is_tls
        session.greeted_in = session.is_tls
        offer = b"250-STARTTLS\r\n" if offers_tls and not session.is_tls else b""
        return b"250-primary.example.org\r\n" + offer + b"250 8BITMIME\r\n" if is_first else ALREADY.encode() + b"\r\n"

    def mail(session, line):
        is_greeted = getattr(session, "greeted_in", None) == session.is_tls
        return b"250 2.1.0 Ok\r\n" if is_greeted else b"503 5.5.1 Invalid command: greet first\r\n"
    return scene.primary(replies={"EHLO": greet, "HELO": greet, "MAIL": mail}, tls=tls)


def serve(scene, holdfast, clients):
    """So many clients, one after the other, with a message each."""
    for number in range(clients):
        client = scene.client(holdfast.port)
        equal(client.send_mail(), "250 2.0.0 Ok: taken", number)
        client.ask("QUIT")


def refused_greetings(primary):
    return sum(len([line for line in session.lines if line.startswith((b"EHLO", b"HELO"))]) > 1 for session in primary.sessions)


@test("a primary that takes one greeting on a connection gets a connection for each client, and each client its own answers")
def _(scene):
    primary = takes_one_greeting(scene)
    holdfast = scene.holdfast(primary, yaml="threads: 1")
    serve(scene, holdfast, 4)
    equal(refused_greetings(primary), 1, "connections that were handed on before that was known")
    client = scene.client(holdfast.port)
    client.ask("EHLO client.example.net")
    equal(client.ask("EHLO client.example.net"), ALREADY, "a client's own second greeting")
    equal(client.send_mail(helo=None), "250 2.0.0 Ok: taken")
    status = json.loads(holdfast.run("status", "--json").stdout)
    equal((status["routes"][0]["state"], status["routes"][0]["upstreams"][0]["healthy"]), ("pass", True))
    assert not holdfast.logged(" warning upstream")


@test("a greeting that is refused on a connection of another client and on a fresh one too is the primary's word")
def _(scene):
    def greet(session, line):
        return b"501 5.5.2 Helo command rejected: invalid name\r\n" if b"_" in line else b"250 primary.example.org\r\n"
    primary = scene.primary(replies={"EHLO": greet})
    holdfast = scene.holdfast(primary, yaml="threads: 1")
    scene.client(holdfast.port).ask("QUIT")
    serve(scene, holdfast, 2)
    equal(len(primary.sessions), 2)
    client = scene.client(holdfast.port)
    equal(client.ask("EHLO bad_name"), "501 5.5.2 Helo command rejected: invalid name")
    client.ask("QUIT")
    equal(len(primary.sessions), 3)
    # Connections are still handed on.
    serve(scene, holdfast, 3)
    equal(len(primary.sessions), 4)


@test("a primary that answers further greetings ever more slowly gets no more on a connection than it likes")
def _(scene):
    # As Sendmail does, which takes four of them for an attack.
    def greet(session, line):
        greetings = len([one for one in session.lines if one.startswith(b"EHLO")])
        if greetings > 3:
            time.sleep(2 ** (greetings - 3))
        return b"250 primary.example.org\r\n"
    primary = scene.primary(replies={"EHLO": greet})
    holdfast = scene.holdfast(primary, yaml="threads: 1")
    scene.client(holdfast.port).ask("QUIT")
    serve(scene, holdfast, 12)
    greetings = [len([line for line in session.lines if line.startswith(b"EHLO")]) for session in primary.sessions]
    equal(greetings, [0, 4, 3, 3, 3], "greetings on each connection")
    assert not holdfast.logged(" warning upstream")


@test("a primary that is slow with every greeting keeps its connections")
def _(scene):
    def greet(session, line):
        time.sleep(0.7)
        return b"250 primary.example.org\r\n"
    primary = scene.primary(replies={"EHLO": greet})
    holdfast = scene.holdfast(primary, yaml="threads: 1")
    scene.client(holdfast.port).ask("QUIT")
    serve(scene, holdfast, 3)
    equal(len(primary.sessions), 2)


@test("a client that turns to TLS, or the connection to the primary that does, is greeted for once more")
def _(scene):
    certificate, key = scene.certificate("primary.example.org")
    yaml = f"threads: 1\ntls:\n  certificates:\n    - certificate: {certificate}\n      key: {key}\n"
    rows = [("tls: off", False), ("tls: opportunistic", False), ("tls: opportunistic", True), ("tls: required", True)]
    for route, offers_tls in rows:
        primary = takes_one_greeting(scene, server_tls(certificate, key), offers_tls)
        holdfast = scene.holdfast(primary, listener="tls: starttls", route=route, yaml=yaml)
        for is_secure in (True, False, True):
            client = scene.client(holdfast.port)
            client.ask("EHLO client.example.net")
            if is_secure:
                client.ask("STARTTLS")
                client.start_tls()
            equal(client.send_mail(), "250 2.0.0 Ok: taken", f"{route}, client with TLS: {is_secure}")
            client.ask("QUIT")
        client = scene.client(holdfast.port)
        equal(client.ask("MAIL FROM:<a@example.net>"), "503 5.5.1 Invalid command: greet first", route)
        equal(primary.sessions[-1].is_tls, offers_tls, route)
        holdfast.stop()


@test("it is probed, is given held mail, and takes over a client in the middle of a message")
def _(scene):
    for route in ("tls: off", "tls: opportunistic"):
        primary = takes_one_greeting(scene)
        holdfast = scene.holdfast(primary, route=route, yaml="threads: 1\nfailover:\n  probe_interval: 100ms\n  release_after: 100ms\n  retry_min: 100ms\n")
        serve(scene, holdfast, 1)
        holdfast.run("failover", "hold", "--reason", "test")
        for number in range(3):
            assert scene.client(holdfast.port).send_mail().startswith("250 "), number
        holdfast.run("failover", "auto", "--reason", "test")
        wait_for(lambda: len(primary.messages) == 4, what="the held mail")
        client = scene.client(holdfast.port)
        client.ask("EHLO client.example.net")
        client.ask("MAIL FROM:<a@example.net>")
        client.ask("RCPT TO:<b@example.org>")
        primary.sessions[-1].close()
        equal(client.ask("DATA")[:3], "354", route)
        equal(client.ask("Subject: x\r\n\r\nx\r\n."), "250 2.0.0 Ok: taken", route)
        holdfast.stop()


@test("a primary that pipelines, but takes no command before it has answered for a message, is given held mail one by one")
def _(scene):
    # As Haraka does.
    def answer(session, line):
        time.sleep(0.1)
        session.connection.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            session.more()
        session.connection.setblocking(True)
        session.came_early = session.buffer.count(b"\r\n")
        return b"250 2.0.0 Ok: taken\r\n"

    def early(good):
        def reply(session, line):
            is_early = getattr(session, "came_early", 0) > 0
            if is_early:
                session.came_early -= 1
            return b"503 Bad sequence of commands - pipelined after end of DATA\r\n" if is_early else good
        return reply
    primary = scene.primary(replies={"content": answer, "MAIL": early(b"250 2.1.0 Ok\r\n"), "RCPT": early(b"250 2.1.5 Ok\r\n"),
                                     "DATA": early(b"354 End data with <CR><LF>.<CR><LF>\r\n")})
    holdfast = scene.holdfast(primary, route="unknown_recipients: accept", yaml="threads: 1\nfailover:\n  probe_interval: 100ms\n  release_after: 100ms\n  drain_concurrency: 1\n")
    holdfast.run("failover", "hold", "--reason", "test")
    client = scene.client(holdfast.port)
    subjects = [f"Subject: {number}" for number in range(6)]
    for number, subject in enumerate(subjects):
        assert client.send_mail(content=f"{subject}\r\n\r\nx\r\n", recipient="b@example.org", helo=None if number else "client.example.net").startswith("250")
    holdfast.run("failover", "auto", "--reason", "test")
    wait_for(lambda: len(primary.messages) == 6, what="the held mail")
    wait_for(lambda: json.loads(holdfast.run("status", "--json").stdout)["routes"][0]["state"] == "pass", what="the end of the drain")
    equal([re.search(rb"Subject: \d", content)[0].decode() for _, content in primary.messages], subjects)
    equal({entry["recipients"][0]["outcome"] for entry in holdfast.entries()}, {"delivered"})
    assert not holdfast.logged(" warning upstream")


@test("a 503 to held mail says that the connection is not where it should be, and nothing of the message: it is tried again")
def _(scene):
    primary = scene.primary()
    holdfast = scene.holdfast(primary, route="unknown_recipients: accept", yaml="threads: 1\nfailover:\n  probe_interval: 100ms\n  release_after: 100ms\n  retry_min: 100ms\n")
    holdfast.run("failover", "hold", "--reason", "test")
    assert scene.client(holdfast.port).send_mail().startswith("250")
    good = primary.replies["RCPT"]
    primary.replies["RCPT"] = b"503 5.5.1 Error: need MAIL command\r\n"
    holdfast.run("failover", "auto", "--reason", "test")
    wait_for(lambda: holdfast.logged("503 5.5.1 Error: need MAIL command"), what="the refusal")
    equal(holdfast.entries()[0]["recipients"][0]["outcome"], "held")
    primary.replies["RCPT"] = good
    wait_for(lambda: len(primary.messages) == 1, what="the held mail")


@test("a refusal is the word on held mail, though the primary finds the commands that came with the refused one out of order, or hangs up")
def _(scene):
    # As Exim and Sendmail do. Postfix and the others would say 554 to DATA.
    def mail(session, line):
        session.is_hanging_up = b"<hated@" in line
        return b"550 5.7.1 this sender is not wanted\r\n" if b"<bad@" in line or session.is_hanging_up else b"250 2.1.0 Ok\r\n"

    def rcpt(session, line):
        if session.is_hanging_up:
            return None
        if not session.envelope:
            return b"503 5.5.1 sender not yet given\r\n"
        session.is_hanging_up = b"<spamtrap" in line
        return b"550 5.1.1 no such person\r\n" if b"gone@" in line or session.is_hanging_up else b"250 2.1.5 Ok\r\n"

    def data(session, line):
        if session.is_hanging_up:
            return None
        return b"354 Go ahead\r\n" if len(session.envelope) > 1 else b"503 5.5.1 valid RCPT command must precede DATA\r\n"
    primary = scene.primary(replies={"MAIL": mail, "RCPT": rcpt, "DATA": data})
    holdfast = scene.holdfast(primary, route="unknown_recipients: accept", yaml="threads: 1\nfailover:\n  probe_interval: 100ms\n  release_after: 100ms\n  drain_concurrency: 1\n")
    holdfast.run("failover", "hold", "--reason", "test")
    client = scene.client(holdfast.port)
    client.ask("EHLO client.example.net")
    for sender, *recipients in (("good", "b"), ("bad", "b"), ("good", "gone"), ("hated", "b"), ("good", "spamtrap1"), ("good", "d", "spamtrap2", "e"), ("good", "c")):
        client.ask(f"MAIL FROM:<{sender}@example.net>")
        for recipient in recipients:
            assert client.ask(f"RCPT TO:<{recipient}@example.org>").startswith("250")
        client.ask("DATA")
        assert client.ask("Subject: x\r\n\r\nhello\r\n.").startswith("250")
    holdfast.run("failover", "auto", "--reason", "test")
    wait_for(lambda: len(primary.messages) == 3, what="those that it takes")
    wait_for(lambda: holdfast.status()["routes"][0]["kept_for_operator"] == 5, what="those that it does not take")
    equal(sorted(len(envelope) - 1 for envelope, content in primary.messages), [1, 1, 2])
    equal(sorted(one["reply"] for entry in map(json.loads, holdfast.run("queue", "list", "--json").stdout.splitlines()) for one in entry["recipients"]),
          ["550 5.1.1 no such person"] * 3 + ["550 5.7.1 this sender is not wanted"] * 2)


@test("a primary that knows no EHLO is greeted with HELO (RFC 5321 3.2): its mail passes, is held and is delivered, also a client's who was told more")
def _(scene):
    primary = scene.primary(replies={"EHLO": b"500 5.5.1 Error: unknown command\r\n"})
    holdfast = scene.holdfast(primary, route="unknown_recipients: accept", yaml="threads: 1\nfailover:\n  probe_interval: 100ms\n  release_after: 100ms\n")
    state = lambda: holdfast.status()["routes"][0]["state"]
    wait_for(lambda: b"RSET" in primary.lines(), what="a probe")
    client = scene.client(holdfast.port)
    equal(client.ask("EHLO client.example.net"), "500 5.5.1 Error: unknown command")
    equal(client.ask("HELO client.example.net"), "250 primary.example.org")
    equal(client.send_mail(helo=None), "250 2.0.0 Ok: taken")
    holdfast.run("failover", "hold", "--reason", "test")
    told = scene.client(holdfast.port)
    reply = told.ask("EHLO client.example.net")
    assert reply.startswith("250 ") and "\n" not in reply, reply  # nothing that the primary could not honour later
    assert told.send_mail(helo=None).startswith("250 2.0.0 Ok: queued as")
    seen = len(primary.lines())
    holdfast.run("failover", "auto", "--reason", "test")
    wait_for(lambda: len(primary.messages) == 2 and state() == "pass", what="the held mail")
    equal(told.send_mail(helo=None), "250 2.0.0 Ok: taken")
    wait_for(lambda: sum(line.startswith(b"HELO") for line in primary.lines()[seen:]) > 5, what="probes")
    assert not holdfast.logged(" warning breaker") and state() == "pass"


@test("recipients that are too many for one transaction get the held message in the next ones, at once (RFC 5321 4.5.3.1.10)")
def _(scene):
    for refusal in (b"452 4.5.3 Error: too many recipients\r\n", b"552 too many recipients\r\n"):
        def rcpt(session, line):
            if b"<full@" in line:
                return b"552 5.2.2 mailbox full\r\n"
            return b"250 2.1.5 Ok\r\n" if len(session.envelope) <= 10 else refusal
        primary = scene.primary(replies={"RCPT": rcpt})
        holdfast = scene.holdfast(primary, route="unknown_recipients: accept", yaml="failover:\n  probe_interval: 100ms\n  release_after: 100ms\n  retry_min: 1h\n  retry_max: 1h\n")
        holdfast.run("failover", "hold", "--reason", "test")
        client = scene.client(holdfast.port)
        client.ask("EHLO client.example.net")
        client.ask("MAIL FROM:<a@example.net>")
        for person in ["full"] + [f"p{number}" for number in range(35)]:
            assert client.ask(f"RCPT TO:<{person}@example.org>").startswith("250")
        client.ask("DATA")
        assert client.ask("Subject: x\r\n\r\nhello\r\n.").startswith("250")
        holdfast.run("failover", "auto", "--reason", "test")
        wait_for(lambda: len(primary.messages) == 4, what="all transactions")
        equal([len(envelope) - 1 for envelope, content in primary.messages], [10, 10, 10, 5])
        wait_for(lambda: holdfast.status()["routes"][0]["kept_for_operator"] == 1, what="the one whose mailbox is full")
        primary.messages.clear()
        replay = holdfast.run("journal", "replay", "--to", f"smtp://127.0.0.1:{primary.port}", "--reason", "test", "--json", check=False)
        equal([(json.loads(line)["result"], json.loads(line)["detail"]) for line in replay.stdout.splitlines()], [("refused", "552 5.2.2 mailbox full")])
        equal([len(envelope) - 1 for envelope, content in primary.messages], [10, 10, 10, 5])


main()
