"""A backup is taken while mail flows, little by little, and put back with one command."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from journals import *


def fill(scene, holdfast, first, count):
    send_all(scene, holdfast, [(f"Subject: {number}\r\n\r\n{noise(30000, number)}\r\n", "a@example.net", f"p{number % 3}@example.org") for number in range(first, first + count)])


def world(scene, segments=3, **options):
    holdfast = scene.holdfast(scene.primary(), **options)
    for number in range(segments):
        fill(scene, holdfast, number * 10, 10)
        if number + 1 < segments:
            holdfast.run("journal", "seal")
    return holdfast


def restored(scene, holdfast, folder, name):
    """A Holdfast on a copy of the backup, with the key put back."""
    path = scene.path(name)
    shutil.copytree(folder, path)
    shutil.copy(os.path.join(holdfast.journal_path, "master.key"), path)
    other = Holdfast(scene, holdfast.port, journal_path=path)
    other.write_config()
    other.run("journal", "rebuild")
    sound(other)
    return other


@test("a hot copy, then only what is new; put back, it is the same journal")
def _(scene):
    holdfast = world(scene)
    wait_for(lambda: holdfast.logged("compacted journal segment 2"), what="the sealed segments to stay as they are")
    folder = scene.path("backup")
    is_over = []

    def traffic():
        client = Client(holdfast.port)
        helo = "client.example.net"
        while not is_over:
            assert client.send_mail("Subject: live\r\n\r\nx\r\n", helo=helo).startswith("250")
            helo = None

    thread = threading.Thread(target=traffic)
    thread.start()
    try:
        said = holdfast.run("journal", "backup", folder).stdout
        assert said.startswith("3 segments copied, 0 unchanged"), said
        said = holdfast.run("journal", "backup", folder).stdout
        assert said.startswith("1 segments copied, 2 unchanged"), said
    finally:
        is_over.append(True)
        thread.join()
    settled(holdfast)
    holdfast.run("journal", "backup", folder)
    assert not os.path.exists(os.path.join(folder, "master.key")), "no secrets in it"
    other = restored(scene, holdfast, folder, "restored")
    equal(other.entries(), holdfast.entries())
    one = holdfast.entries()[3]["id"]
    equal(other.content(one), holdfast.content(one))
    # And it can be served from, with the same key.
    other.start()
    equal(other.status()["journal"]["entries"], len(other.entries()))
    other.run("journal", "seal")
    sound(other)
    equal(*(open(os.path.join(one.journal_path, "signing.pub")).read() for one in (other, holdfast)))
    other.stop()


@test("a damaged segment keeps no other from the backup; it is there as it is, unless a good copy was there before; each run tells of it")
def _(scene):
    holdfast = world(scene, journal="compress: false")
    folder = scene.path("backup")
    segments = [os.path.join(holdfast.journal_path, "segments", f"000000000{number}.lmdb") for number in (1, 2)]
    shutil.copy(segments[0], scene.path("good"))
    flip(segments[0], 40000)
    for count in (1, 2):
        fill(scene, holdfast, 30 + count, 1)
        said = holdfast.run("journal", "backup", folder, check=False)
        equal((said.returncode, said.stderr.count("DAMAGED"), segments[0] in said.stderr), (65, 1, True), said.stderr)
        assert ("it is in the backup as it is" if count == 1 else "the copy of an earlier run stays") in said.stderr, said.stderr
    copied = Holdfast(scene, holdfast.port, journal_path=folder)
    copied.journal = f"key_file: {holdfast.journal_path}/master.key"
    copied.write_config()
    equal(len(copied.entries()), 32)
    flip(segments[1], 40000)
    said = holdfast.run("journal", "backup", folder, check=False)
    equal((said.returncode, said.stderr.count("DAMAGED")), (65, 1), "of the one that was copied before, the backup is good")
    verified = copied.run("journal", "verify", check=False)
    assert verified.returncode == 65 and "segment 1" in verified.stdout and "DAMAGED segment 2" not in verified.stdout, verified.stdout
    for segment in segments:
        shutil.copy(scene.path("good") if segment == segments[0] else os.path.join(folder, "segments", os.path.basename(segment)), segment)
    equal(holdfast.run("journal", "backup", folder).stderr, "")
    sound(restored(scene, holdfast, folder, "restored"))


# A disk that does not give one block of the first segment.
BAD_SECTOR = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int is_meant(int file) {
  char link[64], path[1024];
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t size = readlink(link, path, sizeof path - 1);
  path[size < 0 ? 0 : size] = 0;
  return strstr(path, ".journal/segments/0000000001.lmdb") != NULL;
}

ssize_t copy_file_range(int in, off64_t *in_at, int out, off64_t *out_at, size_t size, unsigned flags) {
  static ssize_t (*real)(int, off64_t *, int, off64_t *, size_t, unsigned);
  if (!real) real = dlsym(RTLD_NEXT, "copy_file_range");
  return is_meant(in) ? errno = EIO, -1 : real(in, in_at, out, out_at, size, flags);
}

ssize_t read(int file, void *bytes, size_t size) {
  static ssize_t (*real)(int, void *, size_t);
  if (!real) real = dlsym(RTLD_NEXT, "read");
  off_t at = is_meant(file) ? lseek(file, 0, SEEK_CUR) : -1, bad = 40960;
  if (at >= bad && at < bad + 4096) return errno = EIO, -1;
  return real(file, bytes, at >= 0 && at < bad && at + (off_t)size > bad ? (size_t)(bad - at) : size);
}
"""


