"""A full disk is a 452, never a crash or a loss; service resumes by itself when space returns."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from harness import *

FULL = "452 4.3.1 Insufficient system storage, try again later"
BODY = "Subject: x\r\n\r\n" + ("z" * 70 + "\r\n") * 1400  # 100 KB


def small_disk(scene, megabytes=24, name="disk"):
    mounted = scene.path(name)
    os.mkdir(mounted)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", mounted], check=True)
    scene.stack.callback(subprocess.run, ["umount", "-l", mounted])
    return mounted


def fill(path):
    """Takes all space that is left."""
    with open(path, "wb", buffering=0) as file:
        for size in (65536, 4096):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"\0" * size)


@test("mail gets 452 while the disk is full, and 250 again when there is space; everything acknowledged is in the journal")
def _(scene):
    disk = small_disk(scene)
    primary = scene.primary()
    holdfast = scene.holdfast(primary, journal_path=os.path.join(disk, "journal"))
    client = scene.client(holdfast.port)
    client.ask("EHLO client.example.net")
    taken = 0
    for _ in range(400):
        answer = client.send_mail(BODY, helo=None)
        if answer == FULL:
            break
        equal(answer, "250 2.0.0 Ok: taken")
        taken += 1
    else:
        raise AssertionError("24 MB took 40 MB of mail")
    assert taken > 50, taken
    equal(len(primary.messages), taken, "the primary has what was acknowledged, and no more")
    for _ in range(5):
        equal(client.send_mail(BODY, helo=None), FULL)
    assert holdfast.logged("no space left on the disk") and not holdfast.status()["journal"]["writable"]
    equal(holdfast.process.poll(), None)
    subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
    equal(client.send_mail(BODY, helo=None), "250 2.0.0 Ok: taken")
    assert holdfast.logged("the journal can be written again") and holdfast.status()["journal"]["writable"]
    equal(len(holdfast.entries()), taken + 1)
    equal(len(primary.messages), taken + 1)
    assert "all is well" in holdfast.run("journal", "verify").stdout
    holdfast.stop()
    holdfast.start()
    equal(len(holdfast.entries()), taken + 1)
    assert "all is well" in holdfast.run("journal", "verify").stdout


@test("a limit on the size of files (ulimit -f) is told as such, and is a 452 until it is raised")
def _(scene):
    holdfast = scene.holdfast(scene.primary(), before=["prlimit", f"--fsize={4 << 20}:unlimited"])
    client = scene.client(holdfast.port)
    client.ask("EHLO client.example.net")
    replies = [client.send_mail(BODY, helo=None) for _ in range(60)]
    equal(set(replies), {"250 2.0.0 Ok: taken", FULL})
    assert "it may not grow more; raise the limit on the size of files" in holdfast.status()["journal"]["last_error"]
    run("prlimit", "--fsize=unlimited", "--pid", str(holdfast.process.pid), check=True)
    equal(client.send_mail(BODY, helo=None), "250 2.0.0 Ok: taken")
    wait_for(lambda: {one["recipients"][0]["outcome"] for one in holdfast.entries()} == {"forwarded"}, what="all outcomes")
    equal(len(holdfast.entries()), replies.count("250 2.0.0 Ok: taken") + 1)
    assert "all is well" in holdfast.run("journal", "verify").stdout


@test("no map of a file on a full disk ends the process: a segment that cannot end goes on, a start is there and takes mail when there is space")
def _(scene):
    disk = small_disk(scene)
    holdfast = scene.holdfast(scene.primary(), journal_path=os.path.join(disk, "journal"))
    client = scene.client(holdfast.port)
    equal(client.send_mail(BODY), "250 2.0.0 Ok: taken")
    fill(os.path.join(disk, "filler"))
    for _ in range(2):
        sealed = holdfast.run("journal", "seal", check=False)
        equal(sealed.returncode, 75, sealed)
        assert "is not sealed" in sealed.stderr and "no space left on the disk" in sealed.stderr, sealed
        equal(client.send_mail(helo=None), FULL)
        assert not holdfast.status()["journal"]["writable"]
    holdfast.stop()
    holdfast.start()
    equal(scene.client(holdfast.port).send_mail(), FULL)
    os.unlink(os.path.join(disk, "filler"))
    wait_for(lambda: scene.client(holdfast.port).send_mail() == "250 2.0.0 Ok: taken", what="mail")
    wait_for(lambda: [one["recipients"][0]["outcome"] for one in holdfast.entries()] == ["forwarded", "forwarded"], what="what became of both")
    holdfast.run("journal", "seal")
    assert "all is well" in holdfast.run("journal", "verify").stdout
    holdfast.stop()
    # What LMDB needs beside its files, as when the folder was copied without it.
    subprocess.run(["find", holdfast.journal_path, "-name", "*-lock", "-delete"], check=True)
    fill(os.path.join(disk, "filler"))
    holdfast.start(ready=False)
    equal(holdfast.process.wait(20), 75)
    assert "no space left on the disk; free some" in open(holdfast.log).readlines()[-1]
    equal(len(holdfast.entries()), 2)
    assert "all is well" in holdfast.run("journal", "verify").stdout
    os.unlink(os.path.join(disk, "filler"))
    holdfast.start()
    equal(scene.client(holdfast.port).send_mail(), "250 2.0.0 Ok: taken")


@test("a large message that fills the disk in its middle gets 452 at its end, and the session goes on")
def _(scene):
    disk = small_disk(scene)
    primary = scene.primary()
    holdfast = scene.holdfast(primary, journal_path=os.path.join(disk, "journal"))
    client = scene.client(holdfast.port)
    client.ask("EHLO client.example.net")
    equal(client.send_mail(BODY * 400, helo=None), FULL)
    equal(primary.messages, [])
    for _ in range(3):
        equal(client.send_mail(helo=None), "250 2.0.0 Ok: taken")
    assert "all is well" in holdfast.run("journal", "verify").stdout


@test("with when_full: bypass mail passes without a copy, loudly")
def _(scene):
    disk = small_disk(scene)
    primary = scene.primary()
    holdfast = scene.holdfast(primary, journal_path=os.path.join(disk, "journal"), journal="when_full: bypass")
    client = scene.client(holdfast.port)
    client.ask("EHLO client.example.net")
    for _ in range(300):
        equal(client.send_mail(BODY, helo=None), "250 2.0.0 Ok: taken")
    equal(client.send_mail(BODY * 300, helo=None), "250 2.0.0 Ok: taken", "a large one too")
    equal(len(primary.messages), 301)
    equal(primary.messages[-1][1], (BODY * 300).encode())
    assert holdfast.logged("WITHOUT a journal entry")
    bypassed = holdfast.status()["journal"]["bypassed"]
    equal(len(holdfast.entries()) + bypassed, 301)
    assert "WITHOUT an entry" in holdfast.run("status").stdout


@test("journal.max_size is like a full disk to mail, and to nothing else; more is taken when it is raised, or segments go")
def _(scene):
    primary = scene.primary()
    holdfast = scene.holdfast(primary, journal="segment_size: 1MiB\ncompress: false\nmax_size: 8MiB")
    client = scene.client(holdfast.port)
    client.ask("EHLO client.example.net")

    def send_until(answer):
        """How many were acknowledged before that."""
        said = []

        def is_said():
            said.append(client.send_mail(BODY, helo=None))
            assert said[-1] in (FULL, "250 2.0.0 Ok: taken"), said[-1]
            return said[-1] == answer
        wait_for(is_said, what=answer)  # the size is looked at now and then
        return len(said) - 1
    taken = send_until(FULL)
    assert taken > 30, taken
    assert holdfast.logged("nearly full") and "NEARLY FULL: there is room for" in holdfast.run("status").stdout
    for _ in range(3):
        equal(client.send_mail(BODY * 30, helo=None), FULL, "a large one too")
    journal = holdfast.status()["journal"]
    assert not journal["writable"] and "journal.max_size" in journal["last_error"], journal
    assert holdfast.logged("journal.max_size (8.0 MiB) is reached") and "NOT WRITABLE" in holdfast.run("status").stdout
    equal(len(primary.messages), taken, "the primary has what was acknowledged, and no more")
    # What is decided about mail that is there is on record all the same.
    holdfast.run("failover", "hold", "--reason", "test")
    holdfast.run("failover", "auto", "--reason", "test")
    wait_for(lambda: {one["outcome"] for entry in holdfast.entries() for one in entry["recipients"]} == {"forwarded"}, what="all outcomes")
    equal(len(holdfast.entries()), taken)
    wait_for(lambda: holdfast.run("journal", "prune", "--older-than", "1s", "--reason", "test") and len(holdfast.entries()) < taken / 2, what="segments to go")
    assert send_until("250 2.0.0 Ok: taken") < 200
    send_until(FULL)
    holdfast.journal = holdfast.journal.replace("8MiB", "100MiB")
    holdfast.write_config()
    holdfast.signal(signal.SIGHUP)
    assert send_until("250 2.0.0 Ok: taken") < 200
    wait_for(lambda: holdfast.status()["journal"]["writable"] and holdfast.logged("mail is written down again"), what="the good news")
    assert not holdfast.status()["journal"]["nearly_full"]
    assert "all is well" in holdfast.run("journal", "verify").stdout


@test("a journal in memory is taken, with a word of caution from check and in the log; one on a disk without")
def _(scene):
    caution = "it is in memory: nothing in it outlives this machine's next start"
    holdfast = Holdfast(scene, scene.primary(), journal_path=os.path.join(small_disk(scene), "deeper", "journal")).start()
    assert holdfast.logged(caution)
    checked = holdfast.run("check")
    assert caution in checked.stderr and checked.stdout.endswith(": ok\n"), checked
    holdfast.stop()
    holdfast.journal_path = "/var/lib/holdfast-does-not-exist"
    holdfast.write_config()
    equal(holdfast.run("check").stderr, "")


@test("a start on a full disk is refused with a clear error")
def _(scene):
    disk = small_disk(scene, 1)
    fill(os.path.join(disk, "ballast"))
    primary = scene.primary()
    holdfast = scene.holdfast(primary)
    holdfast.stop()
    holdfast.journal_path = os.path.join(disk, "journal")
    holdfast.write_config()
    serve = run(BINARY, "-c", holdfast.config, "serve")
    equal(serve.returncode, 75, serve.stderr)
    assert "pace left on" in serve.stderr, serve.stderr


@test("who starts it again on a full disk has it at its place: mail gets 452, or passes where it is to; and all goes on when there is space")
def _(scene):
    for end in ("kill", "stop"):
        for when_full, answer in (("refuse", FULL), ("bypass", "250 2.0.0 Ok: taken")):
            disk = small_disk(scene, name=f"disk-{end}-{when_full}")
            primary = scene.primary()
            holdfast = scene.holdfast(primary, journal_path=os.path.join(disk, "journal"), journal=f"when_full: {when_full}")
            client = scene.client(holdfast.port)
            client.ask("EHLO client.example.net")
            for number in range(40):
                equal(client.send_mail(BODY, recipient=f"b{number}@example.org", helo=None), "250 2.0.0 Ok: taken")
            fill(os.path.join(disk, "ballast"))
            for _ in range(20):  # what space is left in the files goes to these
                client.send_mail(helo=None)
            if end == "kill":
                holdfast.kill()
            else:
                holdfast.stop()
            fill(os.path.join(disk, "more ballast"))
            holdfast.start()
            client = scene.client(holdfast.port)
            equal(client.send_mail(BODY), answer, (end, when_full))
            for ballast in ("ballast", "more ballast"):
                os.unlink(os.path.join(disk, ballast))
            equal(client.send_mail(BODY, helo=None), "250 2.0.0 Ok: taken")
            wait_for(lambda: all(one["recipients"][0]["outcome"] in ("forwarded", "deferred") for one in holdfast.entries()), what="the outcomes")
            assert "all is well" in holdfast.run("journal", "verify").stdout


@test("what was delivered while the disk was full is on record when there is space again, and is not delivered twice")
def _(scene):
    disk = small_disk(scene, 12)
    port = free_port()
    primary = scene.primary(port=port)
    holdfast = scene.holdfast(primary, journal_path=os.path.join(disk, "journal"), yaml="failover:\n  probe_interval: 100ms\n  takeover_after: 300ms\n  release_after: 300ms")
    client = scene.client(holdfast.port)
    equal(client.send_mail(), "250 2.0.0 Ok: taken")
    primary.stop()
    for number in range(5):
        assert client.send_mail(f"Subject: {number}\r\n\r\nx\r\n", helo=None).startswith("250")
    fill(os.path.join(disk, "ballast"))
    for _ in range(50):  # what space is left in the files goes to these
        if client.send_mail(BODY, helo=None) == FULL:
            break
    held = holdfast.status()["routes"][0]["held"]
    primary = scene.primary(port=port)
    wait_for(lambda: len(primary.messages) == held, what="the deliveries")
    wait_for(lambda: holdfast.status()["routes"][0]["held"] == 0, what="an empty queue")
    os.unlink(os.path.join(disk, "ballast"))
    wait_for(lambda: all(one["recipients"][0]["outcome"] in ("forwarded", "delivered", "deferred") for one in holdfast.entries()), what="the outcomes")
    holdfast.stop()
    holdfast.start()
    equal(holdfast.status()["routes"][0]["held"], 0)
    equal(scene.client(holdfast.port).send_mail("Subject: last\r\n\r\nx\r\n"), "250 2.0.0 Ok: taken")
    equal(len(primary.messages), held + 1, "nothing twice")


main()
