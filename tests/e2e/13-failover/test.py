"""The primary dies and nobody notices; it returns and nothing is missing."""
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from harness import *

QUICK = "failover:\n  probe_interval: 100ms\n  takeover_after: 1s\n  release_after: 300ms\n  retry_min: 200ms\n  retry_max: 1s"
HELLO, FROM, TO = "EHLO client.example.net", "MAIL FROM:<a@example.net>", "RCPT TO:<b@example.org>"


def route(holdfast):
    return holdfast.status()["routes"][0]


def state(holdfast):
    return route(holdfast)["state"]


def teach(scene, holdfast, *recipients):
    """Lets the directory learn recipients while the primary is there. On a busy machine it may take longer than takeover_after: again then."""
    def is_taught():
        client = scene.client(holdfast.port)
        for line in (HELLO, FROM, *[f"RCPT TO:<{one}>" for one in recipients or ("b@example.org",)], "RSET", "QUIT"):
            client.ask(line)
        return state(holdfast) == "pass"
    wait_for(is_taught, what="a primary that is fast enough")


@test("a primary that is gone trips the breaker; known recipients' mail is held, refused ones are refused, unknown ones deferred; it returns and all is delivered")
def _(scene):
    port = free_port()
    primary = scene.primary(port=port, replies={"RCPT": lambda session, line: b"550 5.1.1 no such user\r\n" if b"nobody" in line else b"250 2.1.5 Ok\r\n"})
    holdfast = scene.holdfast(primary, yaml=QUICK)
    teach(scene, holdfast, "b@example.org", "nobody@example.org")
    primary.stop()
    wait_for(lambda: state(holdfast) == "hold", what="the breaker to trip")
    client = scene.client(holdfast.port)
    equal(client.greeting, "220 holdfast.example.org ESMTP")
    equal(client.ask(HELLO).splitlines()[1:], ScriptedPrimary.EHLO.decode().replace("SIZE 200000000", "SIZE 104857600").splitlines()[1:])
    equal(client.ask("MAIL FROM:<a@example.net>"), "250 2.1.0 Ok")
    equal(client.ask("RCPT TO:<b@example.org>"), "250 2.1.5 Ok")
    equal(client.ask("RCPT TO:<b+tag@example.org>"), "250 2.1.5 Ok")
    equal(client.ask("RCPT TO:<nobody@example.org>"), "550 5.1.1 <nobody@example.org>: Recipient address rejected: User unknown")
    equal(client.ask("RCPT TO:<stranger@example.org>"), "450 4.2.1 <stranger@example.org>: Recipient cannot be verified now, try again later")
    equal(client.ask("DATA"), "354 End data with <CR><LF>.<CR><LF>")
    client.send("Subject: x\r\n\r\n..kept\r\n.\r\n")
    assert client.reply().startswith("250 2.0.0 Ok: queued as "), "held"
    equal(client.ask("QUIT"), "221 2.0.0 holdfast.example.org Bye")
    entry = wait_for(lambda: holdfast.entries(), what="the entry")[-1]
    equal([(one["address"], one["outcome"]) for one in entry["recipients"]],
          [("b@example.org", "held"), ("b+tag@example.org", "held"), ("nobody@example.org", "rejected"), ("stranger@example.org", "deferred")])
    equal(route(holdfast)["held"], 1)
    primary = scene.primary(port=port)
    wait_for(lambda: primary.messages and state(holdfast) == "pass", what="the delivery")
    envelope, content = primary.messages[0]
    assert [line.split(b" SIZE")[0] for line in envelope] == [b"MAIL FROM:<a@example.net>", b"RCPT TO:<b@example.org>", b"RCPT TO:<b+tag@example.org>"], envelope
    lines = content.split(b"\r\n")
    assert lines[0].startswith(b"Received: from client.example.net ([127.0.0.1])"), lines
    assert b"\r\nSubject: x\r\n\r\n.kept\r\n" in content, content
    wait_for(lambda: [one["outcome"] for one in holdfast.entries()[-1]["recipients"]] == ["delivered", "delivered", "rejected", "deferred"], what="outcomes")
    equal(len(primary.messages), 1)
    equal(route(holdfast)["held"], 0)
    assert "all is well" in holdfast.run("journal", "verify").stdout


