"""What the scenarios about emergency mailboxes share."""
import email
import imaplib

from journals import *

PASSWORD = "correct horse battery"


class World:
    """A Holdfast with an IMAP listener on loopback, and people with accounts."""

    def __init__(self, scene, people=("ada", "bob"), mailbox="open: always", primary=None, yaml="", **options):
        self.scene, self.imap_port = scene, free_port()
        self.primary = primary or scene.primary()
        self.holdfast = scene.holdfast(self.primary, listeners=f"- address: 127.0.0.1:{self.imap_port}\n  role: imap",
                                       yaml=f"mailbox:\n{indent(mailbox, 2)}{yaml}", **options)
        for person in people:
            self.add(person)

    def add(self, person):
        done = subprocess.run([BINARY, "-c", self.holdfast.config, "mailbox", "add", f"{person}@example.org", "--password-file", "-"],
                              input=PASSWORD + "\n", text=True, capture_output=True)
        assert done.returncode == 0, done.stderr

    def send(self, subject, *people, sender="out@example.net", body="Hello.", more="", helo="client.example.net", raw=None):
        client = self.scene.client(self.holdfast.port)
        client.ask(f"EHLO {helo}")
        content = f"From: <{sender}>\r\nTo: {', '.join(people)}\r\nSubject: {subject}\r\nMessage-ID: <{subject.replace(' ', '.')}@example.net>\r\n{more}\r\n{body}\r\n"
        if raw:
            content = content[:content.rindex(f"\r\n{body}")] + raw
        recipients = [person if "@" in person else f"{person}@example.org" for person in people]
        client.ask(f"MAIL FROM:<{sender}>")
        for recipient in recipients:
            client.ask(f"RCPT TO:<{recipient}>")
        client.ask("DATA")
        reply = client.ask(content.replace("\r\n.", "\r\n..") + ".")
        assert reply.startswith("250"), reply
        return content

    def log_in(self, person, password=PASSWORD):
        session = imaplib.IMAP4("127.0.0.1", self.imap_port)
        self.scene.stack.callback(session.shutdown)
        session.login(f"{person}@example.org", password)
        return session

    def inbox(self, person, count=None):
        """A session that has INBOX selected, once there are so many messages."""
        session = self.log_in(person)
        wait_for(lambda: count is None or int(checked(session.select("INBOX"))[0]) == count, what=f"{count} messages for {person}")
        if count is None:
            checked(session.select("INBOX"))
        return session


def checked(answer):
    kind, data = answer
    assert kind == "OK", answer
    return data


def subjects(session, folder="INBOX"):
    checked(session.select(f'"{folder}"', readonly=True))
    found = checked(session.uid("FETCH", "1:*", "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])"))
    return [email.message_from_bytes(one[1])["Subject"] for one in found if isinstance(one, tuple)]


def bodies(session, uids="1:*"):
    return [one[1] for one in checked(session.uid("FETCH", uids, "(BODY.PEEK[])")) if isinstance(one, tuple)]


def refused(action, words):
    try:
        answer = action()
    except imaplib.IMAP4.error as error:
        assert words in str(error), error
        return
    assert answer[0] == "NO" and words in str(answer), answer