@test("a block that the disk does not give keeps nothing else from the backup, and no good copy is replaced by what is left")
def _(scene):
    holdfast = world(scene, journal="compress: false")
    folder, bad = scene.path("backup"), preloading(scene, BAD_SECTOR)
    segment = os.path.join(holdfast.journal_path, "segments", "0000000001.lmdb")
    said = run(*bad, BINARY, "-c", holdfast.config, "journal", "backup", folder)
    equal((said.returncode, said.stdout.split(",")[0]), (65, "3 segments copied"), said.stderr)
    assert f"DAMAGED: {segment}: the disk does not give the bytes from 40960 on: Input/output error; it is in the backup as it is" in said.stderr, said.stderr
    whole, left = (open(one, "rb").read() for one in (segment, os.path.join(folder, "segments", "0000000001.lmdb")))
    equal(left, whole[:40960] + bytes(4096) + whole[45056:])
    equal(holdfast.run("journal", "backup", folder).stderr, "")
    os.unlink(os.path.join(folder, "segments", "0000000001.manifest"))  # as if it had to be copied again
    said = run(*bad, BINARY, "-c", holdfast.config, "journal", "backup", folder)
    assert said.returncode == 65 and "the copy of an earlier run stays" in said.stderr, said
    equal(open(os.path.join(folder, "segments", "0000000001.lmdb"), "rb").read(), whole)


@test("a key ring or a head that is lost or damaged is told, keeps nothing else from the backup, and does not take the place of a good one")
def _(scene):
    holdfast = world(scene)
    folder = scene.path("backup")
    wait_for(lambda: holdfast.logged("compacted journal segment 2"), what="the sealed segments to stay as they are")
    holdfast.run("journal", "backup", folder)
    holdfast.stop()  # which would put the ring back
    good = {name: open(os.path.join(holdfast.journal_path, name)).read() for name in ("keys", "heads/0000000001.head")}
    for name in good:
        for spoil in (os.unlink, lambda path: open(path, "w").close(), lambda path: open(path, "w").write("\0\1\n")):
            spoil(os.path.join(holdfast.journal_path, name))
            said = holdfast.run("journal", "backup", folder, check=False)
            is_told = said.returncode == 65 and "DAMAGED: " + os.path.join(holdfast.journal_path, name) in said.stderr
            is_gone = name != "keys" and spoil is os.unlink  # is verify's to tell
            assert is_told != is_gone, (name, said)
            with open(os.path.join(holdfast.journal_path, name), "w") as file:
                file.write(good[name])
            equal(open(os.path.join(folder, name)).read(), good[name])
    equal(holdfast.run("journal", "backup", folder).stderr, "")
    sound(restored(scene, holdfast, folder, "restored"))


@test("a damaged store of mailboxes is told, and does not take the place of a good copy")
def _(scene):
    holdfast = world(scene, segments=1)
    for number in range(60):
        holdfast.run("mailbox", "add", f"person{number}@example.org", "--generate")
    holdfast.stop()
    folder, store = scene.path("backup"), os.path.join(holdfast.journal_path, "mailboxes.lmdb")
    equal(holdfast.run("journal", "backup", folder).stderr, "")
    good = open(os.path.join(folder, "mailboxes.lmdb"), "rb").read()
    with open(store, "r+b") as file:
        file.seek(2 * 4096)
        file.write(random.Random(7).randbytes(os.path.getsize(store) - 2 * 4096))
    for is_there in (True, False):
        if not is_there:
            shutil.rmtree(folder)
        said = holdfast.run("journal", "backup", folder, check=False)
        equal((said.returncode, said.stderr.count("DAMAGED")), (65, 1), said.stderr)
        assert f"{store}: is damaged; {'the copy of an earlier run stays in the backup' if is_there else 'it is in the backup as it is'}" in said.stderr, said.stderr
        equal(open(os.path.join(folder, "mailboxes.lmdb"), "rb").read() == good, is_there)
        assert os.path.exists(os.path.join(folder, "keys")) and not [name for name in os.listdir(folder) if "part" in name], os.listdir(folder)


