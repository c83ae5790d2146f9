"""Replay: what is in the journal goes elsewhere, as it was, once; and nothing about its delivery changes."""
import email
import mailbox
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from journals import *

# Bodies that tempt a writer of files or of SMTP; all end with a line end.
BODIES = [
    b"Subject: plain\r\n\r\nhello\r\n",
    b"Subject: from\r\n\r\nFrom me to you\r\n>From quoted\r\n>>From twice\r\nFrom\r\nFrom: no\r\n",
    b"Subject: dots\r\n\r\n.\r\n..\r\n.x\r\n",
    b"Subject: eight \xe4\xf6\xfc\r\n\r\n\xff\xfe\x80\r\n",
    b"Subject: escape \x1b[31mred\x07\r\n\r\n\x1b]0;title\x07\r\n",
    b"From nobody Mon Jan  1 00:00:00 2001\r\nSubject: begins like an mbox\r\n\r\nx\r\n",
    b"\r\n",
    b"Subject: large\r\n\r\n" + b"0123456789abcdef" * 40000 + b"\r\n" + b"From " * 30000 + b"\r\n",
]


def stuffed(content):
    return b"\r\n".join(b"." + line if line.startswith(b".") else line for line in content.split(b"\r\n"))


def fill(scene, holdfast, bodies=BODIES, sender="a@example.net"):
    client = scene.client(holdfast.port)
    client.ask("EHLO client.example.net")
    for number, body in enumerate(bodies):
        for command in (f"MAIL FROM:<{sender}> BODY=8BITMIME", f"RCPT TO:<p{number}@example.org>", "RCPT TO:<second@example.org> NOTIFY=NEVER", "DATA"):
            reply = client.ask(command)
            assert reply[0] in "23", (command, reply)
        client.send(stuffed(body) + b".\r\n")
        assert client.reply().startswith("250")
    client.ask("QUIT")


def world(scene, bodies=BODIES):
    primary = scene.primary()
    holdfast = scene.holdfast(primary)
    fill(scene, holdfast, bodies)
    return holdfast


def outcomes(holdfast):
    settled(holdfast)
    return [(entry["id"], entry["recipients"]) for entry in holdfast.entries()]


def unquoted(message):
    """mboxrd undone."""
    lines = message.split(b"\n")
    return b"\n".join(line[1:] if line.startswith(b">") and line.lstrip(b">").startswith(b"From ") else line for line in lines)


@test("to eml, Maildir and mbox: bit for bit, as Python's mailbox reads them, and the journal is as before")
def _(scene):
    holdfast = world(scene)
    before = outcomes(holdfast)
    said = holdfast.run("journal", "replay", "--to", "eml:" + scene.path("eml"))
    assert f"{len(BODIES)} entries replayed" in said.stderr, said.stderr
    for (entry, _), body in zip(before, BODIES):
        equal(open(scene.path(f"eml/{entry}.eml"), "rb").read(), body)
    holdfast.run("journal", "replay", "--to", "maildir:" + scene.path("maildir"))
    found = mailbox.Maildir(scene.path("maildir"), create=False)
    equal(sorted(found.get_bytes(key) for key in found.keys()), sorted(BODIES))
    holdfast.run("journal", "replay", "--to", "mbox:" + scene.path("all.mbox"))
    found = mailbox.mbox(scene.path("all.mbox"), create=False)
    equal([unquoted(found.get_bytes(key)) for key in found.keys()], [body for body in BODIES])
    assert found[0].get_from().startswith("a@example.net "), found[0].get_from()
    equal(outcomes(holdfast), before)
    # A second time: the folder's files are written over, the mbox is somebody's.
    refused = holdfast.run("journal", "replay", "--to", "mbox:" + scene.path("all.mbox"), check=False)
    assert refused.returncode == 73 and "is not empty" in refused.stderr, refused
    holdfast.run("journal", "replay", "--to", "eml:" + scene.path("eml"))
    equal(sorted(os.listdir(scene.path("eml"))), sorted(f"{entry}.eml" for entry, _ in before))


