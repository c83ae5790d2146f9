"""Hostile bytes are refused, never interpreted twice: each attack with the exact reply, and what the primary got of it."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from harness import *

NUL = "\0"
HELLO = "EHLO client.example.net\r\n"
START = "MAIL FROM:<a@example.net>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n"
ENVELOPE = "MAIL FROM:<a@example.net>\r\nRCPT TO:<b@example.org>\r\n"
BARE = "521 5.5.2 Error: bare <CR> or <LF> received"
BARE_LF = "521 5.5.2 Error: bare <LF> received"
BARE_CR = "521 5.5.2 Error: bare <CR> received"
TAKEN = "250 2.0.0 Ok: taken"
SMUGGLED = "MAIL FROM:<evil@example.net>\r\nRCPT TO:<victim@example.org>\r\nDATA\r\nsmuggled\r\n.\r\n"

# Content after DATA's 354: what is sent, the one reply, and the content that the primary has (None: nothing at all).
ENDS_OF_DATA = [
    ("LF.LF", "x\n.\n", BARE, None),
    ("LF.CRLF", "x\n.\r\n", BARE, None),
    ("CRLF.LF", "x\r\n.\n", BARE, None),
    ("CR.CR", "x\r.\r", BARE, None),
    ("CR.CRLF", "x\r.\r\n", BARE, None),
    ("CRLF.CR", "x\r\n.\rMAIL", BARE, None),
    ("CRLF.CR CRLF", "x\r\n.\r\r\n", BARE, None),
    ("CRCRLF.CRLF", "x\r\r\n.\r\n", BARE, None),
    ("CRLF.CRCRLF", "x\r\n.\r\r\n.\r\n", BARE, None),
    ("LFCR.LFCR", "x\n\r.\n\r", BARE, None),
    ("CRLFLF.CRLF", "x\r\n\n.\r\n", BARE, None),
    ("a bare LF in a line", "x\ny\r\n.\r\n", BARE, None),
    ("a bare CR in a line", "x\ry\r\n.\r\n", BARE, None),
    ("CR NUL LF", f"x\r{NUL}\n.\r\n", BARE, None),
    ("CRLF NUL . CRLF is content", f"x\r\n{NUL}.\r\n.\r\n", TAKEN, f"x\r\n{NUL}.\r\n"),
    ("CRLF . NUL CRLF is content", f"x\r\n.{NUL}\r\n.\r\n", TAKEN, f"x\r\n{NUL}\r\n"),
    ("CRLF . CR NUL LF", f"x\r\n.\r{NUL}\n", BARE, None),
    ("a dot and a blank is content", "x\r\n. \r\n.\r\n", TAKEN, "x\r\n \r\n"),
    ("two dots are one", "x\r\n..\r\n.\r\n", TAKEN, "x\r\n.\r\n"),
]

# After EHLO: bytes, the replies, and whether the session ends then.
COMMANDS = [
    ("a bare LF", "NOOP\n", [BARE_LF], True),
    ("a bare CR", "NOOP\rNOOP\r\n", [BARE_CR], True),
    ("CRCRLF", "NOOP\r\r\n", [BARE_CR], True),
    ("a NUL", f"NOOP{NUL}\r\n", ["500 5.5.2 Error: control character in a command"], False),
    ("a NUL in an address", f"MAIL FROM:<a{NUL}@example.net>\r\n", ["500 5.5.2 Error: control character in a command"], False),
    ("an escape", "HELP \x1b[2J\r\n", ["500 5.5.2 Error: control character in a command"], False),
    ("8-bit in EHLO", "EHLO caf\u00e9\r\n", ["500 5.5.2 Error: 8-bit character in a command"], False),
    ("8-bit that is not UTF-8", b"MAIL FROM:<\xff@example.net> SMTPUTF8\r\n", ["500 5.5.2 Error: bad UTF-8 syntax"], False),
    ("an over-long UTF-8 form", b"MAIL FROM:<\xc0\xaf@example.net> SMTPUTF8\r\n", ["500 5.5.2 Error: bad UTF-8 syntax"], False),
    ("an over-long line", "NOOP " + "x" * 3000 + "\r\n", ["500 5.5.2 Error: line too long"], True),
    ("an over-long line without an end", "x" * 100000, ["500 5.5.2 Error: line too long"], True),
    ("two addresses", "MAIL FROM:<a@example.net><c@example.net>\r\n", ["501 5.1.7 Bad sender address syntax"], False),
    ("an open bracket", "MAIL FROM:<a@example.net\r\n", ["501 5.1.7 Bad sender address syntax"], False),
    ("an open quote", "MAIL FROM:<\"a@example.net>\r\n", ["501 5.1.7 Bad sender address syntax"], False),
    ("a source route to nowhere", "MAIL FROM:<@x.example.net:a>\r\n", ["501 5.1.7 Bad sender address syntax"], False),
    ("two at signs", ENVELOPE[:27] + "RCPT TO:<b@c@example.org>\r\n", ["250 2.1.0 Ok", "501 5.1.3 Bad recipient address syntax"], False),
    ("a list of addresses", ENVELOPE[:27] + "RCPT TO:<b@example.org,c@example.org>\r\n", ["250 2.1.0 Ok", "501 5.1.3 Bad recipient address syntax"], False),
    ("BINARYMIME that was not offered", "MAIL FROM:<a@example.net> BODY=BINARYMIME\r\n", ["555 5.5.4 Unsupported option: BODY=BINARYMIME"], False),
    ("a parameter that nobody knows", "MAIL FROM:<a@example.net> X=1\r\n", ["555 5.5.4 Unsupported option: X=1"], False),
    ("AUTH= that was not offered", "MAIL FROM:<a@example.net> AUTH=<>\r\n", ["555 5.5.4 Unsupported option: AUTH=<>"], False),
    ("REQUIRETLS that Holdfast cannot honour", "MAIL FROM:<a@example.net> REQUIRETLS\r\n", ["555 5.5.4 Unsupported option: REQUIRETLS"], False),
    ("a SIZE beyond the limit", "MAIL FROM:<a@example.net> SIZE=99999999999\r\n", ["552 5.3.4 Message size exceeds fixed limit"], False),
    ("XCLIENT", "XCLIENT ADDR=192.0.2.1\r\n", ["502 5.5.1 Error: command not implemented"], False),
    ("XFORWARD", "XFORWARD NAME=x\r\n", ["502 5.5.1 Error: command not implemented"], False),
    ("STARTTLS that was not offered", "STARTTLS\r\n", ["502 5.5.1 Error: command not implemented"], False),
    ("AUTH on a listener for mail from outside", "AUTH PLAIN AGEAYgBj\r\n", ["503 5.5.1 Error: authentication not enabled"], False),
    ("DATA with words", "DATA now\r\n", ["501 5.5.4 Syntax: DATA"], False),
    ("BDAT without a size", "BDAT\r\n", ["501 5.5.4 Syntax: BDAT count [LAST]"], True),
    ("BDAT with a negative size", "BDAT -1 LAST\r\n", ["501 5.5.4 Syntax: BDAT count [LAST]"], True),
    ("BDAT with a hexadecimal size", "BDAT 0x10\r\n", ["501 5.5.4 Syntax: BDAT count [LAST]"], True),
    ("BDAT beyond 64 bits", "BDAT 99999999999999999999999 LAST\r\n", ["501 5.5.4 Syntax: BDAT count [LAST]"], True),
    ("BDAT with an absurd size", "BDAT 999999999999999999 LAST\r\n", ["552 5.3.4 Error: chunk exceeds the message size limit"], True),
    ("BDAT with more words", "BDAT 1 LAST FOR EVER\r\n", ["501 5.5.4 Syntax: BDAT count [LAST]"], True),
    ("a bare LF in a chunk", ENVELOPE + "BDAT 4 LAST\r\nx\ny\n", ["250 2.1.0 Ok", "250 2.1.5 Ok", BARE], True),
    ("LF.LF in a chunk", ENVELOPE + "BDAT 4\r\nx\n.\n", ["250 2.1.0 Ok", "250 2.1.5 Ok", BARE], True),
    ("a bare CR at a chunk's end", ENVELOPE + "BDAT 2 LAST\r\nx\r", ["250 2.1.0 Ok", "250 2.1.5 Ok", BARE], True),
    ("a CRLF cut by two chunks into bare ones", ENVELOPE + "BDAT 2\r\nx\rBDAT 2 LAST\r\nx\n", ["250 2.1.0 Ok", "250 2.1.5 Ok", "250 2.0.0 Ok", BARE], True),
]


@test(f"{len(ENDS_OF_DATA)} ways to end DATA falsely, split at every byte: refused, or content, and nothing is smuggled")
def _(scene):
    primary = scene.primary()
    holdfast = scene.holdfast(primary)
    for name, content, expected, kept in ENDS_OF_DATA:
        data = content.encode("latin-1")
        for split in [None, *range(1, len(data))]:
            before = len(primary.messages)
            client = scene.client(holdfast.port)
            client.send(HELLO + START)
            replies = [client.reply() for _ in range(4)]
            equal(replies[-1], "354 Go ahead", name)
            trailer = SMUGGLED.encode() if expected == BARE else b""
            if split is None:
                client.send(data + trailer)
            else:
                client.send(data[:split])
                # The bytes before the cut are on their way alone when the primary's side of the session is idle again.
                client.send(data[split:] + trailer)
            equal(client.reply(), expected, f"{name}, split at {split}")
            if expected == BARE:
                equal(client.rest(), "", name)
                equal(len(primary.messages), before, f"{name}: the primary must have no message")
            else:
                client.close()
                equal([content for _, content in primary.messages[before:]], [kept.encode("latin-1")], name)
    assert not any(b"evil" in session.received or b"smuggled" in session.received for session in primary.sessions)
    assert "all is well" in holdfast.run("journal", "verify").stdout
    equal(len(holdfast.entries()), len(primary.messages), "entries and messages at the primary")


@test(f"{len(COMMANDS)} bad commands: the exact reply, and the primary never sees them")
def _(scene):
    for name, data, expected, ends in COMMANDS:
        primary = scene.primary()
        holdfast = scene.holdfast(primary)
        client = scene.client(holdfast.port)
        client.ask(HELLO.strip())
        client.send(data)
        equal([client.reply() for _ in expected], expected, name)
        if ends:
            equal(client.rest(), "", name)
        else:
            equal(client.ask("NOOP"), "250 2.0.0 Ok", f"{name}: the session goes on")
        good = {b"EHLO client.example.net", b"MAIL FROM:<a@example.net>", b"RCPT TO:<b@example.org>", b"NOOP", b"QUIT", b"BDAT 2"}
        assert set(primary.lines()) <= good, (name, primary.lines())
        equal(primary.messages, [], name)
        client.close()
        holdfast.stop()
        primary.stop()


@test("a client that talks before the greeting is refused")
def _(scene):
    gate = threading.Event()
    def late(session, line):
        gate.wait(20)
        return b"220 primary.example.org ESMTP\r\n"
    primary = scene.primary(replies={"greeting": late})
    holdfast = scene.holdfast(primary)
    client = scene.client(holdfast.port, greeting=False)
    client.send("EHLO early.example.net\r\nMAIL FROM:<a@example.net>\r\n")
    wait_for(lambda: primary.sessions, what="the connection to the primary")
    gate.set()
    equal(client.rest(), "554 5.5.1 Error: talked before the greeting\r\n")
    assert not any(b"early" in session.received for session in primary.sessions)


@test("commands pipelined behind STARTTLS are refused")
def _(scene):
    certificate, key = scene.certificate("mx.example.org")
    primary = scene.primary()
    holdfast = scene.holdfast(primary, listener="tls: starttls", yaml=f"tls:\n  certificates:\n    - certificate: {certificate}\n      key: {key}")
    client = scene.client(holdfast.port)
    client.ask(HELLO.strip())
    client.send("STARTTLS\r\nMAIL FROM:<evil@example.net>\r\n")
    equal(client.rest(), "554 5.5.1 Error: plain text after STARTTLS\r\n")
    assert not any(b"evil" in session.received for session in primary.sessions)


@test("text that the primary, or someone in between, puts behind its answer to STARTTLS ends the connection")
def _(scene):
    certificate, key = scene.certificate("primary.example.org")
    primary = scene.primary(replies={"EHLO": b"250-primary\r\n250 STARTTLS\r\n", "STARTTLS": b"220 2.0.0 Go ahead\r\n250 injected\r\n"}, tls=server_tls(certificate, key))
    holdfast = scene.holdfast(primary, route="tls: required", yaml=PASS)
    client = scene.client(holdfast.port, greeting=False)
    equal(client.reply(), "421 4.3.2 holdfast.example.org The mail server is not reachable, try again later")
    assert holdfast.logged("someone may be tampering")


NO_CHUNKS = b"250-primary.example.org\r\n250-PIPELINING\r\n250 8BITMIME\r\n"


@test("the bytes of a chunk never become commands to a primary that knows no chunks: BDAT is taken only where it offers that")
def _(scene):
    primary = scene.primary(replies={"EHLO": NO_CHUNKS})
    holdfast = scene.holdfast(primary)
    smuggled = "XCLIENT ADDR=192.0.2.1 LOGIN=root\r\n"
    for greeting in ("", "HELO client.example.net\r\n", HELLO):
        for envelope in ("", ENVELOPE):
            client = scene.client(holdfast.port)
            for line in (greeting + envelope).splitlines():
                client.ask(line)
            client.send(f"BDAT {len(smuggled)} LAST\r\n{smuggled}")
            equal(client.rest(), "502 5.5.1 Error: command not implemented\r\n", (greeting, envelope))
    assert not any(b"XCLIENT" in session.received for session in primary.sessions)


@test("a message in chunks whose primary dies goes to another that knows none as DATA, and its lines never become commands")
def _(scene):
    body = f"Subject: x\r\n\r\nRSET\r\n.\r\n{SMUGGLED}XCLIENT ADDR=192.0.2.1\r\n"
    cut = body.index("MAIL")
    whole = f"BDAT {len(body)} LAST\r\n{body}"
    in_two = f"BDAT {cut}\r\n{body[:cut]}BDAT {len(body) - cut} LAST\r\n{body[cut:]}"
    for step, chunks in [("BDAT", whole), ("BDAT", in_two), ("RCPT", whole), ("RCPT", in_two), ("MAIL", in_two)]:
        first = scene.primary(replies={step: lambda session, line: None})
        second = scene.primary(replies={"EHLO": NO_CHUNKS})
        holdfast = scene.holdfast(upstreams=[f"127.0.0.1:{first.port}", f"127.0.0.1:{second.port}"])
        client = scene.client(holdfast.port)
        assert "CHUNKING" in client.ask(HELLO.strip())
        client.send(ENVELOPE + chunks)
        replies = [client.reply() for _ in range(2 + chunks.count("BDAT"))]
        equal([reply[:3] for reply in replies], ["250"] * len(replies), (step, replies))
        equal([content for _, content in second.messages], [body.encode()], step)
        commands = {line.split(b" ")[0] for line in second.lines()}
        assert commands <= {b"EHLO", b"MAIL", b"RCPT", b"DATA", b"RSET", b"QUIT", b"NOOP"}, (step, commands)
        assert not any(b"evil" in line for line in second.lines()), (step, second.lines())
        client.close()
        holdfast.stop()


@test("too many errors, commands and recipients end in a clear reply")
def _(scene):
    primary = scene.primary()
    holdfast = scene.holdfast(primary, yaml="limits:\n  errors: 3\n  recipients: 50\n  commands: 200")
    client = scene.client(holdfast.port)
    client.ask(HELLO.strip())
    equal([client.ask("XCLIENT x") for _ in range(3)], ["502 5.5.1 Error: command not implemented"] * 3)
    equal(client.reply(), "421 4.7.0 holdfast.example.org Error: too many errors")
    equal(client.rest(), "")

    client = scene.client(holdfast.port)
    client.ask(HELLO.strip())
    client.ask("MAIL FROM:<a@example.net>")
    client.send("".join(f"RCPT TO:<r{number}@example.org>\r\n" for number in range(52)))
    equal([client.reply() for _ in range(52)], ["250 2.1.5 Ok"] * 50 + ["452 4.5.3 Error: too many recipients"] * 2)
    client.ask("DATA")
    client.send("x\r\n.\r\n")
    equal(client.reply(), TAKEN)
    equal(len(holdfast.entries()[0]["recipients"]), 50)

    client = scene.client(holdfast.port)
    client.ask(HELLO.strip())
    client.send("NOOP\r\n" * 250)
    answers = client.rest().splitlines()
    equal(answers[-1], "421 4.7.0 holdfast.example.org Error: too many commands")
    equal(answers.count("250 2.0.0 Ok"), 199)


@test("thousands of recipients that the primary takes are journaled, each with its answer")
def _(scene):
    primary = scene.primary(replies={"RCPT": lambda session, line: b"550 5.1.1 no\r\n" if b"0@" in line else b"250 2.1.5 Ok\r\n"})
    holdfast = scene.holdfast(primary, yaml="limits:\n  recipients: 5000")
    client = scene.client(holdfast.port)
    client.ask(HELLO.strip())
    client.ask("MAIL FROM:<a@example.net>")
    for batch in range(8):
        client.send("".join(f"RCPT TO:<r{batch * 500 + number}@example.org>\r\n" for number in range(500)))
        for _ in range(500):
            client.reply()
    client.ask("DATA")
    client.send("x\r\n.\r\n")
    equal(client.reply(), TAKEN)
    recipients = wait_for(lambda: [one for one in holdfast.entries()[0]["recipients"] if one["outcome"] == "forwarded"], what="outcomes")
    equal(len(recipients), 3600)
    equal(len(holdfast.entries()[0]["recipients"]), 4000)


@test("a client that sends a byte a second is shown the door, in commands and in content")
def _(scene):
    primary = scene.primary()
    holdfast = scene.holdfast(primary, yaml="limits:\n  timeouts:\n    command: 1s\n    data_block: 1s")
    def drip(client):
        end = time.monotonic() + 20
        client.socket.settimeout(0.2)
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                client.send("x")
            try:
                data = client.socket.recv(1000)
            except socket.timeout:
                continue
            client.buffer += data
            if b"\r\n" in client.buffer or not data:
                return client.buffer.decode().strip()
        raise AssertionError("it was let in for 20 s")
    client = scene.client(holdfast.port)
    client.ask(HELLO.strip())
    equal(drip(client), "421 4.4.2 holdfast.example.org Error: timeout exceeded", "commands")
    client = scene.client(holdfast.port)
    client.send(HELLO + START)
    for _ in range(4):
        client.reply()
    equal(drip(client), "421 4.4.2 holdfast.example.org Error: timeout exceeded", "content")
    equal(primary.messages, [])
    equal(holdfast.entries(), [])


@test("a primary that answers nonsense never reaches the client")
def _(scene):
    lost = "421 4.4.2 holdfast.example.org The mail server does not answer, try again later"
    unreachable = "421 4.3.2 holdfast.example.org The mail server is not reachable, try again later"
    for nonsense in (b"hello there\r\n", b"250 ok\n", b"2\r\n", b"250-a\r\n251 b\r\n", b"999 x\r\n", b"\0\0\0\r\n", b"250 a\rb\r\n", b"354 go\r\n"):
        primary = scene.primary(replies={"MAIL": nonsense})
        holdfast = scene.holdfast(primary, yaml=PASS)
        client = scene.client(holdfast.port)
        client.ask(HELLO.strip())
        equal(client.ask("MAIL FROM:<a@example.net>"), lost, nonsense)
        equal(client.rest(), "")
        holdfast.stop()
    holdfast = scene.holdfast(scene.primary(replies={"greeting": b"SSH-2.0-OpenSSH_9.2\r\n"}), yaml=PASS)
    equal(scene.client(holdfast.port).greeting, unreachable)
    primary = scene.primary(replies={"MAIL": b"250 ok\r\n250 and more\r\n"})
    holdfast = scene.holdfast(primary, yaml=PASS)
    client = scene.client(holdfast.port)
    client.ask(HELLO.strip())
    client.send("MAIL FROM:<a@example.net>\r\n")
    equal(client.reply(), "250 ok")
    equal(client.reply(), lost, "a second answer to one command")


@test("a primary that takes what is no command to Holdfast: who sent it is refused, and nothing is thought of the primary; nobody is slipped in")
def _(scene):
    def has(session, verb):
        return any(line.upper().startswith(verb) for line in session.envelope)

    primary = scene.primary(replies={
        "MAIL": lambda session, line: b"503 5.5.1 nested\r\n" if has(session, b"MAIL") else b"250 2.1.0 Ok\r\n",
        "RCPT": lambda session, line: b"250 2.1.5 Ok\r\n" if has(session, b"MAIL") else b"503 5.5.1 need MAIL\r\n",
        "DATA": lambda session, line: b"354 Go ahead\r\n" if has(session, b"RCPT") else b"503 5.5.1 need RCPT\r\n",
        "XTALK": b"334 R28gb24=\r\n"})
    holdfast = scene.holdfast(primary, yaml="failover:\n  probe_interval: 1h\n  takeover_after: 1s")
    client = scene.client(holdfast.port)
    no_sender, no_recipient = "501 5.5.4 Syntax: MAIL FROM:<address>", "501 5.5.4 Syntax: RCPT TO:<address>"
    for command, answer in ((HELLO.strip(), None), ("MAIL", no_sender), ("MAIL FROM :<a@example.net>", no_sender), ("XTALK", "502 5.5.2 Error: command not recognized"),
                            ("RCPT TO:<b@example.org>", "503 5.5.1 need MAIL"), ("MAIL FROM:<a@example.net>", "250 2.1.0 Ok"), ("RCPT TO:<b@example.org>", "250 2.1.5 Ok"),
                            ("RCPT TO :<victim@example.org>", no_recipient), ("XTALK", "502 5.5.2 Error: command not recognized"), ("DATA", "354 Go ahead"),
                            ("x\r\n.", "250 2.0.0 Ok: taken")):
        reply = client.ask(command)
        equal(answer or reply, reply, command)
    client.send("MAIL\r\nRCPT TO:<victim@example.org>\r\nDATA\r\n")
    equal([client.reply() for _ in range(3)], [no_sender, "503 5.5.1 need MAIL", "503 5.5.1 need RCPT"])
    client.send("MAIL FROM:<a@example.net>\r\nRCPT TO:<b@example.org>\r\nRCPT TO :<victim@example.org>\r\nBDAT 3 LAST\r\ny\r\n")
    equal([client.reply() for _ in range(3)], ["250 2.1.0 Ok", "250 2.1.5 Ok", no_recipient])
    equal(client.reply()[:3], "250")
    wait_for(lambda: len(primary.messages) == 2)
    equal([(envelope[1:], content.splitlines()[-1]) for envelope, content in primary.messages], [([b"RCPT TO:<b@example.org>"], b"x"), ([b"RCPT TO:<b@example.org>"], b"y")])
    client.send("MAIL\r\n" * 30)
    assert client.rest().endswith("421 4.7.0 holdfast.example.org Error: too many errors\r\n"), "each is an error of the client's"
    route = holdfast.status()["routes"][0]
    equal((route["state"], route["upstreams"][0]["healthy"], holdfast.logged("takeover")), ("pass", True, False))


@test("no client trips a route by being silent, by talk or by guessing recipients, however the primary says that it has had enough")
def _(scene):
    def says_later(session, line):
        def leave():
            with contextlib.suppress(OSError):
                session.connection.sendall(b"421 4.4.2 primary.example.org Error: timeout exceeded\r\n")
                session.close()
        threading.Timer(0.5, leave).start()
        return b"250 2.1.0 Ok\r\n"

    def closes_later(session, line):
        threading.Timer(0.5, session.close).start()
        return b"250 2.1.0 Ok\r\n"

    def has_enough(farewell):
        def rcpt(session, line):
            session.guesses = getattr(session, "guesses", 0) + 1
            return b"550 5.1.1 no such user\r\n" if session.guesses < 2 else farewell
        return rcpt

    guesses = [f"RCPT TO:<{number}@example.org>" for number in range(60)]
    unknown, no_user = "502 5.5.2 Error: command not recognized", "550 5.1.1 no such user"
    for name, replies, clients, commands, last in (
            ("silent, 421", {"MAIL": says_later}, 30, [], "250 2.1.5 Ok"),
            ("silent, closed", {"MAIL": closes_later}, 30, [], "250 2.1.5 Ok"),
            ("talk, closed", {"XYZZY": None}, 1, ["XYZZY"] * 10, unknown),
            ("talk, 421", {"XYZZY": b"421 enough\r\n"}, 30, ["XYZZY"] * 2, "421 enough"),
            ("talk, nonsense", {"XYZZY": b"220 hello\r\n220 hello\r\n"}, 1, ["XYZZY"] * 10, None),
            ("VRFY, closed", {"VRFY": None}, 1, ["VRFY b@example.org"] * 10, "252 2.0.0 Cannot verify now, but will take mail for known recipients"),
            ("guesses, 421", {"RCPT": has_enough(b"421 bye\r\n")}, 1, guesses, no_user),
            ("guesses, closed", {"RCPT": has_enough(None)}, 1, guesses, no_user),
            ("guesses, too many", {"RCPT": has_enough(b"421 Too many bad recipients\r\n")}, 1, guesses[:2], "421 Too many bad recipients")):
        primary = scene.primary(replies=replies)
        holdfast = scene.holdfast(primary, yaml="failover:\n  probe_interval: 1h\n  takeover_after: 2s", journal_path=scene.path(name))
        talkers = [scene.client(holdfast.port) for _ in range(clients)]
        for client in talkers:
            client.ask(HELLO.strip())
            equal(client.ask("MAIL FROM:<a@example.net>"), "250 2.1.0 Ok", name)
        if not commands:
            wait_for(lambda: all(session.connection.fileno() == -1 for session in primary.sessions), what="the primary to have lost its patience")
            primary.replies["MAIL"] = b"250 2.1.0 Ok\r\n"
            commands = ["RCPT TO:<b@example.org>"]
        for client in talkers:
            answers = [client.ask(command) for command in commands]
            equal(last or answers[-1], answers[-1], name)
        route = holdfast.status()["routes"][0]
        equal((route["state"], holdfast.logged("takeover")), ("pass", False), name)
        holdfast.kill()


@test("a primary that sends 100 MB in one line costs neither memory nor an answer")
def _(scene):
    def flood(session, line):
        with contextlib.suppress(OSError):
            for _ in range(1600):
                session.connection.sendall(b"250 " + b"x" * 65532)
        return None
    primary = scene.primary(replies={"MAIL": flood})
    holdfast = scene.holdfast(primary, yaml=PASS)
    client = scene.client(holdfast.port)
    client.ask(HELLO.strip())
    before = holdfast.memory()
    equal(client.ask("MAIL FROM:<a@example.net>"), "421 4.4.2 holdfast.example.org The mail server does not answer, try again later")
    assert holdfast.memory("VmHWM") - before < 4096, (before, holdfast.memory("VmHWM"))


@test("a primary that closes at each step gets the client a temporary answer when nothing may be held, and nothing is acknowledged")
def _(scene):
    for step, verb in enumerate(("greeting", "EHLO", "MAIL", "RCPT", "DATA", "content")):
        primary = scene.primary(replies={verb: None})
        holdfast = scene.holdfast(primary, yaml=PASS)
        client = scene.client(holdfast.port, greeting=False)
        answers = [client.reply()]
        for command in (HELLO, "MAIL FROM:<a@example.net>\r\n", "RCPT TO:<b@example.org>\r\n", "DATA\r\n", "x\r\n.\r\n"):
            if answers[-1].startswith("4"):
                break
            client.send(command)
            answers.append(client.reply())
        equal(len(answers), step + 1, verb)
        assert answers[-1][:3] in ("421", "451"), (verb, answers)
        holdfast.stop()


main()
