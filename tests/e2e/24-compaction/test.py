"""Sealed segments are compressed in the background: the same entries in less space, whatever happens meanwhile."""
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from journals import *

WORDS = "the a of contract invoice meeting tomorrow please regards attached report quarter customer delivery order we you and thank question Monday".split()


def prose(size, seed):
    chosen = random.Random(seed)
    return "".join(chosen.choice(WORDS) + (".\r\n" if chosen.random() < 0.1 else " ") for _ in range(size // 7))


def content(number):
    """Small and large, prose and noise, and none at all."""
    head = f"Message-ID: <m{number}@example.net>\r\nSubject: Number {number}\r\n\r\n"
    if number % 50 == 49:
        return head + noise(300000, number) + "\r\n"
    if number % 20 == 19:
        return ""
    return head + prose(number % 10 * 900, number) + "\r\n"


def fill(scene, holdfast, numbers):
    send_all(scene, holdfast, [(content(number), "a@example.net", f"p{number % 5}@example.org") for number in numbers])


def whole(holdfast, numbers):
    entries, found = holdfast.entries(), contents(holdfast)
    equal(len(entries), len(numbers))
    for entry, number in zip(entries, numbers):
        equal(found[entry["id"]].decode(), content(number), number)
    sound(holdfast)


def compacted(holdfast):
    return [int(number) for number in re.findall(r"compacted journal segment (\d+)", open(holdfast.log).read())]


def wait_until_compacted(holdfast, *numbers):
    wait_for(lambda: set(numbers) <= set(compacted(holdfast)), what=f"segments {numbers} to be compacted")


def size(holdfast, number):
    return os.path.getsize(os.path.join(holdfast.journal_path, "segments", f"{number:010}.lmdb"))


@test("a sealed segment shrinks and holds the same, also for proofs, published heads and the public key alone")
def _(scene):
    published = scene.path("heads")
    holdfast = scene.holdfast(scene.primary(), journal=f"publish_heads: [{published}]\ncompress: false")
    fill(scene, holdfast, range(300))
    before = json.loads(holdfast.run("journal", "stats", "--json").stdout)["stored_bytes"]  # the file has room behind that
    holdfast.run("journal", "seal")
    one = holdfast.entries()[7]["id"]
    proof = scene.path("proof.json")
    with open(proof, "w") as file:
        file.write(holdfast.run("journal", "proof", str(one)).stdout)
    whole(holdfast, range(300))
    equal(size(holdfast, 1), before)
    holdfast.stop()
    holdfast.journal = f"publish_heads: [{published}]"
    holdfast.start()
    wait_until_compacted(holdfast, 1)
    ratio = size(holdfast, 1) / sum(len(content(number)) for number in range(300))
    print(f"  {before} bytes, {size(holdfast, 1)} compacted, {ratio:.2f} of the content")
    assert size(holdfast, 1) < 0.7 * before
    whole(holdfast, range(300))
    holdfast.run("journal", "verify", "--proof", proof)
    holdfast.run("journal", "verify", "--heads", published)
    holdfast.run("journal", "verify", "--key", os.path.join(holdfast.journal_path, "signing.pub"))
    holdfast.run("journal", "rebuild")
    equal(len(holdfast.entries("--recipient", "p3@example.org")), 60)
    stats = json.loads(holdfast.run("journal", "stats", "--json").stdout)
    assert stats["compacted_segments"] == 1 and stats["stored_bytes"] < stats["content_bytes"], stats
    # Once is enough, over a restart too.
    holdfast.stop()
    holdfast.start()
    fill(scene, holdfast, range(300, 310))
    holdfast.run("journal", "seal")
    wait_until_compacted(holdfast, 2)
    equal(compacted(holdfast), [1, 2])


@test("what is erased from a compacted segment is not in its dictionary either")
def _(scene):
    holdfast = scene.holdfast(scene.primary())
    fill(scene, holdfast, range(200))
    secret = "the name of the rose is Umberto " * 20
    send_all(scene, holdfast, [(f"Subject: secret {number}\r\n\r\n{secret}{number}\r\n", "a@example.net", "secret@example.org") for number in range(100)])
    holdfast.run("journal", "seal")
    wait_until_compacted(holdfast, 1)
    script = """
import sys
from reader import *
_, keys = read_key_ring(sys.argv[1])
sys.stdout.buffer.write(Segment(sys.argv[1] + "/segments/0000000001.lmdb", keys, True).dictionary.as_bytes())
"""

    def dictionary():
        folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "20-proof")
        return subprocess.run(["/usr/bin/python3", "-c", script, holdfast.journal_path], cwd=folder, capture_output=True, check=True).stdout
    assert b"Umberto" in dictionary()
    holdfast.run("journal", "erase", "--recipient", "secret@example.org", "--reason", "x")
    assert b"Umberto" not in dictionary()
    whole(holdfast, range(200))


@test("reading goes on while segments are replaced, and mail too")
def _(scene):
    holdfast = scene.holdfast(scene.primary(), journal="segment_size: 1MiB")
    fill(scene, holdfast, range(400))
    for _ in range(5):
        whole(holdfast, range(400))
    holdfast.run("journal", "seal")
    wait_until_compacted(holdfast, 1, 2)
    whole(holdfast, range(400))


@test("a full disk puts it off, and mail goes on")
def _(scene):
    disk = small_disk(scene, 8)
    if not disk:
        return
    holdfast = scene.holdfast(scene.primary(), journal_path=os.path.join(disk, "journal"))
    fill(scene, holdfast, range(150))
    ballast = fill_disk(disk, 500 << 10)
    holdfast.run("journal", "seal")
    wait_for(lambda: "no space" in open(holdfast.log).read(), what="the disk to be full")
    fill(scene, holdfast, range(150, 152))
    os.unlink(ballast)
    whole(holdfast, range(152))
    holdfast.stop()
    holdfast.start()
    wait_until_compacted(holdfast, 1)
    whole(holdfast, range(152))


@test("a damaged segment is left as it is, and named; the others are compacted")
def _(scene):
    holdfast = scene.holdfast(scene.primary(), journal="compress: false")
    for first in (0, 60):
        fill(scene, holdfast, range(first, first + 60))
        holdfast.run("journal", "seal")
    holdfast.stop()
    damaged = os.path.join(holdfast.journal_path, "segments", "0000000001.lmdb")
    with open(damaged, "r+b") as file:
        for page in range(30, 60):  # some of them are no longer in use
            file.seek(page * 4096 + 2000)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 1]))
    before = open(damaged, "rb").read()
    holdfast.journal = ""
    holdfast.start()
    wait_until_compacted(holdfast, 2)
    wait_for(lambda: "nothing was changed" in open(holdfast.log).read() or "authentication tag" in open(holdfast.log).read(), what="the log to name it")
    equal(open(damaged, "rb").read(), before)
    equal(compacted(holdfast), [2])


@test(f"killed {KILLS} times in the middle: each time the journal verifies, and it is done after the next start")
def _(scene):
    holdfast = scene.holdfast(scene.primary(), journal="compress: false")
    for number in range(3):
        fill(scene, holdfast, range(number * 60, number * 60 + 60))
        holdfast.run("journal", "seal")
    holdfast.stop()
    saved = scene.path("saved")
    shutil.copytree(holdfast.journal_path, saved)
    holdfast.journal = ""
    holdfast.start()
    began = time.monotonic()
    wait_until_compacted(holdfast, 1, 2, 3)
    takes, cut = time.monotonic() - began, 0
    holdfast.stop()
    for _ in range(KILLS):
        shutil.rmtree(holdfast.journal_path)
        shutil.copytree(saved, holdfast.journal_path)
        open(holdfast.log, "w").close()
        holdfast.start()
        time.sleep(random.random() * takes)  # the moment of the kill
        holdfast.kill()
        cut += len(compacted(holdfast)) < 3
        sound(holdfast)
    print(f"  {cut} of {KILLS} runs were cut")
    holdfast.start()
    numbers = [entry["subject"] for entry in holdfast.entries()]
    equal(len(numbers), 180)
    whole(holdfast, range(180))


main()
