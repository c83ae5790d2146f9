"""Emergency mailboxes over IMAP: the journal is the mailbox."""
import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from mailboxes import *


@test("what came before and what comes now is in INBOX, bit for bit, for each recipient; nothing of others")
def _(scene):
    world = World(scene)
    sent = [world.send("one", "ada"), world.send("two", "ada", "bob"), world.send("three", "bob")]
    ada = world.inbox("ada", 2)
    equal(subjects(ada), ["one", "two"])
    equal(bodies(ada), [one.encode() for one in sent[:2]])
    equal(subjects(world.inbox("bob", 2)), ["two", "three"])
    world.send("four", "ada")
    wait_for(lambda: ada.noop() and subjects(ada) == ["one", "two", "four"], what="the fourth")


@test("numbers keep their meaning: over restarts, a rebuild, erasure; flags are durable")
def _(scene):
    world = World(scene)
    for number in range(5):
        world.send(f"number {number}", "ada")
    ada = world.inbox("ada", 5)
    validity = ada.response("UIDVALIDITY")[1]
    checked(ada.uid("STORE", "2", "+FLAGS", "(\\Flagged Work)"))
    checked(ada.uid("STORE", "3", "+FLAGS", "(\\Deleted)"))
    checked(ada.expunge())
    holdfast = world.holdfast
    holdfast.stop()
    holdfast.run("journal", "rebuild")
    holdfast.start()
    fourth = [entry for entry in holdfast.entries() if entry["subject"] == "number 3"][0]["id"]
    holdfast.run("journal", "erase", "--id", str(fourth), "--reason", "x")
    world.send("number 5", "ada")
    ada = world.inbox("ada", 4)
    equal(ada.response("UIDVALIDITY")[1], validity)
    found = checked(ada.uid("FETCH", "1:*", "(FLAGS)"))
    equal([one.decode().split(" ", 1)[1] for one in found],
          ["(UID 1 FLAGS ())", "(UID 2 FLAGS (\\Flagged Work))", "(UID 5 FLAGS ())", "(UID 6 FLAGS ())"])
    # Deleted for her, but in the journal.
    assert any(entry["subject"] == "number 2" for entry in holdfast.entries())


@test("mail whose answer Holdfast did not live to record is shown, once: also when its sender comes again with it")
def _(scene):
    primary = scene.primary()
    world = World(scene, primary=primary)
    world.send("before", "ada")
    primary.replies["content"] = b""  # it takes everything and says nothing
    content = "From: <out@example.net>\r\nTo: ada@example.org\r\nSubject: under way\r\nMessage-ID: <under.way@example.net>\r\n\r\nHello.\r\n"
    client = scene.client(world.holdfast.port)
    for command in ("EHLO client.example.net", "MAIL FROM:<out@example.net>", "RCPT TO:<ada@example.org>", "DATA"):
        client.ask(command)
    client.send(content + ".\r\n")
    wait_for(lambda: len(primary.messages) == 2, what="the message at the primary")
    world.holdfast.kill()
    primary.replies["content"] = b"250 2.0.0 Ok: taken\r\n"
    world.holdfast.start()
    ada = world.inbox("ada", 2)
    equal(subjects(ada), ["before", "under way"])
    equal(bodies(ada)[1], content.encode())
    # Its sender heard nothing, and comes again.
    assert scene.client(world.holdfast.port).send_mail(content, sender="out@example.net", recipient="ada@example.org").startswith("250")
    # The same Message-ID is not the same message.
    assert scene.client(world.holdfast.port).send_mail(content.replace("Hello.", "Another."), sender="out@example.net", recipient="ada@example.org").startswith("250")
    world.send("after", "ada")
    wait_for(lambda: ada.noop() and subjects(ada) == ["before", "under way", "under way", "after"], what="what came after")
    equal([body.count(b"Another.") for body in bodies(ada)], [0, 0, 1, 0])


@test("retention takes old mail from mailboxes too, open ones as well; the numbers of what stays are the same")
def _(scene):
    world = World(scene)
    for number in range(3):
        world.send(f"old {number}", "ada", "bob")
    ada, bob = world.inbox("ada", 3), world.inbox("bob", 3)
    validity = ada.response("UIDVALIDITY")[1]
    world.holdfast.run("journal", "seal")
    a_second_passes(world.holdfast)
    world.send("new", "ada", "bob")
    said = world.holdfast.run("journal", "prune", "--older-than", "1s", "--reason", "x").stdout
    assert said.startswith("1 segments"), said
    wait_for(lambda: ada.noop() and len(ada.untagged_responses.get("EXPUNGE", [])) == 3, what="her mail program to be told")
    bob.noop()
    for session in (ada, bob, world.inbox("ada", 1), world.inbox("bob", 1)):
        equal([one.decode() for one in checked(session.uid("FETCH", "1:*", "(FLAGS)"))], ["1 (UID 4 FLAGS ())"])
    equal(world.inbox("ada", 1).response("UIDVALIDITY")[1], validity)
    sound(world.holdfast)


