"""The relay beside what else could stand in its place: throughput, latency, memory, a full journal."""
import contextlib
import statistics
import sys
import threading
import time

import servers
from harness import Client, wait_for
from measure import disk_sync_seconds, load, ratio, table
from scene import LIMITS, QUIET, print_journal, scene


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
