"""Durable before 250: Holdfast is killed at random moments under load; what was acknowledged is in the journal, each time."""
import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from harness import *
from load import Load, check_acknowledged

KILLS = int(os.environ.get("HOLDFAST_KILLS", "50"))
CLIENTS = 8


@test(f"{KILLS} times killed with SIGKILL under load: every message that got 250 is in the journal, whole and as forwarded, and the journal verifies")
def _(scene):
    noise = random.Random(int(os.environ.get("HOLDFAST_SEED", "7")))
    primary = scene.primary()
    holdfast = scene.holdfast(primary, journal="segment_size: 16MiB")
    acknowledged = {}
    for kill in range(KILLS):
        goal = len(acknowledged) + noise.randrange(1, 60)
        clients = [Load(holdfast.port, f"{kill}.{number}", noise.getrandbits(32), acknowledged) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        wait_for(lambda: len(acknowledged) >= goal, what="messages")
        holdfast.kill()
        for client in clients:
            client.join(20)
        check_acknowledged(holdfast, acknowledged, f"kill {kill}")
        verified = holdfast.run("journal", "verify", check=False)
        equal(verified.returncode, 0, f"kill {kill}: {verified.stdout}{verified.stderr}")
        holdfast.start()
        primary.messages.clear()
    assert len(acknowledged) >= KILLS
    print(f"{len(acknowledged)} messages were acknowledged over {KILLS} kills")
    # What had no outcome when Holdfast died says so; what was acknowledged had one.
    wait_for(lambda: not [one for one in holdfast.entries() if one["recipients"][0]["outcome"] == "pending"], what="outcomes")
    equal({one["recipients"][0]["outcome"] for one in holdfast.entries() if one["message_id"] in acknowledged}, {"forwarded"})


@test("after SIGKILL with a journal of many entries, Holdfast takes mail again at once")
def _(scene):
    primary = scene.primary()
    holdfast = scene.holdfast(primary)
    acknowledged = {}
    clients = [Load(holdfast.port, number, number, acknowledged) for number in range(4)]
    for client in clients:
        client.start()
    wait_for(lambda: len(acknowledged) > 500, seconds=60, what="500 messages")
    holdfast.kill()
    for client in clients:
        client.join(20)
    holdfast.start()
    equal(scene.client(holdfast.port).send_mail(), "250 2.0.0 Ok: taken")
    assert holdfast.status()["journal"]["entries"] >= len(acknowledged) + 1
    equal(len(holdfast.entries()), holdfast.status()["journal"]["entries"])


main()
