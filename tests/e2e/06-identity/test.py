"""Who the client is: PROXY headers from balancers, and XCLIENT or PROXY toward the primary."""
import os
import smtplib
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from harness import *
from name_server import A, PTR, SERVFAIL, NameServer, reverse, wire

V2 = b"\r\n\r\n\0\r\nQUIT\n"


def v2(source, destination, source_port, destination_port):
    body = socket.inet_aton(source) + socket.inet_aton(destination) + struct.pack("!HH", source_port, destination_port)
    return V2 + b"\x21\x11" + struct.pack("!H", len(body)) + body


@test("PROXY headers of both versions from a trusted balancer name the client, however they are cut")
def _(scene):
    primary = scene.primary()
    holdfast = scene.holdfast(primary, listener='proxy_protocol_from: ["127.0.0.0/8"]')
    for header, client_name in ((b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 25\r\n", "192.0.2.7:40000"), (v2("192.0.2.8", "192.0.2.1", 40001, 25), "192.0.2.8:40001"),
                                (b"PROXY TCP6 2001:db8::7 2001:db8::1 40002 25\r\n", "[2001:db8::7]:40002")):
        for cut in (0, 5, 14):
            client = scene.client(holdfast.port, greeting=False)
            client.send(header[:cut])
            client.send(header[cut:])
            client.reply()
            equal(client.send_mail(), "250 2.0.0 Ok: taken")
            equal(holdfast.entries()[-1]["client"], client_name)
    client = scene.client(holdfast.port, greeting=False)
    client.send(b"PROXY UNKNOWN\r\n")
    client.reply()
    equal(client.send_mail(), "250 2.0.0 Ok: taken")
    assert holdfast.entries()[-1]["client"].startswith("127.0.0.1:")


@test("an IPv6 network of /64 counts as one client, as an IPv4 address does")
def _(scene):
    holdfast = scene.holdfast(scene.primary(), listener='proxy_protocol_from: ["127.0.0.0/8"]', yaml="limits:\n  per_client: 2\n")

    def greeting(address):
        client = scene.client(holdfast.port, greeting=False)
        client.send(f"PROXY TCP6 {address} 2001:db8::25 40002 25\r\n")
        return client.reply()
    equal([greeting(address) for address in ("2001:db8::1", "2001:db8::a:b:c:d", "2001:db8::2", "2001:db8:0:1::1")],
          ["220 primary.example.org ESMTP"] * 2 + ["421 4.7.0 holdfast.example.org Error: too many connections from 2001:db8::2", "220 primary.example.org ESMTP"])


@test("clients and primary over IPv6: the listener, the way to the primary, XCLIENT, and IPv4 clients of a listener on both")
def _(scene):
    postfix = scene.postfix("smtpd_authorized_xclient_hosts = [::1] 127.0.0.1", "inet_protocols = all", "inet_interfaces = ::1, 127.0.0.1", "mynetworks = [::1]/128 127.0.0.0/8")
    both = free_port()
    holdfast = scene.holdfast(postfix, upstreams=[f"[::1]:{postfix.port}"], route="identity: xclient", listeners=f'- address: "[::]:{both}"')
    for host, name in (("::1", "[::1]:"), ("127.0.0.1", "127.0.0.1:")):
        with smtplib.SMTP(host, both, timeout=20) as client:
            client.sendmail("a@example.net", ["postmaster@example.org"], f"Subject: from {host}\r\n\r\nx\r\n")
        assert holdfast.entries()[-1]["client"].startswith(name), holdfast.entries()[-1]
    wait_for(lambda: len(postfix.mails()) == 2, what="both mails")
    [first, second] = sorted(postfix.mails(), key=lambda mail: b"from 127" in mail)
    assert b"[IPv6:::1]" in first and b"[127.0.0.1]" in second, (first, second)
    equal(holdfast.status()["routes"][0]["upstreams"][0]["address"], f"[::1]:{postfix.port}")


@test("a trusted balancer that sends no header, or a bad one, is refused; bytes behind the header are early talk")
def _(scene):
    primary = scene.primary()
    holdfast = scene.holdfast(primary, listener='proxy_protocol_from: ["127.0.0.0/8"]')
    for bad in (b"EHLO client.example.net\r\n", b"PROXY TCP4 192.0.2.7\r\n", b"PROXY TCP4 999.0.2.7 192.0.2.1 1 2\r\n", V2 + b"\x31\x11\0\0"):
        client = scene.client(holdfast.port, greeting=False)
        client.send(bad)
        equal(client.rest(), "", bad)
    client = scene.client(holdfast.port, greeting=False)
    client.send(b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 25\r\nEHLO early.example.net\r\n")
    equal(client.rest(), "554 5.5.1 Error: talked before the greeting\r\n")


@test("a forged PROXY header from a network that is not trusted is refused and believed nowhere")
def _(scene):
    primary = scene.primary()
    holdfast = scene.holdfast(primary, listener='proxy_protocol_from: ["192.0.2.0/24"]')
    client = scene.client(holdfast.port)
    client.send(b"PROXY TCP4 198.51.100.7 192.0.2.1 40000 25\r\n")
    equal(client.reply(), "502 5.5.2 Error: command not recognized")
    equal(client.send_mail(), "250 2.0.0 Ok: taken")
    assert holdfast.entries()[-1]["client"].startswith("127.0.0.1:")
    client = scene.client(holdfast.port)
    client.send(v2("198.51.100.7", "192.0.2.1", 1, 2))
    assert client.reply().startswith("5")


@test("XCLIENT tells Postfix who the client is, on new connections and on reused ones")
def _(scene):
    postfix = scene.postfix("smtpd_authorized_xclient_hosts = 127.0.0.1")
    holdfast = scene.holdfast(postfix, route="identity: xclient", listener='proxy_protocol_from: ["127.0.0.0/8"]')
    for number in (7, 8, 9):
        client = scene.client(holdfast.port, greeting=False)
        client.send(f"PROXY TCP4 192.0.2.{number} 192.0.2.1 4000{number} 25\r\n")
        equal(client.reply(), "220 trial.example.org ESMTP Postfix")
        ehlo = client.ask("EHLO client.example.net")
        assert "XCLIENT" not in ehlo, ehlo
        # The trial server takes mail from its own network only, and now sees that this client is not of it.
        equal(client.ask("MAIL FROM:<a@example.net>"), "250 2.1.0 Ok")
        equal(client.ask("RCPT TO:<b@example.org>"), "554 5.7.1 <b@example.org>: Recipient address rejected: Access denied")
        client.ask("QUIT")
    log = wait_for(lambda: "192.0.2.9" in postfix.log() and postfix.log(), what="the client in Postfix's log")
    for number in (7, 8, 9):
        assert f"unknown[192.0.2.{number}]" in log, log


# By client: whether its address has a name, whether that name has the address, and whether DNS says so.
CLIENTS = {"127.0.0.2": "has a name", "127.0.0.3": "has none", "127.0.0.4": "has another's name", "127.0.0.5": "has a name that is not answered for",
           "127.0.0.6": "has a zone that fails", "127.0.0.7": "has a hostile name", "127.0.0.8": "has a zone that is silent", "127.0.0.1": "is local"}
RECORDS = {(reverse("127.0.0.2"), PTR): wire(b"mail.example.net"), ("mail.example.net", A): socket.inet_aton("127.0.0.2"),
           (reverse("127.0.0.4"), PTR): wire(b"forged.example.net"), ("forged.example.net", A): socket.inet_aton("192.0.2.1"),
           (reverse("127.0.0.5"), PTR): wire(b"half.example.net"), ("half.example.net", A): SERVFAIL,
           (reverse("127.0.0.6"), PTR): SERVFAIL,
           (reverse("127.0.0.7"), PTR): wire(b"x NAME=trusted.example.org"), ("x name=trusted.example.org", A): socket.inet_aton("127.0.0.7"),
           (reverse("127.0.0.8"), PTR): None}


@test("with XCLIENT Postfix knows the client by the name that it would have found itself, and refuses whom it would have refused")
def _(scene):
    names = NameServer(scene, RECORDS)

    def ask(port, client):
        with smtplib.SMTP(timeout=30, source_address=(client, 0)) as session:
            session.connect("127.0.0.1", port)
            session.ehlo("client.example.net")
            session.mail("a@example.net")
            refusal = session.rcpt("postmaster@example.org")
            if refusal[0] == 250:
                session.data("Subject: x\r\n\r\nx\r\n")
            return refusal
    for restriction in ("permit", "reject_unknown_client_hostname, permit", "reject_unknown_reverse_client_hostname, permit"):
        postfix = scene.postfix("smtpd_authorized_xclient_hosts = 127.0.0.1", f"smtpd_recipient_restrictions = {restriction}", name=restriction.split(",")[0], before=names.before)
        holdfast = scene.holdfast(postfix, route="identity: xclient", before=names.before)
        for client, what in CLIENTS.items():
            replies = [ask(port, client) for port in (postfix.port, holdfast.port)]
            equal(replies[1], replies[0], f"the client {what}, {restriction}")
        if restriction == "permit":
            wait_for(lambda: len(postfix.mails()) == 2 * len(CLIENTS), what="all mails")
            seen = [re.search(rb"Received: from (.*?)\s*\n?\s*by trial", mail, re.S)[1] for mail in postfix.mails()]
            for client, what in CLIENTS.items():
                equal(len({one for one in seen if f"[{client}]".encode() in one}), 1, f"what Postfix writes down of the client that {what}: {seen}")
            assert b"client.example.net (mail.example.net [127.0.0.2])" in seen, seen


@test("held mail comes with the client's name too, and a name that is known is not asked for again")
def _(scene):
    names = NameServer(scene, RECORDS)
    postfix = scene.postfix("smtpd_authorized_xclient_hosts = 127.0.0.1", "smtpd_recipient_restrictions = reject_unknown_client_hostname, permit", before=names.before)
    holdfast = scene.holdfast(postfix, route="identity: xclient\nunknown_recipients: accept", before=names.before,
                              yaml="failover:\n  mode: hold\n  probe_interval: 1h")
    for _ in range(5):
        assert scene.client(holdfast.port, source=("127.0.0.2", 0)).send_mail(recipient="postmaster@example.org").startswith("250 2.0.0 Ok: queued")
    equal(names.asked, [])
    holdfast.run("failover", "auto", "--reason", "test")
    wait_for(lambda: len(postfix.mails()) == 5, what="five deliveries")
    assert all(b"(mail.example.net [127.0.0.2])" in mail for mail in postfix.mails())
    equal(sorted(names.asked), [(reverse("127.0.0.2"), PTR), ("mail.example.net", A)])


@test("where DNS answers nobody, clients are greeted all the same, the primary is told that it is not known, and it is not blamed")
def _(scene):
    names = NameServer(scene, {(reverse(f"127.0.1.{number}"), PTR): None for number in range(1, 100)})
    with open(scene.path("resolv.conf"), "w") as file:
        file.write(f"nameserver {names.address}\noptions timeout:30 attempts:3\n")
    greeting = "220 primary.example.org ESMTP"
    primary = scene.primary(replies={"EHLO": b"250-primary.example.org\r\n250 XCLIENT NAME ADDR\r\n", "XCLIENT": f"{greeting}\r\n".encode()})
    holdfast = scene.holdfast(primary, route="identity: xclient", before=names.before,
                              yaml="failover:\n  probe_interval: 100ms\n  takeover_after: 4s")  # less than DNS is given
    clients = [scene.client(holdfast.port, source=(f"127.0.1.{number}", 0), greeting=False) for number in range(1, 80)]
    for client in clients:
        equal(client.reply(), greeting)
    equal(scene.client(holdfast.port, source=("127.0.1.90", 0)).greeting, greeting)
    told = [line for session in primary.sessions for line in session.received.split(b"\r\n") if line.startswith(b"XCLIENT NAME=[")]  # the others are probes
    equal(sorted(told), sorted(b"XCLIENT NAME=[TEMPUNAVAIL] ADDR=127.0.1.%d" % number for number in (*range(1, 80), 90)))
    equal(holdfast.status()["routes"][0]["state"], "pass")
    assert not holdfast.logged("state=open")
    with open(holdfast.log) as log:
        equal(log.read().count("DNS does not say in time what clients are called"), 1)


@test("who waits for DNS when the primary goes out does so no longer: Holdfast needs no name")
def _(scene):
    names = NameServer(scene, {(reverse("127.0.1.1"), PTR): None})
    with open(scene.path("resolv.conf"), "w") as file:
        file.write(f"nameserver {names.address}\noptions timeout:30 attempts:3\n")
    holdfast = scene.holdfast(scene.primary(), route="identity: xclient", before=names.before)
    client = scene.client(holdfast.port, source=("127.0.1.1", 0), greeting=False)
    wait_for(lambda: names.asked, what="the question")
    holdfast.run("failover", "hold", "--reason", "test")
    equal(client.reply(), "220 holdfast.example.org ESMTP")
    assert not holdfast.logged("DNS does not say in time")


@test("a primary that does not offer XCLIENT is not used with identity: xclient")
def _(scene):
    holdfast = scene.holdfast(scene.primary(), route="identity: xclient", yaml=PASS)
    equal(scene.client(holdfast.port).greeting, "421 4.3.2 holdfast.example.org The mail server is not reachable, try again later")
    assert holdfast.logged("smtpd_authorized_xclient_hosts")


@test("identity: proxy-v2 tells a Postfix behind haproxy's protocol who the client is")
def _(scene):
    postfix = scene.postfix("smtpd_upstream_proxy_protocol = haproxy")
    holdfast = scene.holdfast(postfix, route="identity: proxy-v2", listener='proxy_protocol_from: ["127.0.0.0/8"]')
    client = scene.client(holdfast.port, greeting=False)
    client.send("PROXY TCP4 192.0.2.7 192.0.2.1 40000 25\r\n")
    equal(client.reply(), "220 trial.example.org ESMTP Postfix")
    client.ask("EHLO client.example.net")
    client.ask("QUIT")
    wait_for(lambda: "connect from unknown[192.0.2.7]" in postfix.log(), what="the client in Postfix's log")


@test("held mail is delivered with the original client's address too, by XCLIENT and by PROXY, and nobody else's")
def _(scene):
    for identity, setting in (("xclient", "smtpd_authorized_xclient_hosts = 127.0.0.1"), ("proxy-v2", "smtpd_upstream_proxy_protocol = haproxy")):
        postfix = scene.postfix(setting, "virtual_mailbox_domains = example.org", "smtpd_recipient_restrictions = permit", name=identity)
        holdfast = scene.holdfast(postfix, route=f"identity: {identity}", listener='proxy_protocol_from: ["127.0.0.0/8"]',
                                  yaml="failover:\n  mode: hold\n  probe_interval: 1h\ndirectory:\n  catch_all: [example.org]")
        for number in (7, 8, 9, 7):
            client = scene.client(holdfast.port, greeting=False)
            client.send(f"PROXY TCP4 192.0.2.{number} 192.0.2.1 4000{number} 25\r\n")
            client.reply()
            assert client.send_mail(f"Subject: from {number}\r\n\r\nx\r\n", recipient="b@example.org").startswith("250 2.0.0 Ok: queued")
        holdfast.run("failover", "auto", "--reason", "test")
        wait_for(lambda: len(postfix.mails()) == 4, what=f"four deliveries with {identity}")
        wait_for(lambda: holdfast.status()["routes"][0]["held"] == 0, what="the end of the drain")
        for mail in postfix.mails():
            number = mail.split(b"Subject: from ")[1][:1].decode()
            first = mail.split(b"Received: ")[1].decode()
            assert f"[192.0.2.{number}]" in first, first


main()