@test("nothing is replayed or exported into the journal itself, by whatever name")
def _(scene):
    holdfast = world(scene)
    settled(holdfast)
    os.symlink(holdfast.journal_path, scene.path("elsewhere"))

    def files():
        return sorted(os.path.join(folder, name) for folder, _, names in os.walk(holdfast.journal_path) for name in names if "/replays" not in folder)
    before = files()
    for place in (holdfast.journal_path, os.path.join(holdfast.journal_path, "segments"), scene.path("elsewhere/new")):
        commands = [["replay", "--to", f"{kind}:{place}/x" if kind == "mbox" else f"{kind}:{place}"] for kind in ("eml", "maildir", "mbox")]
        for command in (*commands, ["export", "--subject", "p1@example.org", "--to", place]):
            refused = holdfast.run("journal", *command, "--reason", "test", check=False)
            assert refused.returncode == 73 and "is in the journal itself" in refused.stderr, refused
    equal(files(), before)


@test("by SMTP: the original envelope with its parameters, the content bit for bit and nothing added; to other recipients if so asked")
def _(scene):
    holdfast = world(scene)
    target = scene.primary()
    holdfast.run("journal", "replay", "--to", f"smtp://127.0.0.1:{target.port}", "--concurrency", "3")
    equal(sorted(content for _, content in target.messages), sorted(BODIES))
    for envelope, content in target.messages:
        number = BODIES.index(content)
        equal(envelope, [f"MAIL FROM:<a@example.net> SIZE={len(content)} BODY=8BITMIME".encode(), f"RCPT TO:<p{number}@example.org>".encode(),
                         b"RCPT TO:<second@example.org> NOTIFY=NEVER"])
    target.messages.clear()
    holdfast.run("journal", "replay", "--to", f"smtp://127.0.0.1:{target.port}", "--to-recipient", "audit@example.org", "--recipient", "P0@example.org")
    equal([(envelope[1:], content) for envelope, content in target.messages], [([b"RCPT TO:<audit@example.org>"], BODIES[0])])


@test("every filter chooses, a dry run sends nothing, a result for each entry as JSON")
def _(scene):
    holdfast = scene.holdfast(scene.primary(replies={"RCPT": lambda session, line: b"550 5.1.1 no\r\n" if b"nobody" in line else b"250 ok\r\n"}))
    client = scene.client(holdfast.port)
    for sender, recipient, content in (("a@example.net", "b@example.org", "Message-ID: <one@x>\r\n\r\nx\r\n"), ("c@example.net", "d@example.org", "Message-ID: <two@x>\r\n\r\nx\r\n")):
        assert client.send_mail(content, sender, recipient).startswith("250")
    outcomes(holdfast)
    ids = [entry["id"] for entry in holdfast.entries()]
    def chosen(*filters):
        said = holdfast.run("journal", "replay", "--to", "eml:" + scene.path("nothing"), "--dry-run", "--json", *filters)
        return [json.loads(line)["id"] for line in said.stdout.splitlines()]
    for filters, wanted in ((["--sender", "a@example.net"], ids[:1]), (["--recipient", "d@example.org"], ids[1:]), (["--message-id", "two@x"], ids[1:]), (["--outcome", "forwarded"], ids),
                            (["--outcome", "held"], []), (["--route", "primary"], ids), (["--route", "other"], []), (["--direction", "inbound"], ids), (["--direction", "outbound"], []),
                            (["--since", "1h"], ids), (["--until", "1h"], []), (["--id", str(ids[1])], ids[1:]), (["--id", str(ids[1]), "--id", str(ids[1])], ids[1:]), (["--id", str(ids[1]), "--until", "1h"], []), ([], ids)):
        equal(chosen(*filters), wanted, filters)
    assert not os.path.exists(scene.path("nothing"))
    said = holdfast.run("journal", "replay", "--to", "eml:" + scene.path("eml"), "--json")
    equal(sorted((one["id"], one["result"], one["detail"]) for one in map(json.loads, said.stdout.splitlines())), [(one, "sent", scene.path(f"eml/{one}.eml")) for one in ids])
    for arguments, code, words in ((["--to", "ftp://x"], 64, "is no target"), (["--to", "eml:x", "--id", "999999"], 65, "no entry 999999"), (["--to", "eml:x", "--since", "yesterday"], 64, "is no time"),
                                   (["--to", "eml:/proc/x"], 73, "/proc/x"), (["--to", "smtp://127.0.0.1:1", "--as", "journal-report"], 64, "--to-recipient"), (["--to", "eml:x", "--as", "pdf"], 64, "no form of replay")):
        refused = holdfast.run("journal", "replay", *arguments, check=False)
        equal(refused.returncode, code, (arguments, refused.stderr))
        assert words in refused.stderr, (arguments, refused.stderr)


