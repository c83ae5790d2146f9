"""Another mail store is fed by LMTP: everything once, over restarts, and while it is away."""
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from dovecot import Dovecot
from mailboxes import *


def fed(scene, store_port, **options):
    world = World(scene, mailbox=f"feed: lmtp://127.0.0.1:{store_port}", **options)
    wait_for(lambda: os.path.exists(os.path.join(world.holdfast.journal_path, "feed.json")), what="the feed to start")
    return world


def subject_of(content):
    return re.search(rb"Subject: ([^\r]*)", content).group(1).decode()


def verdicts(by_recipient):
    """An LMTP server's answer to content: one for each recipient that it took."""
    def reply(session, line):
        recipients = [re.search(rb"<([^>]*)>", one).group(1).decode() for one in session.primary.messages[-1][0] if one.upper().startswith(b"RCPT")]
        return b"".join(by_recipient(one) for one in recipients)
    return reply


TAKEN = b"250 2.0.0 Ok: taken\r\n"


@test("everything that people get arrives once, in order, over restarts, a SIGKILL between messages, and while the store is away")
def _(scene):
    store = scene.primary(replies={"LHLO": ScriptedPrimary.EHLO, "content": verdicts(lambda one: TAKEN)})
    world = fed(scene, store.port)
    for number in range(5):
        world.send(f"n{number}", "ada", "bob")
    wait_for(lambda: len(store.messages) == 5, what="the first")
    holdfast = world.holdfast
    wait_for(lambda: json.load(open(os.path.join(holdfast.journal_path, "feed.json")))["later"] == [], what="the position")
    holdfast.kill()
    holdfast.start()
    store.leave()
    for number in range(5, 8):
        world.send(f"n{number}", "ada")
    wait_for(lambda: "feed" in open(holdfast.log).read(), what="the log to say so")
    wait_for(lambda: re.search(r"mail store fed at lmtp://127.0.0.1:\d+: \d messages to be tried again\n  NOT FED: ", holdfast.run("status").stdout), what="a word in status")
    holdfast.stop()
    again = scene.primary(port=store.port, replies={"LHLO": ScriptedPrimary.EHLO, "content": verdicts(lambda one: TAKEN)})
    holdfast.start()
    holdfast.run("failover", "hold", "--reason", "test")
    world.send("n8", "ada")  # held mail too
    wait_for(lambda: len(again.messages) >= 4, what="the rest")
    equal([subject_of(content) for _, content in store.messages + again.messages], [f"n{number}" for number in range(9)])


@test("mail whose answer Holdfast did not live to record is fed, once: also when its sender comes again with it")
def _(scene):
    store = scene.primary(replies={"LHLO": ScriptedPrimary.EHLO, "content": verdicts(lambda one: TAKEN)})
    primary = scene.primary(replies={"content": b""})  # it takes everything and says nothing
    world = fed(scene, store.port, primary=primary)
    content = "From: <out@example.net>\r\nTo: ada@example.org\r\nSubject: under way\r\nMessage-ID: <under.way@example.net>\r\n\r\nHello.\r\n"

    def come(recipients):
        client = scene.client(world.holdfast.port)
        for command in ["EHLO client.example.net", "MAIL FROM:<out@example.net>"] + [f"RCPT TO:<{one}@example.org>" for one in recipients] + ["DATA"]:
            client.ask(command)
        client.send(content + ".\r\n")
        return client
    come(["ada"])
    wait_for(lambda: primary.messages, what="the message at the primary")
    world.holdfast.kill()
    primary.replies["content"] = b"250 2.0.0 Ok: taken\r\n"
    world.holdfast.start()
    wait_for(lambda: store.messages, what="what was under way")
    assert come(["ada", "bob"]).reply().startswith("250")  # its sender heard nothing; Bob is new
    world.send("after", "ada")
    wait_for(lambda: len(store.messages) == 3, what="what came after")
    to = [[line.decode().split("<")[1].split("@")[0] for line in envelope if line.upper().startswith(b"RCPT")] for envelope, _ in store.messages]
    equal(to, [["ada"], ["bob"], ["ada"]])
    equal(subject_of(store.messages[2][1]), "after")


