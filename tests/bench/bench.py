"""The benchmark of the relay: what Holdfast costs, beside what else could stand in its place.

All servers of a case run at the same time and are measured in turn, round after round, so that a noisy machine is noisy for
all of them. A ratio is the median over the rounds of the ratios within each round. What is wanted is printed beside it.
"""
import argparse
import contextlib
import http.client
import imaplib
import json
import os
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import servers
from measure import disk_sync_seconds, load, ratio, table
from ordinary_mail import OrdinaryMail
from dovecot import Dovecot
from harness import BINARY, Client, Scene, free_port, wait_for

LIMITS = "limits:\n  per_client: 20000\n  connections: 20000"
MAILBOX_PASSWORD = "correct horse battery"
QUIET = 0.3  # seconds between two measurements, for what the last one left to be done


@contextlib.contextmanager
def scene():
    with contextlib.ExitStack() as stack:
        folder = tempfile.mkdtemp(prefix="holdfast-bench.")
        os.chmod(folder, 0o755)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        yield Scene(folder, stack)


def contenders(s, sink, with_postfix):
    """Name, port, share of the load, and what is to be waited for at the end."""
    haproxy = servers.haproxy(s, sink.port)
    holdfast = s.holdfast(sink, yaml=LIMITS)
    all_of_it = [("straight", sink.port, 1.0, lambda: True), ("HAProxy", haproxy.port, 0.6, lambda: True)]
    if with_postfix:
        proxy, relay = servers.postfix_proxy(s, sink.port), servers.postfix_relay(s, sink.port)
        all_of_it += [("Postfix proxy", proxy.port, 0.25, lambda: True), ("Postfix relay", relay.port, 0.1, lambda: servers.queued(relay) == 0)]
    all_of_it.append(("Holdfast", holdfast.port, 0.6, lambda: True))
    return all_of_it, holdfast


def compare(title, rounds, messages, size, sessions, keeps, wanted, with_postfix=True):
    with scene() as s:
        sink = servers.sink(s)
        all_of_it, holdfast = contenders(s, sink, with_postfix)
        rates = {name: [] for name, _, _, _ in all_of_it}
        for number in range(rounds + 1):
            for name, port, share, until in all_of_it:
                rate = load(port, max(sessions, int(messages * share)), size, sessions, keeps, until)
                if number > 0:  # the first round warms up
                    rates[name].append(rate)
                time.sleep(QUIET)
        print(f"{title}: {size} bytes, {sessions} sessions, {'connections kept' if keeps else 'a connection per message'}, {rounds} rounds")
        rows = []
        ours = [rate.per_second for rate in rates["Holdfast"]]
        for name, found in rates.items():
            per_second = [rate.per_second for rate in found]
            middle, least, most = ratio(ours, per_second)
            rows.append([name, f"{statistics.median(per_second):.0f}/s", f"{statistics.median(rate.bytes_per_second for rate in found) / 1e6:.0f} MB/s",
                         f"{statistics.median(rate.cpu_us for rate in found):.0f} us", "" if name == "Holdfast" else f"{middle:.2f} ({least:.2f}-{most:.2f})",
                         f">= {wanted[name]}" if name in wanted else ""])
        table(["through", "messages", "bytes", "CPU a message", "Holdfast against it", "wanted"], rows)
        print_journal(holdfast)


def print_journal(holdfast):
    verified = holdfast.run("journal", "verify", check=False)
    if verified.returncode != 0:
        sys.exit("the journal does not verify:\n" + verified.stdout)


def case_kept(options):
    compare("10 KB", options.rounds, options.scaled(20000), 10240, 20, True, {"HAProxy": 1.0, "Postfix proxy": 3, "Postfix relay": 7})


def case_reconnect(options):
    compare("10 KB", options.rounds, options.scaled(12000), 10240, 20, False, {"HAProxy": 1.3, "Postfix proxy": 2.4, "Postfix relay": 5})


def case_large(options):
    compare("10 MB", options.rounds, options.scaled(60), 10 << 20, 20, True, {"HAProxy": 0.9}, with_postfix=False)


def case_single(options):
    compare("one session", options.rounds, options.scaled(3000), 10240, 1, True, {}, with_postfix=False)


