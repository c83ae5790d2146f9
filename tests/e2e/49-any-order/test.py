"""Everything that operators and auditors do to a journal, in any order, with mail, holds, restarts and SIGKILL between: after each step
the journal holds what a model of it says, each question gets the model's answer, and what is refused has changed nothing.

The seed is printed; SEED=number plays it again, STEPS=number makes it longer.
"""
import hashlib
import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from journals import *

SEED = int(os.environ.get("SEED") or random.randrange(10**6))
STEPS = int(os.environ.get("STEPS") or 70)
SENDERS = ["a@example.net", "A@Example.Net", "b@example.com", "c+tag@example.net", '"x y"@example.net', "\u00fc@example.net"]
RECIPIENTS = ["ada@example.org", "Ada@example.org", "ada@EXAMPLE.org", "bob@example.org", "eve@example.org", "zoe@other.example"]
UNSERVED = ["later@example.org", "never@example.org"]
MESSAGE_IDS = ["", "<m1@x>", "<M1@x>", "<m2@x>", "m3@x", "<m4@x> (comment)"]
QUICK = "failover:\n  probe_interval: 100ms\n  release_after: 100ms\n  retry_min: 100ms\n  retry_max: 200ms\n"


def rcpt(session, line):
    return b"451 4.2.0 later\r\n" if b"later@" in line else b"550 5.1.1 never\r\n" if b"never@" in line else b"250 2.1.5 Ok\r\n"


def passes(entry, filters):
    has = {"--recipient": lambda wanted: wanted.lower() in [one["address"].lower() for one in entry["recipients"]],
           "--sender": lambda wanted: wanted.lower() == entry["mail_from"].lower(),
           "--message-id": lambda wanted: wanted.strip("<>").lower() == entry["message_id"].lower(),
           "--outcome": lambda wanted: wanted in [one["outcome"] for one in entry["recipients"]],
           "--since": lambda wanted: entry["time"] >= wanted, "--until": lambda wanted: entry["time"] < wanted,
           "--direction": lambda wanted: entry["direction"] == wanted, "--route": lambda wanted: entry["route"] == wanted,
           "--id": lambda wanted: str(entry["id"]) == wanted}
    return all(has[key](wanted) for key, wanted in filters.items())


def is_held(entry):
    return any(one["outcome"] == "held" for one in entry["recipients"])


def words(filters):
    return [word for pair in filters.items() for word in pair]


