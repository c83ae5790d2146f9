"""Several upstreams, tried in order, and connections to them that are used again."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from harness import *


@test("upstreams are tried in order; one that comes back is used again")
def _(scene):
    second = scene.primary()
    port = free_port()
    holdfast = scene.holdfast(upstreams=[f"127.0.0.1:{port}", f"127.0.0.1:{second.port}"], yaml="reuse:\n  connections: 0")
    equal(scene.client(holdfast.port).send_mail(), "250 2.0.0 Ok: taken")
    equal(len(second.messages), 1)
    upstreams = holdfast.status()["routes"][0]["upstreams"]
    equal([one["healthy"] for one in upstreams], [False, True])
    equal(upstreams[0]["last_error"], "it refuses the connection")
    first = scene.primary(port=port)

    def first_is_used():
        scene.client(holdfast.port).send_mail()
        return first.messages
    wait_for(first_is_used, what="the first upstream")


@test("an upstream that turns out to be Holdfast itself, as by the name of the MX, is a failing one: no session leads to another")
def _(scene):
    for listening in ("127.0.0.1", "0.0.0.0"):
        own = free_port()
        holdfast = scene.holdfast(upstreams=[f"localhost:{own}"], yaml="failover:\n  probe_interval: 100ms\n  takeover_after: 300ms",
                                  listeners=f"- address: {listening}:{own}")
        scene.client(holdfast.port, greeting=False)
        wait_for(lambda: holdfast.status()["routes"][0]["state"] == "hold", what="a hold")
        upstream = holdfast.status()["routes"][0]["upstreams"][0]
        equal((upstream["healthy"], upstream["last_error"]), (False, "it is Holdfast itself, which listens there: name the primary's own address"))
        holdfast.stop()


@test("status tells of every upstream whether it is there, also of those that nobody needs now")
def _(scene):
    first, port = scene.primary(), free_port()
    holdfast = scene.holdfast(upstreams=[f"127.0.0.1:{first.port}", f"127.0.0.1:{port}"], yaml="failover:\n  probe_interval: 50ms")
    def health():
        return [(one["healthy"], one["last_error"]) for one in holdfast.status()["routes"][0]["upstreams"]]
    well, gone = (True, ""), (False, "it refuses the connection")
    for _ in range(2):
        wait_for(lambda: health() == [well, gone], what="the second to be missed")
        second = scene.primary(port=port)
        wait_for(lambda: health() == [well, well], what="the second to be found")
        first.leave()
        wait_for(lambda: health() == [gone, well], what="the first to be missed")
        first = scene.primary(port=first.port)
        wait_for(lambda: health() == [well, well], what="the first to be found")
        second.leave()
    equal(holdfast.status()["routes"][0]["state"], "pass")
    with open(holdfast.log) as log:
        told = [line for line in log if " warning upstream" in line]
    assert len(told) <= 5, told  # once each time it goes, however often it is looked at


@test("a shorter probe_interval counts from the reload on, not from the next probe")
def _(scene):
    primary = scene.primary()
    holdfast = scene.holdfast(primary, yaml="failover:\n  probe_interval: 1h")
    holdfast.yaml = "failover:\n  probe_interval: 50ms"
    holdfast.write_config()
    holdfast.signal(signal.SIGHUP)
    wait_for(lambda: primary.sessions, what="a probe")


@test("balance: true spreads clients over the upstreams, and who is gone gets none")
def _(scene):
    primaries = [scene.primary() for _ in range(3)]
    holdfast = scene.holdfast(upstreams=[f"127.0.0.1:{one.port}" for one in primaries], route="balance: true", yaml="threads: 1")
    def send_at_once():
        clients = [scene.client(holdfast.port) for _ in range(12)]
        for client in clients:
            equal(client.send_mail(), "250 2.0.0 Ok: taken")
        for client in clients:
            client.close()
        counts = [len(one.messages) for one in primaries]
        for one in primaries:
            one.messages.clear()
        return counts
    equal(send_at_once(), [4, 4, 4])
    primaries[1].stop()
    first, gone, third = send_at_once()
    assert gone == 0 and first > 0 and third > 0, (first, third)


@test("an upstream that is silent, to connecting or after it, leaves time for the next one")
def _(scene):
    hole = socket.socket()
    hole.bind(("127.0.0.1", 0))
    hole.listen(0)
    # Its queue is full: from now on the system lets nobody in, and says nothing.
    fill = [socket.socket() for _ in range(3)]
    for one in fill:
        one.setblocking(False)
        one.connect_ex(hole.getsockname())
    mute = socket.create_server(("127.0.0.1", 0), backlog=100)
    for silent in (hole, mute):
        second = scene.primary(replies={"greeting": lambda session, line: time.sleep(0.3) or b"220 primary.example.org ESMTP\r\n"})
        holdfast = scene.holdfast(upstreams=[f"127.0.0.1:{silent.getsockname()[1]}", f"127.0.0.1:{second.port}"], yaml="failover:\n  takeover_after: 3s")
        for _ in range(6):
            equal(scene.client(holdfast.port).send_mail(), "250 2.0.0 Ok: taken")
            time.sleep(0.5)  # now and then it is tried again
        equal(holdfast.status()["routes"][0]["state"], "pass")


@test("a primary that refuses with its greeting is passed by; when all do, the client gets the primary's word")
def _(scene):
    busy = scene.primary(replies={"greeting": b"421 4.3.2 primary.example.org too busy\r\n"})
    good = scene.primary()
    holdfast = scene.holdfast(upstreams=[f"127.0.0.1:{busy.port}", f"127.0.0.1:{good.port}"])
    equal(scene.client(holdfast.port).greeting, "220 primary.example.org ESMTP")
    holdfast = scene.holdfast(busy)
    client = scene.client(holdfast.port)
    equal(client.greeting, "421 4.3.2 primary.example.org too busy")
    equal(client.rest(), "")


@test("a connection is used again by the next client, who greets for itself; its goodbye is the primary's")
def _(scene):
    primary = scene.primary(replies={"QUIT": b"221 2.0.0 farewell from the primary\r\n"})
    holdfast = scene.holdfast(primary, yaml="threads: 1")
    for number in range(4):
        client = scene.client(holdfast.port)
        equal(client.greeting, "220 primary.example.org ESMTP")
        equal(client.send_mail(helo=f"client{number}.example.net"), "250 2.0.0 Ok: taken")
        equal(client.ask("QUIT"), "221 2.0.0 farewell from the primary")
        equal(client.rest(), "")
    # The first goodbye was asked of the primary; from then on it is known and the connection stays.
    equal(len(primary.sessions), 2)
    equal([line for line in primary.sessions[1].lines if line.startswith(b"EHLO")], [f"EHLO client{number}.example.net".encode() for number in (1, 2, 3)])


@test("a connection on which something was refused, or a transaction is open, is not handed on")
def _(scene):
    primary = scene.primary(replies={"RCPT": lambda session, line: b"550 5.1.1 no\r\n" if b"nobody" in line else b"250 2.1.5 Ok\r\n"})
    holdfast = scene.holdfast(primary, yaml="threads: 1")
    scene.client(holdfast.port).ask("QUIT")
    client = scene.client(holdfast.port)
    assert client.send_mail(recipient="nobody@example.org").startswith("550")
    client.ask("QUIT")
    client = scene.client(holdfast.port)
    client.ask("EHLO client.example.net")
    client.ask("MAIL FROM:<a@example.net>")
    client.close()
    before = len(primary.sessions)
    wait_for(lambda: holdfast.status()["connections"] == 0, what="the end of the session")
    scene.client(holdfast.port)
    wait_for(lambda: len(primary.sessions) > before, what="a new connection")


@test("an idle connection that the primary ends just as it is handed on costs the client nothing")
def _(scene):
    primary = scene.primary()
    holdfast = scene.holdfast(primary, yaml="threads: 1\nreuse:\n  idle: 60s")
    scene.client(holdfast.port).ask("QUIT")
    client = scene.client(holdfast.port)
    client.send_mail()
    client.ask("QUIT")
    old = primary.sessions[-1]
    client = scene.client(holdfast.port)
    equal(len(primary.sessions), 2)
    old.close()
    equal(client.send_mail(), "250 2.0.0 Ok: taken")
    equal(len(primary.sessions), 3)


@test("a client that does not greet gets a connection on which nobody has, so that the primary's word on that is its own")
def _(scene):
    def wants_greeting(session, line):
        has_greeted = any(one.upper().startswith((b"EHLO", b"HELO")) for one in session.lines)
        return b"250 2.1.0 Ok\r\n" if has_greeted else b"503 5.5.1 Error: send HELO/EHLO first\r\n"
    primary = scene.primary(replies={"MAIL": wants_greeting})
    holdfast = scene.holdfast(primary, yaml="threads: 1")
    scene.client(holdfast.port).ask("QUIT")
    client = scene.client(holdfast.port)
    client.send_mail()
    client.ask("QUIT")
    before = len(primary.sessions)
    client = scene.client(holdfast.port)
    equal(client.ask("MAIL FROM:<a@example.net>"), "503 5.5.1 Error: send HELO/EHLO first")
    equal(len(primary.sessions), before + 1)
    equal(client.send_mail(), "250 2.0.0 Ok: taken")


@test("a connection on which a client only passed the time is not handed on: the primary counts that")
def _(scene):
    primary = scene.primary()
    holdfast = scene.holdfast(primary, yaml="threads: 1")
    scene.client(holdfast.port).ask("QUIT")
    for command in ("NOOP", "VRFY somebody", "HELP"):
        client = scene.client(holdfast.port)
        client.ask("EHLO client.example.net")
        client.ask(command)
        before = len(primary.sessions)
        client.ask("QUIT")
        wait_for(lambda: holdfast.status()["connections"] == 0, what="the end of the session")
        client = scene.client(holdfast.port)
        equal(len(primary.sessions), before + 1)
        client.ask("QUIT")


@test("a primary that serves as many clients as it can, and lets others wait for its greeting, is not taken for dead")
def _(scene):
    postfix = scene.postfix("default_process_limit = 3")
    holdfast = scene.holdfast(postfix, yaml="threads: 1\nfailover:\n  probe_interval: 1h\n  takeover_after: 4s")
    until, replies = time.monotonic() + 8, []

    def keep_busy():
        client = Client(holdfast.port)
        client.ask("EHLO client.example.net")
        while time.monotonic() < until:
            replies.append(client.send_mail(helo=None))
        client.ask("QUIT")
        client.close()
    busy = [threading.Thread(target=keep_busy) for _ in range(3)]
    for one in busy:
        one.start()
    wait_for(lambda: len(replies) > 10, what="the primary to be busy")
    waiting = [scene.client(holdfast.port) for _ in range(2)]
    assert time.monotonic() > until, "the primary had room for more"
    for client in waiting:
        replies.append(client.send_mail())
        client.ask("QUIT")
    for one in busy:
        one.join()
    assert all(reply.startswith("250 2.0.0 Ok: queued as") for reply in replies), replies[-5:]
    wait_for(lambda: {one["outcome"] for entry in holdfast.entries() for one in entry["recipients"]} == {"forwarded"}, what="the outcomes")
    assert not holdfast.logged("takeover"), open(holdfast.log).read()[-2000:]


@test("connections that become free at the same moment go to all who wait")
def _(scene):
    def greet(session, line):
        if len(session.primary.sessions) > 4:
            session.connection.recv(1)  # it has no room for a fourth client
            return None
        return b"220 primary.example.org ESMTP\r\n"
    primary = scene.primary(replies={"greeting": greet})
    holdfast = scene.holdfast(primary, yaml="threads: 1\nfailover:\n  probe_interval: 1h\n  takeover_after: 2s")
    scene.client(holdfast.port).ask("QUIT")  # its connection ends, and tells the goodbye
    busy = [scene.client(holdfast.port) for _ in range(3)]
    for client in busy:
        equal(client.send_mail(), "250 2.0.0 Ok: taken")
    leaving = scene.client(holdfast.port, greeting=False)
    wait_for(lambda: len(primary.sessions) == 5, what="one who waits")
    time.sleep(0.3)
    leaving.close()
    wait_for(lambda: primary.sessions[4].connection.fileno() < 0, what="the end of its connection")
    waiting = [scene.client(holdfast.port, greeting=False) for _ in range(3)]
    wait_for(lambda: len(primary.sessions) == 8, what="three who wait")
    time.sleep(0.5)  # until they would rather have another's
    holdfast.signal(signal.SIGSTOP)
    for client in busy:
        client.send("QUIT\r\n")
    holdfast.signal(signal.SIGCONT)
    for client in waiting:
        equal(client.reply(), "220 primary.example.org ESMTP")
        equal(client.send_mail(), "250 2.0.0 Ok: taken")
    assert not holdfast.logged("takeover") and not holdfast.logged(" warning upstream")


@test("a primary that greets slowly greets a few connections, which then serve everybody")
def _(scene):
    primary = scene.primary(replies={"greeting": lambda session, line: time.sleep(0.4) or b"220 primary.example.org ESMTP\r\n"})
    holdfast = scene.holdfast(primary, yaml="threads: 1\nfailover:\n  probe_interval: 1h\n  takeover_after: 3s")
    replies = []

    def send_some():
        for _ in range(15):
            client = Client(holdfast.port)
            replies.append(client.send_mail())
            client.ask("QUIT")
            client.close()
    senders = [threading.Thread(target=send_some) for _ in range(4)]
    for one in senders:
        one.start()
    for one in senders:
        one.join()
    equal(set(replies), {"250 2.0.0 Ok: taken"})
    equal(len(primary.messages), 60)
    assert len(primary.sessions) <= 12, len(primary.sessions)


@test("a primary that has enough of a connection, on which many clients came, is no client's trouble")
def _(scene):
    def take(session, line):
        is_enough = sum(one.startswith(b"MAIL") for one in session.lines) > 2
        return b"421 4.7.0 Too many messages on this connection\r\n" if is_enough else b"250 2.1.0 Ok\r\n"
    primary = scene.primary(replies={"MAIL": take})
    holdfast = scene.holdfast(primary, yaml="threads: 1")
    for _ in range(9):
        client = scene.client(holdfast.port)
        equal(client.send_mail(), "250 2.0.0 Ok: taken")
        client.ask("QUIT")
    assert len(primary.sessions) < 7, len(primary.sessions)
    # To a client that has it to itself, it is the primary's word.
    client = scene.client(scene.holdfast(primary, yaml="reuse:\n  connections: 0").port)
    for number in range(2):
        equal(client.send_mail(helo=None if number else "x"), "250 2.0.0 Ok: taken")
    equal(client.ask("MAIL FROM:<a@example.net>"), "421 4.7.0 Too many messages on this connection")


@test("a primary that lets everybody wait for its greeting, longer than takeover_after, is found out, and stays in service")
def _(scene):
    def greet(session, line):
        time.sleep(2.5)
        return b"220 primary.example.org ESMTP\r\n"
    primary = scene.primary(replies={"greeting": greet})
    holdfast = scene.holdfast(primary, route="unknown_recipients: accept", yaml="failover:\n  probe_interval: 200ms\n  takeover_after: 1s\n  release_after: 300ms\nreuse:\n  connections: 0")
    # Nobody knows yet that it is slow.
    equal(scene.client(holdfast.port).send_mail()[:20], "250 2.0.0 Ok: queued")
    wait_for(lambda: holdfast.status()["routes"][0]["state"] == "pass", seconds=60, what="the primary to be known")
    for _ in range(3):
        equal(scene.client(holdfast.port).send_mail(), "250 2.0.0 Ok: taken")
    equal(holdfast.status()["routes"][0]["state"], "pass")
    # It is not to be found out anew after each start.
    holdfast.stop()
    holdfast.start()
    equal(scene.client(holdfast.port).send_mail(), "250 2.0.0 Ok: taken")


@test("a connection that was opened before a reload is not handed on after it: its address may be another's number now")
def _(scene):
    gone, primary = free_port(), scene.primary()
    holdfast = scene.holdfast(upstreams=[f"127.0.0.1:{gone}", f"127.0.0.1:{primary.port}"], yaml="threads: 1")
    scene.client(holdfast.port).ask("QUIT")
    client = scene.client(holdfast.port)
    equal(client.send_mail(), "250 2.0.0 Ok: taken")
    holdfast.upstreams = [f"127.0.0.1:{primary.port}"]
    holdfast.write_config()
    holdfast.signal(signal.SIGHUP)
    wait_for(lambda: holdfast.logged("routes changed"), what="the reload")
    client.ask("QUIT")
    before = len(primary.sessions)
    for _ in range(2):
        client = scene.client(holdfast.port)
        equal(client.send_mail(), "250 2.0.0 Ok: taken")
        client.ask("QUIT")
    equal(len(primary.sessions), before + 1)


@test("idle connections end after reuse.idle, and after reuse.transactions")
def _(scene):
    primary = scene.primary()
    holdfast = scene.holdfast(primary, yaml="threads: 1\nreuse:\n  idle: 300ms\n  transactions: 2")
    scene.client(holdfast.port).ask("QUIT")
    client = scene.client(holdfast.port)
    client.send_mail()
    client.ask("QUIT")
    wait_for(lambda: primary.sessions[-1].lines[-1] == b"QUIT", what="the idle connection's end")
    for _ in range(2):
        client = scene.client(holdfast.port)
        client.send_mail()
        client.ask("QUIT")
    wait_for(lambda: primary.sessions[-1].lines[-1] == b"QUIT", what="the used-up connection's end")
    equal(len(primary.sessions), 3)


@test("each of the timeouts for the primary's answers counts for its own command")
def _(scene):
    for key, verb in (("mail", "MAIL"), ("rcpt", "RCPT"), ("data_start", "DATA"), ("data_end", "content"), ("command", "VRFY")):
        primary = scene.primary(replies={verb: b""})  # silence
        holdfast = scene.holdfast(primary, yaml=f"limits:\n  timeouts:\n    {key}: 300ms\n" + PASS)
        client = scene.client(holdfast.port)
        client.ask("EHLO client.example.net")
        reply = client.ask("VRFY somebody") if verb == "VRFY" else client.send_mail(helo=None)
        equal((key, reply[:9]), (key, "451 4.4.2" if key == "data_end" else "421 4.4.2"))
        client.close()
        holdfast.stop()


main()
