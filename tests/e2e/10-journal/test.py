"""The journal from outside: list, show, export, stats, verify and rebuild, while the daemon writes, and when things are broken."""
import contextlib
import os
import pty
import random
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from harness import *


def send(scene, holdfast, count, size=3000, **options):
    client = scene.client(holdfast.port)
    client.ask("EHLO client.example.net")
    for number in range(count):
        text = f"Message-ID: <{number}.{size}@example.net>\r\nSubject: number {number}\r\n\r\n" + "x" * 70 + "\r\n"
        text += ("y" * 70 + "\r\n") * (size // 72)
        equal(client.send_mail(text, helo=None, **options), "250 2.0.0 Ok: taken")


@test("who lists the journal right after a client's answer finds what became of the message, by whatever it is looked for")
def _(scene):
    holdfast = scene.holdfast(scene.primary())
    client = scene.client(holdfast.port)
    client.ask("EHLO client.example.net")
    for number in range(60):
        text = f"Message-ID: <{number}@example.net>\r\n\r\nx\r\n"
        equal(client.send_mail(text, helo=None, recipient=f"b{number}@example.org"), "250 2.0.0 Ok: taken")
        filters = ([], ["--recipient", f"b{number}@example.org"], ["--message-id", f"<{number}@example.net>"], ["--outcome", "forwarded", "--newest"])[number % 4]
        entries = holdfast.entries(*filters)
        [entry] = [one for one in entries if one["message_id"].strip("<>") == f"{number}@example.net"]
        equal(entry["recipients"], [{"address": f"b{number}@example.org", "outcome": "forwarded", "reply": "250 2.0.0 Ok: taken"}], number)


@test("list filters by sender, recipient, Message-ID, outcome, route and time; a line is a JSON object")
def _(scene):
    primary = scene.primary(replies={"RCPT": lambda session, line: b"550 5.1.1 no\r\n" if b"nobody" in line else b"250 2.1.5 Ok\r\n"})
    holdfast = scene.holdfast(primary)
    send(scene, holdfast, 3, sender="one@example.net", recipient="Alice@example.org")
    send(scene, holdfast, 2, sender="two@example.net", recipient="bob@example.org")
    client = scene.client(holdfast.port)
    for command in ("EHLO client.example.net", "MAIL FROM:<three@example.net>", "RCPT TO:<nobody@example.org>", "RCPT TO:<carol@example.org>", "DATA"):
        client.ask(command)
    client.send("x\r\n.\r\n")
    client.reply()
    wait_for(lambda: all(one["recipients"][-1]["outcome"] == "forwarded" for one in holdfast.entries()), what="outcomes")
    middle = holdfast.entries()[3]["time"]
    for filters, count in (([], 6), (["--sender", "ONE@example.net"], 3), (["--recipient", "alice@EXAMPLE.org"], 3), (["--recipient", "carol@example.org"], 1),
                           (["--message-id", "<1.3000@example.net>"], 2), (["--message-id", "1.3000@example.net", "--sender", "two@example.net"], 1),
                           (["--outcome", "forwarded"], 6), (["--outcome", "rejected"], 1), (["--outcome", "held"], 0), (["--route", "primary"], 6), (["--route", "other"], 0),
                           (["--since", middle], 3), (["--until", middle], 3), (["--since", "1h"], 6), (["--since", "2030-01-01"], 0), (["--limit", "2"], 2), (["--direction", "outbound"], 0)):
        equal(len(holdfast.entries(*filters)), count, filters)
    newest = holdfast.entries("--newest", "--limit", "1")[0]
    equal([(one["address"], one["outcome"]) for one in newest["recipients"]], [("nobody@example.org", "rejected"), ("carol@example.org", "forwarded")])
    equal(newest["recipients"][0]["reply"], "550 5.1.1 no")
    keys = ["id", "time", "direction", "route", "client", "helo", "tls", "mail_from", "recipients", "size", "sha256", "message_id", "subject", "possible_duplicate"]
    equal(list(newest), keys)
    equal(holdfast.run("journal", "list", "--since", "yesterday", check=False).returncode, 64)
    shown = json.loads(holdfast.run("journal", "show", str(newest["id"]), "--json").stdout)
    equal(shown["mail_from"], "three@example.net")
    missing = holdfast.run("journal", "show", "999999", check=False)
    equal(missing.returncode, 66)
    assert "there is no entry 999999" in missing.stderr
    stats = json.loads(holdfast.run("journal", "stats", "--json").stdout)
    equal((stats["entries"], stats["segments"], stats["recipients"]["forwarded"]), (6, 1, 6))


@test("what a client sends is never printed raw on a terminal")
def _(scene):
    holdfast = scene.holdfast(scene.primary())
    client = scene.client(holdfast.port)
    equal(client.send_mail(b"Subject: \x1b[2J\x1b]0;owned\x07 \xff\r\n\r\n".decode("latin-1").encode("latin-1") + b"x\r\n"), "250 2.0.0 Ok: taken")
    entry = str(holdfast.entries()[0]["id"])
    for arguments in (["journal", "list"], ["journal", "show", entry], ["journal", "list", "--json"]):
        out = holdfast.run(*arguments, binary=True).stdout
        assert b"\x1b" not in out and b"\x07" not in out, out
    # The exact bytes go to a file or a pipe; a terminal gets what can be read of them.
    assert b"\x1b[2J" in holdfast.content(entry)
    ours, theirs = pty.openpty()
    said = subprocess.run([BINARY, "-c", holdfast.config, "journal", "export", entry], stdout=theirs, stderr=subprocess.PIPE, text=True)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):
        while more := os.read(ours, 1000):
            shown += more
    equal(shown.replace(b"\r\n", b"\n"), b"Subject: \\x1b[2J\\x1b]0;owned\\x07 \\xff\n\nx\n")
    assert said.returncode == 0 and "the exact bytes come in a file" in said.stderr, said