class AnyOrder:
    """Holdfast, what it should hold (entries by id), and the legal holds that are set. Each method but the last few is a step."""

    def __init__(self, scene, dice):
        self.scene, self.dice = scene, dice
        self.holdfast = scene.holdfast(scene.primary(replies={"RCPT": rcpt}), yaml=QUICK, route="unknown_recipients: accept", journal="segment_size: 16MiB")
        self.entries, self.legal_holds, self.is_holding = {}, {}, False

    def mail(self):
        client = self.scene.client(self.holdfast.port)
        client.ask("EHLO client.example.net")
        sent = 0
        for _ in range(self.dice.choice([1, 3, 8])):
            people = self.dice.sample(RECIPIENTS + ([] if self.is_holding else UNSERVED), self.dice.choice([1, 1, 2, 4]))
            sender, message_id = self.dice.choice(["", *SENDERS]), self.dice.choice(MESSAGE_IDS)
            client.ask(f"MAIL FROM:<{sender}>{'' if sender.isascii() else ' SMTPUTF8'}")
            if not any([client.ask(f"RCPT TO:<{person}>").startswith("250") for person in people]):
                client.ask("RSET")
                continue
            client.ask("DATA")
            text = (f"Message-ID: {message_id}\r\n" if message_id else "") + f"Subject: x\r\n\r\n{noise(self.dice.choice([10, 5000, 90000]), self.dice.random())}\r\n."
            assert client.ask(text).startswith("250")
            sent += 1
        client.close()
        if not self.is_holding:
            settled(self.holdfast)
        new = {number: entry for number, entry in self.listed().items() if number not in self.entries}
        equal(len(new), sent, "new entries")
        self.entries.update(new)

    def hold(self):
        self.holdfast.run("failover", "hold", "--reason", "test")
        self.is_holding = True

    def auto(self):
        self.holdfast.run("failover", "auto", "--reason", "test")
        self.is_holding = False
        wait_for(lambda: self.holdfast.status()["routes"][0]["state"] == "pass" and not any(map(is_held, self.listed().values())), what="the drain")
        for entry in self.entries.values():
            for one in entry["recipients"]:
                one["outcome"] = "delivered" if one["outcome"] == "held" else one["outcome"]

    def seal(self):
        self.holdfast.run("journal", "seal")

    def rebuild(self):
        self.holdfast.run("journal", "rebuild")

    def rekey(self):
        self.holdfast.run("journal", "rekey", "--reason", "test")

    def prune(self):
        assert self.holdfast.run("journal", "prune", "--older-than", "1h", "--reason", "test").stdout.startswith("0 segments")

    def restart(self):
        self.holdfast.stop()
        self.holdfast.start()

    def kill(self):
        self.holdfast.kill()
        self.holdfast.start()

    def without_daemon(self):
        self.holdfast.stop()
        self.dice.choice([self.rebuild, self.rekey, self.erase, self.verify, self.ask])()
        self.holdfast.start()

    def set_legal_hold(self):
        filters = {key: value for key, value in self.filters().items() if key in ("--recipient", "--sender", "--since", "--until", "--message-id")}
        if not filters:
            return
        name = f"case {len(self.legal_holds)} {self.dice.random()}"
        self.holdfast.run("journal", "legal-hold", "set", name, *words(filters), "--reason", "test")
        self.legal_holds[name] = filters

    def lift_legal_hold(self):
        if self.legal_holds:
            name, _ = self.legal_holds.popitem()
            self.holdfast.run("journal", "legal-hold", "lift", name, "--reason", "test")

    def erase(self):
        filters = self.dice.choice([{"--recipient": self.dice.choice(RECIPIENTS)}, {"--sender": self.dice.choice(SENDERS)}, {"--id": str(self.dice.choice(list(self.entries)))}])
        found = [entry for entry in self.entries.values() if passes(entry, filters)]
        is_forbidden = any(passes(entry, hold) for entry in found for hold in self.legal_holds.values())
        with_held = self.dice.random() < 0.5
        done = self.holdfast.run("journal", "erase", *words(filters), "--reason", "test", *(["--including-held"] if with_held else []), check=False)
        is_refused = is_forbidden or (any(map(is_held, found)) and not with_held)
        equal(done.returncode, 75 if is_refused else 0, (filters, self.legal_holds, done.stdout, done.stderr))
        for entry in found if not is_refused else ():
            del self.entries[entry["id"]]

    def drop(self):
        entry = self.dice.choice(list(self.entries.values()))
        equal(self.holdfast.run("queue", "drop", str(entry["id"]), "--reason", "test", check=False).returncode, 0 if is_held(entry) else 66)
        for one in entry["recipients"]:
            one["outcome"] = "dropped" if one["outcome"] == "held" else one["outcome"]

    def back_up(self):
        folder, config = self.scene.path("backup"), self.scene.path("backup.yaml")
        self.holdfast.run("journal", "backup", folder)
        with open(self.holdfast.config) as here, open(config, "w") as there:
            there.write(here.read().replace(self.holdfast.journal_path, folder).replace(self.holdfast.socket, self.scene.path("none.sock")))
        key = shutil.copy(os.path.join(self.holdfast.journal_path, "master.key"), folder)
        subprocess.run([BINARY, "-c", config, "journal", "rebuild"], check=True, capture_output=True)
        copied = run(BINARY, "-c", config, "journal", "list", "--json").stdout
        equal([self.essence(json.loads(line)) for line in copied.splitlines()], list(map(self.essence, self.entries.values())), "the backup")
        os.remove(key)

    def verify(self):
        sound(self.holdfast)

    def ask(self):
        for _ in range(4):
            filters = self.filters()
            expected = [entry["id"] for entry in self.entries.values() if passes(entry, filters)]
            equal(list(self.listed(*words(filters))), expected, filters)
            equal(list(self.listed("--newest", "--limit", "2", *words(filters))), expected[::-1][:2], filters)
        entry = self.dice.choice(list(self.entries.values()))
        equal(hashlib.sha256(self.holdfast.content(entry["id"])).hexdigest(), entry["sha256"])

    def filters(self):
        one, other = (self.dice.choice(list(self.entries.values())) for _ in range(2))
        all_of_them = {"--recipient": self.dice.choice(RECIPIENTS + UNSERVED), "--sender": self.dice.choice(SENDERS), "--message-id": self.dice.choice(["<m1@x>", "M1@x", "m2@x", "m3@x", "m4@x"]),
                       "--outcome": self.dice.choice(["forwarded", "held", "delivered", "rejected", "deferred"]), "--since": one["time"], "--until": other["time"],
                       "--direction": self.dice.choice(["inbound", "inbound", "outbound"]), "--route": self.dice.choice(["primary", "primary", "other"])}
        return {key: all_of_them[key] for key in self.dice.sample(list(all_of_them), self.dice.choice([1, 2, 3]))}

    def listed(self, *filters):
        return {entry["id"]: entry for entry in self.holdfast.entries(*filters)}

    @staticmethod
    def essence(entry):
        return (entry["id"], entry["time"], entry["mail_from"], entry["message_id"], entry["sha256"], [(one["address"], one["outcome"]) for one in entry["recipients"]])

    def compare(self):
        equal(list(map(self.essence, self.listed().values())), list(map(self.essence, self.entries.values())), "what is in the journal")


@test("commands in any order, with mail, restarts and SIGKILL between: the journal holds what it should, and answers so")
def _(scene):
    print(f"seed {SEED}")
    dice = random.Random(SEED)
    world = AnyOrder(scene, dice)
    world.mail()
    steps = [world.mail, world.mail, world.mail, world.hold, world.auto, world.seal, world.rebuild, world.rekey, world.prune, world.restart, world.kill, world.without_daemon,
             world.set_legal_hold, world.lift_legal_hold, world.erase, world.erase, world.drop, world.back_up, world.verify, world.ask, world.ask, world.ask]
    for number in range(STEPS):
        step = dice.choice(steps) if world.entries else world.mail
        try:
            step()
            world.compare()
        except Exception:
            print(f"in step {number}, {step.__name__}")
            raise
    world.auto()
    sound(world.holdfast)


main()
