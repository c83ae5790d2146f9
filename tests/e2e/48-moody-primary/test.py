"""A primary that does whatever a primary may do, at random, at every step: it refuses for now and for good, says 421, hangs up before
and after its reply, and finds out of order what came with what it refused. Then it becomes well. Whatever it did: each recipient that a
client was told is served got the message, exactly once but for the answers that were lost, or the primary has refused it for good.

The seed is printed; SEED=number plays it again.
"""
import collections
import os
import random
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from harness import *

SEED = int(os.environ.get("SEED") or random.randrange(10**6))
QUICK = "failover:\n  probe_interval: 100ms\n  takeover_after: 500ms\n  release_after: 100ms\n  retry_min: 100ms\n  retry_max: 200ms\n  doubt_after: 0\n"
LATER, NEVER, CLOSING = b"451 4.7.1 later\r\n", b"550 5.7.1 never\r\n", b"421 4.3.2 closing\r\n"


class MoodyPrimary:
    """Remembers by sender and recipient how often it took a message, how often its answer to that was lost, and whom it refused for good."""

    def __init__(self, scene, dice, moody):
        self.dice, self.moody, self.is_well = dice, moody, True
        self.taken, self.unanswered, self.refused = collections.Counter(), collections.Counter(), set()
        self.most_recipients = dice.choice([1000, 3])
        self.ehlo = b"250-primary.example.org\r\n" + b"".join(b"250-%s\r\n" % word for word in (b"PIPELINING", b"CHUNKING") if dice.random() < 0.7) + b"250 8BITMIME\r\n"
        self.scripted = scene.primary(replies={"EHLO": self.ehlo, "MAIL": self.mail, "RCPT": self.rcpt, "DATA": self.data, "content": self.content,
                                               "BDAT": self.chunk, "RSET": self.rset}, on_accept=self.rset)
        self.port = self.scripted.port

    def mood(self):
        if self.is_well or self.dice.random() > self.moody:
            return "good"
        return self.dice.choice(["later", "later", "never", "closing", "never and gone", "gone", "good and gone"])

    def answer(self, session, mood, good):
        reply = {"good": good, "later": LATER, "never": NEVER, "closing": CLOSING}.get(mood.split(" ")[0], b"")
        if not mood.endswith("gone") and mood != "closing":
            return reply
        session.connection.sendall(reply)
        return None

    def rset(self, session, line=b""):
        session.sender, session.recipients = None, []
        return b"250 Ok\r\n"

    def mail(self, session, line):
        self.rset(session)
        sender = re.search(rb"<([^>]*)>", line)[1].decode()
        mood = self.mood() if sender else "good"  # a probe's
        if mood.startswith("never"):
            self.refused.add((sender, None))
        if mood.startswith("good"):
            session.sender = sender
        return self.answer(session, mood, b"250 Ok\r\n")

    def rcpt(self, session, line):
        if not session.sender:
            return b"503 5.5.1 need MAIL\r\n"
        if len(session.recipients) >= self.most_recipients:
            return b"452 4.5.3 too many recipients\r\n"
        recipient, mood = re.search(rb"<([^>]*)>", line)[1].decode(), self.mood()
        if mood.startswith("never"):
            self.refused.add((session.sender, recipient))
        if mood.startswith("good"):
            session.recipients.append(recipient)
        return self.answer(session, mood, b"250 Ok\r\n")

    def data(self, session, line):
        if not session.sender or not session.recipients:
            return b"503 5.5.1 need RCPT\r\n"
        mood = self.mood()
        if mood.startswith("never"):
            self.refused |= {(session.sender, one) for one in session.recipients}
        return self.answer(session, mood if mood != "good and gone" else "gone", b"354 Go ahead\r\n")

    def content(self, session, line):
        mood, pairs = self.mood(), [(session.sender, one) for one in session.recipients]
        if mood.startswith("never"):
            self.refused |= set(pairs)
        if mood in ("good", "good and gone", "gone"):
            self.taken.update(pairs)
            if mood == "gone":
                self.unanswered.update(pairs)
        self.rset(session)
        return self.answer(session, mood, b"250 Ok: taken\r\n")

    def chunk(self, session, line):
        if not session.sender or not session.recipients:
            return b"503 5.5.1 need RCPT\r\n"
        if not line:
            return self.content(session, line)  # it was the last
        mood = self.mood()
        if mood.startswith("never"):
            self.refused |= {(session.sender, one) for one in session.recipients}
        if not mood.startswith("good"):
            self.rset(session)
        return self.answer(session, mood, b"250 Ok: chunk\r\n")

    def has_refused(self, pair):
        return pair in self.refused or (pair[0], None) in self.refused


def recipients(dice):
    return list(dict.fromkeys(f"r{dice.randrange(12)}@example.org" for _ in range(dice.choice([1, 1, 2, 3, 6]))))


def content(dice):
    return "Subject: x\r\n\r\n" + "x" * dice.choice([10, 3000, 200000]) + "\r\n"


def chunks(dice, text):
    cuts = [0, *sorted(dice.randrange(len(text)) for _ in range(dice.choice([0, 1, 3]))), len(text)]
    return [f"BDAT {end - begin}{' LAST' if end == len(text) else ''}\r\n{text[begin:end]}" for begin, end in zip(cuts, cuts[1:])]