def dies_at(step):
    """A primary whose process ends at the step: nothing listens on its port afterwards."""
    def die(session, line):
        session.primary.leave()
        return None
    return {step: die}


@test("whatever step the primary dies at, the client sees no error, and gets the next primary's true verdict")
def _(scene):
    for step in ("greeting", "EHLO", "MAIL", "RCPT", "DATA", "content"):
        second = scene.primary(replies={"content": b"250 2.0.0 Ok: taken by the second\r\n"})
        first = scene.primary(replies=dies_at(step))
        holdfast = scene.holdfast(upstreams=[f"127.0.0.1:{first.port}", f"127.0.0.1:{second.port}"], yaml="failover:\n  probe_interval: 1h\n  takeover_after: 2s")
        client = scene.client(holdfast.port)
        equal(client.send_mail("Subject: x\r\n\r\n.hello\r\n"), "250 2.0.0 Ok: taken by the second", step)
        equal(len(second.messages), 1)
        equal(second.messages[0][1], b"Subject: x\r\n\r\nhello\r\n", step)
        equal(client.ask("QUIT"), "221 2.0.0 Bye")
        entry = wait_for(lambda: [one for one in holdfast.entries() if one["recipients"][0]["outcome"] == "forwarded"], what="the outcome")[0]
        equal(entry["possible_duplicate"], step == "content", step)
        equal(route(holdfast)["possible_duplicates"], 1 if step == "content" else 0, step)
        holdfast.stop()


@test("when none answers at whatever step, the message is held, and delivered when the primary returns")
def _(scene):
    for step in ("greeting", "EHLO", "MAIL", "RCPT", "DATA", "content"):
        port = free_port()
        warm = scene.primary(port=port)
        holdfast = scene.holdfast(warm, yaml="failover:\n  probe_interval: 100ms\n  trip_after: 1000\n  takeover_after: 200ms\n  release_after: 200ms\nreuse:\n  connections: 0")
        teach(scene, holdfast)
        warm.stop()
        first = scene.primary(port=port, replies=dies_at(step))
        client = scene.client(holdfast.port)
        reply = client.send_mail("Subject: x\r\n\r\nhello\r\n")
        assert reply.startswith("250 2.0.0 Ok: queued as "), (step, reply)
        equal(client.ask("NOOP"), "250 2.0.0 Ok", step)
        back = scene.primary(port=port)
        wait_for(lambda: back.messages, what=f"the delivery after {step}")
        wait_for(lambda: holdfast.entries()[-1]["recipients"][0]["outcome"] == "delivered", what="the outcome")
        assert back.messages[0][1].endswith(b"\r\nSubject: x\r\n\r\nhello\r\n"), back.messages
        equal(holdfast.entries()[-1]["possible_duplicate"], step == "content", step)
        client.close()
        holdfast.stop()


@test("a pipelined batch, a BDAT series and a large message survive the primary's death in their middle")
def _(scene):
    for step, script in (
            ("RCPT", [(f"{FROM}\r\n{TO}\r\nRCPT TO:<c@example.org>\r\nDATA\r\n", 4), ("Subject: x\r\n\r\nhello\r\n.\r\n", 1)]),
            ("DATA", [(f"{FROM}\r\n{TO}\r\nDATA\r\n", 3), ("Subject: x\r\n\r\nhello\r\n.\r\n", 1)]),
            ("BDAT", [(f"{FROM}\r\n{TO}\r\n", 2), ("BDAT 14\r\nSubject: x\r\n\r\n", 1), ("BDAT 5\r\nhello", 1), ("BDAT 2 LAST\r\n\r\n", 1)]),
            ("content", [(f"{FROM}\r\n{TO}\r\nDATA\r\n", 3), ("x" * 70 + "\r\n" + ("y" * 998 + "\r\n") * 3000 + ".\r\n", 1)])):
        second = scene.primary()
        first = scene.primary(replies=dies_at(step))
        holdfast = scene.holdfast(upstreams=[f"127.0.0.1:{first.port}", f"127.0.0.1:{second.port}"], yaml="failover:\n  probe_interval: 1h\n  takeover_after: 2s")
        client = scene.client(holdfast.port)
        client.ask(HELLO)
        for text, count in script:
            client.send(text)
            replies = [client.reply() for _ in range(count)]
            assert all(one.startswith(("250", "354")) for one in replies), (step, replies)
        equal(len(second.messages), 1, step)
        expected = script[-1][0].encode()[:-3] if step != "BDAT" else b"Subject: x\r\n\r\nhello\r\n"
        equal(second.messages[0][1], expected, step)
        client.close()
        holdfast.stop()


