"""What the journal proves: signed heads, manifests, inclusion proofs; and that no change to it goes unseen."""
import http.server
import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from journals import *


def fill(scene, holdfast, count, first=0):
    send_all(scene, holdfast, [(f"Subject: {number}\r\n\r\n{'x' * (number % 7) * 3000}\r\n", "a@example.net", f"p{number}@example.org") for number in range(first, first + count)])


def world(scene, seals=3, **options):
    """A journal of so many sealed segments and an open one."""
    holdfast = scene.holdfast(scene.primary(), **options)
    for number in range(seals):
        fill(scene, holdfast, 10, number * 10)
        holdfast.run("journal", "seal")
    fill(scene, holdfast, 3, 100)
    return holdfast


def public_key(holdfast):
    return os.path.join(holdfast.journal_path, "signing.pub")


def segment(holdfast, number):
    return os.path.join(holdfast.journal_path, "segments", f"{number:010}.lmdb")


def head(holdfast, number):
    return os.path.join(holdfast.journal_path, "heads", f"{number:010}.head")


@test("sealed segments have signed heads; verify checks them, with the decryption key and with the public key alone")
def _(scene):
    holdfast = world(scene)
    code, summary, problems = verified(holdfast)
    equal((code, summary["ok"], summary["segments"], summary["heads"], summary["entries"], problems), (0, True, 4, 3, 33, []))
    key = scene.path("public.pem")
    shutil.copy(public_key(holdfast), key)
    os.rename(os.path.join(holdfast.journal_path, "master.key"), scene.path("master.key"))
    code, summary, problems = verified(holdfast, "--key", key)
    equal((code, summary["heads"], summary["entries"], problems), (0, 3, 33, []))
    equal(holdfast.run("journal", "verify", check=False).returncode, 66, "without either key")
    os.rename(scene.path("master.key"), os.path.join(holdfast.journal_path, "master.key"))
    lines = holdfast.run("journal", "head", "--all").stdout.splitlines()
    equal(len(lines), 3)
    equal(holdfast.run("journal", "head").stdout.splitlines(), lines[2:])
    equal(holdfast.run("journal", "head", "2").stdout.splitlines(), lines[1:2])
    assert all(line.startswith(f"holdfast-head-1 segment={number + 1} ") for number, line in enumerate(lines)), lines
    # The signature is plain Ed25519 over the line before it: anybody's tool can check it.
    text, signature = lines[0].split(" signature=")
    with open(scene.path("text"), "w") as file:
        file.write(text)
    with open(scene.path("signature"), "wb") as file:
        file.write(bytes.fromhex(signature))
    run("openssl", "pkeyutl", "-verify", "-pubin", "-inkey", key, "-rawin", "-in", scene.path("text"), "-sigfile", scene.path("signature"), check=True)
    # Another key's word does not count.
    run("openssl", "genpkey", "-algorithm", "ed25519", "-out", scene.path("other.key"), check=True)
    run("openssl", "pkey", "-in", scene.path("other.key"), "-pubout", "-out", scene.path("other.pem"), check=True)
    code, summary, problems = verified(holdfast, "--key", scene.path("other.pem"))
    equal(code, 65)
    assert any("signature is not valid" in one for one in problems), problems


@test("an empty message has a proof too, and its content is checked")
def _(scene):
    holdfast = scene.holdfast(scene.primary())
    assert scene.client(holdfast.port).send_mail(content="").startswith("250")
    holdfast.run("journal", "seal")
    proof, content = scene.path("proof.json"), scene.path("content.eml")
    with open(proof, "w") as file:
        file.write(holdfast.run("journal", "proof", str(holdfast.entries()[0]["id"])).stdout)
    for text, code in (("", 0), ("x", 65)):
        with open(content, "w") as file:
            file.write(text)
        equal(run(BINARY, "journal", "verify", "--proof", proof, "--content", content).returncode, code, repr(text))