@test("held mail shows up at once, and what the primary refuses does not")
def _(scene):
    primary = scene.primary(replies={"RCPT": lambda session, line: b"550 5.1.1 no such user\r\n" if b"nobody" in line else b"250 2.1.5 Ok\r\n",
                                     "content": lambda session, line: b"550 5.7.1 spam\r\n" if b"spam" in session.chunks else b"250 2.0.0 Ok\r\n"})
    world = World(scene, primary=primary)
    world.send("live", "ada")
    world.holdfast.run("failover", "hold", "--reason", "test")
    world.send("held", "ada")
    ada = world.inbox("ada", 2)
    equal(subjects(ada), ["live", "held"])


@test("folders, copies, moves, appended drafts, expunge: what she does there stays, and numbers are told")
def _(scene):
    world = World(scene)
    for number in range(4):
        world.send(f"n{number}", "ada")
    ada = world.inbox("ada", 4)
    names = [line.decode().split(' "/" ')[1].strip('"') for line in checked(ada.list())]
    equal(names, ["INBOX", "Drafts", "Junk", "Sent", "Trash"])
    checked(ada.create('"Kunden/M&APw-ller"'))
    checked(ada.rename('"Kunden/M&APw-ller"', "Archive"))
    checked(ada.uid("COPY", "1,3", "Archive"))
    equal(ada.response("COPYUID")[1][0].split()[1:], [b"1,3", b"1:2"])
    checked(ada.uid("MOVE", "2", "Trash"))
    equal(subjects(ada, "Archive"), ["n0", "n2"])
    equal(subjects(ada, "Trash"), ["n1"])
    equal(subjects(ada), ["n0", "n2", "n3"])
    draft = b"Subject: a draft\r\nMessage-ID: <d@example.org>\r\n\r\n" + b"x" * 100000 + b"\r\n"
    checked(ada.append("Drafts", "(\\Draft \\Seen)", '"25-Nov-2026 10:00:00 +0100"', draft))
    world.holdfast.kill()
    world.holdfast.start()
    ada = world.log_in("ada")
    checked(ada.select("Drafts"))
    equal(bodies(ada), [draft])
    equal(checked(ada.uid("FETCH", "1", "(FLAGS INTERNALDATE RFC822.SIZE)"))[0].decode(),
          f'1 (UID 1 FLAGS (\\Seen \\Draft) INTERNALDATE "25-Nov-2026 09:00:00 +0000" RFC822.SIZE {len(draft)})')
    checked(ada.uid("STORE", "1", "+FLAGS.SILENT", "(\\Deleted)"))
    checked(ada.uid("EXPUNGE", "1"))
    equal(checked(ada.select("Drafts")), [b"0"])
    checked(ada.delete("Archive"))
    refused(lambda: ada.select("Archive"), "no such folder")
    refused(lambda: ada.delete("Sent"), "stays")


@test("in a domain with other letters than DNS has, INBOX shows what came in either spelling")
def _(scene):
    world = World(scene, people=())
    done = subprocess.run([BINARY, "-c", world.holdfast.config, "mailbox", "add", "Ada@M\u00fcller.example", "--password-file", "-"], input=PASSWORD, text=True)
    equal(done.returncode, 0)
    client = scene.client(world.holdfast.port)
    client.ask("EHLO client.example.net")
    for address in ("ada@xn--mller-kva.example", "ada@m\u00fcller.example"):
        for command in ("MAIL FROM:<a@example.net> SMTPUTF8", f"RCPT TO:<{address}>", "DATA"):
            client.ask(command)
        client.ask(f"Subject: {address.encode('punycode').decode()}\r\n\r\nx\r\n.")
    session = imaplib.IMAP4("127.0.0.1", world.imap_port)
    scene.stack.callback(session.shutdown)
    session.login("ada@xn--mller-kva.example", PASSWORD)
    wait_for(lambda: int(checked(session.select("INBOX"))[0]) == 2, what="both messages")
    # And auditors find both, to keep or to erase.
    for address in ("ada@xn--mller-kva.example", "ada@m\u00fcller.example"):
        equal(len(world.holdfast.entries("--recipient", address)), 2)
    world.holdfast.run("journal", "erase", "--recipient", "ADA@m\u00fcller.example", "--reason", "Art. 17")
    equal(world.holdfast.entries(), [])
    wait_for(lambda: int(checked(session.select("INBOX"))[0]) == 0, what="INBOX to be empty")