@test("a primary that comes back from an older backup is given what it had taken since, by the commands of the page for that night, then what was held")
def _(scene):
    primary = scene.primary()
    holdfast = scene.holdfast(primary, yaml="failover:\n  probe_interval: 100ms\n  release_after: 200ms\n")
    client = scene.client(holdfast.port)
    def send(subject):
        assert client.send_mail(f"Subject: {subject}\r\n\r\nx\r\n").startswith("250")
    def arrived():
        return [re.search(rb"Subject: (.*)\r\n", content)[1].decode() for _, content in primary.messages]
    send("in the backup")
    outcomes(holdfast)
    backup = holdfast.entries()[-1]["time"]
    send("after the backup")
    send("after the backup, too")
    outcomes(holdfast)
    since = holdfast.entries()[1]["time"]
    assert since > backup, (since, backup)
    holdfast.run("failover", "hold", "--reason", "ransomware")
    send("held")
    primary.messages.clear()
    holdfast.run("journal", "replay", "--to", f"smtp://127.0.0.1:{primary.port}", "--since", since, "--outcome", "forwarded", "--reason", "restored from the backup")
    equal(sorted(arrived()), ["after the backup", "after the backup, too"])
    holdfast.run("failover", "auto", "--reason", "restored and replayed")
    wait_for(lambda: "held" in arrived(), what="what was held")
    equal(len(arrived()), 3)


@test("a target that goes or refuses in the middle: it says where it stopped, and the same command goes on without sending twice")
def _(scene):
    bodies = [f"Subject: {number}\r\n\r\nx\r\n".encode() for number in range(30)]
    holdfast = world(scene, bodies)
    port = free_port()
    taken, refused_once = [], []

    def verdict(session, line):
        content = session.primary.messages[-1][1]
        if len(taken) == 12 and not session.primary.is_patient:
            session.primary.stop()
            return None
        if b"Subject: 5\r\n" in content and not refused_once:
            refused_once.append(content)
            return b"452 4.2.2 mailbox full\r\n"
        taken.append(content)
        return b"250 2.0.0 Ok\r\n"

    target = scene.primary(port=port, replies={"content": verdict})
    target.is_patient = False
    command = ("journal", "replay", "--to", f"smtp://127.0.0.1:{port}", "--concurrency", "1")
    cut = holdfast.run(*command, check=False)
    equal(cut.returncode, 75, cut.stderr)
    assert "stopped after entry" in cut.stderr and "goes on from here" in cut.stderr and "452 4.2.2" in cut.stdout, (cut.stdout, cut.stderr)
    target = scene.primary(port=port, replies={"content": verdict})
    target.is_patient = True
    rest = holdfast.run(*command)
    assert "were there from an earlier run" in rest.stderr, rest.stderr
    equal(sorted(taken), sorted(bodies), "each once")
    equal(os.listdir(os.path.join(holdfast.journal_path, "replays")), [], "what is over leaves no progress behind")


@test("a target that breaks off at one entry each time, or takes few a connection, gets all others; that one is named")
def _(scene):
    bodies = [f"Subject: {number}\r\n\r\nx\r\n".encode() for number in range(30)]
    holdfast = world(scene, bodies)
    settled(holdfast)
    cursed = sorted(entry["id"] for entry in holdfast.entries())[3]
    tries = []

    def verdict(session, line):
        tries.append(session.primary.messages[-1][1])
        return None if b"Subject: 3\r\n" in tries[-1] else b"250 2.0.0 Ok\r\n"

    def envelope(session, line):
        session.count = getattr(session, "count", 0) + 1
        return b"250 2.1.0 Ok\r\n" if session.count <= 4 else b"421 4.7.0 too many messages in this session\r\n"
    target = scene.primary(replies={"content": verdict, "MAIL": envelope})
    for concurrency in ("1", "4"):
        tries.clear()
        command = ("journal", "replay", "--to", f"smtp://127.0.0.1:{target.port}", "--concurrency", concurrency, "--progress", scene.path(concurrency))
        done = holdfast.run(*command, check=False)
        equal(done.returncode, 69, done.stderr)
        assert "29 entries replayed" in done.stderr and "1 FAILED; the same command tries just those again" in done.stderr, done.stderr
        assert f"entry {cursed}: failed: it closed the connection; the target may have taken it" in done.stdout, done.stdout
        equal(sorted(tries), sorted(bodies), "each once")
        tries.clear()
        equal(holdfast.run(*command, check=False).returncode, 69)
        equal(tries, [bodies[3]])


