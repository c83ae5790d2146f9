"""Nobody can tell: each script is played straight at a real Postfix and through Holdfast, and the transcripts are the same."""
import os
import re
import socket
import sys
from random import Random

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from harness import *

# What may differ: (script, pattern in the straight transcript, what Holdfast says instead, why).
ALLOWED = [
    ("XCLIENT", r"550 5\.7\.0 Error: insufficient authorization", "502 5.5.1 Error: command not implemented", "XCLIENT is Holdfast's own privilege"),
    ("XFORWARD", r"550 5\.7\.0 Error: insufficient authorization", "502 5.5.1 Error: command not implemented", "XFORWARD is Holdfast's own privilege"),
]

BODY = "Subject: x\r\n\r\nhello\r\n.\r\n"
HELLO, FROM, TO = "EHLO client.example.net", "MAIL FROM:<a@example.net>", "RCPT TO:<b@example.org>"

# A script is a list of steps: a text is sent with CRLF and answered by one reply; (text, n) is sent raw and answered by n replies.
SCRIPTS = {
    "a plain message": [HELLO, FROM, TO, "DATA", (BODY, 1), "QUIT"],
    "HELO": ["HELO client.example.net", FROM, TO, "DATA", (BODY, 1), "QUIT"],
    "lower case": ["ehlo client.example.net", "mail from:<a@example.net>", "rcpt to:<b@example.org>", "data", (BODY, 1), "quit"],
    "blanks after the colon": [HELLO, "MAIL FROM: <a@example.net>", "RCPT TO: <b@example.org>", "QUIT"],
    "no angle brackets": [HELLO, "MAIL FROM:a@example.net", "RCPT TO:b@example.org", "QUIT"],
    "the null sender": [HELLO, "MAIL FROM:<>", TO, "DATA", (BODY, 1), "QUIT"],
    "several recipients": [HELLO, FROM, TO, "RCPT TO:<c@example.org>", "RCPT TO:<d@example.org>", "DATA", (BODY, 1), "QUIT"],
    "an unknown recipient": [HELLO, FROM, "RCPT TO:<nobody@example.org>", "DATA", "QUIT"],
    "one known and one unknown": [HELLO, FROM, TO, "RCPT TO:<nobody@example.org>", "DATA", (BODY, 1), "QUIT"],
    "relaying elsewhere": [HELLO, FROM, "RCPT TO:<x@elsewhere.example.com>", "QUIT"],
    "pipelined": [(f"{HELLO}\r\n", 1), (f"{FROM}\r\n{TO}\r\nDATA\r\n", 3), (BODY, 1), "QUIT"],
    "pipelined with an unknown recipient": [HELLO, (f"{FROM}\r\nRCPT TO:<nobody@example.org>\r\n{TO}\r\nDATA\r\n", 4), (BODY, 1), "QUIT"],
    "pipelined with no good recipient": [HELLO, (f"{FROM}\r\nRCPT TO:<nobody@example.org>\r\nDATA\r\n", 3), "QUIT"],
    "pipelined to the end": [HELLO, (f"{FROM}\r\n{TO}\r\nRSET\r\nNOOP\r\nQUIT\r\n", 5)],
    "content and the next message in one write": [HELLO, (f"{FROM}\r\n{TO}\r\nDATA\r\n", 3), (BODY + f"{FROM}\r\n{TO}\r\nDATA\r\n", 4), (BODY + "QUIT\r\n", 2)],
    "two messages": [HELLO, FROM, TO, "DATA", (BODY, 1), FROM, TO, "DATA", (BODY, 1), "QUIT"],
    "RSET in the middle": [HELLO, FROM, TO, "RSET", FROM, TO, "DATA", (BODY, 1), "QUIT"],
    "EHLO in the middle": [HELLO, FROM, TO, HELLO, "DATA", FROM, "QUIT"],
    "EHLO twice": [HELLO, "EHLO other.example.net", "QUIT"],
    "NOOP": [HELLO, "NOOP", "NOOP with words", "QUIT"],
    "VRFY": [HELLO, "VRFY b@example.org", "VRFY nobody@example.org", "VRFY", "QUIT"],
    "EXPN": [HELLO, "EXPN staff", "QUIT"],
    "HELP": [HELLO, "HELP", "HELP MAIL", "QUIT"],
    "ETRN": [HELLO, "ETRN example.org", "ETRN", "QUIT"],
    "an unknown command": [HELLO, "JUMP up", "QUIT"],
    "an empty line": [HELLO, "", "QUIT"],
    "what Postfix hangs up on": [HELLO, "GET / HTTP/1.0"],
    "what Postfix hangs up on, pipelined": [HELLO, (f"{FROM}\r\nSubject: x\r\n{TO}\r\nNOOP\r\n", 2)],
    "commands before EHLO": ["NOOP", "RSET", FROM, "QUIT"],
    "MAIL twice": [HELLO, FROM, FROM, "QUIT"],
    "RCPT first": [HELLO, TO, "QUIT"],
    "DATA first": [HELLO, "DATA", "QUIT"],
    "DATA without RCPT": [HELLO, FROM, "DATA", "QUIT"],
    "no sender": [HELLO, "MAIL", "MAIL FROM", "QUIT"],
    "EHLO without a name": ["EHLO", "HELO", "QUIT"],
    "SIZE": [HELLO, "MAIL FROM:<a@example.net> SIZE=1000", TO, "QUIT"],
    "too large a SIZE": [HELLO, "MAIL FROM:<a@example.net> SIZE=60000000", "QUIT"],
    "BODY": [HELLO, "MAIL FROM:<a@example.net> BODY=8BITMIME", TO, "DATA", ("Subject: 8\r\n\r\n\u00fc\r\n.\r\n", 1), "QUIT"],
    "SMTPUTF8": [HELLO, "MAIL FROM:<j\u00fcrgen@example.net> SMTPUTF8", "RCPT TO:<m\u00fcller@example.org>", "DATA", (BODY, 1), "QUIT"],
    "DSN parameters": [HELLO, "MAIL FROM:<a@example.net> RET=HDRS ENVID=QQ314159", "RCPT TO:<b@example.org> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;b@example.org", "QUIT"],
    "bad DSN parameters": [HELLO, "MAIL FROM:<a@example.net> RET=MAYBE", FROM, "RCPT TO:<b@example.org> NOTIFY=SOMETIMES", "QUIT"],
    "an unknown parameter": [HELLO, "MAIL FROM:<a@example.net> FOO=BAR", FROM, "RCPT TO:<b@example.org> FOO", "QUIT"],
    "AUTH where it is not offered": [HELLO, "AUTH PLAIN AGEAYgBj", "QUIT"],
    "BDAT": [HELLO, FROM, TO, ("BDAT 21 LAST\r\nSubject: x\r\n\r\nhello\r\n", 1), "QUIT"],
    "BDAT in chunks": [HELLO, FROM, TO, ("BDAT 14\r\nSubject: x\r\n\r\n", 1), ("BDAT 7\r\nhello\r\n", 1), ("BDAT 0 LAST\r\n", 1), "QUIT"],
    "BDAT without a recipient": [HELLO, FROM, ("BDAT 7 LAST\r\nhello\r\n", 1), "QUIT"],
    "BDAT and then DATA": [HELLO, FROM, TO, ("BDAT 14\r\nSubject: x\r\n\r\n", 1), "DATA", "RSET", "QUIT"],
    "a quoted address": [HELLO, "MAIL FROM:<\"a b\"@example.net>", "RCPT TO:<\"b c\"@example.org>", "QUIT"],
    "an address literal": [HELLO, "MAIL FROM:<a@[192.0.2.1]>", TO, "QUIT"],
    "a bad address": [HELLO, "MAIL FROM:<a@example.net", FROM, "RCPT TO:<b@example.org", "QUIT"],
    "a source route": [HELLO, "MAIL FROM:<@relay.example.net,@other.example.net:a@example.net>", "RCPT TO:<@relay.example.net:b@example.org>", "DATA", (BODY, 1), "QUIT"],
    "bare dots": [HELLO, FROM, TO, "DATA", ("Subject: x\r\n\r\n..\r\n...\r\n.x\r\n.\r\n", 1), "QUIT"],
    "an empty message": [HELLO, FROM, TO, "DATA", (".\r\n", 1), "QUIT"],
    "XCLIENT": [HELLO, "XCLIENT ADDR=192.0.2.1", "QUIT"],
    "XFORWARD": [HELLO, "XFORWARD NAME=x", "QUIT"],
    "STARTTLS where it is not offered": [HELLO, "STARTTLS", "QUIT"],
}


