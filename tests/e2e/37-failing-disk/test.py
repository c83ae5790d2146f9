"""A disk that is slow, full or broken for a while: what was acknowledged is there, the chain holds, and all goes on by itself."""
import errno
import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from harness import *
from load import Load, check_acknowledged

ROUNDS = int(os.environ.get("HOLDFAST_DISK_ROUNDS", "10"))
CALLS = ["fdatasync", "fsync", "pwrite", "pwritev", "rename", "ftruncate", "open"]


class Disk:
    """What the disk does for who is started by `before`: rules are (call, percent that fail, errno, microseconds longer)."""

    def __init__(self, scene):
        self.rules = scene.path("rules")
        with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "failing_disk.c")) as source:
            self.before = [*preloading(scene, source.read()), f"FAILING_DISK={self.rules}"]
        self.does([])

    def does(self, rules):
        with open(self.rules + ".new", "w") as file:
            file.writelines(" ".join(map(str, rule)) + "\n" for rule in rules)
        os.replace(self.rules + ".new", self.rules)


@test("who stops it while the disk is slow gets a process that ends well, and a journal with all that was under way")
def _(scene):
    disk = Disk(scene)
    holdfast = scene.holdfast(scene.primary(), yaml="shutdown_grace: 0ms", before=disk.before)
    clients = [scene.client(holdfast.port) for _ in range(40)]
    for client in clients:
        for command in ("EHLO client.example.net", "MAIL FROM:<a@example.net>", "RCPT TO:<b@example.org>", "DATA"):
            client.ask(command)
    disk.does([("fdatasync", 0, 0, 1500000)])
    holdfast.signal(signal.SIGTERM)
    for client in clients:  # until it has gone
        time.sleep(0.1)
        with contextlib.suppress(OSError):
            client.send("Subject: x\r\n\r\nunder way\r\n.\r\n")
    equal(holdfast.process.wait(60), 0)
    taken = 0
    for client in clients:
        with contextlib.suppress(OSError, EOFError):
            taken += client.reply().startswith("250")
    assert 0 < taken < len(clients), taken
    holdfast.run("journal", "verify")
    disk.does([])
    holdfast.start()
    forwarded = [entry for entry in holdfast.entries() if entry["recipients"][0]["outcome"] == "forwarded"]
    assert len(forwarded) >= taken, (len(forwarded), taken)


@test("while each sync takes a second, mail waits for it, and nothing else does")
def _(scene):
    disk = Disk(scene)
    holdfast = scene.holdfast(scene.primary(), before=disk.before)
    client = scene.client(holdfast.port)
    client.send_mail()
    disk.does([("fdatasync", 0, 0, 1000000), ("fsync", 0, 0, 1000000)])
    for _ in range(3):
        equal(client.send_mail(helo=None), "250 2.0.0 Ok: taken")
    waiting = threading.Thread(target=client.send_mail, kwargs={"helo": None})
    waiting.start()
    holdfast.run("failover", "hold", "--reason", "test")
    equal(holdfast.status()["routes"][0]["state"], "hold")
    assert scene.client(holdfast.port).ask("EHLO x.example.net").startswith("250")
    assert waiting.is_alive()  # all that, while one commit was waited for
    waiting.join()
    assert scene.client(holdfast.port).send_mail().startswith("250 2.0.0 Ok: queued as")


@test("who asks for the state, or decides, is answered at once while other commands wait for the disk")
def _(scene):
    disk = Disk(scene)
    holdfast = scene.holdfast(scene.primary(), yaml="mailbox:\n  grace: 1h", before=disk.before)
    assert scene.client(holdfast.port).send_mail().startswith("250")
    entry = str(holdfast.entries()[0]["id"])
    disk.does([("fdatasync", 0, 0, 2000000), ("fsync", 0, 0, 2000000)])
    password = scene.path("password")
    with open(password, "w") as file:
        file.write("correct horse battery staple\n")
    for command in (["journal", "export", entry], ["mailbox", "add", "ada@example.org", "--password-file", password]):
        waiting, modes = subprocess.Popen([BINARY, "-c", holdfast.config, *command], stdout=subprocess.DEVNULL), []
        while waiting.poll() is None:
            holdfast.run("failover", "hold" if len(modes) % 2 else "auto", "--reason", "test")
            modes.append(holdfast.status()["routes"][0]["mode"])
        equal(waiting.returncode, 0, command)
        assert len(modes) > 5, (command, modes)
        assert all(mode == ("hold" if number % 2 else "auto") for number, mode in enumerate(modes)), modes


