"""Binary content (BODY=BINARYMIME, RFC 3030): bit for bit where chunks are taken, and nowhere else: in DATA its bytes would be read as lines."""
import hashlib
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from harness import *

CHUNKS = ScriptedPrimary.EHLO.replace(b"250 CHUNKING", b"250-CHUNKING\r\n250 BINARYMIME")
NO_CHUNKS = ScriptedPrimary.EHLO.replace(b"250-ENHANCEDSTATUSCODES\r\n250 CHUNKING", b"250 ENHANCEDSTATUSCODES")
CONTENT = b"Subject: b\r\nContent-Transfer-Encoding: binary\r\n\r\n\n.\nMAIL FROM:<evil@example.net>\n.\r\r\n" + bytes(range(256)) * 600 + b"\n.\r\n"
FAST = "failover:\n  probe_interval: 50ms\n  takeover_after: 1s\n  release_after: 100ms\n  retry_min: 100ms\n  retry_max: 100ms"


def send(client, content=CONTENT, pieces=3):
    """Binary content in chunks; returns the last reply."""
    client.ask("EHLO client.example.net")
    equal(client.ask("MAIL FROM:<a@example.net> BODY=BINARYMIME")[:3], "250")
    equal(client.ask("RCPT TO:<b@example.org>")[:3], "250")
    size = len(content) // pieces
    for piece in range(pieces):
        is_last = piece == pieces - 1
        chunk = content[piece * size:] if is_last else content[piece * size:(piece + 1) * size]
        client.send(f"BDAT {len(chunk)}{' LAST' if is_last else ''}\r\n".encode() + chunk)
        reply = client.reply()
    return reply


def teach(scene, holdfast):
    """The recipient is known, and how the primary greets."""
    equal(scene.client(holdfast.port).send_mail(), "250 2.0.0 Ok: taken")


@test("binary content passes bit for bit to the primary and the journal")
def _(scene):
    primary = scene.primary(replies={"EHLO": CHUNKS})
    holdfast = scene.holdfast(primary)
    for content in (CONTENT, b"\n", b"\r", b"\0\n.\n", b"no end"):
        for pieces in (1, 2):
            equal(send(scene.client(holdfast.port), content, pieces), "250 2.0.0 Ok")
            assert primary.messages[-1][1] == content, content[:40]
            entry = holdfast.entries()[-1]
            equal(entry["sha256"], hashlib.sha256(content).hexdigest())
            assert holdfast.content(entry["id"]) == content
    assert "all is well" in holdfast.run("journal", "verify").stdout


@test("what is held of it goes in chunks, as binary; to a primary that takes no chunks any more it does not go, until it does again")
def _(scene):
    primary = scene.primary(replies={"EHLO": CHUNKS})
    holdfast = scene.holdfast(primary, yaml=FAST)
    teach(scene, holdfast)
    primary.stop()
    wait_for(lambda: holdfast.status()["routes"][0]["state"] == "hold", what="a hold")
    assert send(scene.client(holdfast.port)).startswith("250 2.0.0 Ok: queued")
    held = holdfast.entries()[-1]["id"]
    poor = scene.primary(replies={"EHLO": NO_CHUNKS}, port=primary.port)

    def waits():
        entry = [one for one in holdfast.entries() if one["id"] == held][0]
        return "takes no binary content" in entry["recipients"][0]["reply"]
    wait_for(waits, what="the refusal on record")
    assert not any(b"evil" in session.received for session in poor.sessions)
    equal(poor.messages, [])
    poor.stop()
    rich = scene.primary(replies={"EHLO": CHUNKS}, port=primary.port)
    wait_for(lambda: rich.messages, what="the delivery")
    (envelope, content), = rich.messages
    assert b"BODY=BINARYMIME" in envelope[0], envelope
    assert content.startswith(b"Received: ") and content.endswith(CONTENT)
    equal(len(content.removesuffix(CONTENT).splitlines()), 4, "one Received field, and nothing else")
    wait_for(lambda: [one for one in holdfast.entries() if one["id"] == held][0]["recipients"][0]["outcome"] == "delivered", what="the outcome")


@test("when the primary dies under it and the next address takes no chunks, it is held")
def _(scene):
    first = scene.primary(replies={"EHLO": CHUNKS})
    second = scene.primary(replies={"EHLO": NO_CHUNKS})
    holdfast = scene.holdfast(upstreams=[f"127.0.0.1:{first.port}", f"127.0.0.1:{second.port}"], yaml=FAST)
    teach(scene, holdfast)
    first.replies["BDAT"] = lambda session, line: None
    assert send(scene.client(holdfast.port), pieces=1).startswith("250 2.0.0 Ok: queued")
    assert not any(b"evil" in session.received for session in second.sessions)


@test("a replay sends it in chunks, and to whom takes none not at all, and says so; a journal report of it likewise")
def _(scene):
    primary = scene.primary(replies={"EHLO": CHUNKS})
    holdfast = scene.holdfast(primary)
    equal(send(scene.client(holdfast.port)), "250 2.0.0 Ok")
    for more in ([], ["--as", "journal-report", "--to-recipient", "archive@example.org"]):
        poor = scene.primary(replies={"EHLO": NO_CHUNKS})
        refused = holdfast.run("journal", "replay", "--to", f"smtp://127.0.0.1:{poor.port}", *more, check=False)
        equal(refused.returncode, 69, refused.stderr)
        assert "takes no binary content" in refused.stdout, refused.stdout
        assert not any(b"evil" in session.received for session in poor.sessions)
        rich = scene.primary(replies={"EHLO": CHUNKS})
        holdfast.run("journal", "replay", "--to", f"smtp://127.0.0.1:{rich.port}", *more)
        (envelope, content), = rich.messages
        assert b"BODY=BINARYMIME" in envelope[0], envelope
        assert CONTENT in content and (more or content == CONTENT)


main()
