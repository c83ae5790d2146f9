"""Holdfast ends and begins anew, and the clients that come meanwhile are not refused: the service manager keeps the listening sockets."""
import os
import socket
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from harness import *
from service_manager import KeepingManager


def kept_by(scene, **options):
    """A service manager, and a Holdfast that it has started."""
    manager = KeepingManager(scene, scene.path("notify"))
    holdfast = manager.prepare(Holdfast(scene, scene.primary(), **options)).start()
    wait_for(manager.ports, what="sockets to keep")
    return manager, holdfast


def is_refused(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@test("who comes while nobody is there waits, and is served: after a stop, and after kill -9")
def _(scene):
    manager, holdfast = kept_by(scene, yaml="threads: 2")
    equal(manager.ports(), [holdfast.port] * 2, "one socket a loop")
    for end in (holdfast.stop, holdfast.kill, holdfast.stop):
        end()
        clients = [Client(holdfast.port, greeting=False) for _ in range(20)]
        manager.prepare(holdfast).start()
        for client in clients:
            assert client.reply().startswith("220")
            assert client.send_mail().startswith("250")
            client.close()
    equal(manager.ports(), [holdfast.port] * 2, "the same sockets still")
    wait_for(lambda: len(holdfast.entries()) == 60, what="all in the journal")
    assert "all is well" in holdfast.run("journal", "verify").stdout


@test("restarts under load: everybody is answered, by the primary or with 421")
def _(scene):
    manager, holdfast = kept_by(scene, yaml="threads: 2\nlimits:\n  per_client: 1000")
    problems, replies, is_over = [], [], threading.Event()

    def send():
        while not is_over.is_set():
            try:
                client = Client(holdfast.port)
                reply = client.greeting
                if reply.startswith("220"):
                    reply = client.ask("EHLO client.example.net")
                replies.append(client.send_mail(helo=None) if reply.startswith("250") else reply)
                client.close()
            except (OSError, EOFError) as problem:
                problems.append(problem)

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            count = len(replies)
            wait_for(lambda: len(replies) > count + 50, what="some mail")
            holdfast.stop()
            manager.prepare(holdfast).start()
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    equal(problems, [])
    equal({reply[:3] for reply in replies} - {"421"}, {"250"})
    accepted = sum(reply.startswith("250") for reply in replies)
    equal(len([one for one in holdfast.entries() if one["recipients"][0]["outcome"] == "forwarded"]), accepted)


@test("with fewer loops, or more, nobody waits in vain")
def _(scene):
    manager, holdfast = kept_by(scene, yaml="threads: 4")
    for threads in (1, 3, 4):
        holdfast.stop()
        holdfast.yaml = f"threads: {threads}"
        clients = [Client(holdfast.port, greeting=False) for _ in range(40)]
        manager.prepare(holdfast).start()
        for client in clients:
            assert client.reply().startswith("220")
            client.close()
        for _ in range(40):
            scene.client(holdfast.port)


@test("an address that is listened on no more refuses its clients: after a reload, and after a start")
def _(scene):
    manager, holdfast = kept_by(scene)
    other = free_port()
    for begin in (lambda: holdfast.signal(signal.SIGHUP), lambda: (holdfast.stop(), manager.prepare(holdfast).start())):
        holdfast.listeners = f"- address: 127.0.0.1:{other}"
        holdfast.write_config()
        begin()
        wait_for(lambda: len(set(manager.ports())) == 2, what="both addresses to be kept")
        assert scene.client(other).send_mail().startswith("250")
        holdfast.listeners = ""
        holdfast.write_config()
        begin()
        wait_for(lambda: is_refused(other), what="clients to be refused")
        equal(set(manager.ports()), {holdfast.port})
        assert scene.client(holdfast.port).send_mail().startswith("250")


@test("a start that fails refuses its clients, so that they try elsewhere; the next one that succeeds listens")
def _(scene):
    for spoil, expected in ((lambda holdfast: setattr(holdfast, "yaml", "nonsense: 1"), 78),
                            (lambda holdfast: setattr(holdfast, "listeners", f"- address: 192.0.2.1:{free_port()}"), 75),
                            (lambda holdfast: setattr(holdfast, "admin", "http: 127.0.0.1:{0}".format(holdfast.blocker.getsockname()[1])), 75)):
        with contextlib.ExitStack() as stack:
            manager, holdfast = kept_by(scene)
            holdfast.blocker = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            holdfast.stop()
            waiting = Client(holdfast.port, greeting=False)
            before = holdfast.yaml, holdfast.listeners, holdfast.admin
            spoil(holdfast)
            manager.prepare(holdfast).start(ready=False)
            equal(holdfast.process.wait(20), expected, open(holdfast.log).read())
            equal(waiting.rest(), "")
            assert is_refused(holdfast.port)
            equal(manager.ports(), [])
            holdfast.yaml, holdfast.listeners, holdfast.admin = before
            manager.prepare(holdfast).start()
            assert scene.client(holdfast.port).send_mail().startswith("250")
            holdfast.stop()
            os.unlink(scene.path("notify"))


@test("sockets of another user, as systemd opens them for a socket unit, serve all loops")
def _(scene):
    with socket.create_server(("127.0.0.1", 0)) as opened:
        manager = KeepingManager(scene, scene.path("notify"))
        manager.kept[0] = opened  # without SO_REUSEPORT
        holdfast = Holdfast(scene, scene.primary(), yaml="threads: 3")
        holdfast.port = opened.getsockname()[1]
        manager.prepare(holdfast).start()
        for _ in range(30):
            assert scene.client(holdfast.port).send_mail().startswith("250")


@test("what was passed to another process is left alone")
def _(scene):
    with socket.create_server(("127.0.0.1", 0)) as other:
        os.set_inheritable(other.fileno(), True)
        holdfast = Holdfast(scene, scene.primary(), before=["env", "LISTEN_PID=1", "LISTEN_FDS=1"])
        holdfast.passed = (other.fileno(),)
        holdfast.start()
        assert not is_refused(other.getsockname()[1])
        assert scene.client(holdfast.port).send_mail().startswith("250")


@test("an admin.socket that names something else is refused, and what is there stays; the socket of one that was killed is taken over")
def _(scene):
    holdfast = scene.holdfast(scene.primary())
    holdfast.kill()
    assert os.path.exists(holdfast.socket), "left by the kill"
    holdfast.start().stop()
    with open(holdfast.socket, "w") as file:
        file.write("precious")
    refused = holdfast.run("serve", check=False)
    assert refused.returncode == 78 and f"{holdfast.socket}: is there, and no socket; choose another admin.socket" in refused.stderr, (refused.returncode, refused.stderr)
    with open(holdfast.socket) as file:
        equal(file.read(), "precious")


main()
