"""How the benchmarks measure: a load by smtp-source, the machine's busy time while it lasts, and numbers made readable."""
import os
import statistics
import subprocess
import time


def busy_seconds():
    """Processor time that the whole machine has spent since it started, without idling and waiting for disks."""
    with open("/proc/stat") as file:
        user, nice, system, _, _, irq, softirq, steal = [int(word) for word in file.readline().split()[1:9]]
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


class Rate:
    def __init__(self, messages, seconds, cpu_seconds, size):
        self.per_second = messages / seconds
        self.cpu_us = cpu_seconds / messages * 1e6
        self.bytes_per_second = self.per_second * size


def load(port, messages, size, sessions, keeps, until=lambda: True):
    """Sends so many messages of so many bytes with smtp-source, and waits until until() holds."""
    command = ["smtp-source", "-s", str(sessions), "-m", str(messages), "-l", str(size), "-f", "a@example.net", "-t", "b@example.org"]
    if keeps:
        command.append("-d")
    cpu, begin = busy_seconds(), time.monotonic()
    subprocess.run([*command, f"127.0.0.1:{port}"], check=True)
    while not until():
        time.sleep(0.01)
    return Rate(messages, time.monotonic() - begin, busy_seconds() - cpu, size)


def ratio(ours, theirs):
    """The median of the rounds' ratios; and their spread, since machines are noisy."""
    ratios = sorted(a / b for a, b in zip(ours, theirs))
    return statistics.median(ratios), ratios[0], ratios[-1]


def table(heads, rows):
    widths = [max(len(str(row[i])) for row in [heads, *rows]) for i in range(len(heads))]
    for row in [heads, *rows]:
        print("  " + "  ".join(str(cell).ljust(width) if i == 0 else str(cell).rjust(width) for i, (cell, width) in enumerate(zip(row, widths))))
    print(flush=True)


def disk_sync_seconds(folder, size=12288, rounds=300):
    """The median time of one append and fdatasync."""
    times = []
    path = os.path.join(folder, "sync-probe")
    file = os.open(path, os.O_WRONLY | os.O_CREAT)
    data = b"x" * size
    for _ in range(rounds):
        begin = time.perf_counter()
        os.write(file, data)
        os.fdatasync(file)
        times.append(time.perf_counter() - begin)
    os.close(file)
    os.unlink(path)
    return statistics.median(times)
