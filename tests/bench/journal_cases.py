"""The auditors' side: replaying, verifying, and what both cost the mail."""
import json
import os
import resource
import shutil
import statistics
import subprocess
import threading
import time

import servers
from harness import Client, wait_for
from measure import load, ratio, table
from ordinary_mail import OrdinaryMail
from scene import LIMITS, QUIET, scene, teach


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
        searches = (("one by Message-ID", ["--message-id", newest["message_id"]]), ("a recipient's newest 50", ["--recipient", "b@example.org", "--newest", "--limit", "50"]))
        rows = []
        # The catalog is a second behind the log: until then what is newer is read from the log itself.
        for moment in ("as the last mail comes", "at rest"):
            for what, arguments in searches:
                times = []
                for _ in range(20):
                    begin = time.monotonic()
                    many.run("journal", "list", *arguments)
                    times.append((time.monotonic() - begin) * 1e3)
                rows.append([f"{what}, {moment}", f"{statistics.median(times):.0f} ms", f"{max(times):.0f} ms", "< 20 ms"])
            time.sleep(QUIET)
        print(f"finding entries among {count}, the whole command")
        table(["", "median", "worst", "wanted"], rows)