@test("a client that never greets is carried over like any other")
def _(scene):
    for step in ("MAIL", "RCPT", "DATA", "content"):
        second = scene.primary()
        first = scene.primary(replies=dies_at(step))
        holdfast = scene.holdfast(upstreams=[f"127.0.0.1:{first.port}", f"127.0.0.1:{second.port}"], yaml="failover:\n  probe_interval: 1h\n  takeover_after: 2s")
        client = scene.client(holdfast.port)
        equal(client.send_mail(helo=None), "250 2.0.0 Ok: taken", step)
        equal(len(second.messages), 1, step)
        equal([line[:4] for line in second.sessions[-1].lines], [b"MAIL", b"RCPT", b"DATA"], step)
        client.close()
        holdfast.stop()


@test("an idle client notices nothing, and neither does one whose primary says 421 and goes")
def _(scene):
    port = free_port()
    primary = scene.primary(port=port)
    holdfast = scene.holdfast(primary, yaml=QUICK)
    teach(scene, holdfast)
    client = scene.client(holdfast.port)
    client.ask(HELLO)
    primary.stop()
    def leave(session, line):
        session.primary.leave()
        session.connection.sendall(b"421 4.3.0 shutting down\r\n")
        return None
    leaving = scene.primary(port=port, replies={"MAIL": leave})
    reply = client.send_mail(helo=None)
    assert reply.startswith("250 2.0.0 Ok: queued as "), reply
    wait_for(lambda: state(holdfast) == "hold", what="hold")


