"""What the journal forgets: entries and whole segments, for good, while chain, heads and everybody else's mail stay."""
import csv
import hashlib
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from journals import *

PEOPLE = ("ada", "bob", "eve")


def content(person, number):
    return f"Message-ID: <{person}{number}@x>\r\nSubject: {person} {number}\r\n\r\nSECRET-{person}-{number} " + noise(number % 5 * 40000, number) + "\r\n"


def fill(scene, holdfast, first, count):
    send_all(scene, holdfast, [(content(person, number), f"from-{person}@example.net", f"{person}@example.org") for number in range(first, first + count) for person in PEOPLE])


def world(scene, segments=3, **options):
    holdfast = scene.holdfast(scene.primary(), **options)
    for number in range(segments):
        fill(scene, holdfast, number * 4, 4)
        if number + 1 < segments:
            holdfast.run("journal", "seal")
    return holdfast


def whole(holdfast, people, numbers):
    """Everybody's entries are there, bit for bit, and nobody else's."""
    entries, found = holdfast.entries(), contents(holdfast)
    equal(sorted(entry["subject"] for entry in entries), sorted(f"{person} {number}" for person in people for number in numbers))
    for entry in entries:
        person, number = entry["subject"].split()
        equal(found[entry["id"]].decode(), content(person, int(number)))
    code = holdfast.run("journal", "verify", check=False)
    equal(code.returncode, 0, code.stdout)
    shutil.copy(os.path.join(holdfast.journal_path, "signing.pub"), holdfast.scene.path("key.pem"))
    code = holdfast.run("journal", "verify", "--key", holdfast.scene.path("key.pem"), check=False)
    equal(code.returncode, 0, code.stdout)


def by(holdfast, *filters):
    return [entry["id"] for entry in holdfast.entries(*filters)]


@test("a person's mail is erased, in sealed segments and the newest, while the daemon runs; all else stays, and so do the heads that were published")
def _(scene):
    holdfast = world(scene)
    heads = holdfast.run("journal", "head", "--all").stdout
    gone = by(holdfast, "--recipient", "bob@example.org")
    equal(len(gone), 12)
    proof = scene.path("proof")
    with open(proof, "w") as file:
        file.write(holdfast.run("journal", "proof", str(by(holdfast, "--recipient", "ada@example.org")[0])).stdout)
    dry = holdfast.run("journal", "erase", "--recipient", "bob@example.org", "--reason", "request 17", "--dry-run")
    assert "12 entries would be erased" in dry.stderr and by(holdfast, "--recipient", "bob@example.org") == gone, dry.stderr
    equal(holdfast.run("journal", "erase", "--id", str(gone[0]), "--recipient", "ada@example.org", "--reason", "x").stdout, "no entry matches; nothing was erased\n")
    said = holdfast.run("journal", "erase", "--recipient", "Bob@example.org", "--reason", "request 17").stdout
    assert said.startswith("12 entries erased; 3 segments rewritten"), said
    whole(holdfast, ("ada", "eve"), range(12))
    for filters in (("--recipient", "bob@example.org"), ("--sender", "from-bob@example.net"), ("--message-id", "bob3@x")):
        equal(by(holdfast, *filters), [], filters)
    shown = holdfast.run("journal", "show", str(gone[0]), check=False)
    assert shown.returncode == 66 and "was erased" in shown.stderr, shown.stderr
    one = json.loads(holdfast.run("journal", "erasures", "--json").stdout)
    equal((one["reason"], one["by"].startswith("user "), set(gone) <= set(one["records"])), ("request 17", True, True))
    assert holdfast.run("journal", "head", "--all").stdout.startswith(heads), "published heads stay"
    equal(run(BINARY, "journal", "verify", "--proof", proof, "--key", scene.path("key.pem")).returncode, 0, "and so do proofs")
    # The daemon goes on, with what it had open.
    fill(scene, holdfast, 12, 2)
    holdfast.run("journal", "rebuild")
    equal(by(holdfast, "--recipient", "bob@example.org"), [entry["id"] for entry in holdfast.entries() if entry["subject"] in ("bob 12", "bob 13")])
    holdfast.stop()
    holdfast.start()
    sound(holdfast)
    # By id and by sender; nothing matches; nobody named; no reason.
    one = by(holdfast, "--recipient", "eve@example.org")[0]
    holdfast.run("journal", "erase", "--id", str(one), "--reason", "x")
    assert one not in by(holdfast)
    assert "no entry matches" in holdfast.run("journal", "erase", "--sender", "nobody@example.net", "--reason", "x").stdout
    equal(holdfast.run("journal", "erase", "--reason", "x", check=False).returncode, 64)
    equal(holdfast.run("journal", "erase", "--sender", "a@b", check=False).returncode, 64)