@test("what was erased or pruned goes from the backup too; the folder of another journal is refused")
def _(scene):
    holdfast = world(scene)
    folder = scene.path("backup")
    holdfast.run("journal", "backup", folder)
    holdfast.run("journal", "erase", "--recipient", "p1@example.org", "--reason", "x")
    a_second_passes(holdfast)
    assert not holdfast.run("journal", "prune", "--older-than", "1s", "--reason", "x").stdout.startswith("0 ")
    said = holdfast.run("journal", "backup", folder).stdout
    assert " 0 removed" not in said, said
    other = restored(scene, holdfast, folder, "restored")
    equal(other.entries(), holdfast.entries())
    assert not any(to["address"] == "p1@example.org" for entry in other.entries() for to in entry["recipients"])
    stranger = scene.holdfast(scene.primary())
    refused = stranger.run("journal", "backup", folder, check=False)
    assert refused.returncode == 75 and "no backup of this journal" in refused.stderr, refused.stderr
    os.makedirs(scene.path("photos"))
    open(scene.path("photos/1.jpg"), "w").close()
    equal(holdfast.run("journal", "backup", scene.path("photos"), check=False).returncode, 75)


@test("a backup into the journal itself, or into one that is served from, is refused, and takes nothing from it")
def _(scene):
    holdfast = world(scene)
    os.symlink(holdfast.journal_path, scene.path("link"))
    for folder in (holdfast.journal_path, scene.path("link"), os.path.join(holdfast.journal_path, "backups")):
        refused = holdfast.run("journal", "backup", folder, check=False)
        assert refused.returncode == 75 and f"{folder}: is in the journal itself" in refused.stderr, (refused.returncode, refused.stderr)
    fill(scene, holdfast, 100, 1)
    holdfast.process.kill()
    holdfast.process.wait()
    holdfast.start()
    equal(len(holdfast.entries()), 31, "what came after is there")
    sound(holdfast)
    folder = scene.path("backup")
    holdfast.run("journal", "backup", folder)
    shutil.copy(os.path.join(holdfast.journal_path, "master.key"), folder)
    other = Holdfast(scene, holdfast.port, journal_path=folder)
    other.write_config()
    other.run("journal", "rebuild")
    other.run("journal", "export", str(other.entries()[0]["id"]))
    said = holdfast.run("journal", "backup", folder).stdout
    assert " 0 removed" in said, "who only read in it is in nobody's way"
    other.start()
    fill(scene, other, 200, 1)
    for state in ("is", "was"):
        refused = holdfast.run("journal", "backup", folder, check=False)
        assert refused.returncode == 75 and f"{folder}: a daemon {state} started on it" in refused.stderr, (refused.returncode, refused.stderr)
        if state == "is":
            other.stop()
    equal(len(other.entries()), 32)


@test("of several backups into one folder at once, one is made, and the others say so")
def _(scene):
    holdfast = world(scene)
    for number in range(5):
        folder = scene.path(f"backup{number}")
        runs = [subprocess.Popen([BINARY, "-c", holdfast.config, "journal", "backup", folder], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(4)]
        ends = [(one.communicate()[1], one.returncode) for one in runs]
        assert any(code == 0 for _, code in ends), ends
        for said, code in ends:
            assert code == 0 or (code == 75 and f"{folder}: another holdfast command is writing there" in said), ends
        restored(scene, holdfast, folder, f"restored{number}")


@test("a full disk stops it with nothing half-done, and it goes on when there is room")
def _(scene):
    disk = small_disk(scene, 1)
    if not disk:
        return
    holdfast = world(scene, journal="compress: false")
    folder = os.path.join(disk, "backup")
    full = holdfast.run("journal", "backup", folder, check=False)
    assert full.returncode == 75 and "space" in full.stderr, full.stderr
    assert not [name for _, _, names in os.walk(folder) for name in names if name.endswith(".part")]
    run("mount", "-o", "remount,size=20m", disk, check=True)
    holdfast.run("journal", "backup", folder)
    restored(scene, holdfast, folder, "restored")


@test(f"killed {KILLS} times in the middle: the journal verifies each time, and backing up again ends it")
def _(scene):
    holdfast = world(scene, segments=4)
    holdfast.stop()
    folder = scene.path("backup")
    command = [BINARY, "-c", holdfast.config, "journal", "backup", folder]
    for number in kills(command, lambda: shutil.rmtree(folder)):
        if number % 10 == 0:
            sound(holdfast)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        assert not [name for _, _, names in os.walk(folder) for name in names if name.endswith((".part", ".next", ".new"))]
    other = restored(scene, holdfast, folder, "restored")
    equal(other.entries(), holdfast.entries())


main()