@test("a proof shows a third party, without the journal, that an entry was in it; any change to the proof is seen")
def _(scene):
    holdfast = world(scene, seals=2)
    key = public_key(holdfast)
    entries = holdfast.entries()
    for entry in (entries[0], entries[7], entries[19]):
        proof, content = scene.path("proof.json"), scene.path("content.eml")
        with open(proof, "w") as file:
            file.write(holdfast.run("journal", "proof", str(entry["id"])).stdout)
        with open(content, "wb") as file:
            file.write(holdfast.content(entry["id"]))
        said = run(BINARY, "-c", "/nowhere", "journal", "verify", "--proof", proof, "--key", key, "--content", content)
        equal(said.returncode, 0, said.stderr)
        assert entry["sha256"] in said.stdout and f"to <{entry['recipients'][0]['address']}>" in said.stdout, said.stdout
        facts = json.loads(run(BINARY, "journal", "verify", "--proof", proof, "--json").stdout)
        equal((facts["sha256"], facts["signer_given"]), (entry["sha256"], False))
        with open(content, "ab") as file:
            file.write(b"x")
        equal(run(BINARY, "journal", "verify", "--proof", proof, "--key", key, "--content", content).returncode, 65)
        good = json.load(open(proof))
        changes = {"record": good["record"][:-2] + "00", "salt": "00" * 16, "index": good["index"] + 1, "path": good["path"][:-1], "head": good["head"].replace("records=", "records=1"), "format": "x"}
        for field, value in changes.items():
            with open(proof, "w") as file:
                json.dump({**good, field: value}, file)
            said = run(BINARY, "journal", "verify", "--proof", proof, "--key", key)
            equal(said.returncode, 65, field)
            assert "the proof does not hold" in said.stderr, said.stderr
    unsealed = holdfast.run("journal", "proof", str(entries[-1]["id"]), check=False)
    assert unsealed.returncode == 66 and "journal seal" in unsealed.stderr, unsealed.stderr
    equal(holdfast.run("journal", "proof", "999999", check=False).returncode, 66)


