"""What the scenarios about the journal share."""
import base64
import random
import subprocess
import tempfile
import time

from harness import *

KILLS = 50


def noise(size, seed):
    """Lines that can hardly be compressed, the same for the same seed."""
    text = base64.b64encode(random.Random(seed).randbytes(size * 3 // 4)).decode()
    return "\r\n".join(text[at:at + 76] for at in range(0, len(text), 76))


def settled(holdfast):
    """Waits until every recipient's outcome is on record."""
    wait_for(lambda: all(one["outcome"] != "pending" for entry in holdfast.entries() for one in entry["recipients"]), what="all outcomes")


def send_all(scene, holdfast, messages):
    """(content, sender, recipient), one after the other over one connection; waits for their outcomes."""
    client = scene.client(holdfast.port)
    client.ask("EHLO client.example.net")
    for content, sender, recipient in messages:
        assert client.send_mail(content, sender, recipient, helo=None).startswith("250")
    client.ask("QUIT")
    settled(holdfast)


def contents(holdfast):
    """What the journal holds of each entry, by its id, read by one command."""
    with tempfile.TemporaryDirectory() as folder:
        holdfast.run("journal", "replay", "--to", f"eml:{folder}", "--reason", "test")
        return {int(name.removesuffix(".eml")): open(os.path.join(folder, name), "rb").read() for name in os.listdir(folder) if name.endswith(".eml")}


def verified(holdfast, *options):
    """The exit code, the summary and the problems of journal verify."""
    done = holdfast.run("journal", "verify", "--json", *options, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines, done.stderr
    return done.returncode, lines[-1], [one["problem"] for one in lines[:-1]]


def sound(holdfast):
    code, _, problems = verified(holdfast)
    equal((code, problems), (0, []))


def flip(path, place):
    """Another bit in the file at this byte."""
    with open(path, "r+b") as file:
        file.seek(place)
        byte = file.read(1)
        file.seek(place)
        file.write(bytes([byte[0] ^ 4]))


def stopped_for_good(holdfast):
    """Stops it; returns what brings its journal back as it is now."""
    holdfast.stop()
    saved = holdfast.scene.path("saved")
    shutil.copytree(holdfast.journal_path, saved)

    def renew():
        shutil.rmtree(holdfast.journal_path)
        shutil.copytree(saved, holdfast.journal_path)
    return renew


def kills(command, renew):
    """Runs a command to its end to see how long it takes; then, KILLS times, renews the scene and kills it at a random moment.

    Yields the number of each kill, for the caller to look at what is left.
    """
    begin = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    takes, cut = time.monotonic() - begin, 0
    for number in range(KILLS):
        renew()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(random.random() * takes)  # the moment of the kill
        process.kill()
        cut += process.wait() != 0
        yield number
    print(f"  {cut} of {KILLS} runs were cut")


def small_disk(scene, size):
    """A disk of so many MiB of its own; nothing where none can be mounted."""
    disk = scene.path("disk")
    os.mkdir(disk)
    if run("mount", "-t", "tmpfs", "-o", f"size={size}m", "none", disk).returncode != 0:
        return print("  skipped: no tmpfs can be mounted here")
    scene.stack.callback(lambda: run("umount", "-l", disk))
    return disk


def fill_disk(disk, leave):
    """Leaves so many bytes free, until the file is removed whose path is returned."""
    ballast = os.path.join(disk, "ballast")
    with open(ballast, "wb") as file:
        file.write(b"\0" * (os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize - leave))
    return ballast


def a_second_passes(holdfast):
    """Until all segments are older than a second."""
    segments = os.path.join(holdfast.journal_path, "segments")
    newest = lambda: max(os.stat(os.path.join(segments, name)).st_mtime for name in os.listdir(segments) if name.endswith(".lmdb"))
    wait_for(lambda: time.time() - newest() > 1.1, what="a second to pass")
