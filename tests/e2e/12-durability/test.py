"""Durable before 250: Holdfast is killed at random moments under load; what was acknowledged is in the journal, each time."""
import hashlib
import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from harness import *

KILLS = int(os.environ.get("HOLDFAST_KILLS", "50"))
CLIENTS = 8


class Load(threading.Thread):
    """One client that sends message after message, and notes which it was told are taken."""

    def __init__(self, port, number, seed, acknowledged):
        super().__init__(daemon=True)
        self.port, self.number, self.noise, self.acknowledged = port, number, random.Random(seed), acknowledged

    def content(self, name):
        size = self.noise.choice([0, 100, 3000, 10000, 70000, 300000])
        return (f"Message-ID: <{name}>\r\n\r\n" + ("%064x\r\n" % self.noise.getrandbits(256)) * (size // 66)).encode()

    def run(self):
        with contextlib.suppress(OSError, EOFError):
            client = Client(self.port)
            client.ask("EHLO load.example.net")
            while True:
                name = f"{self.number}.{self.noise.getrandbits(64)}@example.net"
                content = self.content(name)
                if self.noise.random() < 0.5:
                    client.send("MAIL FROM:<a@example.net>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n")
                    replies = [client.reply() for _ in range(3)]
                    client.send(content + b".\r\n")
                else:
                    client.send(b"MAIL FROM:<a@example.net>\r\nRCPT TO:<b@example.org>\r\nBDAT %d LAST\r\n" % len(content) + content)
                    replies = [client.reply() for _ in range(2)]
                if client.reply().startswith("250"):
                    self.acknowledged[name] = hashlib.sha256(content).hexdigest()


@test(f"{KILLS} times killed with SIGKILL under load: every message that got 250 is in the journal, whole, and the journal verifies")
def _(scene):
    noise = random.Random(int(os.environ.get("HOLDFAST_SEED", "7")))
    primary = scene.primary()
    holdfast = scene.holdfast(primary, journal="segment_size: 16MiB")
    acknowledged = {}
    for kill in range(KILLS):
        goal = len(acknowledged) + noise.randrange(1, 60)
        clients = [Load(holdfast.port, f"{kill}.{number}", noise.getrandbits(32), acknowledged) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        wait_for(lambda: len(acknowledged) >= goal, what="messages")
        holdfast.kill()
        for client in clients:
            client.join(20)
        journal = {one["message_id"]: one for one in holdfast.entries()}
        for name, digest in acknowledged.items():
            assert name in journal, f"kill {kill}: {name} was acknowledged and is not in the journal"
            equal(journal[name]["sha256"], digest, f"kill {kill}: {name}")
        verified = holdfast.run("journal", "verify", check=False)
        equal(verified.returncode, 0, f"kill {kill}: {verified.stdout}{verified.stderr}")
        holdfast.start()
        primary.messages.clear()
    assert len(acknowledged) >= KILLS
    print(f"{len(acknowledged)} messages were acknowledged over {KILLS} kills")
    # What had no outcome when Holdfast died says so.
    wait_for(lambda: not [one for one in holdfast.entries() if one["recipients"][0]["outcome"] == "pending"], what="outcomes")


SLOW_DISK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>
int fdatasync(int file) {
  if (access(getenv("SLOW_DISK"), F_OK) == 0) usleep(1500000);
  return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(file);
}
"""


@test("who stops it while the disk is slow gets a process that ends well, and a journal with all that was under way")
def _(scene):
    source, library, mark = scene.path("slow.c"), scene.path("slow.so"), scene.path("slow")
    with open(source, "w") as file:
        file.write(SLOW_DISK)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    primary = scene.primary()
    # A sanitizer of the program wants to be loaded first.
    sanitizers = re.findall(r"=> (\S*lib[at]san\S*)", subprocess.run(["ldd", BINARY], capture_output=True, text=True).stdout)
    slowly = ["env", f"SLOW_DISK={mark}", "LD_PRELOAD=" + ":".join([*sanitizers, library])]
    holdfast = scene.holdfast(primary, yaml="shutdown_grace: 0ms", before=slowly)
    clients = [scene.client(holdfast.port) for _ in range(40)]
    for client in clients:
        for command in ("EHLO client.example.net", "MAIL FROM:<a@example.net>", "RCPT TO:<b@example.org>", "DATA"):
            client.ask(command)
    open(mark, "w").close()
    holdfast.signal(signal.SIGTERM)
    for client in clients:  # until it has gone
        time.sleep(0.1)
        with contextlib.suppress(OSError):
            client.send("Subject: x\r\n\r\nunder way\r\n.\r\n")
    equal(holdfast.process.wait(30), 0)
    taken = 0
    for client in clients:
        with contextlib.suppress(OSError, EOFError):
            taken += client.reply().startswith("250")
    assert 0 < taken < len(clients), taken
    holdfast.run("journal", "verify")
    os.remove(mark)
    holdfast.before = []
    holdfast.start()
    forwarded = [entry for entry in holdfast.entries() if entry["recipients"][0]["outcome"] == "forwarded"]
    assert len(forwarded) >= taken, (len(forwarded), taken)


@test("after SIGKILL with a journal of many entries, Holdfast takes mail again at once")
def _(scene):
    primary = scene.primary()
    holdfast = scene.holdfast(primary)
    acknowledged = {}
    clients = [Load(holdfast.port, number, number, acknowledged) for number in range(4)]
    for client in clients:
        client.start()
    wait_for(lambda: len(acknowledged) > 500, seconds=60, what="500 messages")
    holdfast.kill()
    for client in clients:
        client.join(20)
    holdfast.start()
    equal(scene.client(holdfast.port).send_mail(), "250 2.0.0 Ok: taken")
    assert holdfast.status()["journal"]["entries"] >= len(acknowledged) + 1
    equal(len(holdfast.entries()), holdfast.status()["journal"]["entries"])


main()
