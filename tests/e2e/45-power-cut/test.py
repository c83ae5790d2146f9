"""The power fails. What the disk was told to keep is there afterwards; of what was written since, some is, in pieces of a sector.

Holdfast writes to a real file system, on a disk that notes all (disk.py). From the notes, disks are made as they can be after a power cut at
any moment, and Holdfast starts on each.
"""
import hashlib
import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from harness import *

import disk

CUTS = int(os.environ.get("HOLDFAST_CUTS", "15"))
SECTOR = 512
YAML = "failover:\n  probe_interval: 100ms\n  release_after: 200ms\ndirectory:\n  catch_all: [example.org]\n"


def root(*command):
    done = run(*command)
    equal(done.returncode, 0, f"{command}: {done.stderr}")
    return done.stdout.strip()


@contextlib.contextmanager
def mounted(image, folder):
    device = root("losetup", "-f", "--show", image)
    try:
        root("mount", device, folder)
        try:
            yield
        finally:
            root("umount", "-l", folder)
    finally:
        root("losetup", "-d", device)


class Traffic:
    """Mail to a few people, until it is enough; what was acknowledged, and at which event."""

    def __init__(self, holdfast, now):
        self.holdfast, self.now = holdfast, now
        self.acknowledged, self.is_enough = [], threading.Event()
        self.senders = [threading.Thread(target=self.send, args=(number,), daemon=True) for number in range(6)]
        for sender in self.senders:
            sender.start()

    def send(self, number):
        noise = random.Random(number)
        for count in range(1_000_000):
            if self.is_enough.is_set():
                return
            person, subject = f"p{number}@example.org", f"{number}.{count}"
            content = f"Subject: {subject}\r\n\r\n" + "x" * noise.choice([10, 3000, 60000]) + "\r\n"
            with contextlib.suppress(OSError, EOFError):
                client = Client(self.holdfast.port)
                reply = client.send_mail(content, recipient=person)
                if reply.startswith("250"):
                    self.acknowledged.append((self.now(), subject, person, hashlib.sha256(content.encode()).hexdigest(), "queued as" in reply))
                client.close()
            time.sleep(noise.uniform(0, 0.05))

    def end(self):
        self.is_enough.set()
        for sender in self.senders:
            sender.join()


def disks_after_cuts(image, moments, noise):
    """For each moment a disk that the power left so: the path of its image."""
    with open(image, "rb") as file:
        kept = bytearray(file.read())
    all_events, at = list(disk.events(image + ".events")), 0
    for moment in sorted(moments):
        last_order = max((number for number in range(at, moment) if all_events[number] is None), default=at)
        for event in filter(None, all_events[at:last_order]):
            kept[event[0]:event[0] + len(event[1])] = event[1]
        at = last_order
        left = bytearray(kept)
        chance, piece = noise.choice([0, 0.3, 0.7, 1]), noise.choice([SECTOR, 8 * SECTOR])
        for offset, data in filter(None, all_events[at:moment]):
            for begin in range(0, len(data), piece):
                if noise.random() < chance:
                    left[offset + begin:offset + begin + len(data[begin:begin + piece])] = data[begin:begin + piece]
        with open(image + ".left", "wb") as file:
            file.write(left)
        yield moment, image + ".left"


@test(f"{CUTS} power cuts, also while segments are sealed, compacted, erased from and get new keys: acknowledged mail is there and whole, held mail is held, what was erased stays so")
def _(scene):
    if not os.path.exists("/dev/fuse") or not os.path.exists("/dev/loop-control"):
        return print("  skipped: this system serves no disks of ours")
    noise = random.Random(int(os.environ.get("HOLDFAST_SEED", "11")))
    image, folders = scene.path("image"), {name: scene.path(name) for name in ("fuse", "before", "after")}
    for folder in folders.values():
        os.mkdir(folder)
    root("truncate", "-s", "256M", image)
    root("mkfs.ext4", "-q", "-F", image)
    # Debian's own Python, for its packages.
    server = subprocess.Popen(["/usr/bin/python3", disk.__file__, image, folders["fuse"]], stderr=subprocess.DEVNULL)
    scene.stack.callback(server.wait)
    scene.stack.callback(server.terminate)
    noted = os.path.join(folders["fuse"], "disk")
    wait_for(lambda: server.poll() is not None or os.path.exists(noted), what="the disk")
    equal(server.poll(), None, "the disk is served")
    primary, erasures, hard_times = scene.primary(), [], []
    with mounted(noted, folders["before"]):
        now = disk.Count(image + ".count")
        holdfast = Holdfast(scene, primary, journal="segment_size: 16MiB", journal_path=os.path.join(folders["before"], "journal"), yaml=YAML).start()
        begin, traffic = now(), Traffic(holdfast, now)
        for person in ("p0@example.org", "p1@example.org"):
            wait_for(lambda: len(traffic.acknowledged) > 400 * (1 + len(erasures)), seconds=60, what="mail")
            started = now()
            holdfast.run("journal", "seal")
            holdfast.run("failover", "hold", "--reason", "test")
            holdfast.run("journal", "erase", "--recipient", person, "--reason", "Art. 17", "--including-held")
            erasures.append((started, now(), person))
            holdfast.run("journal", "rekey", "--reason", "test")
            hard_times.append((started, now()))
            holdfast.run("failover", "auto", "--reason", "test")
        traffic.end()
        end = now()
        holdfast.stop()
    root("umount", folders["fuse"])
    equal({one[4] for one in traffic.acknowledged}, {True, False}, "mail that was held, and mail that passed")
    moments = [noise.randrange(*(noise.choice(hard_times) if number % 2 else (begin, end))) for number in range(CUTS)]
    for moment, left in disks_after_cuts(image, moments, noise):
        with mounted(left, folders["after"]):
            again = Holdfast(scene, primary, journal="segment_size: 16MiB", journal_path=os.path.join(folders["after"], "journal"), yaml=YAML)
            again.start()
            found = {one["subject"]: one for one in again.entries()}
            # What the primary has answered is written with the next commit, some milliseconds later.
            latest = sorted(one[0] for one in traffic.acknowledged if one[0] <= moment)[-20:]
            for acknowledged, subject, person, sha256, was_held in traffic.acknowledged:
                what = f"cut at {moment}: {subject}, acknowledged at {acknowledged}"
                begun = [one for one in erasures if one[2] == person and one[0] <= moment]
                if acknowledged > moment:
                    continue
                if any(ended <= moment and acknowledged <= started for started, ended, _ in begun):
                    assert subject not in found, f"{what}: it was erased, and is back"
                elif not begun:
                    assert subject in found, f"{what}: it is lost"
                    equal(found[subject]["sha256"], sha256, what)
                    outcome = found[subject]["recipients"][0]["outcome"]
                    right = ("held", "delivered") if was_held else ("forwarded", "abandoned") if acknowledged in latest else ("forwarded",)
                    assert outcome in right, f"{what}: {outcome}"
            verified = again.run("journal", "verify", check=False)
            equal(verified.returncode, 0, f"cut at {moment}: {verified.stdout}{verified.stderr}")
            client = scene.client(again.port)
            assert client.send_mail().startswith("250")
            client.close()
            again.stop()


main()
