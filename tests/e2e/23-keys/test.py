"""The journal's keys: another master key without rewriting content, and where a master key may come from."""
import base64
import os
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from journals import *

REASON = ("--reason", "once a year")


def fill(scene, holdfast, *subjects):
    send_all(scene, holdfast, [(f"Subject: {one}\r\n\r\n{one * 2000}\r\n", "a@example.net", "p@example.org") for one in subjects])


def subjects(holdfast):
    """With their contents, to see that they can be decrypted."""
    found = []
    for entry in holdfast.entries():
        assert entry["subject"].encode() * 2000 in holdfast.content(entry["id"])
        found.append(entry["subject"])
    return found


def key_path(holdfast):
    return os.path.join(holdfast.journal_path, "master.key")


def put_key(path, content):
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)


def files(holdfast):
    """The stored bytes of all segments but the newest."""
    folder = os.path.join(holdfast.journal_path, "segments")
    names = sorted(name for name in os.listdir(folder) if name.endswith(".lmdb"))[:-1]
    return {name: open(os.path.join(folder, name), "rb").read() for name in names}


@test("rekey: another master key while mail goes on; content is not rewritten, and the old key opens nothing")
def _(scene):
    holdfast = scene.holdfast(scene.primary())
    fill(scene, holdfast, "one", "two")
    holdfast.run("journal", "seal")
    fill(scene, holdfast, "three")
    wait_for(lambda: holdfast.logged("compacted journal segment 1"), what="the first segment to be compacted")
    shutil.copy(key_path(holdfast), scene.path("old.key"))
    before = files(holdfast)
    holdfast.run("journal", "rekey", *REASON)
    fill(scene, holdfast, "four")
    equal(subjects(holdfast), ["one", "two", "three", "four"])
    after = files(holdfast)
    equal({name: after[name] for name in before}, before)
    assert open(key_path(holdfast)).read() != open(scene.path("old.key")).read()
    equal(os.stat(key_path(holdfast)).st_mode & 0o777, 0o600)
    assert "once a year" in holdfast.run("journal", "accesses").stdout
    sound(holdfast)
    holdfast.stop()
    holdfast.start()
    fill(scene, holdfast, "five")
    holdfast.stop()
    holdfast.run("journal", "rekey", *REASON)  # without a daemon
    equal(subjects(holdfast), ["one", "two", "three", "four", "five"])
    shutil.copy(scene.path("old.key"), key_path(holdfast))
    refused = holdfast.run("journal", "list", check=False)
    assert refused.returncode == 78 and "does not open this journal" in refused.stderr, refused.stderr


@test("rekeyed again and again while the configuration is reloaded and auditors verify: each finds all well")
def _(scene):
    holdfast = scene.holdfast(scene.primary())
    fill(scene, holdfast, "one", "two")
    stopped, wrong = threading.Event(), []

    def beside(work):
        def run():
            while not stopped.is_set():
                work()
        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def reload():
        holdfast.signal(signal.SIGHUP)
        time.sleep(0.002)

    def verify():
        done = holdfast.run("journal", "verify", check=False)
        if done.returncode != 0:
            wrong.append(done.stdout + done.stderr)
    threads = [beside(reload), beside(verify)]
    try:
        for _ in range(30):
            holdfast.run("journal", "rekey", *REASON)
    finally:
        stopped.set()
        for thread in threads:
            thread.join()
    equal(wrong, [])
    equal(subjects(holdfast), ["one", "two"])


@test("the recipients known, the index and a backup outlive a rekey; a backup of before needs the old key")
def _(scene):
    holdfast = scene.holdfast(scene.primary())
    fill(scene, holdfast, "one")
    shutil.copy(key_path(holdfast), scene.path("old.key"))
    holdfast.run("journal", "backup", scene.path("before"))
    holdfast.run("journal", "rekey", *REASON)
    holdfast.run("journal", "backup", scene.path("after"))
    holdfast.stop()
    holdfast.start()
    assert "p@example.org" in holdfast.run("directory", "list").stdout
    equal(len(holdfast.entries("--recipient", "p@example.org")), 1)
    holdfast.stop()
    for folder, key in (("before", scene.path("old.key")), ("after", key_path(holdfast))):
        shutil.copy(key, os.path.join(scene.path(folder), "master.key"))
        copy = Holdfast(scene, 1, journal_path=scene.path(folder))
        copy.write_config()
        copy.run("journal", "rebuild")
        equal(subjects(copy), ["one"])
        sound(copy)


