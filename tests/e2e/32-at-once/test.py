"""Everything at once: mail, operators, auditors, employees and a SIGKILL now and then. Nothing is lost, and the journal verifies."""
import os
import random
import smtplib
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from mailboxes import *

ROUNDS, SECONDS = 3, 5
YAML = """failover:
  probe_interval: 100ms
  takeover_after: 1s
  release_after: 200ms
  retry_min: 100ms
directory:
  domain_aliases: {example.com: example.org}
  max_learned: 50
limits:
  per_client: 2000
threads: 2
"""


class Crowd:
    """Threads that do one thing again and again until they are stopped. What they find wrong is in problems."""

    def __init__(self, holdfast):
        self.holdfast, self.threads, self.stopped, self.problems = holdfast, [], threading.Event(), []

    def add(self, work, pause=0.0):
        def run():
            for number in range(10**9):
                if self.stopped.is_set():
                    return
                try:
                    work(number)
                except (OSError, EOFError, smtplib.SMTPException, imaplib.IMAP4.error):
                    pass  # Holdfast was killed, or the mailbox is closed at the moment
                except Exception:
                    self.problems.append(traceback.format_exc())
                self.stopped.wait(pause * random.uniform(0.5, 1.5))
        self.threads.append(threading.Thread(target=run))
        self.threads[-1].start()

    def command(self, *arguments, codes=(0,)):
        """Asks the daemon, which may be dead at the moment (75)."""
        done = self.holdfast.run(*arguments, check=False)
        if done.returncode not in (*codes, 75):
            raise AssertionError(f"{arguments}: exit {done.returncode}\n{done.stdout}{done.stderr}")

    def stop(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join()
        assert not self.problems, "\n".join(self.problems)


@test("mail, reloads, failover, sealing, erasure, rekeying, pruning, verifying, replays, backups, a feed and mailboxes all at once, with SIGKILL in between: nothing is lost, and all verifies")
def _(scene):
    primary, store = scene.primary(), scene.primary(replies={"LHLO": ScriptedPrimary.EHLO})
    world = World(scene, people=("ada", "bob"), primary=primary, mailbox=f"open: always\nfeed: lmtp://127.0.0.1:{store.port}", yaml="\n" + YAML, journal="retention: 1d")
    holdfast = world.holdfast
    taken, lock = set(), threading.Lock()

    def mail(sender):
        def send(number):
            with smtplib.SMTP("127.0.0.1", holdfast.port, "client.example.net", timeout=30) as session:
                for message in range(4):
                    subject = f"{sender}.{number}.{message}"
                    people = ["ada@example.org", f"p{random.randrange(60)}@example.com"] if random.random() < 0.5 else [f"gone{random.randrange(3)}@example.org"]
                    session.sendmail("a@example.net", people, f"Subject: {subject}\r\n\r\n" + "x" * random.choice([10, 3000, 150000]) + "\r\n")
                    if not people[0].startswith("gone"):
                        with lock:
                            taken.add(subject)
        return send

    def read(number):
        ada = imaplib.IMAP4("127.0.0.1", world.imap_port)
        try:
            ada.login("ada@example.org", PASSWORD)
            ada.select("INBOX")
            ada.uid("FETCH", "1:3", "(BODY.PEEK[])")
            ada.append("Drafts", None, None, b"Subject: x\r\n\r\n" + b"y" * 2000)
            ada.select("Drafts")
            ada.store("1:*", "+FLAGS", "\\Deleted")
            ada.expunge()
        finally:
            ada.shutdown()

    for round_ in range(ROUNDS):
        crowd = Crowd(holdfast)
        for sender in range(3):
            crowd.add(mail(f"{round_}.{sender}"))
        crowd.add(read)
        crowd.add(lambda _: holdfast.signal(signal.SIGHUP), 0.3)
        crowd.add(lambda _: (crowd.command("failover", "hold", "--reason", "test"), time.sleep(0.2), crowd.command("failover", "auto", "--reason", "test")), 0.8)
        crowd.add(lambda _: (crowd.command("status"), crowd.command("queue", "list"), crowd.command("directory", "list")), 0.2)
        crowd.add(lambda _: crowd.command("journal", "seal"), 0.7)
        crowd.add(lambda _: crowd.command("queue", "retry", "--all"), 0.5)
        crowd.add(lambda n: crowd.command("journal", "erase", "--recipient", f"gone{n % 3}@example.org", "--including-held", "--reason", "test"), 0.6)
        crowd.add(lambda _: crowd.command("journal", "backup", scene.path("backup")), 1)
        crowd.add(lambda _: crowd.command("journal", "list", "--recipient", "ada@example.org", "--limit", "20"), 0.3)
        crowd.add(lambda _: crowd.command("journal", "rekey", "--reason", "test"), 0.9)
        crowd.add(lambda _: crowd.command("journal", "prune", "--reason", "test"), 0.6)
        crowd.add(lambda _: crowd.command("journal", "verify"), 0.6)
        crowd.add(lambda n: (crowd.command("journal", "legal-hold", "set", f"{round_}.{n}", "--recipient", "ada@example.org", "--reason", "test"),
                             crowd.command("journal", "legal-hold", "lift", f"{round_}.{n}", "--reason", "test", codes=(0, 66))), 0.6)
        crowd.add(lambda n: crowd.command("journal", "replay", "--to", f"eml:{scene.path(f'replay.{round_}.{n}')}", "--recipient", "p1@example.com", "--reason", "test"), 1)
        crowd.add(lambda n: crowd.command("journal", "export", "--subject", "p2@example.com", "--to", scene.path(f"export.{round_}.{n}")), 1)
        crowd.add(lambda _: (crowd.command("mailbox", "disable", "bob@example.org"), crowd.command("mailbox", "enable", "bob@example.org"), crowd.command("mailbox", "list")), 0.5)
        time.sleep(SECONDS)
        wait_for(lambda: len(taken) > 100 * (round_ + 1) / ROUNDS, seconds=300, what="enough mail")
        holdfast.kill()
        time.sleep(0.3)
        crowd.stop()
        verified = holdfast.run("journal", "verify", check=False)
        assert verified.returncode == 0, verified.stdout + verified.stderr
        holdfast.start()
    holdfast.run("failover", "auto", "--reason", "test")
    wait_for(lambda: holdfast.status()["routes"][0]["held"] == 0, seconds=120, what="the drain")
    arrived = {re.search(rb"^Subject: (.*?)\r$", content, re.M)[1].decode() for _, content in primary.messages}
    equal(sorted(taken - arrived), [], "what a client was told 250 for, at the primary")
    equal(sorted(taken - {entry["subject"] for entry in holdfast.entries()}), [], "and in the journal")
    holdfast.run("journal", "backup", scene.path("backup"))
    verified = holdfast.run("journal", "verify")
    assert "all is well" in verified.stdout, verified.stdout
    print(f"  {len(taken)} messages taken; {verified.stdout.strip()[:100]}")


main()
