"""The emergency mailboxes, beside Dovecot: reading, searching, memory, and how soon they are there."""
import contextlib
import http.client
import imaplib
import json
import os
import socket
import statistics
import subprocess
import threading
import time

import servers
from dovecot import Dovecot
from harness import BINARY, Client, free_port, wait_for
from measure import load, ratio, table
from ordinary_mail import OrdinaryMail
from scene import LIMITS, QUIET, scene

MAILBOX_PASSWORD = "correct horse battery"


def resident_bytes(pids):
    """Private memory: what would be free without these processes."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup") as file:
            total += sum(int(line.split()[1]) * 1024 for line in file if line.startswith(("Private_Clean", "Private_Dirty")))
    return total


def imap_login(port):
    session = imaplib.IMAP4("127.0.0.1", port)
    session.login("person@example.org", MAILBOX_PASSWORD)
    return session


def newest_fifty(port):
    """As Roundcube opens a mailbox."""
    session = imap_login(port)
    count = int(session.select("INBOX")[1][0])
    session.uid("FETCH", f"{count - 49}:*", "(UID RFC822.SIZE FLAGS INTERNALDATE BODY.PEEK[HEADER.FIELDS (DATE FROM TO SUBJECT CONTENT-TYPE CC REPLY-TO)])")
    session.logout()


def thread_seconds(pid, name):
    """CPU that a thread of a process has used."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/stat") as file:
            called, _, facts = file.read().partition("(")[2].rpartition(")")
        if called == name:
            return sum(map(int, facts.split()[11:13])) / os.sysconf("SC_CLK_TCK")
    raise AssertionError(f"no thread {name}")


def thousand_whole(port):
    session = imap_login(port)
    session.select("INBOX")
    session.uid("FETCH", "1:1000", "(BODY.PEEK[])")
    session.logout()


def search_text(port):
    session = imap_login(port)
    session.select("INBOX")
    session.uid("SEARCH", "TEXT", "no-such-word-anywhere")
    session.logout()


def case_imap(options):
    """The emergency mailbox, against Debian's Dovecot with the same messages in mdbox."""
    count, sessions = options.scaled(10000), options.scaled(100)
    with scene() as s:
        imap_port = free_port()
        store = Dovecot(s, "mdbox:%h")  # it asks for no password; Holdfast remembers that it was right
        holdfast = s.holdfast(servers.sink(s), listeners=f"- address: 127.0.0.1:{imap_port}\n  role: imap", yaml=LIMITS + "\nmailbox:\n  open: always")
        subprocess.run([BINARY, "-c", holdfast.config, "mailbox", "add", "person@example.org", "--password-file", "-"], input=MAILBOX_PASSWORD + "\n", text=True, check=True,
                       capture_output=True)
        mail = OrdinaryMail()
        client = Client(holdfast.port)
        client.ask("EHLO client.example.net")
        for number in range(count):
            content = mail.header(number) + "\r\n" + mail.text(20)[:10000] + "\r\n"
            assert client.send_mail(content, "somebody@example.net", "person@example.org", helo=None).startswith("250")
        client.close()
        holdfast.run("journal", "replay", "--to", f"lmtp://127.0.0.1:{store.lmtp_port}", "--concurrency", "1")
        wait_for(lambda: all(int(imap_login(port).select("INBOX")[1][0]) == count for port in (imap_port, store.imap_port)), seconds=60, what="both to have all")
        rows = []
        for what, action, wanted in (("login, SELECT, FETCH of the newest 50", newest_fifty, 1.0), ("1,000 whole messages of 10 KB", thousand_whole, 1.0),
                                     (f"SEARCH TEXT over {count} messages", search_text, 0.7)):
            times = {imap_port: [], store.imap_port: []}
            for _ in range(options.rounds):
                for port, found in times.items():
                    begin = time.monotonic()
                    action(port)
                    found.append(1 / (time.monotonic() - begin))
            middle, least, most = ratio(times[imap_port], times[store.imap_port])
            rows.append([what, *(f"{1000 / statistics.median(found):.0f} ms" for found in times.values()), f"{middle:.2f} ({least:.2f}-{most:.2f})", f">= {wanted}"])
        print(f"a mailbox of {count} messages of 10 KB")
        table(["", "Holdfast", "Dovecot", "speed, ratio", "wanted"], rows)
        quiet, busy, relayed, cost = [], [], [], {False: [], True: []}
        for _ in range(options.rounds):
            for found, is_busy in ((quiet, False), (busy, True)):
                # Mail at half of what the relay can: some thousands a second.
                traffic = threading.Thread(target=lambda: relayed.append(load(holdfast.port, options.scaled(8000), 1024, 2, True).per_second))
                if is_busy:
                    traffic.start()
                begin, times, used = time.monotonic(), 0, thread_seconds(holdfast.process.pid, "mailboxes")
                while times < 20 or (is_busy and traffic.is_alive()):
                    thousand_whole(imap_port)
                    times += 1
                found.append(times / (time.monotonic() - begin))
                cost[is_busy].append((thread_seconds(holdfast.process.pid, "mailboxes") - used) / times * 1000)
                if is_busy:
                    traffic.join()
        middle, least, most = ratio(busy, quiet)
        # Reader, senders and sink share the cores with Holdfast: what reading costs tells whether journaling is in its way.
        table(["1,000 whole messages, over and over", "reading", "ratio", "CPU of the mailboxes, each time"],
              [["alone", f"{statistics.median(quiet):.1f}/s", "", f"{statistics.median(cost[False]):.1f} ms"],
               [f"while {statistics.median(relayed):.0f} messages a second are journaled", f"{statistics.median(busy):.1f}/s", f"{middle:.2f} ({least:.2f}-{most:.2f})",
                f"{statistics.median(cost[True]):.1f} ms"]])
        memory = {}
        for name, port, pids in (("Holdfast", imap_port, lambda: [holdfast.process.pid]), ("Dovecot", store.imap_port, store.processes)):
            before = resident_bytes(pids())
            idle = [imap_login(port) for _ in range(sessions)]
            for one in idle:
                one.select("INBOX")
            time.sleep(QUIET)
            memory[name] = (resident_bytes(pids()) - before) / sessions
            for one in idle:
                one.shutdown()
        table(["an idle session", "memory", "wanted"], [[name, f"{size / 1024:.0f} KiB", f"< {memory['Dovecot'] / 10240:.0f} KiB" if name == "Holdfast" else ""] for name, size in memory.items()])