@test("the key may be hexadecimal, base64 or raw bytes, and be handed over by rekey")
def _(scene):
    holdfast = scene.holdfast(scene.primary())
    fill(scene, holdfast, "one")
    key = bytes(range(1, 33))
    put_key(scene.path("new.key"), base64.b64encode(key) + b"\n")
    holdfast.run("journal", "rekey", "--new-key-file", scene.path("new.key"), *REASON)
    equal(bytes.fromhex(open(key_path(holdfast)).read()), key)
    for form in (key, key.hex().encode(), base64.b64encode(key), base64.b64encode(key) + b"\r\n"):
        put_key(key_path(holdfast), form)
        equal(subjects(holdfast), ["one"])
    for form in (key[:31], key.hex().encode()[:63], base64.b64encode(key + b"x"), b"", b"x" * 44, b"z" * 64):
        put_key(key_path(holdfast), form)
        refused = holdfast.run("journal", "list", check=False)
        assert refused.returncode == 65 and "this is no key" in refused.stderr, (form, refused.stderr)
    put_key(key_path(holdfast), key)
    same = holdfast.run("journal", "rekey", "--new-key-file", scene.path("new.key"), *REASON, check=False)
    assert same.returncode != 0 and "in use already" in same.stderr, same.stderr
    sound(holdfast)


@test("the key may come from a command; rekey then has two steps, and each leaves a key that works")
def _(scene):
    vault, new = scene.path("vault"), scene.path("new.key")
    put_key(vault, os.urandom(32).hex().encode())
    holdfast = scene.holdfast(scene.primary(), journal=f"key_command: cat {vault}")
    assert not os.path.exists(key_path(holdfast)), "no key file"
    fill(scene, holdfast, "one")
    needs = holdfast.run("journal", "rekey", *REASON, check=False)
    assert needs.returncode == 64 and "--new-key-file" in needs.stderr, needs.stderr
    put_key(new, os.urandom(32).hex().encode())
    assert "--finish" in holdfast.run("journal", "rekey", "--new-key-file", new, *REASON).stdout
    early = holdfast.run("journal", "rekey", "--finish", *REASON, check=False)
    assert early.returncode == 75 and "still gives the old key" in early.stderr, early.stderr
    holdfast.stop()
    holdfast.start()
    equal(subjects(holdfast), ["one"])
    shutil.copy(vault, scene.path("old"))
    shutil.copy(new, vault)
    equal(subjects(holdfast), ["one"])
    holdfast.run("journal", "rekey", "--finish", *REASON)
    fill(scene, holdfast, "two")
    equal(subjects(holdfast), ["one", "two"])
    shutil.copy(scene.path("old"), vault)
    assert holdfast.run("journal", "list", check=False).returncode == 78, "the old key opens it no more"
    os.remove(vault)
    failed = holdfast.run("journal", "list", check=False)
    assert failed.returncode == 75 and "exit code 1" in failed.stderr, failed.stderr
    holdfast.stop()
    both = Holdfast(scene, 1, journal=f"key_command: cat {vault}\nkey_file: {vault}")
    both.write_config()
    refused = run(BINARY, "-c", both.config, "check")
    assert refused.returncode == 78 and "not from both" in refused.stderr, refused.stderr


@test("a lost key ring is said clearly, and comes back from a backup")
def _(scene):
    holdfast = scene.holdfast(scene.primary())
    fill(scene, holdfast, "one")
    holdfast.run("journal", "backup", scene.path("backup"))
    holdfast.stop()
    ring = os.path.join(holdfast.journal_path, "keys")
    for damage in (lambda: os.remove(ring), lambda: put_key(ring, b"holdfast-keys-1\nzz\n"), lambda: put_key(ring, b"")):
        damage()
        for command in (("serve",), ("journal", "list")):
            refused = holdfast.run(*command, check=False)
            assert refused.returncode != 0 and "key ring" in refused.stderr and "backup" in refused.stderr, refused.stderr
    shutil.copy(os.path.join(scene.path("backup"), "keys"), ring)
    equal(subjects(holdfast), ["one"])
    holdfast.start()


@test("a key ring that is removed or emptied under a running Holdfast is put back, as the last rekey left it; not where all of the journal was moved away")
def _(scene):
    holdfast = scene.holdfast(scene.primary())
    ring = os.path.join(holdfast.journal_path, "keys")
    fill(scene, holdfast, "one")
    for spoil in (os.unlink, lambda path: open(path, "w").close()):
        holdfast.run("journal", "rekey", *REASON)
        good = open(ring, "rb").read()
        spoil(ring)
        wait_for(lambda: os.path.exists(ring) and open(ring, "rb").read() == good, what="the ring")
    with open(holdfast.log) as log:
        equal(log.read().count("keys was removed or emptied, and put back"), 2)
    fill(scene, holdfast, "two")
    holdfast.stop()
    holdfast.start()
    equal(subjects(holdfast), ["one", "two"])
    os.rename(holdfast.journal_path, scene.path("moved"))
    os.makedirs(os.path.join(holdfast.journal_path, "segments"))
    wait_for(lambda: holdfast.logged("was removed or replaced while Holdfast writes to it"), what="the complaint")
    before = holdfast.status()["uptime_s"]
    wait_for(lambda: holdfast.status()["uptime_s"] >= before + 3, what="some looks")
    assert not os.path.exists(ring), "another journal may be begun there"


