"""A primary that comes back half restored refuses everybody for good. It means nobody by that, and nothing irreversible is done for it."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from harness import *

COUNT = 30
DENIED = b"554 5.7.1 <b@example.org>: Relay access denied\r\n"
TAKEN = b"250 2.1.5 Ok\r\n"
# In this time nothing is tried again by itself.
SLOW = "failover:\n  probe_interval: 100ms\n  takeover_after: 1s\n  release_after: 300ms\n  retry_min: {retry}\n  retry_max: {retry}\n"
VERIFIED = "Authentication-Results: gw.example.org; spf=pass smtp.mailfrom=a@example.net\r\nSubject: {number}\r\n\r\nx\r\n"


class World:
    """A Holdfast that knows p0 to p29, and holds a message for each; the primary says to RCPT what self.says gives."""

    def __init__(self, scene, retry="200ms"):
        self.scene, self.port, self.says = scene, free_port(), lambda line: TAKEN
        self.open(scene)
        self.outside = scene.primary()
        people = scene.path("people")
        with open(people, "w") as file:
            file.writelines(f"p{number}@example.org\n" for number in range(COUNT))
        self.holdfast = scene.holdfast(self.primary, yaml=SLOW.format(retry=retry) + f"directory:\n  file: {people}\n"
                                       f"egress:\n  upstreams: [\"127.0.0.1:{self.outside.port}\"]\n  spf_gateway: gw.example.org\n")
        wait_for(lambda: b"RSET" in self.primary.lines(), what="a whole probe")

    def open(self, scene):
        self.primary = scene.primary(port=self.port, replies={"RCPT": lambda session, line: self.says(line)})

    def hold(self):
        self.holdfast.run("failover", "hold", "--reason", "test")
        client = self.scene.client(self.holdfast.port)
        for number in range(COUNT):
            equal(client.send_mail(VERIFIED.format(number=number), recipient=f"p{number}@example.org")[:3], "250")
        client.ask("QUIT")

    def release(self):
        self.holdfast.run("failover", "auto", "--reason", "test")

    def route(self):
        return self.holdfast.status()["routes"][0]

    def said(self):
        """What the primary said last of each that is held."""
        listed = self.holdfast.run("queue", "list", "--json").stdout.splitlines()
        return [one["reply"] for entry in map(json.loads, listed) for one in entry["recipients"]]

    def arrived(self):
        return sorted(int(content.split(b"Subject: ")[1].split(b"\r")[0]) for _, content in self.primary.messages)


@test("it refuses all held mail: it is held on, nothing is bounced, status says why, and all arrives when it is itself again")
def _(scene):
    world = World(scene, retry="1h")
    equal(scene.client(world.holdfast.port).send_mail(recipient="p0@example.org")[:3], "250")  # what it took before tells nothing
    world.primary.messages.clear()
    world.hold()
    world.says = lambda line: DENIED
    world.release()
    wait_for(lambda: all(reply.startswith("554 5.7.1") for reply in world.said()), what="a refusal of each")
    wait_for(lambda: world.route()["state"] == "hold", what="a hold")
    equal((world.route()["by"], world.route()["held"], world.route()["kept_for_operator"], world.route()["doubted"]), ("breaker", COUNT, 0, COUNT))
    assert "554 5.7.1" in world.route()["reason"]
    assert "30 REFUSED, NOT BELIEVED" in world.holdfast.run("status").stdout
    world.says = lambda line: TAKEN
    wait_for(lambda: world.route()["held"] == 0, what="the end of the drain")
    equal(world.arrived(), list(range(COUNT)))
    equal((world.route()["state"], world.route()["doubted"]), ("pass", 0))
    equal(world.outside.messages, [])
    equal(world.holdfast.logged("problem=\"it refuses one held message after the other") and world.holdfast.logged("it takes mail again"), True)


@test("what it refused is tried again as soon as it takes anything, and a refusal is believed then")
def _(scene):
    world = World(scene, retry="1h")
    world.hold()
    first = threading.Event()

    def says(line):
        if b"<p3@" in line:
            first.set()
            return b"550 5.1.1 nobody here\r\n"
        first.wait(10)
        return TAKEN
    world.says = says
    world.release()
    wait_for(lambda: world.route()["held"] == 0, what="the end of the drain")
    equal(world.arrived(), [number for number in range(COUNT) if number != 3])
    wait_for(lambda: world.outside.messages, what="the notification")
    equal(len(world.outside.messages), 1)


@test("live mail that it takes shows the same")
def _(scene):
    world = World(scene, retry="1h")
    world.hold()
    world.says = lambda line: DENIED
    world.holdfast.run("failover", "pass", "--reason", "an operator holds no more")
    wait_for(lambda: all(reply.startswith("554 5.7.1") for reply in world.said()), what="a refusal of each")
    world.says = lambda line: TAKEN
    equal(scene.client(world.holdfast.port).send_mail(recipient="p0@example.org")[:3], "250")
    wait_for(lambda: world.route()["held"] == 0, what="the end of the drain")
    equal(len(world.primary.messages), COUNT + 1)


@test("it takes some, and then refuses twenty in a row: the twenty are believed, and no more")
def _(scene):
    world = World(scene, retry="1h")
    world.hold()

    def says(line):
        if b"<p0@" in line:
            return TAKEN
        wait_for(lambda: world.primary.messages, what="the first message")
        return DENIED
    world.says = says
    world.release()
    wait_for(lambda: world.route()["held"] == world.route()["doubted"] == COUNT - 21, what="a refusal of each")
    wait_for(lambda: len(world.outside.messages) == 20, what="the notifications")
    equal(world.route()["state"], "drain")


@test("an operator who knows better has every refusal believed")
def _(scene):
    world = World(scene, retry="1h")
    world.hold()
    world.says = lambda line: DENIED
    world.release()
    wait_for(lambda: world.route()["doubted"] == COUNT, what="a refusal of each")  # it is tried anew, and again
    world.holdfast.yaml = world.holdfast.yaml.replace("failover:\n", "failover:\n  doubt_after: 0\n")
    world.holdfast.write_config()
    world.holdfast.signal(signal.SIGHUP)
    wait_for(lambda: world.holdfast.logged("routes changed"), what="the new configuration")
    world.holdfast.run("queue", "retry", "--all")
    wait_for(lambda: world.route()["held"] == 0, what="the end of the drain")
    wait_for(lambda: len(world.outside.messages) == COUNT, what="the notifications")


@test("it knows none of its people any more: they are not forgotten, and get mail in a hold")
def _(scene):
    primary = scene.primary(replies={"RCPT": lambda session, line: TAKEN if says_yes or b"new@" in line else b"550 5.1.1 User unknown\r\n"})
    holdfast = scene.holdfast(primary, yaml="failover:\n  probe_interval: 1h\n")
    client = scene.client(holdfast.port)
    client.ask("EHLO client.example.net")

    def ask(person):
        client.ask("MAIL FROM:<a@example.net>")
        reply = client.ask(f"RCPT TO:<{person}@example.org>")
        client.ask("RSET")
        return reply[:9]
    people = [f"p{number}" for number in range(8)]
    says_yes = True
    equal({ask(person) for person in people}, {"250 2.1.5"})
    says_yes = False
    equal({ask(person) for person in people}, {"550 5.1.1"})
    wait_for(lambda: holdfast.logged("people who were known"), what="a word about it")
    holdfast.run("failover", "hold", "--reason", "it is not itself")
    equal({ask(person) for person in people}, {"250 2.1.5"})
    holdfast.run("failover", "auto", "--reason", "it is itself")
    equal(ask("new"), "250 2.1.5")
    equal(ask("p1"), "550 5.1.1")
    holdfast.run("failover", "hold", "--reason", "test")
    equal([ask("p1"), ask("p2")], ["550 5.1.1", "250 2.1.5"])


main()
