"""Which recipients exist is learned from the primary's own words, and not forgotten: neither for a kill, nor for what it says to others."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from harness import *

QUICK = "failover:\n  probe_interval: 100ms\n  takeover_after: 1s\n"
HELLO, FROM = "EHLO client.example.net", "MAIL FROM:<a@example.net>"


def is_held(holdfast):
    return holdfast.status()["routes"][0]["state"] == "hold"


def answer(scene, holdfast, recipient):
    """What Holdfast says to RCPT."""
    client = scene.client(holdfast.port)
    client.ask(HELLO)
    client.ask(FROM)
    reply = client.ask(f"RCPT TO:<{recipient}>")
    client.close()
    return reply


@test("who got mail is known: also when Holdfast and the primary are killed right afterwards")
def _(scene):
    primary = scene.primary(replies={"RCPT": lambda session, line: b"550 5.1.1 no such user\r\n" if b"nobody" in line else b"250 2.1.5 Ok\r\n"})
    holdfast = scene.holdfast(primary, yaml=QUICK)
    wait_for(lambda: primary.sessions, what="the first probe")  # from then on it is known how the primary greets
    client = scene.client(holdfast.port)
    for command in (HELLO, FROM, "RCPT TO:<New@Example.org>", "RCPT TO:<nobody@example.org>", "DATA"):
        client.ask(command)
    client.send(b"Subject: the first ever\r\n\r\nx\r\n.\r\n")
    equal(client.reply()[:3], "250")
    holdfast.kill()
    primary.leave()
    holdfast.start()
    wait_for(lambda: is_held(holdfast), what="the route to be held")
    equal(answer(scene, holdfast, "new@example.org")[:3], "250")
    equal(answer(scene, holdfast, "nobody@example.org")[:9], "550 5.1.1")
    equal(answer(scene, holdfast, "stranger@example.org")[:3], "450")


@test("who got mail is known: also when the file of recipients is lost, or damaged")
def _(scene):
    primary = scene.primary()
    holdfast = scene.holdfast(primary, yaml=QUICK)
    count = 5500  # more than are learned from while a start waits
    client = scene.client(holdfast.port)
    client.ask(HELLO)
    for number in range(count):
        client.send(f"{FROM}\r\nRCPT TO:<person{number}@example.org>\r\nBDAT 14 LAST\r\nSubject: x\r\n\r\n")
        equal([client.reply()[:3] for _ in range(3)], ["250"] * 3)
    client.close()
    for harm in ("lost", "damaged"):
        holdfast.stop()
        file = os.path.join(holdfast.journal_path, "directory.lmdb")
        if harm == "lost":
            os.remove(file)
        else:
            with open(file, "r+b") as broken:
                broken.write(os.urandom(os.path.getsize(file)))
        holdfast.start()
        wait_for(lambda: len(holdfast.run("directory", "list", "--json").stdout.splitlines()) == count, what=f"all recipients, their file {harm}")
    primary.leave()
    wait_for(lambda: is_held(holdfast), what="the route to be held")
    for number in (0, count - 1):
        equal(answer(scene, holdfast, f"person{number}@example.org")[:3], "250")


@test("of a primary that takes every recipient, and refuses those whom it does not know with the message, the same is learned")
def _(scene):
    def verdict(session, _):
        envelope, _ = session.primary.messages[-1]
        return b"550 5.1.10 Recipient not found\r\n" if any(b"nobody" in line for line in envelope) else b"250 2.0.0 Ok\r\n"
    primary = scene.primary(replies={"content": verdict})
    holdfast = scene.holdfast(primary, yaml=QUICK)
    def send(*recipients):
        client = scene.client(holdfast.port)
        for command in (HELLO, FROM, *(f"RCPT TO:<{one}>" for one in recipients), "DATA"):
            client.ask(command)
        client.send(b"Subject: x\r\n\r\nx\r\n.\r\n")
        return client.reply()[:3]
    equal(send("b@example.org"), "250")
    equal(send("nobody@example.org"), "550")
    equal(send("c@example.org", "nobody2@example.org"), "550")  # about whom is not said
    wait_for(lambda: [one["outcome"] for entry in holdfast.entries() for one in entry["recipients"]] == ["forwarded", "rejected", "rejected", "rejected"], what="the outcomes")
    def check():
        wait_for(lambda: is_held(holdfast), what="the route to be held")
        equal([answer(scene, holdfast, one + "@example.org")[:3] for one in ("b", "nobody", "c", "nobody2", "stranger")], ["250", "550", "250", "250", "450"])
    primary.leave()
    check()
    holdfast.stop()
    os.remove(os.path.join(holdfast.journal_path, "directory.lmdb"))
    holdfast.start()
    check()


@test("what the primary says to held mail teaches too")
def _(scene):
    port = free_port()
    refuse = {"RCPT": lambda session, line: b"550 5.1.1 no such user\r\n" if b"nobody" in line else b"250 2.1.5 Ok\r\n"}
    holdfast = scene.holdfast(port, yaml=QUICK + "  release_after: 200ms\n", route="unknown_recipients: accept")
    wait_for(lambda: is_held(holdfast), what="the route to be held")
    for one in ("nobody", "newcomer"):
        client = scene.client(holdfast.port)
        equal(client.send_mail(recipient=one + "@example.org")[:3], "250")
    primary = scene.primary(port=port, replies=refuse)
    outcomes = lambda: [one["outcome"] for entry in holdfast.entries() for one in entry["recipients"]]
    wait_for(lambda: "delivered" in outcomes() and len(primary.lines()) > 0 and any(b"nobody" in line for line in primary.lines()), what="held mail to be sent")
    primary.leave()
    wait_for(lambda: is_held(holdfast), what="the route to be held again")
    equal([answer(scene, holdfast, one + "@example.org")[:3] for one in ("nobody", "newcomer")], ["550", "250"])


@test("unknown_recipients: accept is about the domains that are served, and no others: who holds mail is no open relay")
def _(scene):
    holdfast = scene.holdfast(free_port(), yaml=QUICK, route="unknown_recipients: accept")
    with open(holdfast.config) as file:
        config = file.read()
    with open(holdfast.config, "w") as file:
        file.write(config.replace('domains: ["*"]', "domains: [example.org]"))
    holdfast.signal(signal.SIGHUP)
    wait_for(lambda: is_held(holdfast) and holdfast.logged("reload"), what="the route to be held")
    equal([answer(scene, holdfast, one)[:3] for one in ("stranger@Example.org", "postmaster", "stranger@example.com")], ["250", "250", "450"])


@test("a domain with other letters than DNS has is one domain in both spellings: for its route, and for who is known")
def _(scene):
    world, ours = scene.primary(), scene.primary()
    holdfast = scene.holdfast(world, yaml=QUICK, routes=f'- name: umlaut\n  domains: ["M\u00fcller.example"]\n  upstreams: ["127.0.0.1:{ours.port}"]')
    # Ada's is learned in one spelling, Bob's in the other.
    ada, bob = ("ada@xn--mller-kva.example", "ada@m\u00fcller.example"), ("bob@m\u00fcller.example", "bob@xn--mller-kva.example")

    def recipient(address):
        client = scene.client(holdfast.port)
        client.ask(HELLO)
        client.ask(FROM + " SMTPUTF8")
        return client.ask(f"RCPT TO:<{address}>")
    for learned, _ in (ada, bob):
        equal(recipient(learned), "250 2.1.5 Ok")
    equal([line for line in ours.lines() if line.startswith(b"RCPT")], [f"RCPT TO:<{learned}>".encode() for learned, _ in (ada, bob)])
    assert not any(line.startswith(b"RCPT") for line in world.lines())
    holdfast.run("failover", "hold", "--reason", "test")
    for _, other in (ada, bob):
        equal(recipient(other), "250 2.1.5 Ok")
    equal(recipient("ada@muller.example")[:3], "450")


@test("what the primary says about a client makes nobody unknown who is known")
def _(scene):
    words = {"b": b"250 Ok\r\n"}
    primary = scene.primary(replies={"RCPT": lambda session, line: words["b"]})
    holdfast = scene.holdfast(primary, yaml=QUICK)
    equal(answer(scene, holdfast, "b@example.org"), "250 Ok")
    words["b"] = b"550 192.0.2.1 is on a black list\r\n"
    equal(answer(scene, holdfast, "b@example.org"), "550 192.0.2.1 is on a black list")
    words["b"] = b"550 5.1.1 no such user\r\n"
    equal(answer(scene, holdfast, "gone@example.org"), "550 5.1.1 no such user")
    primary.leave()
    wait_for(lambda: is_held(holdfast), what="the route to be held")
    equal(answer(scene, holdfast, "b@example.org")[:3], "250")
    equal(answer(scene, holdfast, "gone@example.org")[:3], "550")


@test("that somebody who has logged in may send somewhere does not mean that the recipient is one of ours")
def _(scene):
    primary = scene.primary(replies={"EHLO": ScriptedPrimary.EHLO.replace(b"250 CHUNKING", b"250-AUTH PLAIN\r\n250 CHUNKING")})
    submission = free_port()
    holdfast = scene.holdfast(primary, yaml=QUICK, listeners=f"- address: 127.0.0.1:{submission}\n  role: submission")
    client = scene.client(submission)
    client.ask("EHLO laptop.example.org")
    equal(client.ask("AUTH PLAIN AGFkYQBzZWNyZXQ=")[:3], "235")
    client.ask(FROM)
    equal(client.ask("RCPT TO:<customer@example.com>")[:3], "250")
    equal(answer(scene, holdfast, "colleague@example.org")[:3], "250")
    known = lambda: {json.loads(line)["address"] for line in holdfast.run("directory", "list", "--json").stdout.splitlines()}
    wait_for(lambda: "colleague@example.org" in known(), what="the colleague to be known")
    equal(known(), {"colleague@example.org"})


@test("what was learned is believed for positive_ttl and negative_ttl; sub_address_separator says what a tag is")
def _(scene):
    primary = scene.primary(replies={"RCPT": lambda session, line: b"550 5.1.1 User unknown\r\n" if b"nobody" in line else b"250 2.1.5 Ok\r\n"})
    holdfast = scene.holdfast(primary, yaml='directory:\n  positive_ttl: 5s\n  negative_ttl: 5s\n  sub_address_separator: "-"\n')
    def answers(client, *people):
        client.ask("EHLO client.example.net")
        client.ask("MAIL FROM:<a@example.net>")
        return [client.ask(f"RCPT TO:<{person}@example.org>")[:3] for person in people]
    equal(answers(scene.client(holdfast.port), "ada", "nobody"), ["250", "550"])
    holdfast.run("failover", "hold", "--reason", "test")
    equal(answers(scene.client(holdfast.port), "ada", "ada-news", "ada+news", "nobody", "nobody-x"), ["250", "250", "450", "550", "550"])
    wait_for(lambda: answers(scene.client(holdfast.port), "ada", "nobody") == ["450", "450"], what="both to be forgotten")


main()