@test("a damaged segment keeps nothing else from being erased, this time or later; what cannot be read is told; with the file put back the rest goes too")
def _(scene):
    holdfast = world(scene, segments=4, journal="compress: false")
    segment, good = os.path.join(holdfast.journal_path, "segments", "0000000002.lmdb"), scene.path("good")
    size = os.path.getsize(segment)
    shutil.copy(segment, good)
    flip(segment, 100000)  # in what ada got
    for person in ("bob", "eve"):
        said = holdfast.run("journal", "erase", "--recipient", f"{person}@example.org", "--reason", "x", check=False)
        equal(said.returncode, 65)
        assert segment in said.stderr and "all else is erased" in said.stderr, said.stderr
        equal(len(by(holdfast, "--recipient", f"{person}@example.org")), 4)
    shutil.copy(good, segment)
    flip(segment, size // 2)  # in what eve got: it goes, and then bob's can
    holdfast.run("journal", "erase", "--recipient", "bob@example.org", "--reason", "the rest")
    whole(holdfast, ["ada"], range(16))
    shutil.copy(segment, good)
    with open(segment, "r+b") as file:
        file.write(os.urandom(os.path.getsize(segment)))
    for dry in (["--dry-run"], []):
        said = holdfast.run("journal", "erase", "--sender", "from-ada@example.net", "--reason", "x", *dry, check=False)
        equal((said.returncode, "left out" in said.stderr), (65, True), said.stderr)
    shutil.copy(good, segment)
    whole(holdfast, ["ada"], range(4, 8))


@test("erasing leaves no file in which the old key stands, so what was copied of the old file before cannot be opened")
def _(scene):
    holdfast = world(scene, segments=2)
    path = os.path.join(holdfast.journal_path, "segments", "0000000001.lmdb")
    reading = open(path, "rb")
    before = reading.read()
    holdfast.run("journal", "erase", "--recipient", "ada@example.org", "--reason", "x")
    # The old file, still open here, has lost its key: 60 bytes at the end of its header.
    reading.seek(0)
    after = reading.read()
    equal(len(after), len(before))
    changed = [index for index in range(len(before)) if before[index] != after[index]]
    assert changed and set(after[index] for index in changed) == {0}, "only the key was overwritten"
    with open(path, "rb") as file:
        new = file.read()
    assert before[changed[0]:changed[0] + 40] not in new
    equal(sorted(name for name in os.listdir(os.path.dirname(path)) if not name.endswith("-lock")),
          sorted(f"000000000{number}.{kind}" for number in (1, 2, 3) for kind in ("lmdb", "manifest") if (number, kind) != (3, "manifest")))


@test("held mail is listed and kept, unless it is meant too; then it is neither delivered nor held any more")
def _(scene):
    port = free_port()
    primary = scene.primary(port=port)
    holdfast = scene.holdfast(primary, yaml="failover:\n  probe_interval: 100ms\n  release_after: 100ms")
    fill(scene, holdfast, 0, 1)
    holdfast.run("failover", "hold", "--reason", "test")
    client = scene.client(holdfast.port)
    for person in ("ada", "bob"):
        assert client.send_mail(content(person, 1), f"from-{person}@example.net", f"{person}@example.org").startswith("250")
    wait_for(lambda: len(by(holdfast, "--outcome", "held")) == 2, what="held mail")
    refused = holdfast.run("journal", "erase", "--recipient", "ada@example.org", "--reason", "x", check=False)
    assert refused.returncode == 75 and "--including-held" in refused.stderr and "from-ada@example.net" in refused.stderr, refused.stderr
    equal(len(by(holdfast, "--recipient", "ada@example.org")), 2, "nothing was changed")
    holdfast.run("journal", "erase", "--recipient", "ada@example.org", "--reason", "x", "--including-held")
    equal(by(holdfast, "--recipient", "ada@example.org"), [])
    equal(holdfast.status()["routes"][0]["held"], 1)
    primary.messages.clear()
    holdfast.run("failover", "auto", "--reason", "test")
    wait_for(lambda: holdfast.status()["routes"][0]["held"] == 0, what="the drain")
    equal([b"bob 1" in message for _, message in primary.messages], [True])
    sound(holdfast)


@test("an erasure that is refused leaves held mail held: for a legal hold, and while one of the entries is being delivered")
def _(scene):
    is_asked, may_answer = threading.Event(), threading.Event()

    def content_reply(session, line):
        is_asked.set()
        may_answer.wait(20)
        return b"250 2.0.0 Ok: taken\r\n"
    primary = scene.primary(replies={"content": content_reply})
    holdfast = scene.holdfast(primary, yaml="failover:\n  probe_interval: 100ms\n  release_after: 100ms\n  drain_concurrency: 1\n", route="unknown_recipients: accept")
    holdfast.run("failover", "hold", "--reason", "test")
    client = scene.client(holdfast.port)
    for number in range(3):
        assert client.send_mail(content("ada", number), "from-ada@example.net", "ada@example.org").startswith("250")
    ids = by(holdfast)
    erase = "journal", "erase", "--recipient", "ada@example.org", "--reason", "x", "--including-held"
    states = lambda: [entry["recipients"][0]["outcome"] for entry in holdfast.entries()]
    holdfast.run("journal", "legal-hold", "set", "case 12", "--id", str(ids[2]), "--reason", "lawsuit")
    refused = holdfast.run(*erase, check=False)
    equal((refused.returncode, 'legal hold "case 12"' in refused.stderr, states()), (75, True, ["held"] * 3), refused.stderr)
    holdfast.run("journal", "legal-hold", "lift", "case 12", "--reason", "settled")
    holdfast.run("failover", "auto", "--reason", "test")
    is_asked.wait(20)
    refused = holdfast.run(*erase, check=False)
    equal((refused.returncode, f"entry {ids[0]} is being delivered at this moment" in refused.stderr, states()), (75, True, ["held"] * 3), refused.stderr)
    equal(holdfast.run("queue", "drop", str(ids[0]), "--reason", "x", check=False).returncode, 66)
    may_answer.set()
    wait_for(lambda: states() == ["delivered"] * 3, what="the drain")
    holdfast.run(*erase)
    equal(by(holdfast), [])
    sound(holdfast)


@test("old segments go by themselves, with a record, but never one with held mail; what is left verifies")
def _(scene):
    holdfast = world(scene)
    http = free_port()
    holdfast.stop()
    holdfast.admin = f"http: 127.0.0.1:{http}"
    holdfast.start()
    refused = holdfast.run("journal", "prune", "--reason", "x", check=False)
    assert refused.returncode == 64 and "retention" in refused.stderr
    said = holdfast.run("journal", "prune", "--older-than", "1h", "--reason", "x").stdout
    assert said.startswith("0 segments"), said
    holdfast.run("failover", "hold", "--reason", "test")
    client = scene.client(holdfast.port)
    assert client.send_mail(content("ada", 12), "from-ada@example.net", "ada@example.org").startswith("250")
    wait_for(lambda: by(holdfast, "--outcome", "held"), what="the held entry")
    holdfast.run("journal", "seal")
    client.send_mail(content("bob", 12), "from-bob@example.net", "bob@example.org")
    holdfast.run("journal", "seal")
    holdfast.journal = "retention: 1s"
    holdfast.write_config()
    holdfast.signal(signal.SIGHUP)
    segments = os.path.join(holdfast.journal_path, "segments")
    wait_for(lambda: sorted(name for name in os.listdir(segments) if name.endswith(".lmdb")) == [f"000000000{number}.lmdb" for number in (3, 4, 5)], what="two segments to go")
    entry = by(holdfast, "--outcome", "held")[0]
    stays = f"segment 3 stays: entry {entry} is held for delivery; see: holdfast queue show {entry}; in all, 2 segments stay"
    wait_for(lambda: holdfast.status()["journal"]["retention_overdue"] == stays, what="the status to tell why mail is overdue")
    equal(holdfast.run("journal", "prune", "--reason", "x").stdout, f"0 segments removed, 0 emptied; {stays}\n")
    assert f"  RETENTION OVERDUE: {stays}\n" in holdfast.run("status").stdout
    assert "\nholdfast_journal_retention_overdue 1\n" in run("curl", "-s", f"http://127.0.0.1:{http}/metrics").stdout
    before = holdfast.status()["uptime_s"]
    wait_for(lambda: holdfast.status()["uptime_s"] >= before + 3, what="retention to look again, each second")
    equal(open(holdfast.log).read().count("what is older than journal.retention is still there"), 1, "told once")
    verified = holdfast.run("journal", "verify", check=False)
    equal(verified.returncode, 0, verified.stdout)
    erased = [json.loads(line) for line in holdfast.run("journal", "erasures", "--json").stdout.splitlines()]
    equal([(one["by"], one["reason"].split(",")[0]) for one in erased], [("retention", "segment 1"), ("retention", "segment 2")])
    assert not any(entry["subject"] in ("ada 1", "ada 5") for entry in holdfast.entries())
    equal(sorted(os.listdir(os.path.join(holdfast.journal_path, "heads")))[0], "0000000001.head", "heads stay")
    holdfast.run("failover", "auto", "--reason", "test")
    wait_for(lambda: holdfast.status()["journal"]["retention_overdue"] == "", what="retention to go on once the mail is delivered")


@test("a legal hold stops erasure and retention for what it names, over a restart and a rebuild, until it is lifted; each is on record")
def _(scene):
    holdfast = world(scene)
    holdfast.run("journal", "legal-hold", "set", "case 12", "--recipient", "ada@example.org", "--reason", "lawsuit")
    refused = holdfast.run("journal", "erase", "--recipient", "ada@example.org", "--reason", "x", check=False)
    assert refused.returncode == 75 and 'legal hold "case 12"' in refused.stderr, refused.stderr
    equal(len(by(holdfast, "--recipient", "ada@example.org")), 12)
    holdfast.run("journal", "erase", "--recipient", "eve@example.org", "--reason", "x")
    holdfast.run("journal", "seal")
    a_second_passes(holdfast)
    equal(holdfast.run("journal", "prune", "--older-than", "1s", "--reason", "x").stdout,
          f"0 segments removed, 0 emptied; segment 1 stays: entry {by(holdfast, '--recipient', 'ada@example.org')[0]} is under the legal hold \"case 12\"; see: holdfast journal legal-hold list; in all, 3 segments stay\n")
    holdfast.stop()
    holdfast.run("journal", "rebuild")
    equal([(one["name"], one["recipient"], one["reason"]) for one in map(json.loads, holdfast.run("journal", "legal-hold", "list", "--json").stdout.splitlines())], [("case 12", "ada@example.org", "lawsuit")])
    equal(holdfast.run("journal", "erase", "--id", str(by(holdfast, "--recipient", "ada@example.org")[0]), "--reason", "x", check=False).returncode, 75)
    holdfast.start()
    equal(holdfast.run("journal", "legal-hold", "set", "case 12", "--reason", "again", check=False).returncode, 64)
    equal(holdfast.run("journal", "legal-hold", "lift", "case 13", "--reason", "x", check=False).returncode, 66)
    holdfast.run("journal", "legal-hold", "lift", "case 12", "--reason", "settled")
    equal(holdfast.run("journal", "legal-hold", "list").stdout, "")
    assert not holdfast.run("journal", "prune", "--older-than", "1s", "--reason", "x").stdout.startswith("0 segments")
    holdfast.run("journal", "erase", "--recipient", "ada@example.org", "--reason", "x")
    equal(by(holdfast, "--recipient", "ada@example.org"), [])
    mistyped = holdfast.run("journal", "legal-hold", "set", "case 14", "--id", "999999", "--reason", "x", check=False)
    equal((mistyped.returncode, mistyped.stderr), (66, "holdfast: there is no entry 999999 in this journal; see: holdfast journal list\n"))
    holdfast.run("journal", "legal-hold", "set", "case 15", "--recipient", "nobody@example.org", "--reason", "x")
    holdfast.run("journal", "seal")
    a_second_passes(holdfast)
    said = holdfast.run("journal", "prune", "--older-than", "1s", "--reason", "x").stdout
    assert re.fullmatch(r"\d+ segments removed, \d emptied\n", said), said
    listed = holdfast.run("journal", "legal-hold", "list").stdout
    assert "case 15" in listed, f"its record stays: {listed}"
    holdfast.run("journal", "legal-hold", "lift", "case 15", "--reason", "x")
    holdfast.run("journal", "seal")
    a_second_passes(holdfast)
    assert not holdfast.run("journal", "prune", "--older-than", "1s", "--reason", "x").stdout.startswith("0 segments")
    sound(holdfast)


def prune(holdfast):
    a_second_passes(holdfast)
    return holdfast.run("journal", "prune", "--older-than", "1s", "--reason", "old").stdout


@test("behind a segment that stays for a legal hold, older ones lose their mail and all that became of it; what became of the mail that stays is kept")
def _(scene):
    holdfast = scene.holdfast(scene.primary())
    fill(scene, holdfast, 0, 1)
    holdfast.run("failover", "hold", "--reason", "test")
    assert scene.client(holdfast.port).send_mail(content("ada", 100), "x@example.net", "ada@example.org").startswith("250")
    kept = by(holdfast, "--outcome", "held")[0]
    holdfast.run("journal", "seal")
    holdfast.run("failover", "auto", "--reason", "test")
    wait_for(lambda: holdfast.status()["routes"][0]["held"] == 0, what="the drain, whose outcomes stand in segment 2")
    for number in (1, 2):
        fill(scene, holdfast, number, 1)
        holdfast.run("journal", "seal")
    holdfast.run("journal", "legal-hold", "set", "case 20", "--id", str(kept), "--reason", "lawsuit")
    fill(scene, holdfast, 3, 1)
    gone = [one["id"] for one in holdfast.entries() if one["subject"].endswith((" 1", " 2"))]
    equal(len(gone), 6)
    heads = holdfast.run("journal", "head", "--all").stdout
    heads_file = scene.path("heads")
    with open(heads_file, "w") as file:
        file.write(heads)
    stays = f'segment 1 stays: entry {kept} is under the legal hold "case 20"; see: holdfast journal legal-hold list\n'
    equal(prune(holdfast), f"0 segments removed, 2 emptied; {stays}")
    equal(prune(holdfast), f"0 segments removed, 0 emptied; {stays}")
    left = [f"{person} {number}" for number in (0, 3) for person in PEOPLE]

    def as_it_should_be():
        equal(sorted(one["subject"] for one in holdfast.entries()), sorted(["ada 100", *left]))
        equal([(one["id"], one["recipients"][0]["outcome"]) for one in holdfast.entries("--sender", "x@example.net")], [(kept, "delivered")])
        equal(len(by(holdfast, "--sender", "from-bob@example.net")), 2, "found by the catalog")
        equal(verified(holdfast, "--heads", heads_file)[::2], (0, []))
        shutil.copy(os.path.join(holdfast.journal_path, "signing.pub"), scene.path("key.pem"))
        equal(holdfast.run("journal", "verify", "--key", scene.path("key.pem"), check=False).returncode, 0)

    as_it_should_be()
    erased = [json.loads(line) for line in holdfast.run("journal", "erasures", "--json").stdout.splitlines()]
    equal([(one["reason"], one["records"]) for one in erased], [("mail of segment 2, old", []), ("mail of segment 3, old", [])])
    for id in gone:
        export = holdfast.run("journal", "export", str(id), check=False)
        assert export.returncode == 66 and f"entry {id} was erased" in export.stderr, export.stderr
    holdfast.run("journal", "backup", scene.path("backup"))
    found = run("/usr/bin/python3", os.path.join(os.path.dirname(__file__), "../20-proof/reader.py"), holdfast.journal_path)
    equal(found.returncode, 0, found.stderr)
    equal(sorted(map(int, json.loads(found.stdout)["entries"])), by(holdfast))
    holdfast.stop()
    holdfast.run("journal", "rebuild")
    as_it_should_be()
    holdfast.start()
    equal(prune(holdfast), f"0 segments removed, 0 emptied; {stays}")
    as_it_should_be()
    holdfast.run("journal", "legal-hold", "lift", "case 20", "--reason", "settled")
    holdfast.run("journal", "seal")
    assert re.fullmatch(r"\d segments removed, 0 emptied\n", prune(holdfast))
    equal(holdfast.entries(), [])
    sound(holdfast)


@test(f"killed {KILLS} times in the middle of pruning, also behind a segment that stays: each time the journal verifies, and pruning again ends it")
def _(scene):
    holdfast = world(scene, segments=6)
    kept = [by(holdfast, "--recipient", "ada@example.org")[index] for index in (9, 14)]
    for id in kept:
        holdfast.run("journal", "legal-hold", "set", f"case {id}", "--id", str(id), "--reason", "lawsuit")
    holdfast.run("journal", "seal")
    a_second_passes(holdfast)
    renew = stopped_for_good(holdfast)
    command = [BINARY, "-c", holdfast.config, "journal", "prune", "--older-than", "1s", "--reason", "old"]
    for _ in kills(command, renew):
        sound(holdfast)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        sound(holdfast)
        equal(sorted(entry["subject"] for entry in holdfast.entries()), sorted(f"{person} {one}" for person in PEOPLE for one in (8, 9, 10, 11, 12, 13, 14, 15)))
        equal(len(by(holdfast, "--recipient", "bob@example.org")), 8, "found by the catalog")
        assert not [name for name in os.listdir(os.path.join(holdfast.journal_path, "segments")) if name.endswith((".old", ".rewritten"))]


@test("a damaged segment keeps nobody from setting a legal hold, on an entry in it too, or lifting it; the list says that it may not be whole")
def _(scene):
    holdfast = world(scene, segments=2)
    entry = by(holdfast)[0]
    holdfast.stop()
    os.truncate(os.path.join(holdfast.journal_path, "segments", "0000000001.lmdb"), 20000)
    assert holdfast.run("journal", "show", str(entry), check=False).returncode != 0, "it cannot be read"
    holdfast.run("journal", "legal-hold", "set", "case 16", "--id", str(entry), "--reason", "lawsuit")
    for is_running in (False, True):
        if is_running:
            holdfast.start()
        listed = holdfast.run("journal", "legal-hold", "list", "--json", check=False)
        equal((listed.returncode, [one["ids"] for one in map(json.loads, listed.stdout.splitlines())]), (65, [[entry]]))
        assert "cut short" in listed.stderr, listed.stderr
    holdfast.run("journal", "legal-hold", "lift", "case 16", "--reason", "settled")
    equal(holdfast.run("journal", "legal-hold", "list", check=False).stdout, "")


@test("a full disk in the middle of erasing leaves all as it was, and it can be done once there is room")
def _(scene):
    disk = small_disk(scene, 24)
    if not disk:
        return
    holdfast = world(scene, segments=2, journal_path=os.path.join(disk, "journal"))
    # Until then, there may be more room at any moment.
    wait_for(lambda: "compacted journal segment 1" in open(holdfast.log).read(), what="segment 1 to be compacted")
    ballast = fill_disk(disk, 400 << 10)
    full = holdfast.run("journal", "erase", "--recipient", "ada@example.org", "--reason", "x", check=False)
    assert full.returncode == 75 and "space" in full.stderr, (full.returncode, full.stderr)
    sound(holdfast)
    os.unlink(ballast)
    holdfast.run("journal", "erase", "--recipient", "ada@example.org", "--reason", "x")
    whole(holdfast, ("bob", "eve"), range(8))


@test(f"killed {KILLS} times in the middle of erasing: each time the journal verifies, nobody else's mail is touched, and erasing again ends it")
def _(scene):
    holdfast = world(scene, segments=4)
    renew = stopped_for_good(holdfast)
    command = [BINARY, "-c", holdfast.config, "journal", "erase", "--recipient", "ada@example.org", "--reason", "x"]
    for _ in kills(command, renew):
        sound(holdfast)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        sound(holdfast)
        equal(sorted(entry["subject"] for entry in holdfast.entries()), sorted(f"{person} {one}" for person in ("bob", "eve") for one in range(16)))
        assert not [name for name in os.listdir(os.path.join(holdfast.journal_path, "segments")) if name.endswith((".old", ".rewritten"))]
    whole(holdfast, ("bob", "eve"), range(16))


@test("Holdfast stops soon in the middle of erasing; erasing again ends it")
def _(scene):
    holdfast = world(scene, segments=8)
    seconds = 0.0
    for entry in holdfast.entries("--recipient", "eve@example.org", "--limit", "10"):
        erasing = subprocess.Popen([BINARY, "-c", holdfast.config, "journal", "erase", "--id", str(entry["id"]), "--reason", "test"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        time.sleep(seconds)  # the moment of the stop
        seconds += 0.01
        holdfast.signal(signal.SIGTERM)
        holdfast.process.wait(20)
        said = erasing.communicate()[1]
        assert erasing.returncode == 0 or "the same command erases what is left" in said, said
        holdfast.start()
    holdfast.run("journal", "erase", "--recipient", "eve@example.org", "--reason", "test")
    whole(holdfast, ("ada", "bob"), range(32))


@test("all of a person's messages are exported with an index; who read what is on record, with or without the daemon")
def _(scene):
    holdfast = world(scene, segments=2)
    client = scene.client(holdfast.port)
    assert client.send_mail("Subject: =HYPERLINK(1)\r\n\r\nx\r\n", "ada@example.org", "bob@example.org").startswith("250")
    for subject in (b"=?UTF-8?Q?Gr=C3=BC=C3=9Fe?=", b"Gr\xfc\xdfe"):
        for command in (b"MAIL FROM:<ada@example.org>", b"RCPT TO:<bob@example.org>", b"DATA", b"Subject: " + subject + b"\r\n\r\nx\r\n."):
            client.ask(command)
    settled(holdfast)
    said = holdfast.run("journal", "export", "--subject", "ADA@example.org", "--to", scene.path("ada"), "--reason", "request 15")
    assert "11 entries of ADA@example.org exported" in said.stderr, said.stderr
    with open(scene.path("ada/index.json")) as file:
        index = json.load(file)
    equal(len(index), 11)
    for one in index:
        with open(scene.path("ada/" + one["file"]), "rb") as file:
            data = file.read()
        equal(hashlib.sha256(data).hexdigest(), one["sha256"])
        assert "ada@example.org" in [one["mail_from"], *(to["address"] for to in one["recipients"])]
    holdfast.run("journal", "export", "--subject", "ADA@example.org", "--to", scene.path("ada"), "--reason", "request 15, once more")
    mixed = holdfast.run("journal", "export", "--subject", "bob@example.org", "--to", scene.path("ada"), check=False)
    assert mixed.returncode == 73 and re.search(f"{scene.path('ada')} holds \\d+.eml, which is not of this export", mixed.stderr), mixed.stderr
    with open(scene.path("ada/index.csv"), newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    equal([row["file"] for row in rows], [one["file"] for one in index])
    equal(rows[-3]["subject"], "'=HYPERLINK(1)", "no spreadsheet takes it for a formula")
    equal([row["subject"] for row in rows[-2:]] + [one["subject"] for one in index[-2:]], ["Grüße"] * 4, "decoded, and UTF-8 whatever was sent")
    people = ["ada@example.org", "bob@example.org"]
    theirs = [one["id"] for one in holdfast.entries() if set(people) & {one["mail_from"], *(to["address"] for to in one["recipients"])}]
    holdfast.run("journal", "export", *(word for person in people for word in ("--subject", person)), "--to", scene.path("both"))
    with open(scene.path("both/index.json")) as file:
        equal([one["id"] for one in json.load(file)], theirs, "each once, in order")
    one = by(holdfast)[0]
    holdfast.run("journal", "export", str(one))
    holdfast.run("journal", "replay", "--to", "eml:" + scene.path("eml"), "--reason", "archive")
    holdfast.stop()
    holdfast.run("journal", "export", str(one), "--reason", "without the daemon")
    seen = [json.loads(line) for line in holdfast.run("journal", "accesses", "--json").stdout.splitlines()]
    equal([(access["command"].split(" --to")[0], access["reason"], access["entries"]) for access in seen],
          [("journal export --subject ADA@example.org", "request 15", 11), ("journal export --subject ADA@example.org", "request 15, once more", 11), ("journal export --subject ada@example.org, bob@example.org", "", len(theirs)), ("journal export", "", 1), ("journal replay", "archive", 27), ("journal export", "without the daemon", 1)])
    equal(seen[3]["ids"], [one])
    assert all(access["by"].startswith("user ") for access in seen)
    sound(holdfast)
    holdfast.journal = "access_log: false"
    holdfast.write_config()
    holdfast.run("journal", "export", str(one))
    equal(len(holdfast.run("journal", "accesses").stdout.splitlines()), 6)
    equal(holdfast.run("journal", "export", check=False).returncode, 64)


main()