@test("each recipient has its own verdict: what is refused for the moment comes again for that one alone, what is refused for good does not")
def _(scene):
    tries, for_bob = [], []

    def answer(recipient):
        tries.append(recipient)
        if recipient.startswith("bob"):
            for_bob.append(time.monotonic())
        if recipient.startswith("bob") and tries.count(recipient) < 3:
            return b"452 4.2.2 full\r\n"
        return b"550 5.1.1 nobody\r\n" if recipient.startswith("eve") else TAKEN
    store = scene.primary(replies={"LHLO": ScriptedPrimary.EHLO, "content": verdicts(answer)})
    world = fed(scene, store.port)
    world.send("for three", "ada", "bob", "eve")
    world.send("next", "ada")
    wait_for(lambda: tries.count("bob@example.org") == 3, what="the third try for Bob")
    equal(sorted(tries), ["ada@example.org"] * 2 + ["bob@example.org"] * 3 + ["eve@example.org"])
    first, second, third = for_bob
    assert second - first >= 1 and third - second >= 2, (for_bob, "each pause is twice the one before")
    wait_for(lambda: json.load(open(os.path.join(world.holdfast.journal_path, "feed.json")))["later"] == [], what="nothing to be left")


@test("a message at which the store breaks off each time is tried again, and keeps no other waiting")
def _(scene):
    tries = []

    def answer(session, line):
        tries.append(subject_of(session.primary.messages[-1][1]))
        return None if tries[-1].startswith("cursed") else TAKEN
    store = scene.primary(replies={"LHLO": ScriptedPrimary.EHLO, "content": answer})
    world = fed(scene, store.port)
    for subject in ("first", "cursed", "cursed too", "second"):
        world.send(subject, "ada")
    wait_for(lambda: "second" in tries and tries.count("cursed") > 1 and tries.count("cursed too") > 1, what="the others, and another try")
    world.send("third", "ada")
    wait_for(lambda: "third" in tries, what="what came after")
    equal([subject for subject in tries if not subject.startswith("cursed")], ["first", "second", "third"])


@test("where a segment of the journal is damaged, the log says so, and what is in the others is fed")
def _(scene):
    store = scene.primary(replies={"LHLO": ScriptedPrimary.EHLO, "content": verdicts(lambda one: TAKEN)})
    world = fed(scene, store.port)
    holdfast = world.holdfast
    world.send("fed", "ada")
    wait_for(lambda: store.messages, what="the first")
    store.leave()
    for segment in range(1, 4):
        for number in range(50):
            world.send(f"s{segment} n{number}", "ada", body=noise(3000, number))
        settled(holdfast)
        holdfast.run("journal", "seal")
    world.send("last", "ada")
    holdfast.stop()
    os.truncate(os.path.join(holdfast.journal_path, "segments", "0000000001.lmdb"), 100_000)
    with open(os.path.join(holdfast.journal_path, "segments", "0000000002.lmdb"), "r+b") as file:
        file.write(b"\0" * 8192)
    store = scene.primary(port=store.port, replies={"LHLO": ScriptedPrimary.EHLO, "content": verdicts(lambda one: TAKEN)})
    holdfast.start()
    wait_for(lambda: store.messages and subject_of(store.messages[-1][1]) == "last", what="the last")
    equal([subject_of(content) for _, content in store.messages if not subject_of(content).startswith("s1")], [*(f"s3 n{number}" for number in range(50)), "last"])
    with open(holdfast.log) as log:
        said = [line for line in log if " feed " in line and "what cannot be read is not fed" in line]
    equal(len(said), len(set(said)), said)
    assert len(said) == 2 and "0000000001" in said[0] and "0000000002" in said[1], said


@test("a damaged feed.json stops the feed, with a word, and not the mail")
def _(scene):
    store = scene.primary(replies={"LHLO": ScriptedPrimary.EHLO, "content": verdicts(lambda one: TAKEN)})
    world = fed(scene, store.port)
    world.holdfast.stop()
    for damage in ('{"position": "x", "later": []}', '{"position": 3, "later": [{}]}', '{"position": 3, "lat', "[]", ""):
        with open(os.path.join(world.holdfast.journal_path, "feed.json"), "w") as file:
            file.write(damage)
        world.holdfast.start()
        world.send("still mail", "ada")
        wait_for(lambda: world.holdfast.logged("feed.json: damaged"), what=f"a word about {damage}")
        assert re.search("NOT FED: .*feed.json: damaged", world.holdfast.run("status").stdout)
        world.holdfast.stop()
    equal(store.messages, [])


@test("Debian's Dovecot as the store: the mail is there, bit for bit")
def _(scene):
    store = Dovecot(scene)
    world = fed(scene, store.lmtp_port)
    content = world.send("to the store", "ada")

    def stored():
        folder = f"{store.folder}/mail/ada@example.org/new"
        return os.listdir(folder) and [open(os.path.join(folder, name), "rb").read() for name in os.listdir(folder)] if os.path.isdir(folder) else []
    [found] = wait_for(stored, what="the mail in Dovecot")
    assert found.replace(b"\r\n", b"\n").endswith(content.encode().replace(b"\r\n", b"\n")), found


main()
