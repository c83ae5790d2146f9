"""While the primary is away each command has an answer of Holdfast's own; and what seldom happens as it goes: in the middle of chunks, or of a login."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from harness import *

HELLO, FROM, TO = "EHLO client.example.net", "MAIL FROM:<a@example.net>", "RCPT TO:<b@example.org>"


def held(scene, **options):
    """A Holdfast that knows b@example.org and whose route is on hold."""
    primary = scene.primary()
    holdfast = scene.holdfast(primary, **options)
    assert scene.client(holdfast.port).send_mail().startswith("250")
    holdfast.run("failover", "hold", "--reason", "test")
    return holdfast


@test("in a hold every command is answered, in and out of a transaction; who says HELO can send")
def _(scene):
    holdfast = held(scene)
    client = scene.client(holdfast.port)
    assert client.greeting.startswith("220 holdfast.example.org"), client.greeting
    for command, expected in ((HELLO, "250-holdfast.example.org"), ("NOOP", "250 2.0.0 Ok"), ("HELP", "214 2.0.0 "), ("VRFY b@example.org", "252 2.0.0 "),
                              ("EXPN staff", "502 5.5.2 "), ("ETRN example.org", "458 4.3.0 "), ("JUMP up", "502 5.5.2 "), ("RSET", "250 2.0.0 Ok"),
                              (TO, "503 5.5.1 "), ("DATA", "503 5.5.1 "), (FROM, "250 2.1.0 "), (FROM, "503 5.5.1 "), ("DATA", "503 5.5.1 "),
                              ("RCPT TO:<stranger@example.org>", "450 4.2.1 "), ("DATA", "554 5.5.1 "), (TO, "250 2.1.5 "), ("VRFY b@example.org", "252 2.0.0 "),
                              ("DATA", "354 "), ("Subject: x\r\n\r\nhello\r\n.", "250 2.0.0 Ok: queued as "), ("DATA", "503 5.5.1 "),
                              ("HELO client.example.net", "250 holdfast.example.org"), (FROM, "250 "), (TO, "250 "), ("DATA", "354 "),
                              ("Subject: y\r\n\r\nhello\r\n.", "250 2.0.0 Ok: queued as "), ("QUIT", "221 2.0.0 ")):
        reply = client.ask(command)
        assert reply.startswith(expected), (command, reply)
    equal([[one["outcome"] for one in entry["recipients"]] for entry in holdfast.entries()], [["forwarded"], ["deferred", "held"], ["held"]])


@test("in a hold nothing is taken that the primary would refuse later for how it is written")
def _(scene):
    holdfast = held(scene, route="unknown_recipients: accept")
    client = scene.client(holdfast.port)
    client.ask(HELLO)
    for command, expected in (("MAIL", "501 5.5.4 Syntax: MAIL FROM:<address>"), ("MAIL FROM <a@example.net>", "501 5.5.4 Syntax: MAIL FROM:<address>"),
                              (FROM + " SIZE=much", "501 5.5.4 Error: bad parameter: SIZE=much"), (FROM + " BODY=9BIT", "501 5.5.4 Error: bad parameter: BODY=9BIT"),
                              (FROM + " RET=SOME", "501 5.5.4 Error: bad parameter: RET=SOME"), (FROM + " NOTIFY=NEVER", "501 5.5.4 Error: bad parameter: NOTIFY=NEVER"),
                              ("MAIL FROM:<a@example..net>", "501 5.1.7 Bad sender address syntax"), ("MAIL FROM:<a@-example.net>", "501 5.1.7 "),
                              (FROM + " SIZE=100 BODY=8bitmime SMTPUTF8 RET=HDRS ENVID=x", "250 2.1.0 "),
                              ("RCPT", "501 5.5.4 Syntax: RCPT TO:<address>"), ("RCPT TO:<>", "501 5.1.3 Bad recipient address syntax"),
                              ("RCPT TO:<b@.example.org>", "501 5.1.3 Bad recipient address syntax"), ("RCPT TO:<b.@example.org>", "250 2.1.5 "),
                              (TO + " SIZE=100", "501 5.5.4 Error: bad parameter: SIZE=100"), (TO + " ORCPT=b@example.org", "501 5.5.4 Error: bad parameter: ORCPT=b@example.org"),
                              (TO + " NOTIFY=NEVER,DELAY", "501 5.5.4 Error: bad parameter: NOTIFY=NEVER,DELAY"),
                              (TO + " NOTIFY=success,failure,DELAY ORCPT=rfc822;b+tag@example.org", "250 2.1.5 ")):
        equal((command, client.ask(command)[:len(expected)]), (command, expected))


@test("a route that is configured to hold holds from its first start on, and says that the configuration has it so")
def _(scene):
    holdfast = scene.holdfast(scene.primary(), yaml="failover:\n  mode: hold\ndirectory:\n  catch_all: [example.org]")
    route = holdfast.status()["routes"][0]
    equal([route[key] for key in ("state", "mode", "by", "reason")], ["hold", "hold", "configuration", "failover.mode"])
    assert scene.client(holdfast.port).send_mail().startswith("250 2.0.0 Ok: queued as ")


@test("unknown_recipients: reject refuses whom nobody knows, and takes whom somebody does")
def _(scene):
    holdfast = held(scene, route="unknown_recipients: reject")
    client = scene.client(holdfast.port)
    client.ask(HELLO)
    client.ask(FROM)
    assert client.ask("RCPT TO:<stranger@example.org>").startswith("550 5.1.1 ")
    assert client.ask(TO).startswith("250")


@test("a series of chunks goes on without its primary, or is given up: NOOP and RSET may come in it, other commands not")
def _(scene):
    for end in ("LAST", "RSET", HELLO, "QUIT"):
        primary = scene.primary()
        holdfast = scene.holdfast(primary)
        client = scene.client(holdfast.port)
        for command in (HELLO, FROM, TO):
            assert client.ask(command).startswith("250")
        client.send("BDAT 14\r\nSubject: x\r\n\r\n")
        assert client.reply().startswith("250")
        primary.stop()
        wait_for(lambda: holdfast.status()["routes"][0]["upstreams"][0]["last_error"], what="the loss to be noticed")
        equal(client.ask("NOOP"), "250 2.0.0 Ok")
        assert client.ask(FROM).startswith("503 5.5.1 "), end
        assert client.ask("DATA").startswith("503 5.5.1 "), end
        client.send("BDAT 6\r\nhello\n" if end == "RSET" else "BDAT 7\r\nhello\r\n")
        reply = client.reply()
        if end == "RSET":
            assert reply.startswith("521"), reply  # a bare line feed is refused here as it is everywhere
            holdfast.stop()
            continue
        assert reply.startswith("250"), (end, reply)
        if end == "LAST":
            client.send("BDAT 0 LAST\r\n")
            assert client.reply().startswith("250 2.0.0 Ok: queued as "), end
            equal(holdfast.content(holdfast.entries()[0]["id"]), b"Subject: x\r\n\r\nhello\r\n")
        else:
            assert client.ask(end).startswith("221" if end == "QUIT" else "250"), end
            equal(holdfast.entries(), [], end)
        if end == HELLO:
            for command in (FROM, TO):
                assert client.ask(command).startswith("250")
        client.close()
        holdfast.stop()


@test("RSET gives up a series of chunks whose primary is away, and the next message is taken")
def _(scene):
    primary = scene.primary()
    holdfast = scene.holdfast(primary)
    client = scene.client(holdfast.port)
    for command in (HELLO, FROM, TO, "BDAT 14\r\nSubject: x\r\n"):
        assert client.ask(command).startswith("250")
    primary.stop()
    wait_for(lambda: holdfast.status()["routes"][0]["upstreams"][0]["last_error"], what="the loss to be noticed")
    assert client.ask("RSET").startswith("250")
    for command in (FROM, TO, "BDAT 14 LAST\r\nSubject: y\r\n"):
        assert client.ask(command).startswith("250"), command
    [entry] = holdfast.entries()
    equal((entry["subject"], entry["recipients"][0]["outcome"]), ("y", "held"))


@test("421 on a connection on which nothing goes on is nobody's: the client goes on, on another")
def _(scene):
    primary = scene.primary()
    holdfast = scene.holdfast(primary, yaml="threads: 1")
    client, other = scene.client(holdfast.port), scene.client(holdfast.port)
    client.ask(HELLO)
    mine, = [session for session in primary.sessions if any(line.startswith(b"EHLO") for line in session.lines)]
    mine.connection.sendall(b"421 4.4.2 primary.example.org Error: timeout exceeded\r\n")
    mine.close()
    other.ask("NOOP")  # the one loop has seen it by now
    assert client.send_mail(helo=None).startswith("250 2.0.0 Ok: taken")
    equal(len(primary.messages), 1)
    assert not holdfast.status()["routes"][0]["upstreams"][0]["last_error"]


@test("a primary that answers DATA with 250 is not believed: the message goes over another connection, or is held")
def _(scene):
    second, first = scene.primary(), scene.primary(replies={"DATA": b"250 2.0.0 Ok\r\n"})
    holdfast = scene.holdfast(None, upstreams=[f"127.0.0.1:{first.port}", f"127.0.0.1:{second.port}"], yaml="failover:\n  probe_interval: 1h\n  takeover_after: 2s\n")
    assert scene.client(holdfast.port).send_mail().startswith("250 2.0.0 Ok: taken")
    equal((len(first.messages), len(second.messages)), (0, 1))
    second.stop()
    assert scene.client(holdfast.port).send_mail().startswith("250 2.0.0 Ok: queued as ")
    equal([one["recipients"][0]["outcome"] for one in holdfast.entries()], ["forwarded", "held"])
    equal(first.messages, [])


@test("a client that takes its time between commands goes to the next address, whatever the first one fails at; the route stays as it is")
def _(scene):
    for step in ("EHLO", "NOOP", "RSET", "MAIL", "RCPT", "DATA", "content", "BDAT"):
        second, first = scene.primary(), scene.primary(replies={step: None})
        holdfast = scene.holdfast(None, upstreams=[f"127.0.0.1:{first.port}", f"127.0.0.1:{second.port}"], yaml="failover:\n  probe_interval: 1h\n  takeover_after: 100ms\n")
        client = scene.client(holdfast.port)
        content = ["BDAT 14\r\nSubject: x\r\n", "BDAT 14 LAST\r\nSubject: y\r\n"] if step == "BDAT" else ["DATA", "Subject: x\r\n\r\nhello\r\n."]
        for command in (HELLO, "NOOP", "RSET", FROM, TO, *content):
            time.sleep(0.15)  # longer than takeover_after
            reply = client.ask(command)
            assert reply.startswith(("250", "354")), (step, command, reply)
        assert reply.startswith("250 2.0.0 Ok") and "queued" not in reply, (step, reply)
        equal((holdfast.status()["routes"][0]["state"], len(second.messages)), ("pass", 1), step)
        client.close()
        holdfast.stop()


@test("the next address knows fewer extensions than the one that greeted the client: it gets the commands without them, and the client no error")
def _(scene):
    def plain(session, line):
        return b"250 Ok\r\n" if line.endswith(b">") else b"555 5.5.4 Unsupported option\r\n"
    for step in ("NOOP", "MAIL", "RCPT", "DATA", "content"):
        second = scene.primary(replies={"EHLO": b"250-second.example.org\r\n250 PIPELINING\r\n", "MAIL": plain, "RCPT": plain})
        first = scene.primary(replies={step: None})
        holdfast = scene.holdfast(None, upstreams=[f"127.0.0.1:{first.port}", f"127.0.0.1:{second.port}"], yaml="failover:\n  probe_interval: 1h\n")
        client = scene.client(holdfast.port)
        for command in (HELLO, "NOOP", FROM + " SIZE=100 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=x", TO + " NOTIFY=NEVER ORCPT=rfc822;b@example.org", "DATA", "Subject: x\r\n\r\nhello\r\n."):
            reply = client.ask(command)
            assert reply.startswith(("250", "354")), (step, command, reply)
        equal((holdfast.status()["routes"][0]["state"], [envelope for envelope, _ in second.messages]), ("pass", [[FROM.encode(), TO.encode()]]), step)
        equal(client.ask(FROM + " FOO=1"), "555 5.5.4 Unsupported option: FOO=1")
        client.close()
        holdfast.stop()


@test("a primary that dies in the middle of a message and comes back with trouble of its own has not refused it: the message is held, and delivered")
def _(scene):
    for verb, trouble in (("greeting", b"421 4.3.2 Starting up\r\n"), ("greeting", b"554 5.3.2 Not yet\r\n"), ("EHLO", b"451 4.3.0 Not yet\r\n"), ("MAIL", b"451 4.3.0 Not yet\r\n")):
        primary = scene.primary()
        well = dict(primary.replies)

        def die(session, line):
            primary.replies.update({"DATA": well["DATA"], verb: trouble})

        holdfast = scene.holdfast(primary, yaml="failover:\n  takeover_after: 1s\n  probe_interval: 100ms\n  release_after: 100ms\n  retry_min: 100ms")
        client = scene.client(holdfast.port)
        assert client.send_mail().startswith("250")
        primary.replies["DATA"] = die
        reply = client.send_mail(helo=None)
        assert reply.startswith("250 2.0.0 Ok: queued as "), (verb, trouble, reply)
        primary.replies.update(well)
        wait_for(lambda: outcomes(holdfast) == [["forwarded"], ["delivered"]], what=f"the delivery after {trouble} to {verb}")
        equal(len(primary.messages), 2)
        client.close()
        holdfast.stop()


@test("what was pipelined to an address that died is asked one at a time of one that does not pipeline")
def _(scene):
    for step in ("MAIL", "RCPT", "DATA"):
        second, first = scene.primary(replies={"EHLO": b"250 second.example.org\r\n"}), scene.primary(replies={step: None})
        holdfast = scene.holdfast(None, upstreams=[f"127.0.0.1:{first.port}", f"127.0.0.1:{second.port}"], yaml="failover:\n  probe_interval: 1h\n")
        client = scene.client(holdfast.port)
        client.ask(HELLO)
        client.send("\r\n".join((FROM, TO, TO, "DATA", "")))
        equal([client.reply()[:3] for _ in range(4)], ["250", "250", "250", "354"], step)
        equal(client.ask("Subject: x\r\n\r\nhello\r\n."), "250 2.0.0 Ok: taken", step)
        commands = [read for session in second.sessions for read in session.reads if not read.startswith(b"Subject")]
        assert all(read.count(b"\r\n") == 1 for read in commands), (step, commands)
        equal(holdfast.status()["routes"][0]["state"], "pass")
        client.close()
        holdfast.stop()


def refusing_second(scene, content):
    """An address that dies when it is to have the content, and one that takes its place and does not know all recipients."""
    second = scene.primary(replies={"RCPT": lambda session, line: b"550 5.1.1 Unknown\r\n" if b"<c@" in line else b"250 2.1.5 Ok\r\n", "content": content})
    first = scene.primary(replies={"DATA": None})
    holdfast = scene.holdfast(upstreams=[f"127.0.0.1:{first.port}", f"127.0.0.1:{second.port}"], yaml="failover:\n  probe_interval: 100ms\n")
    client = scene.client(holdfast.port)
    for command in (HELLO, FROM, TO, "RCPT TO:<c@example.org>"):
        assert client.ask(command).startswith("250")
    equal(client.ask("DATA")[:3], "354")
    client.send("Subject: x\r\n\r\nhello\r\n.\r\n")
    return holdfast, client, second


def outcomes(holdfast):
    return [[one["outcome"] for one in entry["recipients"]] for entry in holdfast.entries()]


@test("a recipient that only the address before had accepted: the message is held for it, if the next takes the message")
def _(scene):
    holdfast, client, second = refusing_second(scene, b"250 2.0.0 Ok: taken\r\n")
    equal(client.reply(), "250 2.0.0 Ok: taken")
    wait_for(lambda: outcomes(holdfast) == [["forwarded", "held"]] and holdfast.status()["routes"][0]["held"] == 1, what="the hold")
    second.replies["RCPT"] = b"250 2.1.5 Ok\r\n"
    holdfast.run("queue", "retry", str(holdfast.entries()[0]["id"]), check=False)  # or it has gone by itself
    wait_for(lambda: outcomes(holdfast) == [["forwarded", "delivered"]], what="the delivery")
    equal([envelope[1:] for envelope, _ in second.messages], [[TO.encode()], [b"RCPT TO:<c@example.org>"]])


@test("an address that greets and hangs up at every message does not get held mail again and again, however often it is probed: the next does")
def _(scene):
    second, first = scene.primary(), scene.primary(replies={"DATA": None})
    holdfast = scene.holdfast(upstreams=[f"127.0.0.1:{first.port}", f"127.0.0.1:{second.port}"], route="unknown_recipients: accept",
                              yaml="failover:\n  mode: hold\n  probe_interval: 10ms\n")
    for _ in range(5):
        assert scene.client(holdfast.port).send_mail().startswith("250")
    holdfast.run("failover", "auto", "--reason", "test")
    wait_for(lambda: len(second.messages) == 5, what="the deliveries")
    assert sum(read.startswith(b"DATA") for session in first.sessions for read in session.reads) < 5, "messages that began at the first address"


@test("and for nobody if the next refuses the message, or Holdfast dies before its answer: the client comes again")
def _(scene):
    for code, expected in (("452 4.2.2 Full", "deferred"), ("550 5.7.1 No", "rejected")):
        holdfast, client, second = refusing_second(scene, f"{code}\r\n".encode())
        equal(client.reply(), code)
        wait_for(lambda: outcomes(holdfast) == [[expected] * 2], what="the outcome")
        client.close()
        holdfast.stop()
        second.replies.update({"RCPT": b"250 2.1.5 Ok\r\n", "content": b"250 2.0.0 Ok\r\n"})
        holdfast.start()
        equal((holdfast.status()["routes"][0]["held"], len(second.messages)), (0, 1))
    is_asked = threading.Event()
    holdfast, client, second = refusing_second(scene, lambda session, line: is_asked.set() or b"")
    is_asked.wait(20)
    holdfast.kill()
    second.replies.update({"RCPT": b"250 2.1.5 Ok\r\n", "content": b"250 2.0.0 Ok\r\n"})
    holdfast.start()
    equal((outcomes(holdfast), holdfast.status()["routes"][0]["held"], len(second.messages)), ([["abandoned"] * 2], 0, 1))


@test("a refusal by another route's primary is no trouble of this one: when an address of it fails later, the next serves")
def _(scene):
    second, first, other = scene.primary(), scene.primary(replies={"RCPT": None}), scene.primary(replies={"greeting": b"554 5.7.1 No service for you\r\n"})
    holdfast = scene.holdfast(None, upstreams=[f"127.0.0.1:{first.port}", f"127.0.0.1:{second.port}"], yaml="failover:\n  probe_interval: 1h\n  takeover_after: 100ms\n",
                              routes=f'- name: other\n  domains: ["example.com"]\n  upstreams: ["127.0.0.1:{other.port}"]')
    client = scene.client(holdfast.port)
    for command, expected in ((HELLO, "250"), (FROM, "250"), ("RCPT TO:<x@example.com>", "554 5.7.1")):
        reply = client.ask(command)
        assert reply.startswith(expected), (command, reply)
    time.sleep(0.5)
    assert client.ask(TO).startswith("250 2.1.5 Ok"), "the second address's answer"
    equal((holdfast.status()["routes"][0]["state"], len(second.sessions) > 0), ("pass", True))


def login_primary(scene, **more):
    """Asks twice before it lets somebody in."""
    return scene.primary(replies={"EHLO": b"250-primary.example.org\r\n250-AUTH LOGIN\r\n250 ENHANCEDSTATUSCODES\r\n", "AUTH": b"334 VXNlcm5hbWU6\r\n",
                                  "DXNLCG==": b"334 UGFzc3dvcmQ6\r\n", "C2VJCMV0": b"235 2.7.0 Welcome\r\n", **more})


@test("a login in several steps passes to the primary; nothing of it stays on record but how")
def _(scene):
    primary = login_primary(scene)
    holdfast = scene.holdfast(primary, listener="role: submission")
    client = scene.client(holdfast.port)
    assert "AUTH LOGIN" in client.ask(HELLO)
    for line, expected in (("AUTH LOGIN", "334 VXNlcm5hbWU6"), ("dXNlcg==", "334 UGFzc3dvcmQ6"), ("c2VjcmV0", "235 2.7.0 Welcome")):
        equal(client.ask(line), expected)
    assert client.send_mail(helo=None).startswith("250")
    shown = json.loads(holdfast.run("journal", "show", str(holdfast.entries()[0]["id"]), "--json").stdout)
    equal((shown["auth"], shown["direction"]), ("LOGIN", "outbound"))
    assert "c2VjcmV0" not in open(holdfast.log).read()


@test("who was connected before the hold and logs in now is told to try again, as only the primary knows his password")
def _(scene):
    holdfast = scene.holdfast(login_primary(scene), listener="role: submission")
    client = scene.client(holdfast.port)
    client.ask(HELLO)
    holdfast.run("failover", "hold", "--reason", "test")
    equal(client.ask("AUTH LOGIN dXNlcg=="), "454 4.7.0 Temporary authentication failure")
    equal(client.ask("NOOP")[:3], "250")
    holdfast.run("failover", "auto", "--reason", "test")
    wait_for(lambda: holdfast.status()["routes"][0]["state"] == "pass", what="pass")
    equal(client.ask("AUTH LOGIN"), "334 VXNlcm5hbWU6")


@test("a primary that goes in the middle of a login: the client is told to try again, and can")
def _(scene):
    for dies_at in ("AUTH", "DXNLCG==", "C2VJCMV0", "between"):
        first, second = login_primary(scene, **{dies_at: None}), login_primary(scene)
        holdfast = scene.holdfast(None, listener="role: submission", yaml="threads: 1", upstreams=[f"127.0.0.1:{first.port}", f"127.0.0.1:{second.port}"])
        client, other = scene.client(holdfast.port), scene.client(holdfast.port)
        client.ask(HELLO)
        for line in ("AUTH LOGIN", "dXNlcg==", "c2VjcmV0"):
            if dies_at == "between" and line == "c2VjcmV0":
                first.stop()
                other.ask("NOOP")  # the one loop has seen it by now
            reply = client.ask(line)
            if not reply.startswith("334"):
                break
        equal((line, reply[:9]), ({"AUTH": "AUTH LOGIN", "DXNLCG==": "dXNlcg=="}.get(dies_at, "c2VjcmV0"), "454 4.7.0"), dies_at)
        assert not any(b"c2VjcmV0" in session.received for session in second.sessions), "a secret is no command"
        for line, expected in (("AUTH LOGIN", "334"), ("dXNlcg==", "334"), ("c2VjcmV0", "235")):
            equal(client.ask(line)[:3], expected, dies_at)
        assert client.send_mail(helo=None).startswith("250"), dies_at
        equal(len(second.messages), 1)
        client.close()
        holdfast.stop()


main()