@test("a target at which every entry loses its connection is given up, and the same command goes on")
def _(scene):
    bodies = [f"Subject: {number}\r\n\r\nx\r\n".encode() for number in range(30)]
    holdfast = world(scene, bodies)
    target = scene.primary(replies={"MAIL": None})
    command = ("journal", "replay", "--to", f"smtp://127.0.0.1:{target.port}")
    cut = holdfast.run(*command, check=False)
    equal(cut.returncode, 75, cut.stderr)
    assert "0 entries replayed" in cut.stderr and "goes on from here" in cut.stderr, cut.stderr
    assert len(target.sessions) < 30, len(target.sessions)
    target.replies["MAIL"] = b"250 2.1.0 Ok\r\n"
    assert "30 entries replayed" in holdfast.run(*command).stderr
    equal(sorted(content for _, content in target.messages), sorted(bodies), "each once")


def progress(holdfast):
    """How many entries the replays under way have done."""
    folder, lines = os.path.join(holdfast.journal_path, "replays"), 0
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        with open(os.path.join(folder, name)) as file:
            lines += sum(line[0].isdigit() and not line.startswith("0 ") for line in file)
    return lines


@test("a target whose disk is full is named, nothing half is left there, and the same command goes on when there is room")
def _(scene):
    bodies = [f"Subject: {number}\r\n\r\n".encode() + (b"y" * 900 + b"\r\n") * 200 for number in range(20)]
    holdfast = world(scene, bodies)
    disk = small_disk(scene, 4)
    if not disk:
        return
    for kind in ("maildir", "eml", "mbox"):
        place = os.path.join(disk, "out")
        ballast = fill_disk(disk, 1 << 20)
        stopped = holdfast.run("journal", "replay", "--to", f"{kind}:{place}", check=False)
        equal(stopped.returncode, 74, kind)
        assert "No space left on device. The same command goes on from here" in stopped.stderr, (kind, stopped.stderr)
        os.unlink(ballast)
        holdfast.run("journal", "replay", "--to", f"{kind}:{place}")
        if kind == "eml":
            found = [open(os.path.join(place, name), "rb").read() for name in os.listdir(place)]
        else:
            box = mailbox.mbox(place, create=False) if kind == "mbox" else mailbox.Maildir(place, create=False)
            found = [unquoted(box.get_bytes(key)) if kind == "mbox" else box.get_bytes(key) for key in box.keys()]
        equal(sorted(found), sorted(bodies), kind)
        run("rm", "-rf", place)


@test("killed in the middle, replays to files go on where they stood: nothing twice, nothing half")
def _(scene):
    bodies = [f"Subject: {number}\r\n\r\n".encode() + b"From x\r\n" * 20000 for number in range(40)]
    holdfast = world(scene, bodies)
    for kind in ("mbox", "maildir"):
        place = scene.path(kind)
        command = [BINARY, "-c", holdfast.config, "journal", "replay", "--to", f"{kind}:{place}", "--rate", "200"]
        for wanted in (0, 8, 16, 24):
            process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            wait_for(lambda: os.path.exists(place) and progress(holdfast) >= wanted, what="some progress")
            process.kill()
            process.wait()
        holdfast.run(*command[3:])
        found = mailbox.mbox(place, create=False) if kind == "mbox" else mailbox.Maildir(place, create=False)
        equal(sorted(unquoted(found.get_bytes(key)) if kind == "mbox" else found.get_bytes(key) for key in found.keys()), sorted(bodies), kind)
    # Interrupted by hand, it says so.
    process = subprocess.Popen([*command[:-2], "--rate", "20", "--to-recipient", "x@example.org"], stderr=subprocess.PIPE, text=True)
    wait_for(lambda: progress(holdfast), what="progress")
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1]
    equal(process.returncode, 75)
    assert "interrupted" in said and "goes on from here" in said, said
    # Where it stands can be kept elsewhere: for a journal that cannot be written, or a second replay of the same.
    elsewhere, kept = scene.path("elsewhere"), scene.path("how-far")
    process = subprocess.Popen([*command[:5], "--to", f"maildir:{elsewhere}", "--rate", "20", "--progress", kept], stderr=subprocess.DEVNULL)
    wait_for(lambda: os.path.exists(kept) and len(open(kept).read().splitlines()) > 3, what="some progress")
    process.kill()
    process.wait()
    done = len(os.listdir(f"{elsewhere}/new"))
    assert 0 < done < 40, done
    precious = scene.path("precious")
    with open(precious, "w") as file:
        file.write("4711 1 0\nnot the end")
    for other, words in ((precious, "is no progress of a replay"), (kept, "is the progress of a replay to another target")):
        refused = holdfast.run("journal", "replay", "--to", f"maildir:{elsewhere}2", "--progress", other, check=False)
        assert refused.returncode == 73 and f"{other}: {words}" in refused.stderr, refused.stderr
    equal(open(precious).read(), "4711 1 0\nnot the end")
    holdfast.run("journal", "replay", "--to", f"maildir:{elsewhere}", "--progress", kept)
    equal(len(os.listdir(f"{elsewhere}/new")), 40)
    assert not os.path.exists(kept), "what is over leaves no progress behind"
    # Also while it waits for the next one's turn, a quarter of an hour away.
    slow = scene.path("slow")
    process = subprocess.Popen([*command[:5], "--to", f"maildir:{slow}", "--rate", "0.001"], stderr=subprocess.PIPE, text=True)
    wait_for(lambda: os.path.isdir(f"{slow}/new") and len(os.listdir(f"{slow}/new")) == 1, what="the first")
    process.send_signal(signal.SIGINT)
    assert "interrupted" in process.communicate(timeout=60)[1]
    equal((process.returncode, len(os.listdir(f"{slow}/new"))), (75, 1))