@test("all commands work while the daemon writes")
def _(scene):
    holdfast = scene.holdfast(scene.primary())
    send(scene, holdfast, 20)
    stop = threading.Event()

    def write():
        while not stop.is_set():
            send(scene, holdfast, 20)
    writers = [threading.Thread(target=write) for _ in range(3)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(5):
            assert "all is well" in holdfast.run("journal", "verify").stdout
            entries = holdfast.entries()
            equal(len(holdfast.content(entries[-1]["id"])), entries[-1]["size"])
            holdfast.run("journal", "stats")
            holdfast.run("journal", "rebuild")
            assert len(holdfast.entries("--recipient", "b@example.org")) >= len(entries)
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert "all is well" in holdfast.run("journal", "verify").stdout


@test("no mail address and no content stands on the disk in the clear")
def _(scene):
    holdfast = scene.holdfast(scene.primary())
    client = scene.client(holdfast.port)
    equal(client.send_mail("Message-ID: <needle-id@example.net>\r\nSubject: needle-subject\r\n\r\nneedle-body\r\n", sender="needle-sender@example.net",
                           recipient="needle-recipient@example.org", helo="needle-helo.example.net"), "250 2.0.0 Ok: taken")
    holdfast.stop()
    for folder, _, names in os.walk(holdfast.journal_path):
        for name in names:
            data = open(os.path.join(folder, name), "rb").read()
            assert b"needle" not in data, name
    key = open(os.path.join(holdfast.journal_path, "master.key")).read().strip()
    assert not holdfast.logged(key)


@test("log.addresses: masked: what passes, is refused, held and given up can be followed in the log, which says of nobody who it was")
def _(scene):
    def refuses_strangers(session, line):
        return b"550 5.1.1 <needle-nobody@example.org>: unknown to needle-server[127.0.0.7]\r\n" if b"nobody" in line else b"250 2.1.5 Ok\r\n"

    password = scene.path("password")
    with open(password, "w") as file:
        file.write("a long password\n")
    for log_format, shown in (("text", "from=*@example.net to=*@example.org"), ("json", '"from":"*@example.net","to":"*@example.org"')):
        primary = scene.primary(replies={"RCPT": refuses_strangers})
        holdfast = scene.holdfast(primary, journal_path=scene.path(log_format), yaml=f"""log: {{format: {log_format}, level: debug, addresses: masked}}
failover: {{probe_interval: 100ms, release_after: 100ms}}""")
        sender = {"sender": "needle-ada@example.net", "helo": "needle-helo"}
        client = scene.client(holdfast.port, source=("127.0.0.3", 0))
        equal(client.send_mail("\r\n", recipient="needle-bob@example.org", **sender), "250 2.0.0 Ok: taken")
        equal(client.ask("MAIL FROM:<needle-ada@example.net>")[:3], "250")
        equal(client.ask("RCPT TO:<needle-nobody@example.org>")[:3], "550")
        client.ask("QUIT")
        holdfast.run("mailbox", "add", "needle-bob@example.org", "--password-file", password)
        holdfast.run("failover", "hold", "--reason", "needle-bob@example.org asked for it")
        equal(scene.client(holdfast.port).send_mail("\r\n", recipient="needle-bob@example.org", **sender)[:3], "250")
        primary.replies["content"] = b"554 5.7.1 needle-bob@example.org does not want it\r\n"
        holdfast.run("failover", "auto", "--reason", "over")
        wait_for(lambda: holdfast.logged("554 5.7.1"), what="the held message's verdict")
        holdfast.stop()
        with open(holdfast.log) as file:
            lines = file.read()
        assert "needle" not in lines, [line for line in lines.splitlines() if "needle" in line]
        for one in (shown, "127.0.0.0/24", "*@example.org asked for it"):
            assert one in lines, (one, lines)


@test("a flipped bit in an entry's content is found, named, and exits 65")
def _(scene):
    holdfast = scene.holdfast(scene.primary())
    send(scene, holdfast, 10, size=60000)
    entries = holdfast.entries()
    holdfast.stop()
    segment = os.path.join(holdfast.journal_path, "segments", "0000000001.lmdb")
    size = os.path.getsize(segment)
    named = 0
    for offset in range(size // 3, size, size // 7):
        with open(segment, "r+b") as file:
            file.seek(offset)
            byte = file.read(1)
            file.seek(offset)
            file.write(bytes([byte[0] ^ 4]))
        result = holdfast.run("journal", "verify", check=False)
        if result.returncode == 65:
            lines = [line for line in result.stdout.splitlines() if line.startswith("DAMAGED")]
            named += any(f"record {one['id']}:" in line for one in entries for line in lines)
        with open(segment, "r+b") as file:
            file.seek(offset)
            file.write(byte)
    assert named >= 3, named
    equal(holdfast.run("journal", "verify").returncode, 0)


@test("a wrong, unreadable or lost key, a missing journal and a read-only folder each get a clear error")
def _(scene):
    holdfast = scene.holdfast(scene.primary())
    send(scene, holdfast, 1)
    holdfast.stop()
    key = os.path.join(holdfast.journal_path, "master.key")
    good = open(key).read()

    def refused(code, words):
        serve = run(BINARY, "-c", holdfast.config, "serve")
        equal(serve.returncode, code, words)
        assert words in serve.stderr, serve.stderr
        listed = holdfast.run("journal", "list", check=False)
        assert listed.returncode != 0 and words in listed.stderr or words == "restore the key file", listed.stderr
    with open(key, "w") as file:
        file.write("0" * 64 + "\n")
    refused(78, "does not open this journal")
    with open(key, "w") as file:
        file.write("short\n")
    refused(65, "it must be 64 hexadecimal digits")
    with open(key, "w") as file:
        file.write(good)
    os.chmod(key, 0o640)
    refused(78, "chmod 600")
    os.chmod(key, 0o600)
    os.rename(key, key + ".away")
    refused(78, "the key file does not exist")
    os.rename(key + ".away", key)
    equal(len(holdfast.entries()), 1)
    shutil.move(holdfast.journal_path, holdfast.journal_path + ".away")
    missing = holdfast.run("journal", "list", check=False)
    assert missing.returncode == 66 and "there is no journal here" in missing.stderr, missing.stderr


@test("a read-only folder is refused with a clear error, and a read-only copy can be read")
def _(scene):
    holdfast = scene.holdfast(scene.primary())
    send(scene, holdfast, 3)
    holdfast.stop()
    mounted = scene.path("readonly")
    os.mkdir(mounted)
    subprocess.run(["mount", "--bind", holdfast.journal_path, mounted], check=True)
    scene.stack.callback(subprocess.run, ["umount", mounted])
    subprocess.run(["mount", "-o", "remount,ro,bind", mounted], check=True)
    holdfast.journal_path = mounted
    holdfast.write_config()
    serve = run(BINARY, "-c", holdfast.config, "serve")
    equal(serve.returncode, 78)
    assert "Read-only file system" in serve.stderr and "write access" in serve.stderr, serve.stderr
    equal(len(holdfast.entries()), 3)
    assert "all is well" in holdfast.run("journal", "verify").stdout


@test("a damaged newest segment does not stop the mail; verify names it")
def _(scene):
    holdfast = scene.holdfast(scene.primary())
    send(scene, holdfast, 3)
    holdfast.stop()
    segment = os.path.join(holdfast.journal_path, "segments", "0000000001.lmdb")
    with open(segment, "r+b") as file:
        file.truncate(10000)
    holdfast.start()
    assert holdfast.logged("mail goes on in a new segment")
    send(scene, holdfast, 2)
    equal(len(holdfast.run("journal", "list", "--json", check=False).stdout.splitlines()), 2)
    verified = holdfast.run("journal", "verify", check=False)
    equal(verified.returncode, 65)
    assert "DAMAGED segment 1" in verified.stdout, verified.stdout


@test("the newest segment is damaged while mail comes: it goes on in a new one, and no client notices")
def _(scene):
    holdfast = scene.holdfast(scene.primary())
    send(scene, holdfast, 30)
    segment = os.path.join(holdfast.journal_path, "segments", "0000000001.lmdb")
    with open(segment, "r+b") as file:
        file.seek(8192)
        file.write(bytes(os.path.getsize(segment) - 8192))
    send(scene, holdfast, 3)
    assert holdfast.logged("mail goes on in a new segment")
    equal(len(holdfast.run("journal", "list", "--json", check=False).stdout.splitlines()), 3)
    verified = holdfast.run("journal", "verify", check=False)
    equal(verified.returncode, 65)
    assert "segment 1" in verified.stdout, verified.stdout
    holdfast.stop()
    holdfast.start()
    send(scene, holdfast, 2)
    equal(len(holdfast.run("journal", "list", "--json", check=False).stdout.splitlines()), 5)


@test("a damaged catalog is put aside and made anew when Holdfast starts: what was held is still held, and the mail goes on")
def _(scene):
    holdfast = scene.holdfast(scene.primary())
    send(scene, holdfast, 30)
    holdfast.run("failover", "hold", "--reason", "test")
    for _ in range(2):
        assert scene.client(holdfast.port).send_mail().startswith("250")
    holdfast.stop()
    catalog = os.path.join(holdfast.journal_path, "catalog.lmdb")
    before = open(catalog, "rb").read()
    for damaged in (before[:len(before) // 2], bytes(8192) + before[8192:], before[:8192] + bytes(len(before) - 8192), b"x" * 5000):
        with open(catalog, "wb") as file:
            file.write(damaged)
        open(holdfast.log, "w").close()
        holdfast.start()
        assert holdfast.logged("made anew from the segments"), len(damaged)
        status = holdfast.status()
        equal((status["journal"]["entries"], status["routes"][0]["state"], status["routes"][0]["held"]), (32, "hold", 2))
        equal(len(holdfast.entries("--recipient", "b@example.org")), 32)
        holdfast.stop()
    with open(catalog, "wb") as file:
        file.write(before[:len(before) // 2])
    # Without a daemon, before it is made anew, the list goes around it or says so; it does not crash.
    listed = holdfast.run("journal", "list", "--json", check=False)
    assert listed.returncode == 65 or len(listed.stdout.splitlines()) == 32, listed
    equal(holdfast.run("journal", "rebuild").stdout, "the catalog is built anew from the segments: 32 entries\n")


@test("noise instead of pages, in a segment: every command says so or goes around it, none crashes, and the mail goes on")
def _(scene):
    holdfast = scene.holdfast(scene.primary())
    send(scene, holdfast, 40)
    holdfast.run("journal", "seal")
    wait_for(lambda: holdfast.logged("compacted journal segment 1"), what="compaction")
    segment = os.path.join(holdfast.journal_path, "segments", "0000000001.lmdb")
    whole, noise = open(segment, "rb").read(), random.Random(7)
    for place in range(2 * 4096, len(whole), 4096):
        with open(segment, "r+b") as file:
            file.seek(place)
            file.write(noise.randbytes(noise.choice([16, 200, 4096])))
        for command in (["list", "--json"], ["stats"], ["list", "--recipient", "b@example.org"], ["verify"], ["export", "3"], ["export", "60"]):
            done = holdfast.run("journal", *command, check=False, binary=True)
            assert done.returncode in (0, 65, 66), (place, command, done)
        send(scene, holdfast, 1)
        equal(holdfast.process.poll(), None)
        with open(segment, "wb") as file:
            file.write(whole)
    assert "all is well" in holdfast.run("journal", "verify").stdout


@test("noise instead of pages, in the catalog, the directory, the mailboxes and the newest segment: Holdfast starts all the same, and mail passes")
def _(scene):
    holdfast = scene.holdfast(scene.primary())
    for number in range(150):
        client = scene.client(holdfast.port)
        assert client.send_mail(f"Subject: {number}\r\nMessage-ID: <{number}@example.net>\r\n\r\nx\r\n", recipient=f"person{number}@example.org").startswith("250")
        client.close()
    for number in range(20):
        holdfast.run("mailbox", "add", f"person{number}@example.org", "--generate")
    send(scene, holdfast, 50)
    holdfast.kill()  # what the catalog does not know yet it must learn at the start
    whole = holdfast.journal_path + ".whole"
    shutil.copytree(holdfast.journal_path, whole)
    noise = random.Random(7)
    for name in ("catalog.lmdb", "directory.lmdb", "mailboxes.lmdb", "segments/0000000001.lmdb"):
        pages = os.path.getsize(os.path.join(whole, name)) // 4096
        for trial in range(30):
            shutil.rmtree(holdfast.journal_path)
            shutil.copytree(whole, holdfast.journal_path)
            with open(os.path.join(holdfast.journal_path, name), "r+b") as file:
                for page in noise.sample(range(2, pages), noise.choice([1, max(1, pages // 4), pages - 2])):
                    begin, size = noise.choice([(0, 4096), (0, 8), (10, 6), (16, 200)])  # all of it, its number, its bounds, where its items are
                    file.seek(page * 4096 + begin)
                    file.write(noise.randbytes(size))
            holdfast.start()
            for number in range(3):
                client = scene.client(holdfast.port)
                equal(client.send_mail(recipient=f"another{number}@example.org"), "250 2.0.0 Ok: taken", (name, trial))
                client.close()
            wait_for(lambda: holdfast.status()["journal"]["last_id"] > 300, what="the index")
            equal(holdfast.process.poll(), None, (name, trial))
            holdfast.stop()


@test("the catalog is rebuilt around a damaged segment, which is named")
def _(scene):
    holdfast = scene.holdfast(scene.primary())
    for _ in range(3):
        send(scene, holdfast, 5)
        number = holdfast.status()["journal"]["segment"]
        holdfast.run("journal", "seal")
        wait_for(lambda: holdfast.status()["journal"]["segment"] > number, what="a new segment")
    holdfast.stop()
    with open(os.path.join(holdfast.journal_path, "segments", "0000000002.lmdb"), "r+b") as file:
        file.truncate(10000)
    rebuilt = holdfast.run("journal", "rebuild", check=False)
    equal((rebuilt.returncode, rebuilt.stdout), (65, "the catalog is built anew from the segments: 10 entries\n"))
    assert "0000000002.lmdb" in rebuilt.stderr, rebuilt.stderr


@test("verify and stats show a progress bar on a terminal only")
def _(scene):
    holdfast = scene.holdfast(scene.primary())
    send(scene, holdfast, 30, size=50000)
    for command, bar, words in (("verify", "verifying [", "all is well"), ("stats", "counting [", "30 entries in 1 segments")):
        shown = run("script", "-qec", f"{BINARY} -c {holdfast.config} journal {command}", "/dev/null")
        assert bar in shown.stdout and words in shown.stdout, shown.stdout
        plain = holdfast.run("journal", command)
        assert bar not in plain.stdout + plain.stderr


main()