@test("any flipped bit of a sealed segment, a manifest or a head is found and named, with and without the decryption key")
def _(scene):
    holdfast = world(scene, seals=2)
    holdfast.stop()
    key = scene.path("public.pem")
    shutil.copy(public_key(holdfast), key)
    places = random.Random(2)
    for path in (segment(holdfast, 1), segment(holdfast, 1).replace(".lmdb", ".manifest"), head(holdfast, 2)):
        with open(path, "rb") as file:
            good = file.read()
        # Each page of the segment once; the text files at many places.
        step = 4096 if path.endswith(".lmdb") else max(1, len(good) // 20)
        for begin in range(0, len(good) - 1, step):
            place = begin + places.randrange(min(step, len(good) - 1 - begin))
            with open(path, "r+b") as file:
                file.seek(place)
                file.write(bytes([good[place] ^ (1 << places.randrange(8))]))
            options = [(), ("--key", key)][begin // step % 2]
            code, summary, problems = verified(holdfast, *options)
            assert code == 65 and problems, f"{path}: a bit of byte {place} was flipped, and verify {options} did not see it"
            with open(path, "wb") as file:
                file.write(good)
    equal(verified(holdfast)[0], 0)


@test("segments missing, swapped, cut short or from an older backup, heads missing: each is found; a rollback also against published heads")
def _(scene):
    published = scene.path("published")
    holdfast = world(scene, journal=f"publish_heads: [{published}]")
    wait_for(lambda: os.path.exists(published) and len(open(published).readlines()) == 3, what="three published heads")
    holdfast.stop()
    journal, backup = holdfast.journal_path, scene.path("backup")
    shutil.copytree(journal, backup)
    equal(verified(holdfast, "--heads", published)[0], 0)

    def found(change, words, *options):
        change()
        code, summary, problems = verified(holdfast, *options)
        equal(code, 65, words)
        assert any(words in one for one in problems), (words, problems)
        shutil.rmtree(journal)
        shutil.copytree(backup, journal)

    def swap():
        os.rename(segment(holdfast, 1), segment(holdfast, 9))
        os.rename(segment(holdfast, 2), segment(holdfast, 1))
        os.rename(segment(holdfast, 9), segment(holdfast, 2))

    def roll_back(with_heads):
        os.unlink(segment(holdfast, 4))
        os.unlink(segment(holdfast, 3))
        if with_heads:
            os.unlink(head(holdfast, 3))
            os.unlink(segment(holdfast, 3).replace(".lmdb", ".manifest"))

    found(lambda: os.unlink(segment(holdfast, 2)), "the segment is missing")
    found(lambda: os.unlink(segment(holdfast, 1)), "there is no record that they were pruned")
    found(swap, "the file says that it is segment")
    found(lambda: os.truncate(segment(holdfast, 2), 20000), "bytes")
    found(lambda: os.unlink(head(holdfast, 1)), "its head is missing")
    found(lambda: os.unlink(segment(holdfast, 1).replace(".lmdb", ".manifest")), "the manifest is missing")
    found(lambda: roll_back(False), "rolled back")
    found(lambda: roll_back(True), "rolled back", "--heads", published)
    forged = scene.path("forged")
    with open(published) as file, open(forged, "w") as copy:
        copy.write(file.read().replace(" records=", " records=1", 1))
    found(lambda: None, "the published head's signature is not valid", "--heads", forged)
    found(lambda: os.unlink(os.path.join(journal, "catalog.lmdb")), "rebuild")


@test("without its newest segment a journal goes on in a new one, loudly, and no number is used twice")
def _(scene):
    holdfast = world(scene)
    highest = holdfast.entries()[-1]["id"]
    holdfast.stop()
    newest = max(os.listdir(os.path.join(holdfast.journal_path, "segments")), key=lambda name: (name.endswith(".lmdb"), name))
    os.unlink(os.path.join(holdfast.journal_path, "segments", newest))
    holdfast.start()
    assert "there was a segment after it, which is missing" in open(holdfast.log).read()
    send_all(scene, holdfast, [("Subject: on\r\n\r\nx\r\n", "a@example.net", "b@example.org")])
    assert holdfast.entries()[-1]["id"] > highest
    code, _, problems = verified(holdfast)
    equal(code, 65)
    assert any("the chain starts anew here" in one for one in problems), problems


@test("heads are published to files and URLs, each once and in order; a place that is away takes none from others, and one that is new gets all")
def _(scene):
    received, is_away = [], [True]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            self.send_response(503 if is_away[0] else 204)
            self.end_headers()
            if not is_away[0]:
                received.append(body)

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    scene.stack.callback(server.shutdown)
    first, second = scene.path("first"), scene.path("second")
    url = f"http://127.0.0.1:{server.server_port}/heads"
    holdfast = scene.holdfast(scene.primary(), journal=f"publish_heads: [{first}, '{url}', {second}]")

    def all_heads():
        return holdfast.run("journal", "head", "--all").stdout.splitlines()

    def shown(path):
        with open(path) as file:
            return file.read().splitlines()

    for count in (1, 2):
        fill(scene, holdfast, 2)
        holdfast.run("journal", "seal")
        wait_for(lambda: os.path.exists(second) and len(shown(second)) == count, what="the head behind the place that is away")
        equal([shown(first), shown(second)], [all_heads()] * 2)
    assert holdfast.logged("publish_heads"), "the problem in the log"
    is_away[0] = False
    fill(scene, holdfast, 2)
    holdfast.run("journal", "seal")
    wait_for(lambda: len(received) == 3, what="all heads")
    equal([received, shown(first), shown(second)], [all_heads()] * 3)
    holdfast.stop()
    new = scene.path("new")
    holdfast.journal = f"publish_heads: [{first}, {new}]"
    holdfast.start()
    wait_for(lambda: os.path.exists(new) and len(shown(new)) == len(all_heads()), what="all heads at the place that is new")
    equal([shown(first), shown(new)], [all_heads()] * 2)


@test("a disk that has no room for a published head has no part of it; it follows when there is room")
def _(scene):
    disk = small_disk(scene, 1)
    if not disk:
        return
    published = os.path.join(disk, "published")
    holdfast = scene.holdfast(scene.primary(), journal=f"publish_heads: [{published}]")

    def seal(count):
        for _ in range(count):
            fill(scene, holdfast, 1)
            holdfast.run("journal", "seal")

    def shown():
        return open(published).read()

    def all_heads():
        return holdfast.run("journal", "head", "--all").stdout

    seal(1)
    wait_for(lambda: os.path.exists(published) and shown() == all_heads(), what="the first head")
    ballast = fill_disk(disk, 0)
    # The last page of the file has room for whole heads, and then for a part of one.
    seal(4096 // len(shown()) + 1)
    wait_for(lambda: holdfast.logged("cannot append"), what="the problem in the log")
    assert all_heads().startswith(shown()) and shown() != all_heads(), (shown(), all_heads())
    os.remove(ballast)
    seal(1)
    wait_for(lambda: shown() == all_heads(), what="all heads")
    equal(verified(holdfast, "--heads", published)[0], 0)


@test("a reader written from FORMAT.md alone finds the same: entries, contents, outcomes, states, erasures, heads and manifests")
def _(scene):
    holdfast = world(scene)
    client = scene.client(holdfast.port)
    client.ask("EHLO client.example.net")
    client.send_mail("Subject: large\r\n\r\n" + "0123456789abcdef\r\n" * 20000, helo=None)
    client.send_mail("", helo=None)
    holdfast.run("failover", "hold", "--reason", "why not")
    client.send_mail("Subject: held\r\n\r\nx\r\n", helo=None)
    holdfast.run("failover", "auto", "--reason", "enough")
    wait_for(lambda: holdfast.status()["routes"][0]["held"] == 0, what="the drain")
    holdfast.run("journal", "erase", "--recipient", "p3@example.org", "--reason", "Art. 17")
    holdfast.stop()
    # Debian's own Python, for its packages.
    found = run("/usr/bin/python3", os.path.join(os.path.dirname(__file__), "reader.py"), holdfast.journal_path)
    equal(found.returncode, 0, found.stderr)
    found = json.loads(found.stdout)
    entries = holdfast.entries()
    equal(sorted(map(int, found["entries"])), [entry["id"] for entry in entries])
    for entry in entries:
        own = found["entries"][str(entry["id"])]
        for key in ("direction", "route", "client", "helo", "mail_from", "size", "sha256", "message_id"):
            equal(own[key], entry[key], key)
        equal([(one["address"], one["outcome"]) for one in own["recipients"]], [(one["address"], one["outcome"]) for one in entry["recipients"]])
        equal(bytes.fromhex(own["content"]), holdfast.content(entry["id"]))
    assert any(one["outcome"] == "delivered" for entry in found["entries"].values() for one in entry["recipients"])
    equal([(one["mode"], one["reason"]) for one in found["states"]][:1], [("hold", "why not")])
    equal([one["reason"] for one in found["erasures"]], ["Art. 17"])
    equal(sorted(found["erasures"][0]["records"]), found["erased"])
    equal((found["heads"], found["manifests"]), (len(holdfast.run("journal", "head", "--all").stdout.splitlines()),) * 2)


@test("verify leaves the processor to others, and ends where they never leave it")
def _(scene):
    holdfast = scene.holdfast(scene.primary())
    send_all(scene, holdfast, [(noise(1 << 20, number) + "\r\n", "a@example.net", "b@example.org") for number in range(4)])
    sound(holdfast)
    holdfast.stop()

    def class_of_reader(process):
        """How the kernel schedules the process that reads the segment: 0 is the usual class, 5 the idle one."""
        with contextlib.suppress(OSError, IndexError), open(f"/proc/{process.pid}/task/{process.pid}/children") as children:
            with open(f"/proc/{children.read().split()[0]}/stat") as file:
                return file.read().rsplit(")", 1)[1].split()[38]

    one_processor = ["taskset", "-c", str(min(os.sched_getaffinity(0)))]
    without_the_right = ["setpriv", "--bounding-set=-sys_nice", "--inh-caps=-sys_nice"]
    scene.stack.callback(subprocess.Popen([*one_processor, "nice", "-n", "5", "sh", "-c", "while :; do :; done"]).kill)
    for start, wanted in ([], "0?(50)+5?" if os.geteuid() == 0 else "0"), (without_the_right, "0"):
        verify = subprocess.Popen([*one_processor, *start, BINARY, "-c", holdfast.config, "journal", "verify"], stdout=subprocess.PIPE, text=True)
        seen = ""
        while verify.poll() is None:
            now = class_of_reader(verify) or ""
            seen += now if not seen.endswith(now) else ""
        assert verify.communicate()[0].startswith("all is well"), verify.returncode
        assert re.fullmatch(wanted, seen), seen


@test("seal without a daemon, and with nothing to seal; verify --since leaves out what is older")
def _(scene):
    holdfast = world(scene, seals=1)
    holdfast.stop()
    assert holdfast.run("journal", "seal").stdout.startswith("holdfast-head-1 segment=2 ")
    assert "all is sealed already" in holdfast.run("journal", "seal").stderr
    equal(verified(holdfast)[1]["segments"], 3)
    a_second_passes(holdfast)
    equal(verified(holdfast, "--since", "1s")[1]["segments"], 1, "only the newest has not ended before")
    equal(verified(holdfast, "--since", "2000-01-01")[1]["segments"], 3)


@test(f"killed {KILLS} times in the middle of sealing, and with a full disk: the journal verifies, and sealing again ends it")
def _(scene):
    holdfast = world(scene, seals=1)
    renew = stopped_for_good(holdfast)
    for _ in kills([BINARY, "-c", holdfast.config, "journal", "seal"], renew):
        sound(holdfast)
        holdfast.run("journal", "seal")
        # What was ended before the kill is sealed too, when the journal is opened.
        code, summary, problems = verified(holdfast)
        equal((code, summary["heads"], problems), (0, summary["segments"] - 1, []))
    disk = small_disk(scene, 8)
    if not disk:
        return
    full = world(scene, seals=1, journal_path=os.path.join(disk, "journal"))
    wait_for(lambda: full.logged("compacted journal segment 1"), what="the first segment to be compacted: it frees space")
    ballast = fill_disk(disk, 4096)
    process = subprocess.Popen([BINARY, "-c", full.config, "journal", "seal"], stdout=subprocess.PIPE)
    wait_for(lambda: full.logged("no space") or full.logged("No space"), what="the full disk to be noticed")
    sound(full)
    os.unlink(ballast)
    full.run("journal", "seal")
    process.communicate()
    equal(process.returncode, 0, "the first one has waited")
    sound(full)


main()
