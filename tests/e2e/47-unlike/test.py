"""Two addresses of a primary that know different extensions, and die all the time. Clients use what they were told of, and notice nothing."""
import collections
import hashlib
import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from harness import *

SECONDS = int(os.environ.get("HOLDFAST_UNLIKE_SECONDS", "15"))
SEED = int(os.environ.get("HOLDFAST_SEED", random.randrange(1_000_000)))
CLIENTS, DEATHS, STEPS = 6, 0.02, ("MAIL", "RCPT", "DATA", "content", "BDAT", "NOOP", "RSET")
YAML = """\
failover:
  probe_interval: 50ms
  takeover_after: 1s
  release_after: 100ms
  retry_min: 100ms
  retry_max: 100ms
log:
  level: error"""
KEYWORD_OF = {"SIZE": "SIZE", "BODY": "8BITMIME", "SMTPUTF8": "SMTPUTF8", "RET": "DSN", "ENVID": "DSN", "NOTIFY": "DSN"}
# As content, these are harmless; as commands they are on record.
LINES = [b"", b".", b"..", b"MAIL FROM:<evil@example.net>", b"RSET evil", "Grüße".encode(), b"x" * 70]


class Address:
    """A primary's address: what it offers is drawn each time it starts. It notes whatever goes beyond that."""

    def __init__(self, scene, port, noise, complaints, knows_all=False):
        self.noise, self.complaints = noise, complaints
        simple = [word for word in ("PIPELINING", "SIZE 20000000", "SMTPUTF8", "DSN") if knows_all or noise.random() < 0.7]
        ladder = ["8BITMIME", "CHUNKING", "BINARYMIME"][:3 if knows_all else noise.randrange(4)]
        self.words = {word.split()[0] for word in simple + ladder}
        replies = {step: self.answer(step) for step in STEPS} if not knows_all else {}
        lines = ["primary.example.org", *simple, *ladder]
        ehlo = "".join(f"250{' ' if line is lines[-1] else '-'}{line}\r\n" for line in lines)
        self.primary = scene.primary(replies={"EHLO": ehlo.encode(), **replies}, port=port)

    def answer(self, step):
        usual = {"DATA": b"354 Go ahead\r\n", "content": b"250 2.0.0 Ok: taken\r\n"}.get(step, b"250 2.0.0 Ok\r\n")

        def reply(session, line):
            self.check(step, session, line)
            return None if self.noise.random() < DEATHS else usual
        return reply

    def check(self, step, session, line):
        if step in ("MAIL", "RCPT"):
            for parameter in line.decode().split(">")[1].split():
                keyword = "BINARYMIME" if parameter == "BODY=BINARYMIME" else KEYWORD_OF[parameter.split("=")[0]]
                if keyword not in self.words:
                    self.complaints.append(f"{line} to one that offers {self.words}")
        if session.buffer and step not in ("content", "BDAT") and "PIPELINING" not in self.words:
            self.complaints.append(f"{session.buffer[:60]} right behind {line} to one that does not pipeline")