@test("what one person puts there has limits: mailbox.quota, names of folders and keywords; memory for messages that come in")
def _(scene):
    world = World(scene, mailbox="open: always\nquota: 70MiB")
    for number in range(4):
        world.send(f"n{number}", "ada")
    ada = world.inbox("ada", 4)
    draft = b"Subject: large\r\n\r\n" + (b"x" * 70 + b"\r\n") * 400_000
    for _ in range(2):
        checked(ada.append("Drafts", None, None, draft))
    refused(lambda: ada.append("Drafts", None, None, draft), "OVERQUOTA")
    wait_for(lambda: world.holdfast.logged("mailbox.quota is reached"), what="the log line")
    checked(ada.create("Copies"))
    copied = 0
    while True:  # copies count too, a little
        answer = ada.copy("1:4", "Copies") if copied == 0 else ada.copy("1:*", "Copies")
        if answer[0] == "NO":
            break
        copied = 1
        checked(ada.select("Copies"))
    assert b"OVERQUOTA" in answer[1][0], answer
    world.send("n4", "ada")
    ada = world.inbox("ada", 5)  # what comes for her is shown in any case
    checked(ada.select("Drafts"))
    checked(ada.store("1", "+FLAGS", "\\Deleted"))
    checked(ada.expunge())
    checked(ada.append("Drafts", None, None, draft))
    for name in ("", "/x", "x/", "a//b", "y" * 201, "Sent"):
        refused(lambda: ada.rename("Copies", f'"{name}"'), "")
    for keyword in ("k" * 51, " ".join(f"k{number}" for number in range(51))):
        refused(lambda: ada.store("1", "+FLAGS", f"({keyword})"), "no such flag")
    # Others have room of their own; but memory is for all.
    memory = world.holdfast.memory("RssAnon")
    others = [f"other{number}" for number in range(10)]
    for person in others:
        world.add(person)
    writers = [world.log_in(person) for person in others * 3]
    for writer in writers:
        writer.send(b"x APPEND Drafts {%d+}\r\n" % len(draft))
    threads = [threading.Thread(target=send_quietly, args=(writer, draft)) for writer in writers]
    for thread in threads:
        thread.start()
    wait_for(lambda: world.holdfast.memory("RssAnon") > memory + 100 * 1024, what="messages to come in")
    for _ in range(20):
        assert world.holdfast.memory("RssAnon") < memory + 500 * 1024, (memory, world.holdfast.memory("RssAnon"))
        time.sleep(0.02)
    for writer in writers:
        writer.sock.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join()
    wait_for(lambda: world.holdfast.memory("RssAnon") < memory + 100 * 1024, what="memory to be free again")


def send_quietly(session, content):
    """All but the command's end, in pieces as networks make them: nothing is stored."""
    with contextlib.suppress(OSError):
        sent = 0
        while sent < len(content):
            size = random.choice((10, 1400, 60000))
            session.send(content[sent:sent + size])
            sent += size


@test("aliases, groups, sub-addresses and Bcc reach their people, and nobody else; an address that becomes somebody's later shows from then on")
def _(scene):
    world = World(scene, people=("ada", "bob", "eve"))
    with open(scene.path("people.csv"), "w") as file:
        file.write("address,name,aliases\nada@example.org,Ada,countess@example.org\nbob@example.org,Bob,\neve@example.org,Eve,\n")
    world.holdfast.run("directory", "import", scene.path("people.csv"))
    world.send("to alias", "countess")
    world.send("to tag", "ada+news")
    world.send("bcc", "bob", "ada", more="X-Note: To names only Bob\r\n")
    world.send("for eve", "eve")
    equal(subjects(world.inbox("ada", 3)), ["to alias", "to tag", "bcc"])
    equal(subjects(world.inbox("eve", 1)), ["for eve"])
    # The alias goes to Eve: what came for it before was Ada's.
    with open(scene.path("people.csv"), "w") as file:
        file.write("address,name,aliases\nada@example.org,Ada,\neve@example.org,Eve,countess@example.org\n")
    world.holdfast.run("directory", "import", scene.path("people.csv"))
    world.send("noticed", "eve")
    eve = world.inbox("eve", 2)
    world.send("to alias again", "countess")
    wait_for(lambda: subjects(eve) == ["for eve", "noticed", "to alias again"], what="mail to the alias")
    equal(subjects(world.log_in("ada")), ["to alias", "to tag", "bcc"])


