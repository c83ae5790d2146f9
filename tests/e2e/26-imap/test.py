"""IMAP by the sections of RFC 3501 and of its extensions: what is said, what is answered; and hostile input."""
import os
import re
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from mailboxes import *

PLAIN = ("From: =?utf-8?q?J=C3=BCrgen?= <juergen@example.net>\r\nTo: Ada <ada@example.org>, bob@example.org\r\nCc: team: a@example.org, b@example.org;\r\n"
         "Subject: =?iso-8859-1?q?M=FCller?= and more\r\nDate: Wed, 25 Nov 2026 23:30:00 -0500\r\nMessage-ID: <plain@example.net>\r\n\r\nGr\xfc\xdfe aus K\xf6ln\r\n").encode("latin-1")
MIXED = b"""From: a@example.net\r
To: ada@example.org\r
Subject: mixed\r
Message-ID: <mixed@example.net>\r
References: <plain@example.net>\r
MIME-Version: 1.0\r
Content-Type: multipart/mixed; boundary="outer"\r
\r
preamble\r
--outer\r
Content-Type: multipart/alternative; boundary=inner\r
\r
--inner\r
Content-Type: text/plain; charset=utf-8\r
Content-Transfer-Encoding: quoted-printable\r
\r
needle in h=C3=A4y\r
--inner\r
Content-Type: text/html; charset=utf-8\r
\r
<p>needle</p>\r
--inner--\r
--outer\r
Content-Type: application/pdf; name="=?utf-8?q?=C3=9Cbersicht?=.pdf"\r
Content-Disposition: attachment; filename*=utf-8''%C3%9Cbersicht.pdf\r
Content-Transfer-Encoding: base64\r
\r
JVBERi0=\r
--outer\r
Content-Type: message/rfc822\r
\r
From: inner@example.net\r
Subject: inner\r
\r
inner body\r
--outer--\r
epilogue\r
"""