def one_message(client, content):
    begin = time.perf_counter()
    for command in ("MAIL FROM:<a@example.net>", "RCPT TO:<b@example.org>", "DATA"):
        client.ask(command)
    client.send(content)
    client.reply()
    return time.perf_counter() - begin


def case_latency(options):
    """Straight and through in turn, one message at a time, commands not pipelined."""
    with scene() as s:
        sink = servers.sink(s)
        haproxy = servers.haproxy(s, sink.port)
        holdfast = s.holdfast(sink, yaml=LIMITS)
        content = b"Subject: x\r\n\r\n" + b"0123456789abcdef" * 4 * 160 + b"\r\n.\r\n"
        clients = {name: Client(port) for name, port in (("straight", sink.port), ("HAProxy", haproxy.port), ("Holdfast", holdfast.port))}
        for client in clients.values():
            client.ask("EHLO client.example.net")
        times = {name: [] for name in clients}
        for number in range(options.scaled(1000) + 50):
            for name, client in clients.items():
                taken = one_message(client, content)
                if number >= 50:
                    times[name].append(taken)
        sync = disk_sync_seconds(s.folder)
        median = {name: statistics.median(taken) * 1e3 for name, taken in times.items()}
        print("latency of one 10 KB message on a kept connection, four round trips, median")
        table(["through", "median", "added", "wanted"],
              [[name, f"{value:.3f} ms", f"{value - median['straight']:.3f} ms", f"<= {sync * 1e3 + 0.2:.3f} ms: one sync ({sync * 1e3:.3f}) + 0.2" if name == "Holdfast" else ""] for name, value in median.items()])


def case_idle(options):
    count = options.scaled(5000)
    with scene() as s:
        sink = servers.sink(s, "-m", str(count + 10))
        holdfast = s.holdfast(sink, yaml=LIMITS)
        before = holdfast.memory()
        clients = []
        for number in range(count):
            # Loopback has many addresses; each has its own ports.
            client = Client(holdfast.port, source=(f"127.0.1.{number % 200 + 1}", 0))
            clients.append(client)
        for client in clients:
            client.ask("EHLO idle.example.net")
        after = holdfast.memory()
        print(f"resident memory with {count} idle connections, each with its own to the primary")
        table(["", "before", "with them", "each", "wanted"], [["Holdfast", f"{before / 1024:.1f} MB", f"{after / 1024:.1f} MB", f"{(after - before) / count:.1f} KiB", "< 80 MB"]])
        for client in clients:
            client.close()


def case_full(options):
    """With 5 GB in the journal: throughput against an empty one, and the time to start after SIGKILL."""
    with scene() as s:
        sink = servers.sink(s)
        full = s.holdfast(sink, yaml=LIMITS)
        wanted_bytes = options.scaled(5 << 30)
        while full.status()["journal"]["bytes"] < wanted_bytes:
            load(full.port, 20000, 10240, 20, True)
        empty = s.holdfast(sink, yaml=LIMITS)
        rates = {full: [], empty: []}
        for number in range(options.rounds + 1):
            for one in (full, empty):
                rate = load(one.port, options.scaled(12000), 10240, 20, True)
                if number > 0:
                    rates[one].append(rate.per_second)
                time.sleep(QUIET)
        middle, least, most = ratio(rates[full], rates[empty])
        print(f"throughput with {full.status()['journal']['bytes'] / 2**30:.1f} GB in the journal, against an empty one")
        table(["", "messages", "ratio", "wanted"], [["empty", f"{statistics.median(rates[empty]):.0f}/s", "", ""],
                                                    ["full", f"{statistics.median(rates[full]):.0f}/s", f"{middle:.2f} ({least:.2f}-{most:.2f})", ">= 0.95"]])
        times = [restart_seconds(full) for _ in range(options.rounds)]
        print("time from start to accepting mail with it, after SIGKILL under load")
        table(["", "median", "worst", "wanted"], [["Holdfast", f"{statistics.median(times):.3f} s", f"{max(times):.3f} s", "< 1 s"]])


