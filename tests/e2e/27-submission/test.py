"""People send from the emergency mailbox: as themselves only, to colleagues and to the world; and it comes back to them."""
import base64
import collections
import itertools
import os
import signal
import smtplib
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from mailboxes import *
from offices import *


def message(subject, sender="Ada <ada@example.org>", more=""):
    return f"From: {sender}\r\nTo: whoever\r\nSubject: {subject}\r\nMessage-ID: <{subject.replace(' ', '.')}@example.org>\r\n{more}\r\nText of {subject}.\r\n"


@test("during a hold: to colleagues at once in their INBOX, outward by the egress; both in Sent once; journaled as outbound")
def _(scene):
    office = Office(scene)
    office.hold()
    session = office.submission()
    session.sendmail("ada@example.org", ["bob@example.org", "customer@example.com"], message("to both"))
    wait_for(lambda: office.egress.messages, what="the world to get it")
    bob = office.inbox("bob", 1)
    equal(bodies(bob), [message("to both").encode()])
    ada = office.log_in("ada")
    wait_for(lambda: ada.noop() and subjects(ada, "Sent"), what="Sent")
    # Her mail program puts its own copy there: one is enough.
    checked(ada.append("Sent", "(\\Seen)", None, message("to both").encode()))
    equal(subjects(ada, "Sent"), ["to both"])
    outbound = [entry for entry in office.holdfast.entries() if entry["direction"] == "outbound"]
    equal(sorted((entry["route"], entry["mail_from"]) for entry in outbound), [("egress", "ada@example.org"), ("primary", ""), ("primary", "ada@example.org")])
    equal(subjects(ada), [])


@test("when the primary is back, colleagues have it, and what was sent is in the sender's own mailbox too, with a header for a rule")
def _(scene):
    office = Office(scene)
    office.hold()
    office.submission().sendmail("ada@example.org", ["bob@example.org"], message("while away"))
    office.back()
    wait_for(lambda: len(office.primary.messages) == 2, what="both at the primary")
    contents = {bytes(one[1]) for one in office.primary.messages}
    original = message("while away").encode()
    assert any(one.endswith(b"X-Holdfast-Sent: from the emergency mailbox\r\n" + original) for one in contents), contents
    assert any(one.endswith(original) and b"X-Holdfast-Sent" not in one for one in contents), contents


@test("who was writing when the primary came back has that in the usual mailbox too")
def _(scene):
    office = Office(scene)
    office.hold()
    session = office.submission()
    session.ehlo()
    session.mail("ada@example.org")
    session.rcpt("bob@example.org")
    office.back()
    wait_for(lambda: office.holdfast.status()["routes"][0]["state"] == "pass", what="pass")
    equal(session.data(message("just finished"))[0], 250)
    wait_for(lambda: sorted(envelope[1] for envelope, _ in office.primary.messages) == [b"RCPT TO:<ada@example.org> NOTIFY=NEVER", b"RCPT TO:<bob@example.org>"], what="both at the primary")


@test("with return_sent: off, what was sent is in Sent, goes to whom it is for, and to nobody else")
def _(scene):
    office = Office(scene, mailbox="open: hold\ngrace: 1h\nreturn_sent: off")
    office.hold()
    office.submission().sendmail("ada@example.org", ["bob@example.org"], message("while away"))
    wait_for(lambda: subjects(office.log_in("ada"), "Sent") == ["while away"], what="it to be in Sent")
    [entry] = office.holdfast.entries()
    equal([one["address"] for one in entry["recipients"]], ["bob@example.org"])
    office.back()
    wait_for(lambda: office.holdfast.entries()[0]["recipients"][0]["outcome"] == "delivered", what="the delivery")
    equal([bytes(one[1]).count(b"X-Holdfast-Sent") for one in office.primary.messages], [0])


