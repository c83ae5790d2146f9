"""A long hold: 200,000 messages are held and drained; memory stays flat, and each recipient gets its mail in order."""
import multiprocessing
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from harness import *

MESSAGES, RECIPIENTS, SENDERS = 200_000, 60, 4
YAML = "failover:\n  probe_interval: 100ms\n  takeover_after: 1s\n  release_after: 100ms\nlog:\n  level: warning\nlimits:\n  commands: 1000000"


def send(port, first, count):
    """Numbered messages to every fourth recipient in turn, each envelope in one batch."""
    client = Client(port)
    client.ask("EHLO sender.example.net")
    for number in range(count):
        recipient = first + SENDERS * (number % (RECIPIENTS // SENDERS))
        client.send(f"MAIL FROM:<a@example.net>\r\nRCPT TO:<p{recipient}@example.org>\r\nDATA\r\n")
        for _ in range(3):
            client.reply()
        client.send(f"Subject: {number}\r\n\r\n" + "x" * 60 + "\r\n.\r\n")
        reply = client.reply()
        assert reply.startswith("250"), reply
    client.ask("QUIT")


def send_all(port, begin, end):
    senders = [multiprocessing.Process(target=send, args=(port, first, (end - begin) // SENDERS)) for first in range(SENDERS)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
        equal(sender.exitcode, 0, "a sender")


def primary(scene, dump):
    """smtp-sink, which appends all that it gets to one file, in the order in which it gets it."""
    port = free_port()
    process = subprocess.Popen(["smtp-sink", "-u", "postfix", "-D", dump, f"127.0.0.1:{port}", "1000"])
    scene.stack.callback(process.wait)
    scene.stack.callback(process.terminate)
    wait_for(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0, what="smtp-sink")
    return port


def operators_reach_what_waits_on_disk(holdfast):
    """The queue keeps the oldest entries in memory; commands know the others as well. Returns those that were ended."""
    listed = [json.loads(line)["id"] for line in holdfast.run("queue", "list", "--json", "--limit", "50000").stdout.splitlines()]
    other, newest = listed[-2:]
    equal(len(listed), 50_000)
    equal(listed, sorted(set(listed)))
    every_id = [entry["id"] for entry in holdfast.entries("--outcome", "held")]
    equal(listed, sorted(every_id)[:50_000])
    last = max(every_id)
    equal(holdfast.run("queue", "retry", str(newest)).stdout, "0 entries are tried again\n", "it waits for its turn")
    equal(holdfast.run("queue", "retry", "7777777", check=False).returncode, 66)
    for entry in (newest, last):
        holdfast.run("queue", "drop", str(entry), "--reason", "test")
    assert holdfast.run("queue", "drop", str(newest), "--reason", "again", check=False).returncode != 0
    holdfast.run("journal", "erase", "--id", str(other), "--including-held", "--reason", "test")
    equal(holdfast.status()["routes"][0]["held"], MESSAGES - 3)
    equal([entry["recipients"][0]["outcome"] for entry in holdfast.entries("--outcome", "dropped")], ["dropped"] * 2)
    return newest, other, last


@test(f"{MESSAGES} messages are held and drained: memory stays flat, nothing is missing or doubled, and each recipient's order is kept")
def _(scene):
    os.makedirs(scene.path("dump"))
    os.chmod(scene.path("dump"), 0o777)
    dump = scene.path("dump/all")
    holdfast = scene.holdfast(primary(scene, dump), yaml=YAML)
    teacher = scene.client(holdfast.port)
    teacher.ask("EHLO teacher")
    teacher.ask("MAIL FROM:<a@example.net>")
    for number in range(RECIPIENTS):
        assert teacher.ask(f"RCPT TO:<p{number}@example.org>").startswith("250")
    teacher.ask("QUIT")
    holdfast.run("failover", "hold", "--reason", "test")
    memory = []
    for tenth in range(10):
        begin = time.monotonic()
        send_all(holdfast.port, tenth * MESSAGES // 10, (tenth + 1) * MESSAGES // 10)
        memory.append(holdfast.memory("RssAnon"))
        print(f"  {(tenth + 1) * MESSAGES // 10} held, {MESSAGES / 10 / (time.monotonic() - begin):.0f} accepted a second, {memory[-1]} KiB", flush=True)
    held = holdfast.status()["routes"][0]["held"]
    equal(held, MESSAGES)
    ends = operators_reach_what_waits_on_disk(holdfast)
    held -= len(ends)
    before = holdfast.memory("RssAnon")  # the erasure rewrote a segment
    assert max(memory) < memory[1] + 8 * 1024, f"memory grew: {memory}"
    begin = time.monotonic()
    holdfast.run("failover", "auto", "--reason", "test")
    while holdfast.status()["routes"][0]["held"] > 0:
        memory.append(holdfast.memory("RssAnon"))
        time.sleep(0.2)
    wait_for(lambda: holdfast.status()["routes"][0]["state"] == "pass", what="pass, though the last that was held never came to the queue")
    print(f"  drained, {held / (time.monotonic() - begin):.0f} a second, at most {max(memory)} KiB", flush=True)
    assert max(memory) < before + 24 * 1024, f"memory grew: {memory}"
    with open(dump, encoding="latin-1") as file:
        found = re.findall(r"^X-Rcpt-Args: <p(\d+)@.*?^Subject: (\d+)$", file.read(), re.MULTILINE | re.DOTALL)
    equal(len(found), held, "each message once")
    order = {}
    for recipient, number in found:
        order.setdefault(recipient, []).append(int(number))
    equal(len(order), RECIPIENTS)
    # Each tenth counts anew.
    for recipient, numbers in order.items():
        falls = sum(after < before for before, after in zip(numbers, numbers[1:]))
        equal(falls, 9, f"p{recipient} got its mail in order")
    assert "all is well" in holdfast.run("journal", "verify").stdout


def crowd(port, count):
    client = Client(port)
    client.ask("EHLO sender.example.net")
    for _ in range(count):
        client.send("MAIL FROM:<a@example.net>\r\nRCPT TO:<full@example.org>\r\nDATA\r\nSubject: x\r\n\r\n.\r\n")
        for code in ("250", "250", "354", "250"):
            assert client.reply().startswith(code)


@test("however much waits for a recipient whose mailbox is full, it holds back nobody else")
def _(scene):
    primary = scene.primary(replies={"RCPT": lambda session, line: b"452 4.2.2 Full\r\n" if b"<full@" in line and is_full else b"250 2.1.5 Ok\r\n"})
    is_full = False
    holdfast = scene.holdfast(primary, yaml=YAML)
    for recipient in ("full", "other"):
        scene.client(holdfast.port).send_mail(recipient=f"{recipient}@example.org")
    holdfast.run("failover", "hold", "--reason", "test")
    senders = [multiprocessing.Process(target=crowd, args=(holdfast.port, 6_000)) for _ in range(SENDERS)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    client = scene.client(holdfast.port)
    for _ in range(100):
        assert client.send_mail(recipient="other@example.org").startswith("250")
    equal(holdfast.status()["routes"][0]["held"], 24_100)
    is_full = True
    holdfast.run("failover", "auto", "--reason", "test")
    wait_for(lambda: len(primary.messages) == 102, what="what is for the other")
    equal(holdfast.status()["routes"][0]["held"], 24_000)


main()