@test("while the file system is frozen for a snapshot, the state is told and decisions are taken; what waited goes on with the thaw")
def _(scene):
    if not os.path.exists("/dev/loop-control"):
        return print("  skipped: this system has no loop devices")
    image, folder = scene.path("image"), scene.path("mounted")
    os.mkdir(folder)
    for command in (["truncate", "-s", "400M", image], ["mkfs.ext4", "-q", "-F", image], ["mount", "-o", "loop", image, folder]):
        subprocess.run(command, check=True)
    scene.stack.callback(run, "umount", "-l", folder)
    holdfast = scene.holdfast(scene.primary(), route="unknown_recipients: accept", yaml="mailbox:\n  grace: 1h", journal_path=os.path.join(folder, "journal"))
    client = scene.client(holdfast.port)
    client.send_mail()
    os.sync()  # no page of the journal may be written to now without the file system's leave
    subprocess.run(["fsfreeze", "--freeze", folder], check=True)
    try:
        client.ask("MAIL FROM:<a@example.net>")
        equal(client.ask("RCPT TO:<b@example.org>"), "250 2.1.5 Ok")
        client.ask("DATA")
        client.send("Subject: x\r\n\r\nx\r\n.\r\n")
        shown = subprocess.Popen([BINARY, "-c", holdfast.config, "mailbox", "list"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        scene.stack.callback(shown.wait)
        equal(holdfast.status()["routes"][0]["state"], "pass")
        holdfast.signal(signal.SIGUSR1)
        wait_for(lambda: holdfast.status()["routes"][0]["state"] == "hold", what="the signal's effect")
        holdfast.run("failover", "auto", "--reason", "test")
        equal(holdfast.status()["routes"][0]["state"], "pass")
        assert "PROBLEM: the mailboxes do not answer" in holdfast.run("status").stdout
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", folder], check=True)
    assert client.reply().startswith("250")
    wait_for(lambda: "PROBLEM" not in holdfast.run("status").stdout, what="the mailboxes")
    holdfast.run("journal", "verify")
    holdfast.stop()


@test("a journal that is removed or replaced under the daemon takes no mail: 452, an alert, and 250 again when it is back, or after a restart")
def _(scene):
    told = scene.path("told")
    holdfast = scene.holdfast(scene.primary(), yaml=f'alert_command: echo "$HOLDFAST_ALERT" >> {told}')
    away, full = holdfast.journal_path + ".away", "452 4.3.1 Insufficient system storage, try again later"
    refuses = lambda: scene.client(holdfast.port).send_mail() == full
    takes = lambda: scene.client(holdfast.port).send_mail().startswith("250")
    assert takes()
    os.rename(holdfast.journal_path, away)
    wait_for(refuses, what="a refusal")
    assert "was removed or replaced" in holdfast.status()["journal"]["last_error"] and holdfast.logged("put it back, or restart Holdfast")
    wait_for(lambda: os.path.exists(told) and "NOT WRITABLE" in open(told).read(), what="an alert")
    shutil.copytree(away, holdfast.journal_path)  # looks the same, and is another
    assert refuses()
    shutil.rmtree(holdfast.journal_path)
    os.rename(away, holdfast.journal_path)
    wait_for(takes, what="mail")
    assert "all is well" in holdfast.run("journal", "verify").stdout
    shutil.rmtree(holdfast.journal_path)
    wait_for(refuses, what="a refusal")
    holdfast.stop()
    holdfast.start()
    assert takes() and "all is well" in holdfast.run("journal", "verify").stdout


@test("a sender hears of a refusal once, also when Holdfast is killed as soon as that is on disk")
def _(scene):
    disk = Disk(scene)
    port = free_port()
    primary, outside = scene.primary(port=port), scene.primary()
    yaml = ("failover:\n  probe_interval: 100ms\n  takeover_after: 1s\n  release_after: 300ms\n  retry_min: 100ms\n"
            f"egress:\n  upstreams: [\"127.0.0.1:{outside.port}\"]\n  spf_gateway: gw.example.org")
    holdfast = scene.holdfast(primary, yaml=yaml, route="unknown_recipients: accept", before=disk.before)
    holdfast.run("failover", "hold", "--reason", "test")
    checked = "Authentication-Results: gw.example.org; spf=pass smtp.mailfrom=a@example.net\r\n"
    assert scene.client(holdfast.port).send_mail(content=checked + "\r\nx\r\n").startswith("250")
    primary.stop()
    scene.primary(port=port, replies={"RCPT": b"550 5.1.1 nobody here\r\n"})
    disk.does([("fdatasync", 0, 0, 500000)])
    holdfast.run("failover", "auto", "--reason", "test")
    notifications = lambda: [one for one in holdfast.entries() if one["direction"] == "outbound"]
    wait_for(notifications, what="the notification on disk")
    holdfast.kill()
    disk.does([])
    holdfast.start()
    wait_for(lambda: holdfast.entries()[0]["recipients"][0]["outcome"] == "bounced", what="the refusal on disk")
    wait_for(lambda: all(one["recipients"][0]["outcome"] == "delivered" for one in notifications()), what="the notification's delivery")
    equal(len(notifications()), 1)


@test("a slow disk is told as such: who waits for it learns from status, the log and an alert that it is the disk")
def _(scene):
    disk, told = Disk(scene), scene.path("told")
    holdfast = scene.holdfast(scene.primary(), yaml=f'alert_command: echo "$HOLDFAST_ALERT" >> {told}', before=disk.before)
    client = scene.client(holdfast.port)
    assert client.send_mail().startswith("250")
    assert "SLOW" not in holdfast.run("status").stdout
    disk.does([("fdatasync", 0, 0, 3000000)])
    for command in ("MAIL FROM:<a@example.net>", "RCPT TO:<b@example.org>", "DATA"):
        client.ask(command)
    client.send("Subject: x\r\n\r\nx\r\n.\r\n")
    wait_for(lambda: re.search(r"SLOW DISK: a commit takes [1-9]\.\d s", holdfast.run("status").stdout), what="a word in status, while it is under way")
    assert client.reply().startswith("250")
    wait_for(lambda: os.path.exists(told) and "journal: SLOW DISK: a commit takes" in open(told).read(), what="an alert")
    assert holdfast.logged("the disk is slow: a commit takes") and holdfast.status()["journal"]["commit_s"] > 1


@test("what was delivered is not delivered again when Holdfast is killed before a slow disk has the word about it")
def _(scene):
    disk = Disk(scene)
    port = free_port()
    primary = scene.primary(port=port)
    holdfast = scene.holdfast(primary, yaml="failover:\n  probe_interval: 100ms\n  release_after: 300ms", route="unknown_recipients: accept", before=disk.before)
    holdfast.run("failover", "hold", "--reason", "test")
    client = scene.client(holdfast.port)
    client.ask("EHLO client.example.net")
    for number in range(30):
        assert client.send_mail(f"Subject: n{number}\r\n\r\nx\r\n", recipient=f"b{number}@example.org", helo=None).startswith("250")
    disk.does([("fdatasync", 0, 0, 2000000)])
    holdfast.run("failover", "auto", "--reason", "test")
    wait_for(lambda: holdfast.status()["routes"][0]["held"] == 0, what="all of them to be delivered")
    equal(len(primary.messages), 30)
    holdfast.kill()
    disk.does([])
    holdfast.start()
    equal({one["recipients"][0]["outcome"] for one in holdfast.entries()}, {"delivered"})
    assert scene.client(holdfast.port).send_mail().startswith("250")
    equal(len(primary.messages), 31)


@test("whatever the disk refuses, and whenever Holdfast is killed or stopped then, what was acknowledged is there, and all goes on by itself")
def _(scene):
    noise = random.Random(int(os.environ.get("HOLDFAST_SEED", "7")))
    disk = Disk(scene)
    holdfast = scene.holdfast(scene.primary(), journal="segment_size: 2MiB", before=disk.before)
    acknowledged = {}

    def load(count):
        clients = [Load(holdfast.port, number, noise.getrandbits(32), acknowledged) for number in range(count)]
        for client in clients:
            client.start()
        return clients

    for number in range(ROUNDS):
        clients, told = load(4), []
        for _ in range(3):
            rules = [(call, noise.choice([1, 5, 20, 50, 100]), noise.choice([errno.EIO, errno.ENOSPC]), noise.choice([0, 0, 2000]))
                     for call in CALLS if noise.random() < 0.4]
            told.append(rules)
            disk.does(rules)
            time.sleep(noise.uniform(0.2, 0.6))
            equal(holdfast.process.poll(), None, f"round {number}: it died while {rules}")
            clients = [one for one in clients if one.is_alive()] + load(sum(not one.is_alive() for one in clients))
        end = noise.choice(["kill", "stop", "recover"])
        if end == "stop":
            holdfast.signal(signal.SIGTERM)
            equal(holdfast.process.wait(60), 0, f"round {number}: {told}")
        if end == "kill":
            holdfast.kill()
        disk.does([])
        if end == "recover":
            def takes_mail():
                with contextlib.suppress(OSError, EOFError, AssertionError):
                    return scene.client(holdfast.port).send_mail().startswith("250")
            wait_for(takes_mail, what=f"mail after {told}")
            known = set(acknowledged)
            wait_for(lambda: known <= {one["message_id"] for one in holdfast.entries()}, what=f"the catalog to know all after {told}")
            holdfast.kill()
        for client in clients:
            client.join(30)
        holdfast.start()
        check_acknowledged(holdfast, acknowledged, f"round {number}: {end} after {told}")
        verified = holdfast.run("journal", "verify", check=False)
        equal(verified.returncode, 0, f"round {number}: {end} after {told}: {verified.stdout}{verified.stderr}")
    print(f"{len(acknowledged)} messages were acknowledged in {ROUNDS} rounds")


main()