@test("nobody writes as somebody else: envelope and From are the person's own addresses, aliases and sub-addresses too")
def _(scene):
    office = Office(scene)
    office.hold()
    session = office.submission()
    for sender, header in (("ada@example.org", "Ada <ada@example.org>"), ("countess@example.org", "countess@example.org"), ("ada+news@example.org", "<Ada+News@example.org>"),
                           ("ada@example.org", "ada@example.org <ada@example.org>"), ("ada@example.org", '"bob@work, (really)" <ada@example.org> (not bob@example.org)'),
                           ("", "ada@example.org")):
        session.sendmail(sender, ["bob@example.org"], message("fine", header))
    for sender, header, code in (("bob@example.org", "ada@example.org", 553), ("ada@example.org", "bob@example.org", 553), ("ada@example.org", "ada@example.org, bob@example.org", 553),
                                 ("ada@example.org", "ada@example.org\r\nFrom: bob@example.org", 554), ("ada@example.org", "ada@example.org\r\nSender: bob@example.org", 553),
                                 ("ada@example.org", "nobody", 553), ("ada@example.org", '"ada@example.org" <bob@example.org>', 553),
                                 # Each of these has ada's address for one reader, and bob's for another.
                                 ("ada@example.org", "@x <bob@example.org>, ada@example.org", 553), ("ada@example.org", "b[o]b@example.org, ada@example.org", 553),
                                 ("ada@example.org", "bob@example.org <ada@example.org>", 553), ("ada@example.org", "ada@example.org; bob@example.org", 553),
                                 ("ada@example.org", "ada@example.org (x (y) bob@example.org)", 553), ("ada@example.org", "<bob @ example.org>, ada@example.org", 553),
                                 ("ada@example.org", "ada@example.org@example.net", 553), ("ada@example.org", "<@bob@example.org:ada@example.org>", 553)):
        try:
            session.sendmail(sender, ["bob@example.org"], message("forged", header))
            raise AssertionError((sender, header))
        except smtplib.SMTPResponseException as refused:
            equal(refused.smtp_code, code, (sender, header, refused.smtp_error))
        session.rset()
    assert not any(entry["subject"] == "forged" for entry in office.holdfast.entries())


def refused_with(action):
    """The code and the words with which the server refuses."""
    try:
        action()
    except smtplib.SMTPRecipientsRefused as refused:
        return next(iter(refused.recipients.values()))
    except smtplib.SMTPResponseException as refused:
        return refused.smtp_code, refused.smtp_error
    raise AssertionError("it was taken")


@test("what limits held mail limits what people write too: failover.max_held of a route, failover.keep_free of the disk")
def _(scene):
    office = Office(scene)

    def limit(line):
        office.holdfast.yaml += f"  {line}\n"
        office.holdfast.write_config()
        office.holdfast.signal(signal.SIGHUP)
    limit("max_held: 4")
    wait_for(lambda: office.holdfast.logged("routes changed"), what="the limit to be taken")
    office.hold()
    session = office.submission()
    for number in range(2):  # each is held for bob, and for ada's own mailbox
        session.sendmail("ada@example.org", ["bob@example.org"], message(f"fits {number}"))
    full = (452, b"4.3.1 Error: too much mail is held already, try again later")
    equal(refused_with(lambda: session.sendmail("ada@example.org", ["bob@example.org"], message("too much"))), full)
    # Also what would be held as her own copy only.
    equal(refused_with(lambda: session.sendmail("ada@example.org", ["customer@example.com"], message("too much"))), full)
    office.back()
    wait_for(lambda: len(office.primary.messages) == 4, what="the delivery")
    office.hold()
    session.sendmail("ada@example.org", ["bob@example.org"], message("fits again"))
    limit("keep_free: 100TiB")
    wait_for(lambda: "LIMIT REACHED: failover.keep_free" in office.holdfast.run("status").stdout, what="the other limit")
    equal(refused_with(lambda: session.sendmail("ada@example.org", ["bob@example.org"], message("no room"))),
          (452, b"4.3.1 Error: too little disk space is left for held mail, try again later"))
    assert not {"too much", "no room"} & {entry["subject"] for entry in office.holdfast.entries()}


@test("one person writes to so many recipients in an hour and no more, however many sessions there are: a stolen password sends no flood")
def _(scene):
    office = Office(scene, mailbox="open: hold\nrecipients_per_hour: 5")
    office.hold()
    session, other = office.submission(), office.submission()
    session.sendmail("ada@example.org", ["bob@example.org", "a@example.com", "b@example.com"], message("three"))
    enough = (450, b"4.7.1 Error: you may write to 5 recipients in an hour and no more, try again later")
    # Both begin while there is room for two, and only one of them gets it.
    for one in (session, other):
        equal(one.docmd("MAIL", "FROM:<ada@example.org>")[0], 250)
        equal(one.docmd("RCPT", "TO:<c@example.com>")[0], 250)
        equal(one.docmd("RCPT", "TO:<d@example.com>")[0], 250)
        equal(one.docmd("RCPT", "TO:<e@example.com>"), enough)
    equal(session.data(message("two"))[0], 250)
    equal(other.data(message("two more")), enough)
    equal(refused_with(lambda: other.sendmail("ada@example.org", ["bob@example.org"], message("one more"))), enough)
    wait_for(lambda: office.holdfast.logged("mailbox.recipients_per_hour is reached"), what="the operators to be told")
    # It is the person's, not the machine's.
    office.submission("bob").sendmail("bob@example.org", ["a@example.com"], message("bob's", "bob@example.org"))
    wait_for(lambda: len(office.egress.messages) == 3, what="the world to get what was taken")
    equal({entry["subject"] for entry in office.holdfast.entries()}, {"three", "two", "bob's"})


