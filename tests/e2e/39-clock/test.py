"""The machine's clock is years ahead for a while: nothing is lost that cannot be brought back. The machine is stopped for a while: nobody is blamed."""
import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from harness import *
from clock import Clock

QUICK = "failover:\n  probe_interval: 100ms\n  takeover_after: 1s\n"


def is_held(holdfast):
    return holdfast.status()["routes"][0]["state"] == "hold"


def clock_of(scene, holdfast):
    """From its next start on."""
    clock = Clock(scene)
    holdfast.before = clock.before
    return clock


def is_ahead_for_a_while(clock, holdfast):
    clock.says("+4000d")
    before = holdfast.status()["uptime_s"]
    wait_for(lambda: holdfast.status()["uptime_s"] >= before + 3, what="some time to pass")
    clock.says("+0")


@test("who is known is not forgotten")
def _(scene):
    primary = scene.primary()
    holdfast = scene.holdfast(primary, yaml=QUICK)
    assert scene.client(holdfast.port).send_mail().startswith("250")
    holdfast.stop()
    clock = clock_of(scene, holdfast)
    clock.says("+4000d")  # from the start on
    holdfast.start()
    is_ahead_for_a_while(clock, holdfast)
    primary.leave()
    wait_for(lambda: is_held(holdfast), what="the route to be held")
    assert scene.client(holdfast.port).send_mail().startswith("250")
    client = scene.client(holdfast.port)
    for command in ("EHLO client.example.net", "MAIL FROM:<a@example.net>"):
        client.ask(command)
    equal(client.ask("RCPT TO:<stranger@example.org>")[:3], "450")


@test("held mail does not expire")
def _(scene):
    primary = scene.primary()
    holdfast = scene.holdfast(primary, yaml=QUICK + "  max_hold: 5d\n  release_after: 200ms\n")
    assert scene.client(holdfast.port).send_mail().startswith("250")
    holdfast.stop()
    clock = clock_of(scene, holdfast)
    holdfast.start()
    primary.leave()
    wait_for(lambda: is_held(holdfast), what="the route to be held")
    assert scene.client(holdfast.port).send_mail("Subject: held\r\n\r\nx\r\n").startswith("250")
    is_ahead_for_a_while(clock, holdfast)
    equal(holdfast.status()["routes"][0]["held"], 1)
    back = scene.primary(port=primary.port)
    wait_for(lambda: back.messages, what="what was held")
    wait_for(lambda: holdfast.entries()[-1]["recipients"][0]["outcome"] == "delivered", what="its outcome")


@test("journal.retention takes nothing away")
def _(scene):
    holdfast = scene.holdfast(scene.primary(), journal="retention: 365d")
    for _ in range(3):
        assert scene.client(holdfast.port).send_mail().startswith("250")
        holdfast.run("journal", "seal")
    holdfast.stop()
    clock = clock_of(scene, holdfast)
    clock.says("+4000d")  # from the start on
    holdfast.start()
    is_ahead_for_a_while(clock, holdfast)
    equal(len(holdfast.entries()), 3)


def later(reply):
    return lambda session, line: time.sleep(0.1) or reply


@test("a machine that is stopped for seconds, as for a snapshot, blames no primary for it: all mail passes, or flows on, once")
def _(scene):
    primary = scene.primary(replies={verb: later(reply) for verb, reply in (("greeting", b"220 primary.example.org ESMTP\r\n"), ("RCPT", b"250 2.1.5 Ok\r\n"), ("content", b"250 2.0.0 Ok: taken\r\n"))})
    holdfast = scene.holdfast(primary, yaml=QUICK + "  release_after: 200ms\n")
    replies, is_enough = [], threading.Event()

    def send_on():
        while not is_enough.is_set():
            client = scene.client(holdfast.port)
            replies.append(client.send_mail())
            client.close()

    def stop_for_a_while():
        time.sleep(random.uniform(0.2, 0.5))  # in the middle of something
        holdfast.signal(signal.SIGSTOP)
        time.sleep(2)
        holdfast.signal(signal.SIGCONT)

    senders = [threading.Thread(target=send_on) for _ in range(40)]
    for sender in senders:
        sender.start()
    for _ in range(4):
        stop_for_a_while()
    is_enough.set()
    for sender in senders:
        sender.join()
    equal(set(replies), {"250 2.0.0 Ok: taken"})
    equal(len(primary.messages), len(replies))
    holdfast.run("failover", "hold", "--reason", "test")
    for number in range(60):
        assert scene.client(holdfast.port).send_mail(f"Subject: {number}\r\n\r\nx\r\n").startswith("250")
    holdfast.run("failover", "auto", "--reason", "test")
    wait_for(lambda: len(primary.messages) > len(replies), what="the drain")
    stop_for_a_while()
    wait_for(lambda: holdfast.status()["routes"][0]["held"] == 0, what="all to be delivered")
    equal(len(primary.messages), len(replies) + 60)
    assert not holdfast.logged("problem=\"it ") and not holdfast.logged("by=breaker"), open(holdfast.log).read()[-3000:]


main()
