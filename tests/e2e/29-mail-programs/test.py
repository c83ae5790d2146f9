"""Real mail programs on the emergency mailbox: mbsync both ways, twice, and curl."""
import mailbox
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from mailboxes import *


def tree(folder):
    return sorted(os.path.join(where, name) for where, _, names in os.walk(folder) for name in names if not name.startswith("."))


@test("mbsync: all of a mailbox, flags and new messages both ways; the second time nothing changes")
def _(scene):
    world = World(scene, people=("ada",))
    sent = [world.send(f"number {number}", "ada", body=f"Text {number}\r\n" * (number * 50)) for number in range(12)]
    ada = world.inbox("ada", 12)
    checked(ada.uid("STORE", "3", "+FLAGS", "(\\Flagged \\Seen)"))
    checked(ada.append("Drafts", "(\\Draft)", None, b"Subject: a draft\r\n\r\nx\r\n"))
    maildir = scene.path("mail")
    os.mkdir(maildir)
    with open(scene.path("mbsyncrc"), "w") as file:
        file.write(f"""IMAPAccount a
Host 127.0.0.1
Port {world.imap_port}
User ada@example.org
Pass "{PASSWORD}"
SSLType None
AuthMechs PLAIN

IMAPStore far
Account a

MaildirStore near
Path {maildir}/
Inbox {maildir}/INBOX
SubFolders Verbatim

Channel all
Far :far:
Near :near:
Patterns *
Create Both
Expunge Both
SyncState *
""")

    def sync():
        done = run("mbsync", "-c", scene.path("mbsyncrc"), "-a")
        assert done.returncode == 0, done.stderr
    sync()
    got = sorted(message.get_payload() for message in mailbox.Maildir(os.path.join(maildir, "INBOX"), create=False))
    equal(got, sorted(content.split("\r\n\r\n", 1)[1].replace("\r\n", "\n") for content in sent))
    assert any("F" in name.rsplit(",", 1)[-1] and "S" in name.rsplit(",", 1)[-1] for name in tree(os.path.join(maildir, "INBOX")))
    equal(len(mailbox.Maildir(os.path.join(maildir, "Drafts"), create=False)), 1)
    before, uids = tree(maildir), checked(ada.uid("SEARCH", None, "ALL"))
    sync()
    equal(tree(maildir), before)
    checked(ada.noop())
    equal(checked(ada.uid("SEARCH", None, "ALL")), uids)
    # And back: a flag and a message that were made here.
    local = mailbox.Maildir(os.path.join(maildir, "INBOX"), create=False)
    key, message = next((key, message) for key, message in local.items() if message["Subject"] == "number 5")
    message.add_flag("S")
    local[key] = message
    mailbox.Maildir(os.path.join(maildir, "Drafts"), create=False).add(b"Subject: made here\n\nText\n")
    sync()
    wait_for(lambda: ada.noop() and b"\\Seen" in checked(ada.uid("FETCH", "6", "(FLAGS)"))[0], what="the flag")
    equal(subjects(ada, "Drafts"), ["a draft", "made here"])


@test("curl: lists folders, searches, and fetches a message bit for bit")
def _(scene):
    world = World(scene, people=("ada",))
    content = world.send("for curl", "ada")
    world.inbox("ada", 1)
    url, login = f"imap://127.0.0.1:{world.imap_port}", ("-s", "-u", f"ada@example.org:{PASSWORD}")
    assert '"INBOX"' in run("curl", *login, url + "/").stdout
    assert "* SEARCH 1" in run("curl", *login, url + "/INBOX?SUBJECT%20curl").stdout
    equal(subprocess.run(["curl", *login, url + "/INBOX;UID=1"], capture_output=True).stdout, content.encode())


main()