def add_accounts(holdfast, count):
    """Many at once: all have the same password's hash, which takes long to make."""
    first = {"address": "person0@example.org", "is_new": True, "password_hash": "$argon2id$v=19$m=65536,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g"}
    with contextlib.closing(http.client.HTTPConnection("holdfast")) as connection:
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(holdfast.socket)
        for number in range(count):
            connection.request("POST", "/mailbox/set", json.dumps({**first, "address": f"person{number}@example.org"}))
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            answer.read()


def case_ready(options):
    """The relay with 10,000 emergency mailboxes ready and one listener for them, against none; Dovecot fed by LMTP beside it."""
    with scene() as s:
        sink = servers.sink(s)
        plain = s.holdfast(sink, yaml=LIMITS)
        ready = s.holdfast(sink, yaml=LIMITS, listeners=f"- address: 127.0.0.1:{free_port()}\n  role: imap")
        add_accounts(ready, options.scaled(10000))
        store = Dovecot(s, "mdbox:%h")
        fed = s.holdfast(sink, yaml=LIMITS + f"\nmailbox:\n  feed: lmtp://127.0.0.1:{store.lmtp_port}")
        rates = {"none": [], "ready": [], "fed": []}
        for _ in range(options.rounds):
            for name, holdfast in (("none", plain), ("ready", ready), ("fed", fed)):
                time.sleep(QUIET)
                rates[name].append(load(holdfast.port, options.scaled(20000 if name != "fed" else 4000), 10240, 20, True).per_second)
        rows = [["no mailboxes", f"{statistics.median(rates['none']):.0f}/s", "", ""]]
        for name, what, wanted in (("ready", "10,000 mailboxes ready", ">= 0.97"), ("fed", "feeding Dovecot by LMTP", "")):
            middle, least, most = ratio(rates[name], rates["none"])
            rows.append([what, f"{statistics.median(rates[name]):.0f}/s", f"{middle:.2f} ({least:.2f}-{most:.2f})", wanted])
        print(f"relaying 10 KB messages, 20 sessions, connections kept, {options.rounds} rounds")
        table(["", "messages", "ratio", "wanted"], rows)
