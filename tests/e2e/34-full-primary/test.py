"""A primary that takes so many connections from one address: all of them are Holdfast's, and everybody is served with those."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from harness import *

TOO_MANY = ["421 4.7.0 primary.example.org Error: too many connections from 127.0.0.1",
            "421 4.3.2 The maximum number of concurrent connections has exceeded a limit, closing transmission channel"]


def limited_primary(scene, most, refusal, way=0):
    """way: seconds that a refusal is on its way. How many it takes may change: its attribute most."""
    def greet(session, line):
        alive = sum(one.connection.fileno() >= 0 and one.lines[-1:] != [b"QUIT"] for one in session.primary.sessions)
        if alive <= session.primary.most:
            return b"220 primary.example.org ESMTP\r\n"
        time.sleep(way)
        session.connection.sendall(refusal.encode() + b"\r\n")
        return None
    primary = scene.primary(replies={"greeting": greet})
    primary.most = most
    return primary


@test("Postfix with smtpd_client_connection_count_limit: many clients, on all loops, wait for one of its few connections")
def _(scene):
    postfix = scene.postfix("smtpd_client_connection_count_limit = 3", "smtpd_client_event_limit_exceptions =")
    holdfast = scene.holdfast(postfix, yaml="threads: 4\nfailover:\n  probe_interval: 200ms")
    replies = []

    def work():
        for _ in range(4):
            client = Client(holdfast.port)
            replies.append(client.greeting[:4])
            for _ in range(2):
                replies.append(client.send_mail()[:23])
            client.ask("QUIT")
            client.close()
    clients = [threading.Thread(target=work) for _ in range(12)]
    for client in clients:
        client.start()
    for client in clients:
        client.join(60)
    equal({reply: replies.count(reply) for reply in replies}, {"220 ": 48, "250 2.0.0 Ok: queued as": 96})
    equal(holdfast.status()["routes"][0]["state"], "pass")
    assert not holdfast.logged("takeover")
    wait_for(lambda: len(postfix.mails()) == 96, what="the mail")


@test("while all its connections are busy for long, nobody takes it for dead: those who come wait, and probes find nothing wrong")
def _(scene):
    for refusal in TOO_MANY:
        primary = limited_primary(scene, 3, refusal, way=0.05)
        holdfast = scene.holdfast(primary, yaml="threads: 2\nfailover:\n  probe_interval: 100ms\n  takeover_after: 1s")
        wait_for(lambda: len(primary.sessions) > 0, what="a probe")
        busy = [scene.client(holdfast.port) for _ in range(3)]
        for client in busy:
            client.ask("EHLO client.example.net")
            client.ask("MAIL FROM:<a@example.net>")
        waiting = [scene.client(holdfast.port, greeting=False) for _ in range(3)]
        time.sleep(2.5)  # in which nothing comes from the primary
        route = holdfast.status()["routes"][0]
        equal((route["state"], route["upstreams"][0]["healthy"], route["connections"], route["waiting"]), ("pass", True, 3, 3), refusal)
        assert "3 CLIENTS WAIT for a connection: the primary takes no more than the 3 that it has" in holdfast.run("status").stdout
        for client in busy:
            client.ask("RSET")
            equal(client.send_mail(helo=None), "250 2.0.0 Ok: taken", refusal)
            client.ask("QUIT")
        for client in waiting:
            equal(client.reply(), "220 primary.example.org ESMTP", refusal)
            equal(client.send_mail(), "250 2.0.0 Ok: taken", refusal)
            client.ask("QUIT")
        assert not holdfast.logged("takeover") and not holdfast.logged("breaker"), refusal
        holdfast.stop()


@test("many who come at once: the refusals of those who are too many come before the greetings of the others, and they wait too")
def _(scene):
    # As with Exim, where the daemon refuses and a process of its own greets.
    def greet(session, line):
        session.is_leaving = sum(one.connection.fileno() >= 0 and not getattr(one, "is_leaving", False) for one in session.primary.sessions) > 3
        if session.is_leaving:
            session.connection.sendall(TOO_MANY[0].encode() + b"\r\n")
            return None
        time.sleep(0.3)
        return b"220 primary.example.org ESMTP\r\n"

    def leave(session, line):
        session.is_leaving = True
        return b"221 2.0.0 Bye\r\n"
    primary = scene.primary(replies={"greeting": greet, "QUIT": leave})
    holdfast = scene.holdfast(primary, yaml="threads: 2\nfailover:\n  probe_interval: 1h\n  takeover_after: 3s")
    replies = []

    def work(client):
        replies.append((client.reply(), client.send_mail()))
        client.ask("QUIT")
    clients = [threading.Thread(target=work, args=[scene.client(holdfast.port, greeting=False)]) for _ in range(12)]
    for client in clients:
        client.start()
    for client in clients:
        client.join(60)
    equal(replies, 12 * [("220 primary.example.org ESMTP", "250 2.0.0 Ok: taken")])
    assert not holdfast.logged("takeover") and not holdfast.logged("breaker")


@test("who waits asks again, also after a refusal that took its time")
def _(scene):
    def greet(session, line):
        number = session.primary.sessions.index(session)
        if number == 2:
            time.sleep(0.5)
        if number in (1, 2):
            session.connection.sendall(TOO_MANY[0].encode() + b"\r\n")
            return None
        return b"220 primary.example.org ESMTP\r\n"
    primary = scene.primary(replies={"greeting": greet})
    holdfast = scene.holdfast(primary, yaml="threads: 1\nfailover:\n  probe_interval: 1h\n  takeover_after: 3s")
    busy = scene.client(holdfast.port)
    equal(scene.client(holdfast.port).send_mail(), "250 2.0.0 Ok: taken")
    equal(busy.send_mail(), "250 2.0.0 Ok: taken")
    equal(len(primary.sessions), 4)


@test("one that notices late that a connection has ended: who comes meanwhile waits")
def _(scene):
    left = []

    def greet(session, line):
        if left and time.monotonic() < left[0] + 0.5:
            session.connection.sendall(TOO_MANY[0].encode() + b"\r\n")
            return None
        return b"220 primary.example.org ESMTP\r\n"

    def leave(session, line):
        left.append(time.monotonic())
        return b"221 2.0.0 Bye\r\n"
    primary = scene.primary(replies={"greeting": greet, "QUIT": leave})
    holdfast = scene.holdfast(primary, yaml="failover:\n  probe_interval: 1h\nreuse:\n  connections: 0")
    first = scene.client(holdfast.port)
    first.ask("QUIT")
    wait_for(lambda: left, what="the end of the first connection")
    equal(scene.client(holdfast.port).send_mail(), "250 2.0.0 Ok: taken")
    assert not holdfast.logged("takeover")


@test("whoever has waited long for one that takes one connection, and notices late that it has ended, waits on")
def _(scene):
    is_taken, left = [], [-1.0]

    def greet(session, line):
        if is_taken or time.monotonic() < left[-1] + 0.5:
            session.connection.sendall(TOO_MANY[0].encode() + b"\r\n")
            return None
        is_taken.append(session)
        return b"220 primary.example.org ESMTP\r\n"

    def leave(session, line):
        is_taken.clear()
        left.append(time.monotonic())
        return b"221 2.0.0 Bye\r\n"
    primary = scene.primary(replies={"greeting": greet, "QUIT": leave})
    holdfast = scene.holdfast(primary, yaml="threads: 1\nfailover:\n  probe_interval: 1h\n  takeover_after: 1s\nreuse:\n  connections: 0")
    first = scene.client(holdfast.port)
    waiting = [scene.client(holdfast.port, greeting=False) for _ in range(3)]
    began = time.monotonic()
    wait_for(lambda: time.monotonic() > began + 1.5 and holdfast.status()["routes"][0]["waiting"] == 3, what="more than takeover_after")
    first.ask("QUIT")
    for client in waiting:
        equal(client.reply(), "220 primary.example.org ESMTP")
        equal(client.send_mail(), "250 2.0.0 Ok: taken")
        client.ask("QUIT")
    assert not holdfast.logged("takeover") and not holdfast.logged("breaker")


@test("one that says so while nobody has a connection is heard at once")
def _(scene):
    for refusal in TOO_MANY:
        primary = limited_primary(scene, 0, refusal)
        holdfast = scene.holdfast(primary, yaml="failover:\n  probe_interval: 1h")
        equal(scene.client(holdfast.port).greeting, refusal)
        equal(len(primary.sessions), 1, "nobody waited and asked again")
        holdfast.stop()


@test("held mail and a client in the middle of a message wait for a connection too")
def _(scene):
    primary = limited_primary(scene, 2, TOO_MANY[0])
    holdfast = scene.holdfast(primary, route="unknown_recipients: accept",
                              yaml="threads: 1\nfailover:\n  probe_interval: 100ms\n  takeover_after: 3s\n  release_after: 100ms\n  retry_min: 100ms")
    holdfast.run("failover", "hold", "--reason", "test")
    for _ in range(5):
        assert scene.client(holdfast.port).send_mail().startswith("250 ")
    holdfast.run("failover", "auto", "--reason", "test")
    wait_for(lambda: len(primary.messages) == 5, what="the held mail")
    wait_for(lambda: holdfast.status()["routes"][0]["state"] == "pass", what="the end of the drain")
    busy, other = scene.client(holdfast.port), scene.client(holdfast.port)
    other.ask("EHLO client.example.net")
    busy.ask("EHLO client.example.net")
    busy.ask("MAIL FROM:<a@example.net>")
    busy.ask("RCPT TO:<b@example.org>")
    lost = next(session for session in primary.sessions if b"RCPT TO:<b@example.org>" in session.lines[-1:] and session.connection.fileno() >= 0)
    taken = socket.create_connection(("127.0.0.1", primary.port)) if not lost.close() else None  # somebody else takes the place
    busy.send("DATA\r\n")
    time.sleep(0.2)
    taken.close()
    equal(busy.reply()[:3], "354")
    equal(busy.ask("Subject: x\r\n\r\nx\r\n."), "250 2.0.0 Ok: taken")
    assert not holdfast.logged("takeover")


@test("a client in the middle of a message for whom there is no connection in time has its message held, and nobody takes the primary for dead")
def _(scene):
    primary = limited_primary(scene, 2, TOO_MANY[1])
    holdfast = scene.holdfast(primary, route="unknown_recipients: accept",
                              yaml="threads: 1\nfailover:\n  probe_interval: 1h\n  takeover_after: 500ms\n  retry_min: 100ms")
    busy, other = scene.client(holdfast.port), scene.client(holdfast.port)
    other.ask("EHLO client.example.net")
    other.ask("MAIL FROM:<c@example.net>")
    busy.ask("EHLO client.example.net")
    busy.ask("MAIL FROM:<a@example.net>")
    busy.ask("RCPT TO:<b@example.org>")
    lost = next(session for session in primary.sessions if b"RCPT TO:<b@example.org>" in session.lines[-1:])
    primary.most = 1
    lost.close()
    equal(busy.ask("DATA")[:3], "354")
    assert busy.ask("Subject: x\r\n\r\nx\r\n.").startswith("250 2.0.0 Ok: queued as ")
    assert holdfast.logged("takeover") and not holdfast.logged("breaker")
    equal(other.ask("RCPT TO:<b@example.org>"), "250 2.1.5 Ok")
    primary.most = 2
    wait_for(lambda: len(primary.messages) == 1, what="the held message")


main()
