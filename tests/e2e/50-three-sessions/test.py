"""Three IMAP sessions of one person do random things to her folders while mail comes. What each is told unasked must add up to what the
folders hold (RFC 3501 5.2, 7.4.1), what changes must be what a model says, and UIDs only grow.

The seed is printed; SEED=number plays it again, STEPS=number makes it longer.
"""
import os
import random
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from mailboxes import *

SEED = int(os.environ.get("SEED") or random.randrange(10**6))
STEPS = int(os.environ.get("STEPS") or 1000)
FLAGS = ["\\Seen", "\\Answered", "\\Flagged", "\\Deleted", "\\Draft", "$Forwarded", "work"]


class Session:
    """A client that keeps what it is told: view lists the messages of its folder in order, as [UID, flags], None for what it was not told."""

    def __init__(self, scene, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        scene.stack.callback(self.socket.close)
        self.lines, self.number, self.folder, self.view, self.said = self.socket.makefile("rb"), 0, None, [], []
        self.lines.readline()
        self.ask(f'LOGIN ada@example.org "{PASSWORD}"')

    def ask(self, command, literal=None, may_be_refused=False):
        """All that is answered, as text."""
        self.number += 1
        self.said.append(command)
        self.socket.sendall(f"t{self.number} {command}\r\n".encode())
        answer = ""
        while not answer.startswith(f"t{self.number} ", answer.rfind("\n", 0, -1) + 1):
            line = self.lines.readline().decode()
            assert line, "the connection was closed"
            self.said.append("    " + line.rstrip())
            if line.startswith("+"):
                self.socket.sendall(literal + b"\r\n")
                continue
            self.learn(line, command)
            answer += line
        assert answer[answer.rfind("\n", 0, -1) + 1:].split(" ")[1] in (("OK", "NO") if may_be_refused else ("OK",)), answer
        return answer

    def learn(self, line, command):
        told = re.match(r"\* (\d+) (EXISTS|EXPUNGE|FETCH)", line)
        if not told:
            return
        number, what = int(told[1]), told[2]
        if what == "EXISTS":
            assert number >= len(self.view), f"messages vanish without EXPUNGE: {line}"
            self.view += [[None, None] for _ in range(number - len(self.view))]
        elif what == "EXPUNGE":
            assert command.split()[0] not in ("FETCH", "STORE", "SEARCH"), f"numbers change while they are in use: {command}"
            del self.view[number - 1]
        else:
            one, uid, flags = self.view[number - 1], re.search(r"UID (\d+)", line), re.search(r"FLAGS \(([^)]*)\)", line)
            assert not uid or one[0] in (None, int(uid[1])), f"a message has another UID: {line}"
            one[0] = int(uid[1]) if uid else one[0]
            one[1] = set(flags[1].split()) - {"\\Recent"} if flags else one[1]

    def select(self, folder):
        self.folder, self.view = folder, []
        self.ask(f"SELECT {folder}")


def numbers(text):
    """What an IMAP set of numbers names, in its order."""
    found = []
    for part in text.split(","):
        first, last = int(part.split(":")[0]), int(part.split(":")[-1])
        found += range(first, last + 1)
    return found


class Folders:
    """What the folders should hold: for each name, by UID, [Message-ID, flags]. Each public method is a step of a session."""

    def __init__(self, scene, dice):
        self.dice, self.world = dice, World(scene, people=("ada",))
        self.sessions = [Session(scene, self.world.imap_port) for _ in range(3)]
        self.observer = Session(scene, self.world.imap_port)
        self.special = re.findall(r'" "?([^" ]+)"?\r\n', self.observer.ask('LIST "" *'))
        self.folders = {name: {} for name in self.special}
        self.sent = 0

    def any_of(self, session, most):
        """Some UIDs of the session's folder."""
        uids = list(self.folders[session.folder])
        return sorted(self.dice.sample(uids, min(len(uids), self.dice.randint(1, most))))

    def put(self, folder, uid, message):
        assert uid > max([0, *self.folders[folder]]), f"UID {uid} in {folder} is not above {max(self.folders[folder])}"
        self.folders[folder][uid] = message

    def forget_deleted(self, folder, uids=None):
        for uid in [uid for uid, (_, flags) in self.folders[folder].items() if "\\Deleted" in flags and (uids is None or uid in uids)]:
            del self.folders[folder][uid]

    def compare(self, session):
        """What the session was told must be so; then what it was not told yet."""
        expected = sorted(self.folders[session.folder].items())
        equal(len(session.view), len(expected), f"messages in {session.folder}")
        for (uid, flags), (real_uid, (_, real_flags)) in zip(session.view, expected):
            assert uid in (None, real_uid) and flags in (None, real_flags), (uid, flags, real_uid, real_flags)
        if session.view:
            session.ask("FETCH 1:* (UID FLAGS)")
        equal(session.view, [[uid, flags] for uid, (_, flags) in expected], session.folder)

    def select(self, session):
        session.select(self.dice.choice(list(self.folders)))
        self.compare(session)

    def look(self, session):
        session.ask(self.dice.choice(["NOOP", "CHECK"]))
        self.compare(session)

    def store(self, session):
        """By number, in the session's own view, which others may have made old; or by UID."""
        by_number, how, is_silent = self.dice.random() < 0.5, self.dice.choice(["+", "-", ""]), self.dice.random() < 0.5
        known = [(number, uid) for number, (uid, _) in enumerate(session.view, 1) if uid]
        if not known:
            return
        chosen, flags = self.dice.sample(known, min(len(known), self.dice.randint(1, 4))), set(self.dice.sample(FLAGS, self.dice.randint(1, 2)))
        messages = self.folders[session.folder]
        # To messages that are gone it may say NO (RFC 2180 4.2.3).
        is_one_gone = any(uid not in messages for _, uid in chosen)
        command = f"{','.join(str(number if by_number else uid) for number, uid in chosen)} {how}FLAGS{'.SILENT' if is_silent else ''} ({' '.join(flags)})"
        session.ask(("STORE " if by_number else "UID STORE ") + command, may_be_refused=is_one_gone)
        for _, uid in chosen:
            if uid in messages:
                before = messages[uid][1]
                messages[uid] = [messages[uid][0], before | flags if how == "+" else before - flags if how == "-" else flags]
            for one in session.view:
                one[1] = None if is_silent and one[0] == uid else one[1]

    def copy_or_move(self, session):
        session.ask("NOOP")
        moves, target, messages = self.dice.random() < 0.6, self.dice.choice(list(self.folders)), self.folders[session.folder]
        uids = self.any_of(session, 4)
        if not uids or (moves and target == session.folder):
            return
        answer = session.ask(f"UID {'MOVE' if moves else 'COPY'} {','.join(map(str, uids))} {target}")
        sources, copies = map(numbers, re.search(r"\[COPYUID \d+ (\S+) (\S+)\]", answer).groups())
        equal(sources, uids, "COPYUID")
        for source, copy in zip(sources, copies, strict=True):
            self.put(target, copy, [messages[source][0], set(messages[source][1])])
            if moves:
                del messages[source]

    def expunge(self, session):
        session.ask("NOOP")
        uids = self.any_of(session, 3) if self.dice.random() < 0.5 else None
        if uids == []:
            return
        session.ask(f"UID EXPUNGE {','.join(map(str, uids))}" if uids else "EXPUNGE")
        self.forget_deleted(session.folder, uids)
        self.compare(session)

    def close(self, session):
        session.ask("NOOP")
        if self.dice.random() < 0.5:
            session.ask("CLOSE")
            self.forget_deleted(session.folder)
        else:
            session.ask("UNSELECT")
        self.select(session)

    def append(self, session):
        folder, flags, name = self.dice.choice(list(self.folders)), set(self.dice.sample(FLAGS, self.dice.randint(0, 2))), f"<{self.dice.random()}@x>"
        text = f"From: a@example.net\r\nSubject: x\r\nMessage-ID: {name}\r\n\r\nx\r\n".encode()
        answer = session.ask(f"APPEND {folder} ({' '.join(flags)}) {{{len(text)}}}", text)
        self.put(folder, int(re.search(r"APPENDUID \d+ (\d+)", answer)[1]), [name, flags])

    def mail(self, session):
        self.sent += 1
        self.world.send(f"mail {self.sent}", "ada")
        newest = max([0, *self.folders["INBOX"]])

        def comes():
            self.observer.select("INBOX")
            found = re.search(r"\* SEARCH([ \d]*)", self.observer.ask(f"UID SEARCH UID {newest + 1}:*"))[1].split()
            return [int(uid) for uid in found if int(uid) > newest]
        uid, = wait_for(comes, what="the mail")
        self.put("INBOX", uid, [f"<mail.{self.sent}@example.net>", set()])

    def search(self, session):
        session.ask("NOOP")
        flag, is_set = self.dice.choice([("Seen", "\\Seen"), ("Deleted", "\\Deleted"), ("Flagged", "\\Flagged"), ("Keyword work", "work")]), self.dice.random() < 0.5
        found = re.search(r"\* SEARCH([ \d]*)", session.ask(f"UID SEARCH {'' if is_set else 'UN'}{flag[0]}"))[1].split()
        equal(sorted(map(int, found)), sorted(uid for uid, (_, flags) in self.folders[session.folder].items() if (flag[1] in flags) == is_set), flag)

    def fetch(self, session):
        session.ask("NOOP")
        for uid in self.any_of(session, 1):
            message, is_peek = self.folders[session.folder][uid], self.dice.random() < 0.5
            assert message[0] in session.ask(f"UID FETCH {uid} BODY{'.PEEK' if is_peek else ''}[HEADER.FIELDS (MESSAGE-ID)]")
            if not is_peek:
                message[1] = message[1] | {"\\Seen"}

    def status(self, session):
        folder = self.dice.choice(list(self.folders))
        answer, messages = session.ask(f"STATUS {folder} (MESSAGES UNSEEN UIDNEXT)"), self.folders[folder]
        said = {key: int(value) for key, value in re.findall(r"(MESSAGES|UNSEEN|UIDNEXT) (\d+)", answer)}
        equal((said["MESSAGES"], said["UNSEEN"]), (len(messages), sum("\\Seen" not in flags for _, flags in messages.values())), folder)
        assert said["UIDNEXT"] > max([0, *messages]), (folder, said)

    def rearrange(self, session):
        """Makes, renames or deletes a folder that nobody has selected."""
        free = [name for name in self.folders if name not in self.special and all(one.folder != name for one in self.sessions)]
        what, name = self.dice.choice(["CREATE", "RENAME", "DELETE"]), f"F{self.dice.randrange(10**9)}"
        if what == "CREATE" and len(self.folders) < 10:
            session.ask(f"CREATE {name}")
            self.folders[name] = {}
        elif what == "RENAME" and free:
            session.ask(f"RENAME {free[0]} {name}")
            self.folders[name] = self.folders.pop(free[0])
        elif what == "DELETE" and len(free) > 2:
            session.ask(f"DELETE {free[0]}")
            del self.folders[free[0]]


@test("three sessions change folders at random while mail comes: what each is told adds up, and everything is where it should be")
def _(scene):
    print(f"seed {SEED}")
    dice = random.Random(SEED)
    folders = Folders(scene, dice)
    for session in folders.sessions:
        folders.select(session)
    steps = [folders.select, folders.look, folders.look, folders.store, folders.store, folders.store, folders.copy_or_move, folders.copy_or_move, folders.expunge, folders.close,
             folders.append, folders.append, folders.mail, folders.search, folders.fetch, folders.status, folders.rearrange]
    for number in range(STEPS):
        step, session = dice.choice(steps), dice.choice(folders.sessions)
        try:
            step(session)
        except Exception:
            print(f"in step {number}, {step.__name__} in {session.folder}:", *session.said[-20:], sep="\n")
            raise
    for session in folders.sessions:
        folders.look(session)
    folders.world.holdfast.kill()
    folders.world.holdfast.start()
    folders.sessions = [Session(scene, folders.world.imap_port)]
    for name in folders.folders:
        folders.sessions[0].select(name)
        folders.compare(folders.sessions[0])


main()