@test("operators hold, pass and give back, by command, signal and flag file; each change is on record and survives SIGKILL")
def _(scene):
    primary = scene.primary()
    flag = scene.path("flag")
    holdfast = scene.holdfast(primary, yaml=QUICK + f"\n  flag_file: {flag}")
    teach(scene, holdfast)
    holdfast.run("failover", "hold", "--reason", "ransomware drill")
    held = route(holdfast)
    equal((held["state"], held["mode"], held["reason"]), ("hold", "hold", "ransomware drill"))
    assert held["by"].startswith("user "), held
    assert scene.client(holdfast.port).send_mail().startswith("250 2.0.0 Ok: queued"), "held although the primary is there"
    equal(primary.messages, [])
    holdfast.kill()
    holdfast.start()
    equal((state(holdfast), route(holdfast)["reason"]), ("hold", "ransomware drill"))
    equal(route(holdfast)["held"], 1)
    holdfast.signal(signal.SIGUSR2)
    wait_for(lambda: len(primary.messages) == 1 and state(holdfast) == "pass", what="the delivery")
    holdfast.signal(signal.SIGUSR1)
    wait_for(lambda: (state(holdfast), route(holdfast)["by"]) == ("hold", "signal SIGUSR1"), what="hold by signal")
    holdfast.run("failover", "auto", "--route", "primary", "--reason", "drill over")
    equal(state(holdfast), "pass")
    open(flag, "w").close()
    wait_for(lambda: (state(holdfast), route(holdfast)["by"]) == ("hold", f"flag file {flag}"), what="hold by flag")
    os.unlink(flag)
    wait_for(lambda: state(holdfast) == "pass", what="pass without the flag")
    unknown = holdfast.run("failover", "hold", "--route", "none", "--reason", "x", check=False)
    assert unknown.returncode != 0 and "there is no route named" in unknown.stderr, unknown.stderr
    primary.stop()
    holdfast.run("failover", "pass", "--reason", "no holding, whatever happens")
    wait_for(lambda: state(holdfast) == "pass", what="pass")
    client = scene.client(holdfast.port, greeting=False)
    equal(client.reply(), "421 4.3.2 holdfast.example.org The mail server is not reachable, try again later")
    text = holdfast.run("status").stdout
    assert "PASS (mode pass)" in text and "no holding" in text, text
    holdfast.stop()
    history = [json.loads(line) for line in holdfast.run("failover", "history", "--json").stdout.splitlines()]
    user = held["by"]
    told = [(one["state"], one["mode"], one["by"], one["reason"]) for one in history if one["state"] != "drain" and one["by"] != "breaker"]
    equal(told, [("hold", "hold", user, "ransomware drill"), ("pass", "auto", "drain", "all held mail is settled"), ("hold", "hold", "signal SIGUSR1", "hold forced"),
                 ("pass", "auto", user, "drill over"), ("hold", "auto", f"flag file {flag}", "the flag file is there"),
                 ("pass", "auto", f"flag file {flag}", "the flag file is gone"), ("pass", "pass", user, "no holding, whatever happens")])
    equal([one["lasted_s"] is None for one in history], [False] * (len(history) - 1) + [True])
    lines = holdfast.run("failover", "history", "--since", "1h", "--route", "primary").stdout.splitlines()
    equal(len(lines), len(history))
    assert "primary: HOLD (mode hold) for 0:00:0" in lines[0] and lines[0].endswith(f", by {user}: ransomware drill"), lines[0]
    assert "primary: PASS (mode pass) until now, by " in lines[-1], lines[-1]
    equal(holdfast.run("failover", "history", "--until", "1h").stdout + holdfast.run("failover", "history", "--route", "other").stdout, "")


@test("order is kept for each recipient, one recipient's 4xx holds back nobody else, and what was deferred is tried again")
def _(scene):
    port = free_port()
    primary = scene.primary(port=port)
    holdfast = scene.holdfast(primary, yaml=QUICK)
    people = [f"p{number}@example.org" for number in range(5)]
    teach(scene, holdfast, *people)
    primary.stop()
    wait_for(lambda: state(holdfast) == "hold", what="hold")
    client = scene.client(holdfast.port)
    client.ask(HELLO)
    for number in range(60):
        one = people[number % 5]
        assert client.send_mail(f"Subject: {number:03}\r\n\r\nx\r\n", recipient=one, helo=None).startswith("250")
    assert len(holdfast.run("queue", "list", "--json").stdout.splitlines()) == 60
    refusals = []
    def rcpt(session, line):
        if b"p3@" in line and len(refusals) < 3:
            refusals.append(line)
            return b"450 4.2.0 try again\r\n"
        return b"250 2.1.5 Ok\r\n"
    primary = scene.primary(port=port, replies={"RCPT": rcpt})
    wait_for(lambda: len(primary.messages) == 60, what="all deliveries")
    equal(len(refusals), 3)
    for one in people:
        subjects = [content.split(b"Subject: ")[1][:3] for envelope, content in primary.messages if f"<{one}>".encode() in envelope[1]]
        equal(subjects, sorted(subjects), one)
        equal(len(subjects), 12)
    others = [content for envelope, content in primary.messages[:48]]
    assert not any(b"p3@" in content.split(b";")[0] for content in others), "the deferred recipient came first"
    wait_for(lambda: route(holdfast)["held"] == 0 and state(holdfast) == "pass", what="an empty queue")