def play(scene, port, script):
    """The replies, with what differs by nature made the same."""
    client = scene.client(port)
    transcript = [client.greeting]
    for step in script:
        text, count = step if isinstance(step, tuple) else (step + "\r\n", 1)
        client.send(text)
        transcript += [client.reply() for _ in range(count)]
    transcript.append(client.rest())
    return [re.sub(r"queued as \w+", "queued as ID", reply) for reply in transcript]


@test(f"{len(SCRIPTS)} scripts give the same transcript through Holdfast as straight, byte for byte")
def _(scene):
    assert len(SCRIPTS) >= 40
    postfix = scene.postfix("smtpd_client_connection_count_limit = 0", "smtpd_error_sleep_time = 0")
    holdfast = scene.holdfast(postfix)
    used = set()
    # Twice: with a new connection to the primary, and with connections that are reused.
    for turn in ("first", "second"):
        for name, script in SCRIPTS.items():
            straight, through = play(scene, postfix.port, script), play(scene, holdfast.port, script)
            for position, reply in enumerate(straight):
                for row in ALLOWED:
                    if row[0] == name and re.fullmatch(row[1], reply) and through[position] == row[2]:
                        straight[position] = row[2]
                        used.add(row[0])
            equal(through, straight, f"{name}, {turn} time")
    equal(used, {row[0] for row in ALLOWED}, "rows of the table that were needed")
    assert "all is well" in holdfast.run("journal", "verify").stdout