@test("whose account is changed is logged out at once, also in the middle of a message: nothing of it goes out")
def _(scene):
    office = Office(scene)
    office.hold()
    for change in (["passwd", "ada@example.org", "--generate"], ["disable", "bob@example.org"]):
        person = change[1]
        writing, idle = (office.submission(person.partition("@")[0]) for _ in range(2))
        writing.ehlo()
        writing.mail(person)
        equal(writing.rcpt("countess@example.org")[0], 250)
        equal(writing.docmd("DATA")[0], 354)
        writing.send(message("not to be sent", person))
        office.holdfast.run("mailbox", *change)
        wait_for(lambda: idle.docmd(f"MAIL FROM:<{person}>")[0] == 530, what="to be logged out")
        equal(writing.docmd("."), (550, b"5.7.1 Your account was changed: log in again"))
        equal(writing.mail(person)[0], 530)
    equal(office.holdfast.entries(), [])


@test("when the emergency mailbox closes, those who are logged in are told so, and what they write then is not taken")
def _(scene):
    office = Office(scene, mailbox="open: hold\ngrace: 100ms")
    office.hold()
    session = office.submission()
    session.ehlo()
    equal(session.mail("ada@example.org")[0], 250)
    session.rset()
    office.back()
    wait_for(lambda: office.holdfast.status()["mailboxes"]["open_routes"] == [], what="the mailbox to close")
    equal(session.docmd("MAIL FROM:<ada@example.org>"), (550, b"5.7.1 The emergency mailbox is closed: your usual mail works again"))


@test("AUTH: needed, only in the clear on loopback, LOGIN too; wrong passwords, malformed answers and early talk are refused")
def _(scene):
    office = Office(scene)
    office.hold()
    client = scene.client(office.submission_port)
    assert client.ask("EHLO x").startswith("250") and "AUTH PLAIN LOGIN" in client.ask("EHLO x")
    assert client.ask("MAIL FROM:<ada@example.org>").startswith("530 5.7.0")
    assert client.ask("AUTH CRAM-MD5").startswith("504")
    assert client.ask("AUTH PLAIN !!!!").startswith("501")
    assert client.ask("AUTH PLAIN").startswith("334") and client.ask("*").startswith("501")
    wrong = base64.b64encode(b"\0ada@example.org\0wrong password").decode()
    assert client.ask("AUTH PLAIN " + wrong).startswith("535 5.7.8")
    assert client.ask("AUTH LOGIN").startswith("334 VXNlcm5hbWU6")
    assert client.ask(base64.b64encode(b"ada@example.org").decode()).startswith("334")
    assert client.ask(base64.b64encode(PASSWORD.encode()).decode()).startswith("235")
    assert client.ask("AUTH PLAIN " + wrong).startswith("503")
    assert client.ask("RCPT TO:<bob@example.org>").startswith("503")
    assert client.ask("MAIL FROM:<ada@example.org> NONSENSE=1").startswith("555")
    assert client.ask("MAIL FROM:<ada@example.org> SIZE=999999999999").startswith("552")
    assert client.ask("MAIL FROM:<ada@example.org>").startswith("250")
    assert client.ask("DATA").startswith("554")
    for nowhere in ("bob", "bob@", "customer@example..com", "customer@-example.com"):
        equal(client.ask(f"RCPT TO:<{nowhere}>"), "501 5.1.3 Bad recipient address syntax")
    assert client.ask("RCPT TO:<bob@example.org>").startswith("250")
    assert client.ask("DATA").startswith("354")
    assert client.ask("From: ada@example.org\r\n\r\nx\n.\r\n.").startswith("521"), "bare LF"