@test("a journal report has the envelope's facts, and the original, bit for bit, attached")
def _(scene):
    holdfast = world(scene)
    target = scene.primary()
    holdfast.run("journal", "replay", "--to", f"smtp://127.0.0.1:{target.port}", "--as", "journal-report", "--to-recipient", "archive@example.org")
    equal(len(target.messages), len(BODIES))
    seen = []
    for envelope, content in target.messages:
        assert envelope[0].startswith(b"MAIL FROM:<> ") and envelope[1:] == [b"RCPT TO:<archive@example.org>"], envelope
        report = email.message_from_bytes(content)
        assert "X-MS-Journal-Report" in report and report.get_content_type() == "multipart/mixed"
        facts, attached = report.get_payload()
        assert "Sender: a@example.net" in facts.get_payload() and "Recipient: second@example.org" in facts.get_payload(), facts.get_payload()
        equal(attached.get_content_type(), "message/rfc822")
        boundary = b"\r\n--" + report.get_boundary().encode()
        part = content.split(boundary)[2]
        seen.append(part[part.index(b"\r\n\r\n") + 4:])
    equal(sorted(seen), sorted(BODIES))



@test("by LMTP: LHLO, and a verdict for each recipient; only those that were refused are tried again")
def _(scene):
    bodies = BODIES[:3]
    holdfast = world(scene, bodies)
    calls = []

    def verdicts(session, line):
        envelope, content = session.primary.messages[-1]
        calls.append((len(envelope) - 1, content))
        is_first = len(calls) == 1
        return b"250 2.1.5 Ok\r\n" + (b"452 4.2.2 full\r\n" if is_first else b"250 2.1.5 Ok\r\n") if len(envelope) == 3 else b"250 2.1.5 Ok\r\n"

    target = scene.primary(replies={"LHLO": ScriptedPrimary.EHLO, "content": verdicts})
    command = ("journal", "replay", "--to", f"lmtp://127.0.0.1:{target.port}", "--concurrency", "1")
    failed = holdfast.run(*command, check=False)
    equal(failed.returncode, 69, failed.stderr)
    assert "1 FAILED" in failed.stderr and "452 4.2.2" in failed.stdout
    holdfast.run(*command)
    equal(len(calls), 4)
    equal(calls[3], (1, bodies[0]), "one recipient of the first message is left")
    assert all(line != b"EHLO" for line in target.lines()) and any(line.startswith(b"LHLO ") for line in target.lines())


@test("by SMTPS: TLS from the first byte, and the server's certificate must fit")
def _(scene):
    certificate, key = scene.certificate("localhost")
    holdfast = scene.holdfast(scene.primary(), yaml=f"tls:\n  ca_file: {certificate}")
    fill(scene, holdfast, BODIES[:2])

    def wrap(session):
        session.connection = server_tls(certificate, key).wrap_socket(session.connection, server_side=True)

    target = scene.primary(on_accept=wrap)
    holdfast.run("journal", "replay", "--to", f"smtps://localhost:{target.port}")
    equal(sorted(content for _, content in target.messages), sorted(BODIES[:2]))
    refused = holdfast.run("journal", "replay", "--to", f"smtps://127.0.0.1:{target.port}", check=False)
    assert refused.returncode == 75 and "certificate" in refused.stderr, refused.stderr


main()