# Of these, random scripts are made. What Holdfast refuses itself (04-hostile) is not among them.
MAILS = ["MAIL FROM:<a@example.net>", "MAIL FROM:<>", "mail from: a@example.net", "MAIL  FROM:<a@[192.0.2.1]>", "MAIL FROM :<a@example.net>", "MAIL",
         "MAIL TO:<a@example.net>", "MAIL FROM:<@r.example:a@example.net>", 'MAIL FROM:<"a b"@example.net>', "MAIL FROM:<a..a@example.net>"]
RCPTS = [TO, TO, "RCPT TO:<c@example.org>", "RCPT TO:<nobody@example.org>", "RCPT TO:<x@elsewhere.example.com>", "rcpt to: b@example.org", "RCPT", "RCPT TO",
         "RCPT TO:<postmaster>", "RCPT TO:<b+x@example.org>", "RCPT TO:<b@EXAMPLE.org>", "RCPT TO:<|cmd@example.org>", f"RCPT TO:<{'l' * 70}@example.org>"]
PARAMETERS = ["", "", "", " SIZE=100", " SIZE=", " SIZE=abc", " SIZE=99999999999999999999", " BODY=8BITMIME", " BODY=x", " RET=HDRS ENVID=abc", " ENVID=", " ORCPT=x",
              " NOTIFY=SUCCESS,DELAY", " NOTIFY=NEVER,SUCCESS", " ORCPT=rfc822;b@example.org", " SIZE=1 SIZE=2", "  SIZE=100  "]
OTHERS = [HELLO, "EHLO", "ehlo  [127.0.0.1] ", "HELO client.example.net", "HELO a b", "RSET", "RSET x", "NOOP", "NOOP " + "y" * 400, "VRFY b", "VRFY", "EXPN x", "HELP",
          "ETRN", "AUTH PLAIN AGEAYgBj", "STARTTLS", "JUMP", "QUITX", "", "  ", "SEND FROM:<a@example.net>"]
LINES = ["hello\r\n", "x y\r\n", "\r\n", "..\r\n", ".x\r\n"]


def random_script(random):
    """Commands and contents, one after the other; what is content when DATA is accepted, is commands when it is not."""
    script = HELLO + "\r\n" if random.random() < 0.85 else ""
    for _ in range(random.randint(2, 14)):
        kind = random.random()
        body = "".join(random.choices(LINES, k=random.randint(0, 6)))
        if kind < 0.1:
            script += "\r\n".join(["RSET", FROM, TO, "DATA", body + ".\r\n"])
        elif kind < 0.2:
            script += random.choice(MAILS) + random.choice(PARAMETERS) + "\r\n"
        elif kind < 0.5:
            script += random.choice(RCPTS) + random.choice(PARAMETERS) + "\r\n"
        elif kind < 0.65:
            script += "DATA\r\n" + body + ".\r\n"
        elif kind < 0.8:
            script += f"BDAT {len(body)}{random.choice(['', ' LAST', ' last'])}\r\n{body}"
        else:
            script += random.choice(OTHERS) + "\r\n"
    return script + random.choice(["QUIT\r\n", ""])


def answers(scene, port, script, random):
    """All that comes back when it is sent in pieces, without waiting for anything."""
    client = scene.client(port)
    while script:
        size = random.choice([1, 3, 17, 100, 1000, 10000])
        try:
            client.send(script[:size])
        except ConnectionError:
            break
        script = script[size:]
    with contextlib.suppress(OSError):
        client.socket.shutdown(socket.SHUT_WR)
    return re.sub(r"queued as \w+", "queued as ID", client.greeting + "\n" + client.rest())


@test("500 random scripts, pipelined and in random pieces, give the same answers through Holdfast as straight")
def _(scene):
    postfix = scene.postfix("smtpd_client_connection_count_limit = 0", "smtpd_error_sleep_time = 0")
    holdfast = scene.holdfast(postfix)
    random = Random(6)
    for number in range(500):
        script = random_script(random)
        straight, through = (answers(scene, port, script, random) for port in (postfix.port, holdfast.port))
        equal(through, straight, f"script {number}: {script!r}")
    assert len(holdfast.entries()) > 20, "messages that passed"
    assert "all is well" in holdfast.run("journal", "verify").stdout