class Raw:
    """A client that says exactly what it is told, and gives back all that is answered up to the tag."""

    def __init__(self, scene, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        scene.stack.callback(self.socket.close)
        self.buffer, self.number = b"", 0
        self.greeting = self.line()

    def line(self):
        while b"\n" not in self.buffer:
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionError("closed after " + repr(self.buffer[-200:]))
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line + b"\n"

    def send(self, data):
        self.socket.sendall(data)

    def ask(self, command, *literals):
        """The whole answer; literals are sent when they are asked for."""
        self.number += 1
        tag = f"t{self.number}".encode()
        command = command if isinstance(command, bytes) else command.encode()
        self.send(tag + b" " + command + b"\r\n")
        answer, literals = b"", list(literals)
        while True:
            line = self.line()
            answer += line
            found = re.search(rb"\{(\d+)\}\r\n$", line)
            if found:
                while len(self.buffer) < int(found.group(1)):
                    self.buffer += self.socket.recv(65536)
                answer += self.buffer[:int(found.group(1))]
                self.buffer = self.buffer[int(found.group(1)):]
            elif line.startswith(b"+") and literals:
                self.send(literals.pop(0))
            elif line.startswith(tag + b" "):
                return answer


def reader(scene, world, folder="INBOX", person="ada"):
    raw = Raw(scene, world.imap_port)
    assert b"OK" in raw.ask(f'LOGIN {person}@example.org "{PASSWORD}"')
    if folder:
        assert b"OK" in raw.ask(f"SELECT {folder}")
    return raw


def filled(scene):
    """Ada has two messages in a folder of her own."""
    world = World(scene, people=("ada",))
    raw = reader(scene, world, None)
    raw.ask("CREATE Work")
    for content, date in ((PLAIN, "24-Nov-2026"), (MIXED, "25-Nov-2026")):
        assert b"APPENDUID" in raw.ask(f'APPEND Work "{date} 12:00:00 +0000" {{{len(content)}}}', content + b"\r\n")
    raw.ask("SELECT Work")
    return world, raw


def in_answer(answer, *wanted):
    for one in wanted:
        assert (one if isinstance(one, bytes) else one.encode()) in answer, (one, answer)


@test("6.1 any state, 6.2 before login: capabilities, ID, STARTTLS, LOGIN, AUTHENTICATE PLAIN")
def _(scene):
    cert, key = scene.certificate("imap.example.org")
    world = World(scene, people=("ada",))
    raw = Raw(scene, world.imap_port)
    in_answer(raw.greeting, "* OK [CAPABILITY IMAP4rev1", "AUTH=PLAIN")
    in_answer(raw.ask("CAPABILITY"), "* CAPABILITY IMAP4rev1 LITERAL+", " OK ")
    in_answer(raw.ask('ID ("name" "x")'), '* ID ("name" "Holdfast")')
    in_answer(raw.ask("SELECT INBOX"), " BAD log in first")
    in_answer(raw.ask("STARTTLS"), " BAD TLS is not offered here")
    in_answer(raw.ask("NONSENSE"), " BAD ")
    in_answer(raw.ask("LOGIN ada@example.org wrong-password"), " NO [AUTHENTICATIONFAILED]")
    in_answer(raw.ask("LOGIN nobody@example.org wrong-password"), " NO [AUTHENTICATIONFAILED]")
    import base64
    plain = base64.b64encode(f"\0ada@example.org\0{PASSWORD}".encode())
    as_bob = base64.b64encode(f"bob@example.org\0ada@example.org\0{PASSWORD}".encode())
    in_answer(raw.ask(b"AUTHENTICATE PLAIN " + as_bob), " NO [AUTHORIZATIONFAILED]")
    in_answer(raw.ask("AUTHENTICATE PLAIN", b"*\r\n"), " BAD ")
    in_answer(raw.ask("AUTHENTICATE PLAIN", plain + b"\r\n"), " OK [CAPABILITY IMAP4rev1")
    in_answer(Raw(scene, world.imap_port).ask(b"AUTHENTICATE PLAIN " + plain), " OK ")
    in_answer(Raw(scene, world.imap_port).ask("LOGIN {15}", b"ada@example.org {21}\r\n", PASSWORD.encode() + b"\r\n"), " OK ")
    in_answer(Raw(scene, world.imap_port).ask(b"LOGIN {15+}\r\nada@example.org {21+}\r\n" + PASSWORD.encode()), " OK ")
    in_answer(raw.ask("LOGOUT"), "* BYE", " OK ")


@test("TLS: STARTTLS and implicit; from other machines no login without it, nothing said before it counts")
def _(scene):
    cert, key = scene.certificate("imap.example.org")
    implicit = free_port()
    world = World(scene, people=("ada",), yaml=f"tls:\n  certificates:\n    - certificate: {cert}\n      key: {key}\n")
    holdfast = world.holdfast
    holdfast.listeners = f"- address: 127.0.0.1:{world.imap_port}\n  role: imap\n  tls: starttls\n- address: 127.0.0.1:{implicit}\n  role: imap\n  tls: implicit"
    holdfast.stop()
    holdfast.start()
    context = ssl.create_default_context(cafile=cert)
    raw = Raw(scene, world.imap_port)
    in_answer(raw.greeting, "STARTTLS")
    in_answer(raw.ask("STARTTLS"), " OK begin TLS")
    raw.socket = context.wrap_socket(raw.socket, server_hostname="imap.example.org")
    in_answer(raw.ask("STARTTLS"), " BAD TLS is active already")
    in_answer(raw.ask(f'LOGIN ada@example.org "{PASSWORD}"'), " OK ")
    early = Raw(scene, world.imap_port)
    early.send(b"a STARTTLS\r\nb LOGIN x y\r\n")
    in_answer(early.line(), "* BYE something was sent before TLS")
    with context.wrap_socket(socket.create_connection(("127.0.0.1", implicit)), server_hostname="imap.example.org") as stream:
        in_answer(stream.recv(1000), "* OK [CAPABILITY")


@test("6.3 folders: LIST in all its forms, LSUB, STATUS, SUBSCRIBE, NAMESPACE, ENABLE; names are what they should be")
def _(scene):
    world, raw = filled(scene)
    answer = raw.ask('LIST "" "*"')
    in_answer(answer, '* LIST (\\HasNoChildren) "/" "INBOX"', '* LIST (\\HasNoChildren \\Sent) "/" "Sent"', '\\Drafts', '\\Trash', '\\Junk', '"Work"')
    in_answer(raw.ask('LIST "" ""'), '* LIST (\\Noselect) "/" ""')
    in_answer(raw.ask("CREATE Work/Sub"), " OK ")
    answer = raw.ask('LIST "" %')
    assert b"Work/Sub" not in answer and b'(\\HasChildren) "/" "Work"' in answer, answer
    in_answer(raw.ask('LIST "" Work/%'), '"Work/Sub"')
    in_answer(raw.ask('LIST (SPECIAL-USE) "" * RETURN (STATUS (MESSAGES UIDNEXT))'), '* STATUS "Sent" (MESSAGES 0 UIDNEXT 1)')
    in_answer(raw.ask("UNSUBSCRIBE Work"), " OK ")
    in_answer(raw.ask("UNSUBSCRIBE Nowhere"), " OK ")
    in_answer(raw.ask("SUBSCRIBE Nowhere"), " NO [NONEXISTENT]")
    assert b'"Work"' not in raw.ask('LSUB "" *')
    in_answer(raw.ask('LIST "" ("In*" "Wor*") RETURN (SUBSCRIBED)'), '"Work"', '"Work/Sub"')
    in_answer(raw.ask("STATUS Work (MESSAGES UNSEEN UIDVALIDITY SIZE)"), "MESSAGES 2 UNSEEN 2", f"SIZE {len(PLAIN) + len(MIXED)}")
    in_answer(raw.ask("NAMESPACE"), '* NAMESPACE (("" "/")) NIL NIL')
    in_answer(raw.ask("ENABLE CONDSTORE X"), "* ENABLED CONDSTORE\r\n")
    in_answer(raw.ask("CREATE inbox"), " NO [ALREADYEXISTS]")
    in_answer(raw.ask("CREATE &Jjo-"), " OK ")
    in_answer(raw.ask('LIST "" *'), '"&Jjo-"')
    in_answer(raw.ask("CREATE &Jjo"), " BAD ")
    in_answer(raw.ask("CREATE //"), " NO [CANNOT]")
    in_answer(raw.ask("SELECT nothing"), " NO [NONEXISTENT]")
    in_answer(raw.ask("FETCH 1 FLAGS"), " BAD select a folder first")


@test("6.3 folders: those above are made with them; a deleted one's name stays subscribed until the person says otherwise")
def _(scene):
    world, raw = filled(scene)
    in_answer(raw.ask("CREATE a/b/c"), " OK ")
    in_answer(raw.ask('LIST "" a*'), '(\\HasChildren) "/" "a"\r\n', '(\\HasChildren) "/" "a/b"\r\n', '(\\HasNoChildren) "/" "a/b/c"\r\n')
    in_answer(raw.ask("RENAME a/b/c x/y"), " OK ")
    in_answer(raw.ask('LIST "" x*'), '"x"', '"x/y"')
    in_answer(raw.ask("CREATE inbox/notes"), " OK ")
    in_answer(raw.ask('LIST "" %'), '(\\HasChildren) "/" "INBOX"\r\n')
    in_answer(raw.ask("DELETE a"), " OK ")
    in_answer(raw.ask('LIST "" %'), '(\\Noselect \\HasChildren) "/" "a"\r\n')
    in_answer(raw.ask("SELECT a"), " NO [NONEXISTENT]")
    in_answer(raw.ask("DELETE x/y"), " OK ")

    def lost(session):
        return b'(\\NonExistent \\HasNoChildren \\Subscribed) "/" "x/y"' in session.ask('LIST (SUBSCRIBED) "" x/*')

    assert lost(raw)
    in_answer(raw.ask('LSUB "" x/*'), '* LSUB (\\Noselect \\HasNoChildren) "/" "x/y"\r\n')
    assert b"x/y" not in raw.ask('LIST "" *')
    in_answer(raw.ask("SUBSCRIBE x/y"), " OK ")
    world.holdfast.stop()
    world.holdfast.start()
    raw = reader(scene, world)
    assert lost(raw)
    in_answer(raw.ask("UNSUBSCRIBE x/y"), " OK ")
    assert not lost(raw)
    # A new one of the name is subscribed, as new ones are, and once.
    for command in ("CREATE x/y", "DELETE x/y", "CREATE x/z", "RENAME x/z x/y"):
        in_answer(raw.ask(command), " OK ")
    equal(raw.ask('LSUB "" x/*').count(b"* LSUB"), 1)
    assert not lost(raw)
    for bad in ('LIST (X) "" *', 'LIST (RECURSIVEMATCH) "" *', 'LIST "" * RETURN (X)', 'STATUS INBOX (X)', 'STATUS INBOX (MESSAGES) X', 'LSUB "" (a b)'):
        in_answer(raw.ask(bad), " BAD ")


@test("6.4.5 FETCH: ENVELOPE, BODYSTRUCTURE, every BODY[...] form")
def _(scene):
    world, raw = filled(scene)
    answer = raw.ask("FETCH 1 (ENVELOPE RFC822.SIZE INTERNALDATE UID)")
    in_answer(answer, '"Wed, 25 Nov 2026 23:30:00 -0500" "=?iso-8859-1?q?M=FCller?= and more"',
              'NIL "juergen" "example.net"', '("Ada" NIL "ada" "example.org")(NIL NIL "bob" "example.org")',
              '((NIL NIL "team" NIL)(NIL NIL "a" "example.org")(NIL NIL "b" "example.org")(NIL NIL NIL NIL))', '"<plain@example.net>"',
              f"RFC822.SIZE {len(PLAIN)}", '"24-Nov-2026 12:00:00 +0000"')
    answer = raw.ask("FETCH 2 BODYSTRUCTURE")
    in_answer(answer, '("text" "plain" ("charset" "utf-8") NIL NIL "quoted-printable"',
              '"alternative" ("boundary" "inner") NIL NIL NIL)', '"application" "pdf" ("name" "=?', '("attachment" ("filename" "=?',
              '("message" "rfc822" NIL NIL NIL "7bit"', '"mixed" ("boundary" "outer") NIL NIL NIL)')
    assert b'"alternative")' in raw.ask("FETCH 2 BODY")
    table = [("BODY.PEEK[]", MIXED), ("RFC822.HEADER", MIXED[:MIXED.index(b"preamble")]), ("BODY.PEEK[TEXT]", MIXED[MIXED.index(b"preamble"):]),
             ("BODY.PEEK[1.1]", b"needle in h=C3=A4y"), ("BODY.PEEK[1.2]", b"<p>needle</p>"), ("BODY.PEEK[2]", b"JVBERi0="),
             ("BODY.PEEK[1.1.MIME]", b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"),
             ("BODY.PEEK[3.HEADER]", b"From: inner@example.net\r\nSubject: inner\r\n\r\n"), ("BODY.PEEK[3.TEXT]", b"inner body"), ("BODY.PEEK[3.1]", b"inner body"),
             ("BODY.PEEK[3]", b"From: inner@example.net\r\nSubject: inner\r\n\r\ninner body"),
             ("BODY.PEEK[HEADER.FIELDS (subject FROM)]", b"From: a@example.net\r\nSubject: mixed\r\n\r\n"),
             ("BODY.PEEK[3.HEADER.FIELDS (SUBJECT)]", b"Subject: inner\r\n\r\n"), ("BODY.PEEK[3.HEADER.FIELDS.NOT (SUBJECT)]", b"From: inner@example.net\r\n\r\n"),
             ("BODY.PEEK[]<5.7>", MIXED[5:12]), ("BODY.PEEK[1.1]<6.1000>", b" in h=C3=A4y"), ("BODY.PEEK[2]<100.5>", b"")]
    for item, wanted in table:
        answer = raw.ask(f"FETCH 2 {item}")
        in_answer(answer, f"{{{len(wanted)}}}\r\n".encode() + wanted + b")\r\n")
    for item in ("BODY.PEEK[4]", "BODY.PEEK[1.1.1.1]", "BODY.PEEK[2.HEADER]", "BODY.PEEK[3.2]"):
        in_answer(raw.ask(f"FETCH 2 {item}"), " NIL)\r\n")
    assert b"\\Seen" not in raw.ask("FETCH 1:* FLAGS")
    in_answer(raw.ask("FETCH 2 BODY[TEXT]"), "FLAGS (\\Seen)")
    in_answer(raw.ask("FETCH 1 FAST"), "FLAGS ()", "RFC822.SIZE")
    in_answer(raw.ask("UID FETCH 2:* (FLAGS)"), "* 2 FETCH (UID 2 FLAGS (\\Seen))")


@test("6.4.4 SEARCH and ESEARCH with every key; SORT and THREAD")
def _(scene):
    world, raw = filled(scene)
    raw.ask("STORE 1 +FLAGS (\\Flagged Urgent)")
    table = [("ALL", "1 2"), ("1", "1"), ("UID 2", "2"), ("*", "2"), ("FLAGGED", "1"), ("UNFLAGGED", "2"), ("UNSEEN", "1 2"), ("SEEN", ""), ("KEYWORD urgent", "1"),
             ("UNKEYWORD Urgent", "2"), ("NEW", "1 2"), ("RECENT", ""), ("OLD", "1 2"), ("FROM juergen", "1"), ("FROM j\u00fcrgen", "1"), ("TO bob", "1"), ("CC b@example", "1"), ("BCC x", ""),
             ("SUBJECT \"m\u00dcller and\"", "1"), ("HEADER References plain", "2"), ("HEADER Cc \"\"", "1"), ("BODY needle", "2"), ("BODY h\u00e4y", "2"), ("BODY gr\u00fc", "1"),
             ("TEXT inner@example", "2"), ("TEXT preamble", ""), ("BEFORE 25-Nov-2026", "1"), ("ON 25-Nov-2026", "2"), ("SINCE 25-Nov-2026", "2"),
             ("SENTON 25-Nov-2026", "1 2"), ("SENTBEFORE 25-Nov-2026", ""), ("LARGER 600", "2"), ("SMALLER 600", "1"), ("NOT FLAGGED", "2"),
             ("OR FLAGGED BODY needle", "1 2"), ("(FROM juergen TO bob) SINCE 1-Jan-2020", "1"), ("YOUNGER 4000000000", "1 2"), ("MODSEQ 1", None)]
    for keys, wanted in table:
        text = keys.encode()
        literals = []
        for word in re.findall(r'"[^"]*"|\S+', keys):
            if not word.isascii():  # 8-bit must be a literal
                raw_word = word.strip('"').encode()
                text = text.replace(word.encode(), f"{{{len(raw_word)}}}".encode(), 1)
                literals.append(raw_word + b"\r\n")
        charset = b"CHARSET UTF-8 " if literals else b""
        answer = raw.ask(b"SEARCH " + charset + text, *literals)
        if wanted is not None:
            in_answer(answer, f"* SEARCH{' ' if wanted else ''}{wanted}\r\n")
        assert b" OK " in answer, (keys, answer)
    in_answer(raw.ask("UID SEARCH RETURN (MIN MAX COUNT ALL) ALL"), "* ESEARCH (TAG ", " UID MIN 1 MAX 2 ALL 1:2 COUNT 2\r\n")
    in_answer(raw.ask("SEARCH RETURN () FLAGGED"), "ALL 1\r\n")
    in_answer(raw.ask("SEARCH CHARSET KOI8-R ALL"), " NO [BADCHARSET")
    for bad in ("SEARCH", "SEARCH FROM", "SEARCH (ALL", "SEARCH NOT", "SEARCH BEFORE 32-Nov-2026", "SEARCH " + "(" * 30 + "ALL" + ")" * 30, "SEARCH " + "NOT " * 1000 + "ALL"):
        in_answer(raw.ask(bad), " BAD ")
    for criteria, wanted in (("ARRIVAL", "1 2"), ("REVERSE ARRIVAL", "2 1"), ("SUBJECT", "2 1"), ("FROM", "2 1"), ("SIZE", "1 2"), ("DATE", "2 1"), ("TO", "1 2"), ("CC DATE", "2 1")):
        in_answer(raw.ask(f"SORT ({criteria}) UTF-8 ALL"), f"* SORT {wanted}\r\n")
    in_answer(raw.ask("THREAD REFERENCES UTF-8 ALL"), "* THREAD (1 2)\r\n")
    in_answer(raw.ask("THREAD ORDEREDSUBJECT UTF-8 ALL"), "* THREAD (")


@test("6.4.6 STORE with CONDSTORE, COPY, MOVE, EXPUNGE; two sessions see each other's changes; IDLE tells")
def _(scene):
    world, raw = filled(scene)
    other = reader(scene, world, "Work")
    in_answer(raw.ask("STORE 1 FLAGS (\\Seen)"), "* 1 FETCH (FLAGS (\\Seen))")
    in_answer(other.ask("NOOP"), "* 1 FETCH (FLAGS (\\Seen))")
    modseq = int(re.search(rb"MODSEQ \((\d+)\)", raw.ask("FETCH 1 MODSEQ")).group(1))
    in_answer(raw.ask(f"STORE 1 (UNCHANGEDSINCE {modseq}) +FLAGS.SILENT (\\Flagged)"), "MODSEQ (", " OK done")
    in_answer(raw.ask(f"STORE 1 (UNCHANGEDSINCE {modseq}) -FLAGS (\\Flagged)"), "[MODIFIED 1]")
    in_answer(raw.ask(f"FETCH 1:* (FLAGS) (CHANGEDSINCE {modseq})"), "* 1 FETCH")
    in_answer(raw.ask("STORE 1 +FLAGS (\\Nonsense)"), " NO [CANNOT]")
    in_answer(raw.ask("COPY 1:2 Nowhere"), " NO [TRYCREATE]")
    other.number += 1
    other.send(b"i IDLE\r\n")
    in_answer(other.line(), "+ ")
    raw.ask("STORE 2 +FLAGS (\\Deleted)")
    while b"\\Deleted" not in other.line():
        pass
    in_answer(raw.ask("EXPUNGE"), "* 2 EXPUNGE")
    while b"* 2 EXPUNGE" not in other.line():
        pass
    other.send(b"DONE\r\n")
    while b"i OK" not in other.line():
        pass
    in_answer(raw.ask("MOVE 1 Trash"), "* OK [COPYUID", "* 1 EXPUNGE")
    in_answer(raw.ask("EXAMINE Trash"), "* 1 EXISTS", "[READ-ONLY]")
    in_answer(raw.ask("STORE 1 +FLAGS (\\Seen)"), " NO [READ-ONLY]")
    in_answer(raw.ask("CLOSE"), " OK ")
    in_answer(raw.ask("APPEND Nowhere {3}", b"abc\r\n"), " NO [TRYCREATE]")
    # New mail comes while idle.
    raw.ask("SELECT INBOX")
    raw.send(b"j IDLE\r\n")
    raw.line()
    world.send("news", "ada")
    while b"* 1 EXISTS" not in raw.line():
        pass


@test("keywords are told before they are used (7.2.6); CONDSTORE tells the highest change when it begins, and that of what it names")
def _(scene):
    world, raw = filled(scene)
    other = reader(scene, world, "Work")
    answer = raw.ask("STORE 2 FLAGS ($Forwarded Urgent)")
    in_answer(answer, "* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft $Forwarded Urgent)\r\n", "$Forwarded Urgent \\*)]")
    assert answer.index(b"* FLAGS") < answer.index(b"* 2 FETCH"), answer
    assert b"* FLAGS" not in raw.ask("FETCH 1:2 FLAGS")
    answer = other.ask("NOOP")
    assert answer.index(b"* FLAGS") < answer.index(b"* 2 FETCH"), answer
    in_answer(reader(scene, world, None).ask("SELECT Work"), "* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft $Forwarded Urgent)\r\n")
    answer = raw.ask("FETCH 1 MODSEQ")
    highest = int(re.search(rb"\* OK \[HIGHESTMODSEQ (\d+)\]", answer).group(1))
    assert b"HIGHESTMODSEQ" not in raw.ask("FETCH 2 MODSEQ")
    in_answer(raw.ask("STORE 1 +FLAGS (\\Flagged)"), f"MODSEQ ({highest + 1})")
    for wanted, modseq in (("MIN", highest + 1), ("MAX", highest), ("MIN MAX", highest + 1), ("ALL", highest + 1), ("MAX COUNT", highest + 1)):
        in_answer(raw.ask(f'SEARCH RETURN ({wanted}) MODSEQ "/flags/\\\\flagged" all 1'), f" MODSEQ {modseq}\r\n")


@test("what another session has taken away and this one does not know yet: commands do what they can, and say so (RFC 2180 4.1.3, 5530)")
def _(scene):
    world, raw = filled(scene)
    other = reader(scene, world, "Work")
    other.ask("STORE 1 +FLAGS (\\Deleted)")
    in_answer(other.ask("EXPUNGE"), "* 1 EXPUNGE")
    for command in ("FETCH 1:2 (UID FLAGS)", "UID FETCH 1:2 (FLAGS)", "STORE 1:2 +FLAGS (\\Seen)"):
        answer = raw.ask(command)
        in_answer(answer, "* 2 FETCH (", " OK [EXPUNGEISSUED]")
        assert b"EXPUNGE\r\n" not in answer and b"* 1 FETCH" not in answer, answer
    in_answer(raw.ask("NOOP"), "* 1 EXPUNGE")
    in_answer(raw.ask("UID FETCH 1:2 (FLAGS)"), "* 1 FETCH (UID 2", " OK done")


@test("Holdfast is killed while messages are moved: each is in one folder, and in no other")
def _(scene):
    world = World(scene, people=("ada",))
    for number in range(5):
        world.send(f"m{number}", "ada")
    world.inbox("ada", 5)
    checked(world.log_in("ada").create("Work"))
    for _ in range(12):
        killer = threading.Timer(random.uniform(0.1, 0.4), world.holdfast.kill)
        killer.start()
        with contextlib.suppress(imaplib.IMAP4.abort, OSError):
            session = world.log_in("ada")
            while True:
                for here, there in (("INBOX", "Work"), ("Work", "INBOX")):
                    checked(session.select(here))
                    checked(session.uid("MOVE", random.choice(["1:*", "*"]), there))
        killer.join()
        world.holdfast.start()
        session = world.log_in("ada")
        equal(sorted(subjects(session) + subjects(session, "Work")), [f"m{number}" for number in range(5)])


@test("hostile: absurd literals, endless lines, nesting bombs, ten thousand parts, wrong charsets; each is survived and answered")
def _(scene):
    world, raw = filled(scene)
    stranger = Raw(scene, world.imap_port)
    for size in (99999999999, 2**64 - 1, 2**64 - 16, 10**30):  # the largest are as large as can be counted
        in_answer(Raw(scene, world.imap_port).ask(f"LOGIN {{{size}}}"), " BAD ")
        endless = Raw(scene, world.imap_port)
        endless.send(f"x LOGIN {{{size}+}}\r\n".encode())
        assert ends(endless), "a literal that nobody can store"
    stranger.send(b"x" * 20000)
    assert ends(stranger), "an endless line"
    for bad in (b"LOGIN {5", b"LOGIN \"a", b"FETCH", b"FETCH 0 FLAGS", b"FETCH 1 BODY[", b"FETCH 1 BODY[0]", b"FETCH 1 (FLAGS", b"FETCH 1 BODY[]<1>", b"FETCH 1 BODY[1.]", b"FETCH 4294967296 FLAGS",
                b"STORE 1 FLAGS", b"STATUS INBOX", b"APPEND INBOX {0}\r\n", b"SEARCH \0", b"\xff\xfe", b"UID", b"UID NOOP", b"LIST", b"THREAD X UTF-8 ALL", b"SORT (X) UTF-8 ALL"):
        one = reader(scene, world, "Work")
        answer = one.ask(bad)
        assert b" BAD " in answer, (bad, answer)
    nested = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"".join(
        b"--" + b"b" + b"x" * n + b"\r\nContent-Type: multipart/mixed; boundary=b" + b"x" * (n + 1) + b"\r\n\r\n" for n in range(2000))
    deep = b"".join(b"Content-Type: message/rfc822\r\n\r\n" for _ in range(5000)) + b"Subject: x\r\n\r\nx\r\n"
    many = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * 10000 + b"--b--\r\n"
    charset = b"Subject: =?no-such-charset?b?/////w==?= =?utf-8?q?=FF?=\r\nContent-Type: text/plain; charset=no-such-charset\r\n\r\n\xff\xfe needle\r\n"
    header = b"Subject" + b" : " + b"x" * 200000 + b"\r\nno colon here\r\n: empty\r\nTo: " + b"(" * 20000 + b"\r\nFrom: " + b"a:" * 5000 + b"\r\n\r\nx\r\n"
    noise_bytes = random.Random(1).randbytes(50000)
    for content in (nested, deep, many, charset, header, noise_bytes, b"\r\n", b"\n", b"x", b"Content-Type: multipart/mixed; boundary=\"\"\r\n\r\n--\r\n--\r\n"):
        assert b"APPENDUID" in raw.ask(f"APPEND Junk {{{len(content)}}}", content + b"\r\n"), content[:50]
    raw.ask("SELECT Junk")
    for command in ("FETCH 1:* (ENVELOPE BODYSTRUCTURE BODY BODY.PEEK[1.1.1] BODY.PEEK[HEADER] BODY.PEEK[1.MIME])", "SEARCH TEXT needle", "SORT (SUBJECT FROM DATE) UTF-8 ALL",
                    "THREAD REFERENCES UTF-8 ALL", "FETCH 3 BODY.PEEK[9999]", "FETCH 1:* BODY.PEEK[]"):
        assert b" OK " in raw.ask(command), command
    in_answer(raw.ask("SEARCH TEXT needle"), "* SEARCH 4\r\n")
    for size in (999999999999, 2**64 - 1):
        writer = reader(scene, world, "Work")
        writer.send(f"x APPEND Junk {{{size}+}}\r\n".encode())
        assert ends(writer), "a literal that nobody waits for"
    # A header field's name comes back in the answer: nothing else may.
    for name in (b'"x\\"y"', b'"x y"', b"{4}\r\nx\r\ny", b'"(x"'):
        in_answer(reader(scene, world, "Work").ask(b"FETCH 1 BODY.PEEK[HEADER.FIELDS (" + name + b")]"), " BAD ")
    assert world.holdfast.process.poll() is None


@test("one person's large messages that never come keep nobody else's out")
def _(scene):
    world, _ = filled(scene)
    stalled = [reader(scene, world, "Work") for _ in range(4)]
    for writer in stalled:
        writer.send(f"x APPEND Junk {{{60 << 20}}}\r\n".encode())
    world.add("carl")
    other = reader(scene, world, "INBOX", "carl")
    content = b"x" * (20 << 20) + b"\r\n"
    assert b"APPENDUID" in other.ask(f"APPEND Drafts {{{len(content)}}}", content + b"\r\n")


@test("hostile: what nests or repeats a million times stops nobody else, and is answered")
def _(scene):
    world, raw = filled(scene)
    multipart = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    hostile = [b"Subject: " + one * 1000000 + b"\r\n\r\nx" for one in (b"re:", b"[a]", b"[fwd:")]
    hostile += [b"From: " + one * 1000000 + b"\r\n\r\nx" for one in (b"a:", b"a@b,", b"(")]
    hostile += [multipart + (b"--b\r\n" + multipart) * 80000]
    for content in hostile:
        assert b"APPENDUID" in raw.ask(f"APPEND Junk {{{len(content)}}}", content + b"\r\n"), content[:50]
    raw.ask("SELECT Junk")
    for command in ("FETCH 1:* (ENVELOPE BODYSTRUCTURE)", "SORT (SUBJECT FROM DATE) UTF-8 ALL", "THREAD REFERENCES UTF-8 ALL"):
        assert b" OK " in raw.ask(command), command
    assert world.holdfast.process.poll() is None


def ends(raw):
    """The server closes."""
    try:
        while raw.line():
            pass
    except (ConnectionError, OSError):
        return True


main()