@test("TLS: STARTTLS and implicit; nothing that was said before it counts")
def _(scene):
    certificate, key = scene.certificate("mail.example.org")
    implicit = free_port()
    office = Office(scene, egress_yaml=f"tls:\n  certificates:\n    - certificate: {certificate}\n      key: {key}\n")
    office.holdfast.listeners += f"\n  tls: starttls\n- address: 127.0.0.1:{implicit}\n  role: submission\n  tls: implicit"
    office.holdfast.stop()
    office.holdfast.start()
    office.hold()
    context = ssl.create_default_context(cafile=certificate)
    login = "AUTH PLAIN " + base64.b64encode(f"\0ada@example.org\0{PASSWORD}".encode()).decode()
    starts, whole = scene.client(office.submission_port), scene.client(implicit, greeting=False).start_tls("mail.example.org", context)
    assert "STARTTLS" in starts.ask("EHLO x")
    assert starts.ask(login).startswith("235")
    assert starts.ask("STARTTLS").startswith("220")
    starts.start_tls("mail.example.org", context)
    assert starts.ask("MAIL FROM:<ada@example.org>").startswith("530"), "a login before TLS is forgotten"
    assert whole.reply().startswith("220")
    for client in (starts, whole):
        assert "STARTTLS" not in client.ask("EHLO x")
        assert client.ask("STARTTLS").startswith("503")
        assert client.ask(login).startswith("235")
        assert client.send_mail(message("safe"), sender="ada@example.org", recipient="bob@example.org", helo=None).startswith("250")
    shown = [json.loads(office.holdfast.run("journal", "show", str(entry["id"]), "--json").stdout) for entry in office.holdfast.entries()]
    equal({(one["protocol"], one["tls"].split()[0]) for one in shown}, {("ESMTPSA", "TLSv1.3")})
    early = scene.client(office.submission_port)
    early.ask("EHLO x")
    early.send("STARTTLS\r\nMAIL FROM:<ada@example.org>\r\n")
    assert early.reply().startswith("554 5.5.1")
    equal(early.rest(), "")


@test("hostile bytes in commands, and too many commands, are refused as they are everywhere; nothing of it goes out")
def _(scene):
    office = Office(scene, egress_yaml="limits:\n  commands: 25\n  errors: 100\n")
    office.hold()
    client = scene.client(office.submission_port)
    client.ask("EHLO x")
    login = base64.b64encode(f"\0ada@example.org\0{PASSWORD}".encode())
    assert client.ask("AUTH PLAIN " + login.decode()).startswith("235")
    equal(client.ask("MAIL FROM:<ada@example.org> BODY=BINARYMIME"), "555 5.5.4 Unsupported option: BODY=BINARYMIME")
    assert client.ask("MAIL FROM:<ada@example.org> SMTPUTF8").startswith("250")
    for hostile in (b"RCPT TO:<customer\x0b@example.com>", b"RCPT TO:<customer\x00@example.com>", b"RCPT TO:<customer@example.com> ORCPT=rfc822;a\x1b", b"NOOP \xc3\xa4",
                    b"RCPT TO:<\xff@example.com>"):
        assert client.ask(hostile).startswith("500 5.5.2"), hostile
    assert client.ask("RCPT TO:<gr\u00fc\u00dfe@example.com>".encode()).startswith("250")
    assert client.ask("DATA").startswith("354")
    assert client.ask(message("fine").encode() + b".").startswith("250")
    wait_for(lambda: office.egress.messages, what="the world to get it")
    equal([line.split(b" ")[0:2] for line in office.egress.messages[0][0]][1:], [[b"RCPT", "TO:<gr\u00fc\u00dfe@example.com>".encode()]])
    replies = [client.ask("NOOP") for _ in range(25)]
    assert all(one.startswith("250") for one in replies), replies
    equal(client.ask("NOOP"), "421 4.7.0 Error: too many commands")
    equal(client.rest(), "")
    for hostile in (b"RCPT TO:<customer\r@example.com>", b"RCPT TO:<bob@example.org>\nRCPT TO:<customer@example.com>"):
        client = scene.client(office.submission_port)
        assert client.ask(hostile).startswith("521 5.5.2"), hostile
        equal(client.rest(), "")


@test("a machine has so many connections and no more, whatever it talks: mail for everybody does not suffer from one mail program")
def _(scene):
    office = Office(scene, egress_yaml="limits:\n  per_client: 4\n")
    office.hold()
    kept = [scene.client(office.imap_port) for _ in range(2)] + [scene.client(office.submission_port) for _ in range(2)]
    equal(scene.client(office.imap_port, greeting=False).line(), b"* BYE too many connections from 127.0.0.1\r\n")
    equal(scene.client(office.submission_port).greeting, "421 4.3.2 holdfast.example.org Error: too many connections from 127.0.0.1")
    equal(scene.client(office.holdfast.port).greeting, "421 4.7.0 holdfast.example.org Error: too many connections from 127.0.0.1")
    equal(scene.client(office.holdfast.port, source=("127.0.0.2", 0)).greeting[:4], "220 ")
    for client in kept:
        client.close()
    wait_for(lambda: office.holdfast.status()["connections"] <= 1, what="room again")
    equal(scene.client(office.submission_port).greeting[:4], "220 ")