def restart_seconds(holdfast):
    def busy():
        with contextlib.suppress(Exception):
            client = Client(holdfast.port)
            client.ask("EHLO x")
            while True:
                client.send_mail(helo=None)
    feeders = [threading.Thread(target=busy) for _ in range(8)]
    for feeder in feeders:
        feeder.start()
    before = holdfast.status()["journal"]["entries"]
    wait_for(lambda: holdfast.status()["journal"]["entries"] > before + 500, what="load")
    holdfast.kill()
    for feeder in feeders:
        feeder.join()
    begin = time.monotonic()
    holdfast.start(ready=False)
    while True:
        try:
            reply = Client(holdfast.port).send_mail()
            break
        except OSError:
            time.sleep(0.005)
    if not reply.startswith("250"):
        sys.exit(f"after the restart: {reply}")
    return time.monotonic() - begin


QUICK = "failover:\n  probe_interval: 100ms\n  takeover_after: 200ms\n  release_after: 100ms\n"


def teach(holdfast, count=200):
    """Recipients that the directory knows. smtp-source sends to one of them, the drain's load to all."""
    client = Client(holdfast.port)
    client.ask("EHLO teacher")
    client.ask("MAIL FROM:<a@example.net>")
    for address in ["b@example.org", *[f"p{number}@example.org" for number in range(count)]]:
        client.ask(f"RCPT TO:<{address}>")
    client.ask("QUIT")


def case_hold(options):
    """Accepting while in hold, against passing, and against a Postfix that queues with its destination down."""
    with scene() as s:
        sink = servers.sink(s)
        passing, holding = s.holdfast(sink, yaml=LIMITS), s.holdfast(sink, yaml=LIMITS)
        teach(holding)
        holding.run("failover", "hold", "--reason", "benchmark")
        queueing = servers.postfix_relay(s, servers.free_port())
        ports = {"Holdfast passing": (passing.port, 1.0), "Postfix queueing": (queueing.port, 0.2), "Holdfast in hold": (holding.port, 1.0)}
        rates = {name: [] for name in ports}
        for number in range(options.rounds + 1):
            for name, (port, share) in ports.items():
                rate = load(port, int(options.scaled(12000) * share), 10240, 20, True)
                if number > 0:
                    rates[name].append(rate.per_second)
                time.sleep(QUIET)
        print(f"accepting while in hold: 10 KB, 20 sessions, connections kept, {options.rounds} rounds")
        wanted = {"Holdfast passing": 1.3, "Postfix queueing": 6}
        rows = []
        for name, found in rates.items():
            middle, least, most = ratio(rates["Holdfast in hold"], found)
            rows.append([name, f"{statistics.median(found):.0f}/s", f"{middle:.2f} ({least:.2f}-{most:.2f})" if name in wanted else "", f">= {wanted[name]}" if name in wanted else ""])
        table(["", "messages", "in hold against it", "wanted"], rows)
        print_journal(holding)


def case_drain(options):
    """Draining, against smtp-source that sends as many messages of the same size straight."""
    count = options.scaled(30000)
    rates = {"straight": [], "drain": [], "drain, one recipient": []}
    with scene() as s:
        sink = servers.sink(s)
        holdfast = s.holdfast(sink, yaml=LIMITS + "\n" + QUICK)
        teach(holdfast)
        content = b"Subject: x\r\n\r\n" + b"0123456789abcdef" * 4 * 160 + b"\r\n.\r\n"
        for number in range(options.rounds):
            rates["straight"].append(load(sink.port, count, 10240, 20, True).per_second)
            for name in ("drain", "drain, one recipient"):
                holdfast.run("failover", "hold", "--reason", "benchmark")
                if name == "drain":
                    fill(holdfast.port, count, content)
                else:
                    load(holdfast.port, count, 10240, 20, True)
                wait_for(lambda: holdfast.status()["routes"][0]["held"] == count, what="the fill")
                begin = time.monotonic()
                holdfast.run("failover", "auto", "--reason", "benchmark")
                while holdfast.status()["routes"][0]["held"] > 0:
                    time.sleep(0.1)  # asking costs a process
                rates[name].append(count / (time.monotonic() - begin))
        print(f"draining {count} messages of 10 KB to 200 recipients, and to one, {options.rounds} rounds")
        rows = []
        for name, found in rates.items():
            middle, least, most = ratio(found, rates["straight"])
            rows.append([name, f"{statistics.median(found):.0f}/s", f"{middle:.2f} ({least:.2f}-{most:.2f})", ">= 0.8" if name != "straight" else ""])
        table(["", "messages", "against straight", "wanted"], rows)