@test("one recipient's mail flows over one connection, the next envelope behind the content before it; deferred mail holds back what was announced")
def _(scene):
    port = free_port()
    primary = scene.primary(port=port)
    holdfast = scene.holdfast(primary, yaml=QUICK)
    teach(scene, holdfast)
    holdfast.run("failover", "hold", "--reason", "test")
    for number in range(8):
        scene.client(holdfast.port).send_mail(f"Subject: {number}\r\n\r\nx\r\n")
    primary.stop()
    taken, refused, dropped = [], set(), []

    def verdict(session, line):
        subject = int(session.primary.messages[-1][1].split(b"Subject: ")[1].split(b"\r\n")[0])
        if subject == 2 and 2 not in refused:
            refused.add(2)
            return b"451 4.2.0 mailbox busy\r\n"
        if subject == 5 and not dropped:
            dropped.append(session)
            return None
        taken.append(subject)
        return b"250 2.0.0 Ok\r\n"

    primary = scene.primary(port=port, replies={"content": verdict})
    holdfast.run("failover", "auto", "--reason", "test")
    wait_for(lambda: len(taken) == 8 and route(holdfast)["held"] == 0, what="the drain")
    equal(taken, list(range(8)), "in order, each once")
    pipelined = [read for session in primary.sessions for read in session.reads if b"\r\n.\r\nMAIL FROM:" in read]
    assert len(pipelined) >= 4, "content and the next envelope in one write"
    equal(route(holdfast)["possible_duplicates"], 1, "the one whose answer was lost")


@test("a primary that dies again during the drain: back to hold, and nothing that it confirmed is sent twice")
def _(scene):
    port = free_port()
    primary = scene.primary(port=port)
    holdfast = scene.holdfast(primary, yaml=QUICK)
    teach(scene, holdfast, *[f"p{number}@example.org" for number in range(20)])
    primary.stop()
    wait_for(lambda: state(holdfast) == "hold", what="hold")
    client = scene.client(holdfast.port)
    client.ask(HELLO)
    for number in range(100):
        client.send_mail(f"Subject: {number:03}\r\n\r\nx\r\n", recipient=f"p{number % 20}@example.org", helo=None)
    received, confirmed = [], []
    class Dying:
        def __init__(self, after):
            self.primary = scene.primary(port=port, replies={"content": self.content})
            self.left = after
        def content(self, session, line):
            self.left -= 1
            if self.left < 0:
                self.primary.stop()
                return None
            confirmed.append(len(self.primary.messages))
            return b"250 2.0.0 Ok\r\n"
    for after in (10, 20, 30, 1000):
        dying = Dying(after)
        wait_for(lambda: dying.left < 0 or route(holdfast)["held"] == 0, what="death or the end")
        received += [content.split(b"Subject: ")[1][:3] for _, content in dying.primary.messages]
        if after < 1000:
            wait_for(lambda: state(holdfast) == "hold", what="hold again")
    equal(sorted(set(received)), [f"{number:03}".encode() for number in range(100)])
    twice = {one.decode() for one in received if received.count(one) > 1}
    marked = {one["subject"] for one in holdfast.entries() if one["possible_duplicate"]}
    assert twice <= marked, twice - marked
    wait_for(lambda: all(one["recipients"][0]["outcome"] == "delivered" for one in holdfast.entries()), what="outcomes")


class Thoughtful:
    """A primary that takes whole messages and keeps its word on them to itself until it is released."""

    def __init__(self, scene, port):
        self.released = threading.Event()
        self.primary = scene.primary(port=port, replies={"content": self.content})

    def content(self, session, line):
        self.released.wait(60)
        return b"250 2.0.0 Ok\r\n"

    def subjects(self):
        return sorted(content.split(b"Subject: ")[1][:3].decode() for _, content in self.primary.messages)


def drain_to_thoughtful(scene, yaml=""):
    """Ten held messages, of which the primary has three and says nothing yet."""
    port = free_port()
    primary = scene.primary(port=port)
    holdfast = scene.holdfast(primary, yaml=QUICK + "\n  drain_concurrency: 3" + yaml, route="unknown_recipients: accept")
    holdfast.run("failover", "hold", "--reason", "test")
    client = scene.client(holdfast.port)
    client.ask(HELLO)
    for number in range(10):
        assert client.send_mail(f"Subject: {number:03}\r\n\r\nx\r\n", recipient=f"p{number}@example.org", helo=None).startswith("250")
    client.ask("QUIT")
    primary.stop()
    thoughtful = Thoughtful(scene, port)
    holdfast.run("failover", "auto", "--reason", "test")
    wait_for(lambda: len(thoughtful.primary.messages) == 3, what="three whole messages")
    return holdfast, thoughtful