@test("a damaged message is said to be damaged, never shown in part; the others are shown")
def _(scene):
    world = World(scene, people=("ada",), journal="compress: false")
    world.send("whole", "ada")
    world.send("damaged", "ada", body=noise(200000, 1))
    world.inbox("ada", 2)
    holdfast = world.holdfast
    holdfast.stop()
    path = os.path.join(holdfast.journal_path, "segments", "0000000001.lmdb")
    with open(path, "r+b") as file:
        file.seek(os.path.getsize(path) // 2)  # in the large one's content
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    holdfast.start()
    ada = world.inbox("ada", 2)
    refused(lambda: ada.uid("FETCH", "2", "(BODY.PEEK[])"), "damaged")
    assert not any(isinstance(one, tuple) for one in ada.untagged_responses.get("FETCH", []))
    assert b"Subject: whole" in bodies(ada, "1")[0]
    assert "damaged" in open(holdfast.log).read() or "tag" in open(holdfast.log).read()


@test("a large message goes out piece by piece: mail programs that read slowly cost little memory")
def _(scene):
    world = World(scene, people=("ada",))
    attachment = noise(30_000_000, 2)
    sent = world.send("large", "ada", more="MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n",
                      raw=f"\r\n--b\r\n\r\nsmall\r\n--b\r\nContent-Type: application/octet-stream\r\n\r\n{attachment}\r\n--b--\r\n").encode()
    ada = world.inbox("ada", 1)
    begin = sent.index(attachment[:100].encode())
    for item, expected in [("BODY.PEEK[]", sent), ("BODY.PEEK[]<1000000.2000000>", sent[1_000_000:3_000_000]), ("BODY.PEEK[1]", b"small"),
                           ("BODY.PEEK[2]", attachment.encode()), ("BODY.PEEK[TEXT]<0.100>", sent[sent.index(b"\r\n\r\n") + 4:][:100]),
                           ("BODY.PEEK[2]<5.10>", sent[begin + 5:begin + 15]), ("RFC822.HEADER", sent[:sent.index(b"\r\n\r\n") + 4])]:
        assert checked(ada.uid("FETCH", "1", f"(FLAGS {item})"))[0][1] == expected, item
    equal(checked(ada.uid("FETCH", "1", "(BODY.PEEK[3])")), [b"1 (UID 1 BODY[3] NIL)"])
    checked(ada.append("Drafts", None, None, sent[:3_000_001]))
    checked(ada.select("Drafts"))
    equal(bodies(ada), [sent[:3_000_001]])
    equal(checked(ada.uid("FETCH", "1", "(BODY.PEEK[]<2000001.1000>)"))[0][1], sent[2_000_001:2_001_001])
    checked(ada.select("INBOX"))
    before = world.holdfast.memory("RssAnon")
    slow = [world.inbox("ada", 1) for _ in range(20)]
    for number, session in enumerate(slow):
        session.send(f"x UID FETCH 1 ({'BODY.PEEK[]' if number % 2 else 'BODY.PEEK[2]'})\r\n".encode())
        assert session.readline().startswith(b"* 1 FETCH")
    ada.noop()
    grown = world.holdfast.memory("RssAnon") - before
    assert grown < 20 * 1024 + 2 * 30 * 1024, f"{grown} KiB"  # a MiB each, and what was read once to find the parts
    # One that is erased while it is sent ends the connection: the rest cannot be had, and what there is is no message.
    world.holdfast.run("journal", "erase", "--id", str(world.holdfast.entries()[0]["id"]), "--reason", "x")
    reads = 0
    while piece := slow[0].read(1 << 16):
        reads += len(piece)
    assert reads < len(sent), reads


@test("parts of large messages, read in turn and in pieces, are each message's own; of one that is erased there is nothing more")
def _(scene):
    world = World(scene, people=("ada",))
    noises = [noise(2_000_000, 3), noise(1_500_000, 4)]
    multipart = "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n"
    world.send("plain", "ada", more=multipart, raw=f"\r\n--b\r\n\r\nsmall\r\n--b\r\nX-Part: 2\r\n\r\n{noises[0]}\r\n--b--\r\n")
    world.send("nested", "ada", more=multipart, raw=f"\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\n{noises[1]}\r\n--b\r\n\r\nlast\r\n--b--\r\n")
    ada = world.inbox("ada", 2)
    for at in range(0, 2_000_000, 250_000):
        for number, item, expected in [("1", f"BODY.PEEK[2]<{at}.1000>", noises[0][at:at + 1000]), ("2", f"BODY.PEEK[1.TEXT]<{at}.1000>", noises[1][at:at + 1000]), ("1", "BODY.PEEK[1]", "small"),
                                       ("2", "BODY.PEEK[2]", "last"), ("1", "BODY.PEEK[2.MIME]", "X-Part: 2\r\n\r\n"), ("2", "BODY.PEEK[1.HEADER.FIELDS (SUBJECT)]", "Subject: inner\r\n\r\n")]:
            equal(checked(ada.uid("FETCH", number, f"({item})"))[0][1], expected.encode(), (number, item))
    assert b'"rfc822"' not in checked(ada.uid("FETCH", "1", "(BODYSTRUCTURE)"))[0]
    assert b'"rfc822"' in checked(ada.uid("FETCH", "2", "(BODYSTRUCTURE)"))[0]
    world.holdfast.run("journal", "erase", "--id", str(world.holdfast.entries()[1]["id"]), "--reason", "x")
    status, answer = ada.uid("FETCH", "2", "(BODY.PEEK[2])")
    assert b"last" not in repr((status, answer)).encode()


@test("while mail pours in, what is read is whole, and each person's own; each sees all that came")
def _(scene):
    world = World(scene)
    sent = [world.send(f"number {number}", "ada", body=noise(10000, number)).encode() for number in range(100)]
    ada, count = world.inbox("ada", 100), 5000
    load = subprocess.Popen(["smtp-source", "-d", "-m", str(count), "-s", "4", "-l", "2000", "-f", "a@example.net", "-t", "bob@example.org",
                             f"127.0.0.1:{world.holdfast.port}"], stderr=subprocess.PIPE)
    bob, seen, reads = world.inbox("bob"), 0, 0
    while load.poll() is None:
        assert bodies(ada) == sent
        equal(checked(ada.select("INBOX")), [b"100"])
        now = int(checked(bob.select("INBOX"))[0])
        assert now >= seen
        seen, reads = now, reads + 1
    equal(load.returncode, 0)
    assert reads > 5, reads
    wait_for(lambda: int(checked(bob.select("INBOX"))[0]) == count, what="all of Bob's mail")
    equal([one for one in bodies(bob) if b"example.net" not in one or b"number" in one], [])


@test("a restored backup: numbers get a new meaning, known to the mail programs; what was another's is never shown")
def _(scene):
    world = World(scene)
    holdfast = world.holdfast
    world.send("before", "ada")
    checked(world.inbox("ada", 1).append("Drafts", None, None, b"Subject: my draft\r\n\r\n"))
    world.inbox("bob", 0)
    folder = scene.path("backup")
    holdfast.run("journal", "backup", folder)
    world.send("after", "ada")
    ada = world.inbox("ada", 2)
    validity = ada.response("UIDVALIDITY")[1]
    holdfast.stop()
    # The worst that a copy at an unlucky moment can bring: the mailboxes know of mail that the segments do not hold.
    shutil.copy(os.path.join(holdfast.journal_path, "mailboxes.lmdb"), folder)
    shutil.copy(os.path.join(holdfast.journal_path, "master.key"), folder)
    shutil.rmtree(holdfast.journal_path)
    shutil.copytree(folder, holdfast.journal_path)
    holdfast.run("journal", "rebuild")
    holdfast.start()
    world.send("for bob", "bob")
    equal(subjects(world.inbox("bob", 1)), ["for bob"])
    ada = world.inbox("ada", 1)
    assert ada.response("UIDVALIDITY")[1] != validity, validity
    equal(subjects(ada), ["before"])
    equal(subjects(ada, "Drafts"), ["my draft"])
    world.send("then", "ada")
    ada = world.inbox("ada", 2)
    validity = ada.response("UIDVALIDITY")[1]
    equal(subjects(ada), ["before", "then"])
    # It is restored once, and on record.
    holdfast.stop()
    holdfast.start()
    world.inbox("ada", 2)
    equal(world.inbox("ada", 2).response("UIDVALIDITY")[1], validity)
    assert "restored" in open(holdfast.log).read()
    sound(holdfast)


main()