@test("what came in one write goes out in one write")
def _(scene):
    primary = scene.primary()
    holdfast = scene.holdfast(primary)
    client = scene.client(holdfast.port)
    client.ask(HELLO)
    batch = f"{FROM}\r\n{TO}\r\nRCPT TO:<c@example.org>\r\nDATA\r\n"
    client.send(batch)
    equal([client.reply()[:3] for _ in range(4)], ["250", "250", "250", "354"])
    assert batch.encode() in primary.sessions[-1].reads, primary.sessions[-1].reads


@test("a primary that does not offer PIPELINING gets one command at a time, also from a client that pipelines")
def _(scene):
    primary = scene.primary(replies={"EHLO": b"250 primary.example.org\r\n"})
    holdfast = scene.holdfast(primary)
    client = scene.client(holdfast.port)
    equal(client.ask(HELLO), "250 primary.example.org")
    client.send(f"{FROM}\r\n{TO}\r\nDATA\r\n")
    equal([client.reply()[:3] for _ in range(3)], ["250", "250", "354"])
    assert all(read.count(b"\r\n") == 1 for read in primary.sessions[-1].reads), primary.sessions[-1].reads


@test("AUTH passes through on a submission listener, and its lines are not logged")
def _(scene):
    def auth(session, line):
        if line == b"AUTH LOGIN":
            session.connection.sendall(b"334 VXNlcm5hbWU6\r\n")
            equal(session.line(), b"YWxpY2U=")
            session.connection.sendall(b"334 UGFzc3dvcmQ6\r\n")
            equal(session.line(), b"c2VjcmV0")
        return b"235 2.7.0 Authentication successful\r\n"
    primary = scene.primary(replies={"AUTH": auth, "EHLO": b"250-primary\r\n250 AUTH LOGIN PLAIN\r\n"})
    holdfast = scene.holdfast(primary, listener="role: submission")
    client = scene.client(holdfast.port)
    equal(client.ask(HELLO), "250-primary\r\n250 AUTH LOGIN PLAIN")
    equal(client.ask("AUTH LOGIN"), "334 VXNlcm5hbWU6")
    equal(client.ask("YWxpY2U="), "334 UGFzc3dvcmQ6")
    equal(client.ask("c2VjcmV0"), "235 2.7.0 Authentication successful")
    equal(client.send_mail(helo=None), "250 2.0.0 Ok: taken")
    equal(client.ask("QUIT"), "221 2.0.0 Bye")
    equal(holdfast.entries()[0]["direction"], "outbound")
    holdfast.stop()
    assert not holdfast.logged("c2VjcmV0") and not holdfast.logged("YWxpY2U=")
    # The connection was one person's: the next client gets its own.
    equal(len(primary.sessions), 1)


@test("replies that come late, in pieces and in many lines are passed as they are")
def _(scene):
    def slow(session, line):
        for byte in b"250-first\r\n250-\r\n250 2.1.0 last line\r\n":
            session.connection.sendall(bytes([byte]))
        return b""
    primary = scene.primary(replies={"MAIL": slow})
    client = scene.client(scene.holdfast(primary).port)
    client.ask(HELLO)
    equal(client.ask(FROM), "250-first\r\n250-\r\n250 2.1.0 last line")


@test("a 421 that the primary repeats is the client's 421, at any time")
def _(scene):
    farewell = b"421 4.3.2 primary.example.org shutting down\r\n"
    for verb, steps in (("EHLO", [HELLO]), ("MAIL", [HELLO, FROM]), ("RCPT", [HELLO, FROM, TO]), ("DATA", [HELLO, FROM, TO, "DATA"])):
        primary = scene.primary(replies={verb: farewell})
        client = scene.client(scene.holdfast(primary).port)
        for step in steps[:-1]:
            client.ask(step)
        equal(client.ask(steps[-1]), farewell.decode().rstrip(), verb)
        equal(client.rest(), "", verb)
        equal(len([line for line in primary.lines() if line.startswith(verb.encode())]), 2, "it was asked once more, on a fresh connection")


@test("a 421 that nobody asked for ends the primary's connection, not the client's")
def _(scene):
    primary = scene.primary()
    client = scene.client(scene.holdfast(primary).port)
    client.ask(HELLO)
    primary.sessions[-1].connection.sendall(b"421 4.4.2 primary.example.org timeout exceeded\r\n")
    primary.sessions[-1].close()
    equal(client.send_mail(helo=None), "250 2.0.0 Ok: taken")
    equal(len(primary.sessions), 2)


main()