def marked(holdfast):
    return sorted(entry["subject"] for entry in holdfast.entries() if entry["possible_duplicate"])


def end_drain(holdfast, thoughtful):
    thoughtful.released.set()
    wait_for(lambda: all(one["recipients"][0]["outcome"] == "delivered" for one in holdfast.entries()), what="outcomes")


@test("what the primary had and had not answered for when Holdfast was killed is marked as a possible duplicate, and nothing else is")
def _(scene):
    holdfast, thoughtful = drain_to_thoughtful(scene)
    first = thoughtful.subjects()
    holdfast.kill()
    holdfast.start()
    wait_for(lambda: marked(holdfast) == first, what="marks")
    end_drain(holdfast, thoughtful)
    equal(thoughtful.subjects(), sorted(first + [f"{number:03}" for number in range(10)]))
    holdfast.kill()
    holdfast.start()
    equal(marked(holdfast), first)
    equal(holdfast.run("journal", "verify").returncode, 0)


@test("who stops Holdfast in a drain waits for the primary's word, at most shutdown_grace, and for nothing else; what it was not waited for is marked too")
def _(scene):
    holdfast, thoughtful = drain_to_thoughtful(scene, "\nshutdown_grace: 10s")
    holdfast.signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        raise AssertionError(f"it did not wait, and ended with {holdfast.process.wait(6)}")
    equal(len(thoughtful.primary.messages), 3, "nothing new is begun")
    thoughtful.released.set()
    equal(holdfast.process.wait(20), 0)
    holdfast.start()
    end_drain(holdfast, thoughtful)
    equal(thoughtful.subjects(), [f"{number:03}" for number in range(10)])
    equal(marked(holdfast), [])

    holdfast, thoughtful = drain_to_thoughtful(scene, "\nshutdown_grace: 300ms")
    first = thoughtful.subjects()
    holdfast.signal(signal.SIGTERM)
    equal(holdfast.process.wait(20), 0)
    holdfast.start()
    wait_for(lambda: marked(holdfast) == first, what="marks")
    end_drain(holdfast, thoughtful)
    equal(thoughtful.subjects(), sorted(first + [f"{number:03}" for number in range(10)]))

    port = free_port()
    greeted, never = threading.Event(), threading.Event()
    def greeting(session, line):
        greeted.set()
        never.wait(60)
    scene.primary(port=port, replies={"greeting": greeting})
    holdfast = scene.holdfast(port, yaml=QUICK + "\nshutdown_grace: 1h", route="unknown_recipients: accept")
    holdfast.run("failover", "hold", "--reason", "test")
    assert scene.client(holdfast.port).send_mail().startswith("250")
    greeted.clear()
    holdfast.run("failover", "pass", "--reason", "test")
    assert greeted.wait(10)
    holdfast.signal(signal.SIGTERM)
    equal(holdfast.process.wait(20), 0)


@test("a flood of system failures (4.3.x) trips the breaker by what live traffic sees alone")
def _(scene):
    primary = scene.primary(replies={"content": b"451 4.3.0 out of order\r\n"})
    holdfast = scene.holdfast(primary, yaml="failover:\n  probe_interval: 1h")
    teach(scene, holdfast)
    client = scene.client(holdfast.port)
    replies = []
    while state(holdfast) == "pass" and len(replies) < 60:
        replies.append(client.send_mail("Subject: x\r\n\r\nx\r\n", helo="client.example.net" if not replies else None))
    equal(state(holdfast), "hold")
    assert replies[0].startswith("451 4.3.0") and len(replies) >= 20, replies
    assert "4.3.0" in route(holdfast)["reason"], route(holdfast)