def fill(port, count, content):
    """Messages to 200 recipients in turn, pipelined, over one connection."""
    client = Client(port)
    client.ask("EHLO filler")
    for number in range(count):
        client.send(f"MAIL FROM:<a@example.net>\r\nRCPT TO:<p{number % 200}@example.org>\r\nDATA\r\n")
        for _ in range(3):
            client.reply()
        client.send(content)
        client.reply()


def case_long(options):
    """Accepting at the end of a long hold, against its beginning."""
    tenth = options.scaled(20000)
    with scene() as s:
        holdfast = s.holdfast(servers.sink(s), yaml=LIMITS)
        teach(holdfast)
        holdfast.run("failover", "hold", "--reason", "benchmark")
        load(holdfast.port, tenth // 4, 2048, 20, True)
        rates = [load(holdfast.port, tenth, 2048, 20, True).per_second for _ in range(10)]
        first, last = statistics.median(rates[:3]), statistics.median(rates[-3:])
        print(f"a long hold: {10 * tenth} messages of 2 KB, 20 sessions")
        table(["", "first three tenths", "last three", "ratio", "wanted"], [["accepting", f"{first:.0f}/s", f"{last:.0f}/s", f"{last / first:.2f}", ">= 0.9"]])


class Traffic:
    """Clients that send mail all the time, and what Holdfast itself acknowledged."""

    def __init__(self, port, clients):
        self.taken, self.problems, self.is_over = [], [], False
        self.threads = [threading.Thread(target=self.send, args=(port,)) for _ in range(clients)]
        for thread in self.threads:
            thread.start()

    def send(self, port):
        client, helo = Client(port), "client.example.net"
        while not self.is_over:
            reply = client.send_mail(recipient="b@example.org", helo=helo)
            helo = None
            if "queued as" in reply:
                self.taken.append(time.monotonic())
            elif not reply.startswith("250"):
                self.problems.append(reply)

    def end(self):
        self.is_over = True
        for thread in self.threads:
            thread.join()


def case_trip(options):
    """From SIGKILL of the primary to the first 250 in hold, with live traffic; and from the operator's word to the new state."""
    beyond, command, by_signal = [], [], []
    takeover_ms = 200
    with scene() as s:
        port = servers.free_port()
        sink = servers.sink(s, port=port)
        holdfast = s.holdfast(sink, yaml=LIMITS + "\n" + QUICK)
        teach(holdfast, 1)
        traffic = Traffic(holdfast.port, 20)
        for number in range(options.scaled(50)):
            traffic.taken.clear()
            sink.process.send_signal(signal.SIGKILL)
            begin = time.monotonic()
            wait_for(lambda: traffic.taken, what="the first 250")
            beyond.append((traffic.taken[0] - begin) * 1e3 - takeover_ms)
            sink.process.wait()
            sink = servers.sink(s, port=port)
            wait_for(lambda: holdfast.status()["routes"][0]["state"] == "pass", what="the drain")
        traffic.end()
        if traffic.problems:
            sys.exit(f"clients saw errors: {traffic.problems[:3]}")
        for number in range(options.scaled(50)):
            for times, act in ((command, lambda: holdfast.run("failover", "hold", "--reason", "x")), (by_signal, lambda: holdfast.signal(signal.SIGUSR1))):
                begin = time.monotonic()
                act()
                while not Client(holdfast.port).greeting.startswith("220 holdfast"):
                    pass
                times.append((time.monotonic() - begin) * 1e3)
                holdfast.run("failover", "auto", "--reason", "x")
    print("how fast the state follows")
    table(["", "median", "worst", "wanted"],
          [["SIGKILL of the primary to the first 250 in hold, 20 clients sending, beyond takeover_after", f"{statistics.median(beyond):.0f} ms", f"{max(beyond):.0f} ms", "< 100 ms"],
           ["command `failover hold` to a session in hold, the command's own start included", f"{statistics.median(command):.0f} ms", f"{max(command):.0f} ms", "< 50 ms"],
           ["SIGUSR1 to a session in hold", f"{statistics.median(by_signal):.0f} ms", f"{max(by_signal):.0f} ms", "< 50 ms"]])


def case_replay(options):
    """Replaying, against cp of the same messages as files, and against smtp-source."""
    count = options.scaled(20000)
    with scene() as s:
        sink = servers.sink(s)
        holdfast = s.holdfast(sink, yaml=LIMITS)
        load(holdfast.port, count, 10240, 20, True)
        rates = {name: [] for name in ("cp", "eml", "maildir", "smtp-source", "smtp")}
        for number in range(options.rounds):
            files = s.path(f"files{number}")
            for name in rates:
                begin = time.monotonic()
                if name == "smtp-source":
                    load(sink.port, count, 10240, 4, True)
                elif name == "smtp":
                    holdfast.run("journal", "replay", "--to", f"smtp://127.0.0.1:{sink.port}")
                elif name == "cp":
                    if number == 0:  # what is copied must be there first
                        holdfast.run("journal", "replay", "--to", "eml:" + s.path("original"))
                        begin = time.monotonic()
                    subprocess.run(["cp", "-r", s.path("original"), files], check=True)
                    os.sync()
                else:
                    holdfast.run("journal", "replay", "--to", f"{name}:{files}-{name}")
                rates[name].append(count / (time.monotonic() - begin))
        print(f"replaying {count} messages of 10 KB, synced at the end, {options.rounds} rounds; smtp with 4 connections")
        rows = []
        for name, found in rates.items():
            base = {"eml": "cp", "maildir": "cp", "smtp": "smtp-source"}.get(name)
            middle, least, most = ratio(found, rates[base or name])
            rows.append([name, f"{statistics.median(found):.0f}/s", f"{middle:.2f} ({least:.2f}-{most:.2f}) of {base}" if base else "", ">= 0.8" if base else ""])
        table(["", "messages", "ratio", "wanted"], rows)


def sha256_rate():
    """Bytes a second that OpenSSL hashes at 16 KB, on one core."""
    said = subprocess.run(["openssl", "speed", "-elapsed", "-seconds", "2", "-bytes", "16384", "sha256"], capture_output=True, text=True, check=True).stdout
    return float(said.split()[-1].rstrip("k")) * 1000


def ordinary_journal(s, sink, count):
    """A Holdfast with a sealed and compacted segment of ordinary mail, and the bytes of its content."""
    holdfast = s.holdfast(sink, yaml=LIMITS)
    mail, size = OrdinaryMail(), 0
    client = Client(holdfast.port)
    client.ask("EHLO client.example.net")
    for number in range(count):
        content = mail.message(number).encode()
        size += len(content)
        assert client.send_mail(content, "somebody@example.net", f"person{number % 200}@example.org", helo=None).startswith("250")
    client.close()
    holdfast.run("journal", "seal")
    wait_for(lambda: "compacted journal segment 1" in open(holdfast.log).read(), seconds=600, what="the segment to be compacted")
    return holdfast, size


def case_verify(options):
    """A sealed segment of ordinary mail: its size, and verifying it, against OpenSSL's SHA-256."""
    with scene() as s:
        holdfast, size = ordinary_journal(s, servers.sink(s), options.scaled(80000))
        stored = os.path.getsize(os.path.join(holdfast.journal_path, "segments", "0000000001.lmdb"))
        print(f"a sealed segment of ordinary mail, {size / options.scaled(80000) / 1000:.1f} KB a message")
        table(["", "content", "on disk", "ratio", "wanted"], [["compacted", f"{size / 1e6:.0f} MB", f"{stored / 1e6:.0f} MB", f"{stored / size:.2f}", "<= 0.6"]])
        rates = {"with the decryption key": [], "with the public key alone": []}
        for number in range(options.rounds):
            for name, found in rates.items():
                public = ["--key", os.path.join(holdfast.journal_path, "signing.pub")] if "public" in name else []
                hashing, before, begin = sha256_rate(), resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
                holdfast.run("journal", "verify", "--json", *public)
                after, elapsed = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - begin
                cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
                found.append((size / cpu, size / elapsed, stored / cpu, hashing))
        rows = []
        for name, found in rates.items():
            per_cpu, by_clock, raw = (ratio([one[i] for one in found], [one[3] for one in found])[0] for i in range(3))
            rows.append([name, f"{statistics.median(one[0] for one in found) / 1e6:.0f} MB", f"{per_cpu:.2f}", f"{by_clock:.2f}", f"{raw:.2f}", ">= 0.7"])
        print("verifying it, manifest and head included")
        table(["", "content a CPU second", "of SHA-256 at 16 KB", "by the clock", "stored bytes a CPU second", "wanted"], rows)


def case_audit(options):
    """Live throughput while verify and backup run; finding one of many entries."""
    with scene() as s:
        sink = servers.sink(s)
        holdfast = s.holdfast(sink, yaml=LIMITS)
        load(holdfast.port, options.scaled(40000), 10240, 20, True)
        holdfast.run("journal", "seal")
        rates = {name: [] for name in ("alone", "verify", "backup", "seal")}
        for number in range(options.rounds):
            for name, found in rates.items():
                command = {"verify": ["journal", "verify"], "backup": ["journal", "backup", s.path(f"backup{number}")], "seal": ["journal", "seal"]}.get(name)
                is_over = threading.Event()
                def repeat():
                    while command and not is_over.is_set():
                        holdfast.run(*command)
                        shutil.rmtree(s.path(f"backup{number}"), ignore_errors=True)
                thread = threading.Thread(target=repeat)
                thread.start()
                found.append(load(holdfast.port, options.scaled(8000), 10240, 20, True).per_second)
                is_over.set()
                thread.join()
        rows = []
        for name, found in rates.items():
            middle, least, most = ratio(found, rates["alone"])
            rows.append([f"while {name} runs over and over" if name != "alone" else name, f"{statistics.median(found):.0f}/s", f"{middle:.2f} ({least:.2f}-{most:.2f})" if name != "alone" else "", ">= 0.85" if name != "alone" else ""])
        table(["live throughput", "messages", "ratio", "wanted"], rows)
        many = s.holdfast(sink, yaml=LIMITS + "\nlog:\n  level: warning")
        teach(many)
        many.run("failover", "hold", "--reason", "benchmark")
        count = options.scaled(1000000)
        load(many.port, count, 512, 20, True)
        wait_for(lambda: many.run("journal", "list", "--newest", "--limit", "1").stdout, what="the newest")
        newest = json.loads(many.run("journal", "list", "--newest", "--limit", "1", "--json").stdout)
        rows = []
        for what, arguments in (("one by Message-ID", ["--message-id", newest["message_id"]]), ("a recipient's newest 50", ["--recipient", "b@example.org", "--newest", "--limit", "50"])):
            times = []
            for _ in range(20):
                begin = time.monotonic()
                many.run("journal", "list", *arguments)
                times.append((time.monotonic() - begin) * 1e3)
            rows.append([what, f"{statistics.median(times):.0f} ms", f"{max(times):.0f} ms", "< 20 ms"])
        print(f"finding entries among {count}, the whole command")
        table(["", "median", "worst", "wanted"], rows)


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


CASES = {"kept": case_kept, "reconnect": case_reconnect, "large": case_large, "single": case_single, "latency": case_latency, "idle": case_idle, "full": case_full,
         "hold": case_hold, "long": case_long, "drain": case_drain, "replay": case_replay, "verify": case_verify, "audit": case_audit, "trip": case_trip, "imap": case_imap, "ready": case_ready}


def main():
    parser = argparse.ArgumentParser(prog="tests/bench/run", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"some of: {', '.join(CASES)} (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured (default 5)")
    parser.add_argument("--quick", action="store_true", help="a hundredth of the load, to see that it works; the figures mean nothing")
    options = parser.parse_args()
    unknown = [name for name in options.cases if name not in CASES]
    if unknown:
        parser.error(f"no such case: {' '.join(unknown)}")
    options.scaled = lambda count: max(20, count // 100) if options.quick else count
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(f"{os.cpu_count()} cores, {time.strftime('%Y-%m-%d %H:%M')}; Holdfast as delivered: journal synced and encrypted, order: before, a log line a message\n")
    for name, case in CASES.items():
        if not options.cases or name in options.cases:
            case(options)


if __name__ == "__main__":
    main()