@test("Holdfast is killed while people write: a message is there for all whom it is for, or for none, and its sender comes again")
def _(scene):
    office = Office(scene)
    office.hold()
    written = itertools.count()
    for _ in range(20):
        session = office.submission()
        killer = threading.Timer(random.uniform(0, 0.2), office.holdfast.kill)
        killer.start()
        with contextlib.suppress(smtplib.SMTPException, OSError):
            while True:
                session.sendmail("ada@example.org", ["bob@example.org", "customer@example.com"], message(f"written {next(written)}"))
        killer.join()
        office.holdfast.start()
    routes = collections.defaultdict(list)
    for entry in office.holdfast.entries():
        routes[entry["subject"]].append(entry["recipients"][0]["address"])
    assert len(routes) > 20, len(routes)
    for subject, found in routes.items():
        equal(sorted(found), ["ada@example.org", "bob@example.org", "customer@example.com"], subject)


@test("while the primary passes, the submission listener is the primary's own")
def _(scene):
    office = Office(scene)
    client = scene.client(office.submission_port)
    assert client.greeting.startswith("220 primary.example.org"), client.greeting
    assert client.ask("EHLO x").startswith("250-primary.example.org")


@test("what was taken is delivered, over a dead egress and a SIGKILL")
def _(scene):
    office = Office(scene)
    office.hold()
    office.egress.leave()
    office.submission().sendmail("ada@example.org", ["customer@example.com"], message("patient"))
    office.holdfast.kill()
    office.egress = scene.primary(port=office.egress.port)
    office.holdfast.start()
    wait_for(lambda: office.egress.messages, what="the egress to get it after the restart")
    assert bytes(office.egress.messages[0][1]).endswith(message("patient").encode())


@test("a smart host that wants a login gets it, with what it offers of PLAIN and LOGIN, over TLS only, also from the first byte; a wrong password is told, and waits")
def _(scene):
    certificate, key = scene.certificate("smart.example.com")
    secret = scene.path("secret")

    def secure(session):
        session.connection, session.is_tls = server_tls(certificate, key).wrap_socket(session.connection, server_side=True), True
    for offer, is_implicit in ((b"250-AUTH LOGIN XOAUTH2\r\n", False), (b"250-AUTH NTLM PLAIN LOGIN\r\n", False), (b"250-AUTH PLAIN\r\n", True)):
        def ehlo(session, line):
            return b"250-smart.example.com\r\n" + (offer if session.is_tls else b"250-STARTTLS\r\n") + b"250 8BITMIME\r\n"

        def login(session, line):
            words = [base64.b64decode(line.split(b" ")[2])] if b" PLAIN " in line else []
            for prompt in (b"VXNlcm5hbWU6", b"UGFzc3dvcmQ6") if not words else ():
                session.connection.sendall(b"334 " + prompt + b"\r\n")
                words.append(base64.b64decode(session.line()))
            session.is_known = b"\0".join(words).lstrip(b"\0") == b"holdfast\0s3cret"
            return b"235 2.7.0 Welcome\r\n" if session.is_known else b"535 5.7.8 Who are you?\r\n"

        def mail(session, line):
            return b"250 2.1.0 Ok\r\n" if getattr(session, "is_known", False) else b"530 5.7.0 Log in first\r\n"
        egress = scene.primary(replies={"EHLO": ehlo, "AUTH": login, "MAIL": mail}, tls=server_tls(certificate, key), on_accept=secure if is_implicit else None)
        with open(secret, "w") as file:
            file.write("wrong\n")
        office = Office(scene, egress=egress, egress_yaml=f"  tls: required\n  implicit_tls: {str(is_implicit).lower()}\n  auth:\n    user: holdfast\n    password_file: {secret}\n")
        office.hold()
        office.submission().sendmail("ada@example.org", ["customer@example.com"], message("a login"))
        wait_for(lambda: "it refuses egress.auth: 535 5.7.8 Who are you?" in office.holdfast.run("status").stdout, what="the refusal, told by the status")
        assert office.holdfast.logged("it refuses egress.auth: 535 5.7.8 Who are you?")
        equal(office.holdfast.entries()[0]["recipients"][0]["outcome"], "held")
        with open(secret, "w") as file:
            file.write("s3cret\r\n")
        wait_for(lambda: egress.messages, what="the message")
        assert all(b"MAIL" not in session.received or session.is_tls for session in egress.sessions)
        with open(office.holdfast.log) as log:
            assert "s3cret" not in log.read()
        office.holdfast.stop()


main()