@test("where the route wants TLS, the probe, the takeover in mid-session and the drain speak it too")
def _(scene):
    certificate, key = scene.certificate("primary.example.org")
    port, context = free_port(), server_tls(certificate, key)
    offers = {"EHLO": ScriptedPrimary.EHLO.replace(b"250 CHUNKING", b"250-STARTTLS\r\n250 CHUNKING")}

    def dies(session, line):
        session.primary.leave()
        return None
    primary = scene.primary(port=port, tls=context, replies=offers)
    holdfast = scene.holdfast(primary, yaml=QUICK, route="tls: required")
    teach(scene, holdfast)
    wait_for(lambda: any(session.is_tls and b"RSET" in session.lines for session in primary.sessions), what="a probe over TLS")
    primary.replies["content"] = dies
    assert scene.client(holdfast.port).send_mail("Subject: in the middle\r\n\r\nx\r\n").startswith("250")
    wait_for(lambda: state(holdfast) == "hold", what="the hold")
    # What listens there now speaks no TLS: it is no primary to this route.
    plain = scene.primary(port=port)
    wait_for(lambda: len(plain.sessions) >= 3, what="probes")
    equal((state(holdfast), plain.messages), ("hold", []))
    plain.stop()
    again = scene.primary(port=port, tls=context, replies=offers)
    wait_for(lambda: again.messages and state(holdfast) == "pass", what="the drain")
    assert all(session.is_tls for session in again.sessions if b"DATA" in session.lines or b"BDAT" in b"".join(session.lines))


@test("while it drains, status and the queue tell how fast, and how long it will take")
def _(scene):
    port = free_port()
    primary = scene.primary(port=port)
    holdfast = scene.holdfast(primary, yaml=QUICK + "\n  drain_concurrency: 1")
    teach(scene, holdfast)
    holdfast.run("failover", "hold", "--reason", "test")
    client = scene.client(holdfast.port)
    for number in range(60):
        assert client.send_mail("Subject: x\r\n\r\nx\r\n", helo="client.example.net" if number == 0 else None).startswith("250")
    primary.replies["content"] = lambda session, line: time.sleep(0.1) or b"250 2.0.0 Ok\r\n"  # a slow primary
    holdfast.run("failover", "auto", "--reason", "test")
    told = wait_for(lambda: state(holdfast) == "drain" and route(holdfast)["left_s"] is not None and route(holdfast), what="an estimate")
    assert 1 <= told["per_second"] <= 20 and 0 < told["held"] < 60, told
    assert abs(told["left_s"] - told["held"] / told["per_second"]) <= 1, told
    assert re.search(r"delivered a second, about \d+ s left", holdfast.run("queue", "list").stdout)


@test("a message goes to the primary that serves its recipient's domain")
def _(scene):
    first, second = scene.primary(), scene.primary(replies={"content": b"250 2.0.0 Ok: second\r\n"})
    holdfast = scene.holdfast(first, yaml="")
    text = open(holdfast.config).read().replace('domains: ["*"]', 'domains: ["*"]').replace(
        "journal:\n", f'  - name: other\n    domains: ["other.example.org"]\n    upstreams: ["127.0.0.1:{second.port}"]\njournal:\n', 1)
    open(holdfast.config, "w").write(text)
    holdfast.signal(signal.SIGHUP)
    wait_for(lambda: holdfast.logged("routes changed"), what="the reload")
    client = scene.client(holdfast.port)
    equal(client.send_mail(), "250 2.0.0 Ok: taken")
    equal(client.send_mail(recipient="x@OTHER.example.org", helo=None), "250 2.0.0 Ok: second")
    equal(client.send_mail(helo=None), "250 2.0.0 Ok: taken")
    client.ask(FROM)
    client.ask(TO)
    equal(client.ask("RCPT TO:<x@other.example.org>"), "451 4.5.3 Error: this recipient is on another server, send it a message of its own")
    equal(len(first.messages), 2)
    equal(len(second.messages), 1)
    equal([one["route"] for one in holdfast.entries()], ["primary", "other", "primary"])


main()