class Sender(threading.Thread):
    """A client that sends message after message, each as one of the ways that it was told of."""

    def __init__(self, port, number, until, complaints, acknowledged):
        super().__init__(daemon=True)
        self.port, self.number, self.noise, self.until = port, number, random.Random(f"{SEED}.{number}"), until
        self.complaints, self.acknowledged, self.sent = complaints, acknowledged, 0
        self.start()

    def draw(self, chance):
        return self.noise.random() < chance

    def run(self):
        try:
            while time.monotonic() < self.until:
                client = Client(self.port)
                reply = client.ask("EHLO client.example.net") if self.draw(0.9) else client.ask("HELO client.example.net")
                told = {line[4:].split()[0] for line in reply.splitlines()[1:]}
                for _ in range(self.noise.randrange(1, 6)):
                    self.send(client, told)
                client.ask("QUIT")
                client.close()
        except (OSError, EOFError, AssertionError) as problem:
            self.complaints.append(repr(problem))

    def send(self, client, told):
        self.sent += 1
        name = f"m{self.number}.{self.sent}"
        is_binary = "BINARYMIME" in told and self.draw(0.4)
        in_chunks = is_binary or ("CHUNKING" in told and self.draw(0.5))
        lines = [self.noise.choice(LINES) for _ in range(self.noise.choice([1, 5, 30, 3000]))]
        content = f"Subject: {name}\r\n\r\n".encode() + b"".join(line + (b"\n" if is_binary and self.draw(0.5) else b"\r\n") for line in lines)
        of_mail = [f"SIZE={len(content)}"] if "SIZE" in told and self.draw(0.6) else []
        of_mail += ["BODY=BINARYMIME"] if is_binary else ["BODY=8BITMIME"] if "8BITMIME" in told and self.draw(0.6) else []
        of_mail += ["SMTPUTF8"] if "SMTPUTF8" in told and self.draw(0.3) else []
        wants_notices = "DSN" in told and self.draw(0.4)
        of_mail += ["RET=HDRS", "ENVID=x"] if wants_notices else []
        commands = ["NOOP", "RSET"][:self.noise.randrange(3)] + [" ".join(["MAIL FROM:<a@example.net>", *of_mail])]
        commands += [f"RCPT TO:<b{one}@example.org>{' NOTIFY=NEVER' if wants_notices else ''}" for one in range(self.noise.randrange(1, 4))]
        pieces = [(command + "\r\n", "250") for command in commands]
        if in_chunks:
            middle = self.noise.randrange(len(content))
            first, last = content[:middle], content[middle:]
            pieces += [(f"BDAT {len(first)}\r\n".encode() + first, "250"), (f"BDAT {len(last)} LAST\r\n".encode() + last, "250")]
        else:
            pieces.append(("DATA\r\n", "354"))
        self.play(client, pieces, "PIPELINING" in told and self.draw(0.6))
        if not in_chunks:
            client.send(b"".join((b"." + line if line.startswith(b".") else line) for line in content.splitlines(keepends=True)) + b".\r\n")
            self.expect(client, "250", content[:20])
        self.acknowledged[name] = hashlib.sha256(content).hexdigest()

    def play(self, client, pieces, pipelines):
        for piece, _ in pieces if pipelines else ():
            client.send(piece)
        for piece, code in pieces:
            if not pipelines:
                client.send(piece)
            self.expect(client, code, piece[:60])

    @staticmethod
    def expect(client, code, what):
        reply = client.reply()
        assert reply.startswith(code), (what, reply)


def come_and_go(scene, holdfast, addresses, until, complaints):
    """Again and again one of them is killed, sometimes both, and comes back with other words. Returns all that there were."""
    noise, everyone = random.Random(SEED), list(addresses)
    while time.monotonic() < until:
        time.sleep(noise.random() * 2)
        gone = [number for number in range(2) if noise.random() < 0.6]
        for number in gone:
            addresses[number].primary.stop()
        time.sleep(noise.random() * 0.8)
        for number in gone:
            addresses[number] = Address(scene, addresses[number].primary.port, noise, complaints)
            everyone.append(addresses[number])
    return everyone


@test("two addresses with different extensions die all the time: no client sees an error, and all arrives, bit for bit, twice only where marked")
def _(scene):
    print(f"  HOLDFAST_SEED={SEED}")
    noise, complaints, acknowledged = random.Random(SEED), [], {}
    teachers = [Address(scene, 0, noise, complaints, knows_all=True) for _ in range(2)]
    holdfast = scene.holdfast(upstreams=[f"127.0.0.1:{one.primary.port}" for one in teachers], yaml=YAML)
    for number in range(3):
        equal(scene.client(holdfast.port).send_mail(f"Subject: teach\r\n\r\n{number}\r\n", recipient=f"b{number}@example.org"), "250 2.0.0 Ok: taken")
    until = time.monotonic() + SECONDS
    senders = [Sender(holdfast.port, number, until, complaints, acknowledged) for number in range(CLIENTS)]
    everyone = come_and_go(scene, holdfast, list(teachers), until, complaints)
    for sender in senders:
        sender.join(60)
    for one in everyone:
        one.primary.stop()
    everyone += [Address(scene, one.primary.port, noise, complaints, knows_all=True) for one in teachers]
    wait_for(lambda: holdfast.status()["routes"][0]["held"] == 0, 60, "the drain")
    equal(complaints[:5], [])
    arrived = collections.Counter()
    for envelope, content in (message for one in everyone for message in one.primary.messages):
        content = content[content.index(b"Subject: "):]
        name = content[9:content.index(b"\r\n")].decode()
        if name != "teach":
            equal(hashlib.sha256(content).hexdigest(), acknowledged[name], name)
        arrived.update((name, recipient.split(b">")[0]) for recipient in envelope[1:])
    assert not any(b"evil" in line for one in everyone for line in one.primary.lines())
    missing = set(acknowledged) - {name for name, _ in arrived}
    assert not missing, f"{len(missing)} of {len(acknowledged)} are missing, such as {sorted(missing)[:3]}"
    marked = {entry["subject"] for entry in holdfast.entries() if entry["possible_duplicate"]}
    equal([name for (name, _), count in arrived.items() if count > 1 and name not in marked], [])
    print(f"  {len(acknowledged)} messages, {len(everyone)} primaries, {len(marked)} possible duplicates")
    assert "all is well" in holdfast.run("journal", "verify").stdout


main()