@test("a master key that is gone while Holdfast runs is told at once; where there is no copy of it, the running Holdfast takes a new one")
def _(scene):
    told, other = scene.path("told"), scene.path("other.key")
    holdfast = scene.holdfast(scene.primary(), yaml=f'alert_command: echo "$HOLDFAST_ALERT" >> {told}\n')
    fill(scene, holdfast, "one")
    key = key_path(holdfast)
    os.rename(key, scene.path("copy"))
    wait_for(lambda: os.path.exists(told) and "MASTER KEY is not there" in open(told).read(), what="the alert")
    assert holdfast.logged("after a restart nothing here could be read")
    assert "KEYS MISSING, do not stop Holdfast" in holdfast.run("status").stdout
    os.rename(scene.path("copy"), key)
    wait_for(lambda: holdfast.logged("the master key is at its place again"), what="the all-clear")
    assert "KEYS MISSING" not in holdfast.run("status").stdout

    def is_refused(words, *options):
        refused = holdfast.run("journal", "rekey", *options, *REASON, check=False)
        assert refused.returncode != 0 and words in refused.stderr, refused.stderr
    os.chmod(key, 0o640)  # which is not read
    is_refused("put it aside first", "--lost")
    os.chmod(key, 0o600)
    is_refused("put it aside first", "--lost")
    os.rename(key, scene.path("copy"))
    is_refused("the key file does not exist")
    # Another's key is not written over.
    put_key(other, os.urandom(32).hex().encode())
    shutil.copy(other, key)
    wait_for(lambda: holdfast.logged("this is another key, and does not open this journal"), what="the complaint")
    is_refused("put it aside first", "--lost")
    equal(open(key).read(), open(other).read())
    os.remove(key)
    assert "another one now" in holdfast.run("journal", "rekey", "--lost", *REASON).stdout
    fill(scene, holdfast, "two")
    holdfast.stop()
    holdfast.start()
    equal(subjects(holdfast), ["one", "two"])
    assert "journal rekey --lost" in holdfast.run("journal", "accesses").stdout
    sound(holdfast)
    shutil.copy(key, scene.path("new"))
    shutil.copy(scene.path("copy"), key)
    equal(holdfast.run("journal", "list", check=False).returncode, 78)
    # Without one that runs there is nothing to be had.
    holdfast.stop()
    os.remove(key)
    is_refused("by none that starts later", "--lost")
    shutil.copy(scene.path("new"), key)
    equal(subjects(holdfast), ["one", "two"])


# While the file is there, a disk on which the master key lies does not answer.
SILENT_DISK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

int open(const char* path, int flags, ...) {
  int (*real)(const char*, int, ...) = dlsym(RTLD_NEXT, "open");
  va_list more;
  va_start(more, flags);
  mode_t mode = flags & O_CREAT ? va_arg(more, mode_t) : 0;
  va_end(more);
  if (strstr(path, "master.key") && unlink("SILENT") == 0) sleep(600);
  return real(path, flags, mode);
}
"""


@test("a key file on a disk that does not answer keeps nobody waiting")
def _(scene):
    silent = scene.path("silent")
    holdfast = scene.holdfast(scene.primary(), before=preloading(scene, SILENT_DISK.replace("SILENT", silent)))
    open(silent, "w").close()
    wait_for(lambda: not os.path.exists(silent), what="a look at the key file")
    fill(scene, holdfast, "one")
    equal(holdfast.status()["routes"][0]["state"], "pass")
    holdfast.signal(signal.SIGHUP)
    wait_for(lambda: holdfast.logged("info reload"), what="the reload")
    holdfast.stop()


@test("a full disk in the middle of a rekey leaves the key in use, and it can be done once there is room")
def _(scene):
    disk = small_disk(scene, 16)
    if not disk:
        return
    holdfast = scene.holdfast(scene.primary(), journal_path=os.path.join(disk, "journal"), journal="segment_size: 1MiB")
    fill(scene, holdfast, "one")
    holdfast.stop()
    for leave in (0, 4096, 8192):
        ballast = fill_disk(disk, leave)
        holdfast.run("journal", "rekey", *REASON, check=False)
        equal(subjects(holdfast), ["one"])
        os.remove(ballast)
        equal(subjects(holdfast), ["one"])
    holdfast.run("journal", "rekey", *REASON)
    equal(subjects(holdfast), ["one"])
    sound(holdfast)


@test("killed 50 times in the middle of a rekey: each time the key at its place opens all, and rekeying again ends it")
def _(scene):
    holdfast = scene.holdfast(scene.primary())
    fill(scene, holdfast, "one", "two")
    holdfast.stop()
    for _ in kills([BINARY, "-c", holdfast.config, "journal", "rekey", *REASON], lambda: None):
        equal(subjects(holdfast), ["one", "two"])
    holdfast.run("journal", "rekey", *REASON)
    equal(len(open(os.path.join(holdfast.journal_path, "keys")).read().splitlines()), 2)
    assert not os.path.exists(key_path(holdfast) + ".next")
    equal(subjects(holdfast), ["one", "two"])
    sound(holdfast)
    holdfast.start()


main()
