"""Real clients through Holdfast to a real Postfix: what they send arrives and is in the journal."""
import os
import smtplib
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from harness import *


def arrives(postfix, holdfast, text, count=1):
    wait_for(lambda: sum(text.encode() in mail for mail in postfix.mails()) == count, what="the delivery")
    entry = holdfast.entries()[-1]
    assert text.encode() in holdfast.content(entry["id"])
    wait_for(lambda: holdfast.entries()[-1]["recipients"][0]["outcome"] == "forwarded", what="the outcome")
    return holdfast.entries()[-1]


@test("swaks sends a message through Holdfast to Postfix, and the journal tells all about it")
def _(scene):
    postfix = scene.postfix()
    holdfast = scene.holdfast(postfix)
    sent = run("swaks", "--server", f"127.0.0.1:{holdfast.port}", "--from", "a@example.net", "--to", "b@example.org,c@example.org",
               "--ehlo", "client.example.net", "--header", "Message-Id: <swaks.1@example.net>", "--h-Subject", "=?utf-8?q?Gr=C3=BC=C3=9Fe?=", "--body", "through swaks")
    equal(sent.returncode, 0, sent.stdout + sent.stderr)
    entry = arrives(postfix, holdfast, "through swaks", 2)
    equal(entry["mail_from"], "a@example.net")
    equal([one["address"] for one in entry["recipients"]], ["b@example.org", "c@example.org"])
    equal((entry["direction"], entry["route"], entry["helo"], entry["tls"]), ("inbound", "primary", "client.example.net", ""))
    equal((entry["message_id"], entry["subject"]), ("swaks.1@example.net", "Grüße"))
    assert entry["client"].startswith("127.0.0.1:")
    assert entry["recipients"][0]["reply"].startswith("250 2.0.0 Ok: queued as")
    equal(len(holdfast.content(entry["id"])), entry["size"])
    assert "all is well" in holdfast.run("journal", "verify").stdout


@test("curl sends a message")
def _(scene):
    postfix = scene.postfix()
    holdfast = scene.holdfast(postfix)
    with open(scene.path("mail"), "w") as file:
        file.write("Subject: curl\r\n\r\n.through curl\r\n")
    sent = run("curl", "-sS", f"smtp://127.0.0.1:{holdfast.port}/client.example.net", "--mail-from", "a@example.net", "--mail-rcpt", "b@example.org",
               "-T", scene.path("mail"))
    equal(sent.returncode, 0, sent.stderr)
    arrives(postfix, holdfast, ".through curl")


@test("Python's smtplib sends three messages on one connection")
def _(scene):
    postfix = scene.postfix()
    holdfast = scene.holdfast(postfix)
    with smtplib.SMTP("127.0.0.1", holdfast.port) as client:
        for number in range(3):
            client.sendmail("a@example.net", ["b@example.org"], f"Subject: {number}\r\n\r\nthrough smtplib\r\n", mail_options=["BODY=8BITMIME"])
    arrives(postfix, holdfast, "through smtplib", 3)
    equal(len(holdfast.entries()), 3)


@test("openssl s_client talks SMTP over STARTTLS")
def _(scene):
    postfix = scene.postfix()
    certificate, key = scene.certificate("mx.example.org")
    holdfast = scene.holdfast(postfix, listener="tls: starttls", yaml=f"tls:\n  certificates:\n    - certificate: {certificate}\n      key: {key}")
    talk = "EHLO s-client.example.net\nMAIL FROM:<a@example.net>\nRCPT TO:<b@example.org>\nDATA\nSubject: s_client\n\nthrough s_client\n.\nQUIT\n"
    process = subprocess.Popen(["openssl", "s_client", "-starttls", "smtp", "-crlf", "-quiet", "-connect", f"127.0.0.1:{holdfast.port}"],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    scene.stack.callback(process.kill)
    for line in talk.splitlines():
        process.stdin.write(line + "\n")
        process.stdin.flush()
    wait_for(lambda: len(holdfast.entries()) == 1, what="the entry")
    entry = arrives(postfix, holdfast, "through s_client")
    assert entry["tls"].startswith("TLSv1.3"), entry["tls"]


@test("Postfix sends through Holdfast to Postfix, with pipelining and BDAT, and without")
def _(scene):
    primary = scene.postfix()
    holdfast = scene.holdfast(primary)
    for name, lines, text in (("bdat", [], "postfix with bdat"), ("data", ["smtp_discard_ehlo_keywords = chunking, pipelining"], "postfix with data")):
        # The sender relays everything to Holdfast, as another company's server would.
        sender = scene.postfix("virtual_mailbox_domains =", f"relayhost = [127.0.0.1]:{holdfast.port}",
                               "smtpd_recipient_restrictions = permit_mynetworks, reject", *lines, name=name)
        client = scene.client(sender.port)
        for number in range(5):
            assert client.send_mail(f"Subject: {number}\r\n\r\n{text}\r\n..\r\n", helo="x.example.net" if number == 0 else None).startswith("250")
        wait_for(lambda: sum(text.encode() in mail for mail in primary.mails()) == 5, what="five deliveries")
    equal(len(holdfast.entries()), 10)
    wait_for(lambda: all(one["recipients"][0]["outcome"] == "forwarded" for one in holdfast.entries()), what="outcomes")
    assert "all is well" in holdfast.run("journal", "verify").stdout


main()