def ask_all(client, commands, at_once):
    """The replies, up to the first refusal where one is sent after the other."""
    if at_once:
        client.send("".join(commands))
        return [client.reply() for _ in commands]
    replies = []
    for command in commands:
        client.send(command)
        replies.append(client.reply())
        if replies[-1][0] != "2":
            break
    return replies


def transaction(client, dice, ehlo, sender, people):
    """One message in one of the ways that the primary offers. The recipients that were accepted, and the last reply."""
    at_once, in_chunks = (word in ehlo and dice.random() < 0.6 for word in (b"PIPELINING", b"CHUNKING"))
    mail, rcpts, text = f"MAIL FROM:<{sender}>\r\n", [f"RCPT TO:<{person}>\r\n" for person in people], content(dice)
    if at_once and in_chunks:
        replies = ask_all(client, [mail, *rcpts, *chunks(dice, text)], at_once)
        accepted = [person for person, reply in zip(people, replies[1:]) if replies[0][:3] == reply[:3] == "250"]
        return accepted, replies[-1]
    replies = ask_all(client, [mail, *rcpts], True) if at_once else [client.ask(line.strip()) for line in (mail, *rcpts)]
    accepted = [person for person, reply in zip(people, replies[1:]) if replies[0][:3] == reply[:3] == "250"]
    if not accepted:
        return [], ""
    if in_chunks:
        return accepted, ask_all(client, chunks(dice, text), at_once)[-1]
    go_ahead = client.ask("DATA")
    return accepted, client.ask(text + ".") if go_ahead.startswith("354") else go_ahead


def start(scene, moody):
    print(f"seed {SEED}")
    dice = random.Random(SEED)
    primary = MoodyPrimary(scene, dice, moody)
    holdfast = scene.holdfast(primary, route="unknown_recipients: accept", yaml=QUICK)
    wait_for(lambda: b"RSET" in primary.scripted.lines(), what="a probe")
    return dice, primary, holdfast


def is_settled(holdfast):
    held = map(json.loads, holdfast.run("queue", "list", "--json").stdout.splitlines())
    return all(one["status"] == "kept" for entry in held for one in entry["recipients"])


def check(primary, holdfast, promised, refused=()):
    """Once all is settled."""
    wait_for(lambda: is_settled(holdfast), seconds=120, what="all held mail to be settled")
    ends = {(entry["mail_from"].strip("<>"), one["address"]): (one["outcome"], one["reply"]) for entry in holdfast.entries() for one in entry["recipients"]}
    for pair in promised:
        outcome, reply = ends[pair]
        taken, most = primary.taken[pair], primary.unanswered[pair]
        if outcome in ("forwarded", "delivered"):
            assert 1 <= taken <= 1 + most, (pair, outcome, reply, taken, most)
        else:
            assert outcome == "held" and reply.startswith("kept for the operator") and primary.has_refused(pair) and taken <= most, (pair, outcome, reply, taken, most)
    for pair in refused:
        assert primary.taken[pair] <= primary.unanswered[pair], (pair, primary.taken[pair])
        assert ends.get(pair, ("rejected", ""))[0] in ("rejected", "deferred", "abandoned"), (pair, ends[pair])
    holdfast.run("journal", "verify")


@test("held mail: each recipient gets it once, or the primary has refused it for good")
def _(scene):
    dice, primary, holdfast = start(scene, moody=0.4)
    holdfast.run("failover", "hold", "--reason", "test")
    client, promised = scene.client(holdfast.port), []
    client.ask("EHLO client.example.net")
    for number in range(60):
        sender, people = f"m{number}@example.net", recipients(dice)
        client.ask(f"MAIL FROM:<{sender}>")
        for person in people:
            assert client.ask(f"RCPT TO:<{person}>").startswith("250")
        client.ask("DATA")
        assert client.ask(content(dice) + ".").startswith("250")
        promised += [(sender, person) for person in people]
    primary.is_well = False
    holdfast.run("failover", "auto", "--reason", "test")
    wait_for(lambda: len(primary.refused) + sum(primary.taken.values()) > 40, what="much to have happened")
    primary.is_well = True
    check(primary, holdfast, promised)


@test("live mail: who was told 250 is served once, or the primary has refused it for good; who was told anything else is not")
def _(scene):
    dice, primary, holdfast = start(scene, moody=0.1)
    primary.is_well = False
    told = {}

    def send(number):
        own, client = random.Random(SEED + number), None
        for message in range(150):
            sender, people, accepted, last = f"m{number}.{message}@example.net", recipients(own), [], ""
            try:
                if not client:
                    client = Client(holdfast.port)
                    client.ask("EHLO client.example.net")
                accepted, last = transaction(client, own, primary.ehlo, sender, people)
                told.update({(sender, person): last[:3] for person in accepted})
                client.ask("RSET")
            except (EOFError, ConnectionError):
                client = client and client.close()
            if client and own.random() < 0.3:
                client = client.close()
    threads = [threading.Thread(target=send, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    primary.is_well = True
    promised = [pair for pair, last in told.items() if last == "250"]
    assert len(promised) > 100, len(promised)
    check(primary, holdfast, promised, [pair for pair, last in told.items() if last[:1] in ("4", "5")])


main()
