"""Holding and draining: how fast, in how much memory, and how long a client waits when the primary dies."""
import signal
import statistics
import sys
import threading
import time

import servers
from harness import Client, wait_for
from measure import load, ratio, table
from scene import LIMITS, QUIET, print_journal, scene, teach

QUICK = "failover:\n  probe_interval: 100ms\n  takeover_after: 200ms\n  release_after: 100ms\n"


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
