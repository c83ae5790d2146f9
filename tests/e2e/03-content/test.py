"""Bytes are sacred: content of every kind arrives at the primary bit for bit, and is in the journal bit for bit."""
import hashlib
import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from harness import *

noise = random.Random(2)
LINES = b"".join(bytes(noise.choice(b"abcdefghijklmnop .") for _ in range(noise.randrange(0, 80))) + b"\r\n" for _ in range(400))

CONTENTS = {
    "an ordinary message": b"Subject: x\r\n\r\nhello\r\n",
    "an empty message": b"",
    "one empty line": b"\r\n",
    "bare dots": b".\r\n..\r\n...\r\n.x\r\n\r\n.\r\n",
    "a line of 100,000 bytes": b"Subject: long\r\n\r\n" + b"x" * 100000 + b"\r\n",
    "8-bit bytes": b"Subject: 8\r\n\r\n" + bytes(range(128, 256)) + b"\r\n",
    "NUL bytes": b"Subject: nul\r\n\r\na\0b\r\n\0.\r\n.\0\r\n",
    "control characters": b"Subject: c\r\n\r\n" + bytes(c for c in range(1, 32) if c not in (10, 13)) + b"\r\n",
    "no header": b"\r\nbody\r\n",
    "many lines": LINES,
    "exactly a frame": (LINES * 10)[:65250] + b"\r\n",
    "a byte more than a frame": (LINES * 10)[:65251].replace(b"\r", b"-").replace(b"\n", b"-") + b"\r\n",
    "30 MB": (LINES * (30000000 // len(LINES) + 1)),
}


def stuff(content):
    return b"\r\n".join(b"." + line if line.startswith(b".") else line for line in content.split(b"\r\n"))


def check(primary, holdfast, content, number):
    equal(len(primary.messages), number)
    got = primary.messages[-1][1]
    assert got == content, f"the primary got {len(got)} bytes, {len(content)} were sent"
    entry = holdfast.entries()[-1]
    equal(entry["size"], len(content))
    equal(entry["sha256"], hashlib.sha256(content).hexdigest())
    assert holdfast.content(entry["id"]) == content


@test("DATA brings every content bit for bit to the primary and the journal")
def _(scene):
    primary = scene.primary()
    holdfast = scene.holdfast(primary)
    client = scene.client(holdfast.port)
    client.ask("EHLO client.example.net")
    for number, (name, content) in enumerate(CONTENTS.items(), 1):
        client.ask("MAIL FROM:<a@example.net>")
        client.ask("RCPT TO:<b@example.org>")
        equal(client.ask("DATA"), "354 Go ahead", name)
        client.send(stuff(content) + b".\r\n")
        equal(client.reply(), "250 2.0.0 Ok: taken", name)
        check(primary, holdfast, content, number)
    assert "all is well" in holdfast.run("journal", "verify").stdout


@test("BDAT brings every content bit for bit, in one chunk and in many, with and without a last newline")
def _(scene):
    primary = scene.primary()
    holdfast = scene.holdfast(primary)
    client = scene.client(holdfast.port)
    client.ask("EHLO client.example.net")
    contents = dict(CONTENTS, **{"no last newline": b"Subject: x\r\n\r\nend", "a dot alone": b"\r\n.\r\n", "ends in a dot": b"x\r\n.", "ends of DATA inside": b"a\r\n.\r\nRSET\r\n"})
    number = 0
    for name, content in contents.items():
        for pieces in (1, 3):
            number += 1
            client.ask("MAIL FROM:<a@example.net>")
            client.ask("RCPT TO:<b@example.org>")
            size = len(content) // pieces
            for piece in range(pieces):
                is_last = piece == pieces - 1
                chunk = content[piece * size:] if is_last else content[piece * size:(piece + 1) * size]
                client.send(f"BDAT {len(chunk)}{' LAST' if is_last else ''}\r\n".encode() + chunk)
                equal(client.reply(), "250 2.0.0 Ok", f"{name} in {pieces}")
            check(primary, holdfast, content, number)
    client.ask("MAIL FROM:<a@example.net>")
    client.ask("RCPT TO:<b@example.org>")
    client.send("BDAT 3\r\na\r\nBDAT 0 LAST\r\n")
    equal([client.reply(), client.reply()], ["250 2.0.0 Ok"] * 2, "an empty last chunk")
    check(primary, holdfast, b"a\r\n", number + 1)
    assert "all is well" in holdfast.run("journal", "verify").stdout


@test("a whole transaction in one write goes through: MAIL, RCPT and the last chunk pipelined")
def _(scene):
    primary = scene.primary()
    holdfast = scene.holdfast(primary)
    client = scene.client(holdfast.port)
    client.ask("EHLO client.example.net")
    client.send("MAIL FROM:<a@example.net>\r\nRCPT TO:<b@example.org>\r\nBDAT 5 LAST\r\nabc\r\nMAIL FROM:<c@example.net>\r\n")
    equal([client.reply() for _ in range(4)], ["250 2.1.0 Ok", "250 2.1.5 Ok", "250 2.0.0 Ok", "250 2.1.0 Ok"])
    check(primary, holdfast, b"abc\r\n", 1)


@test("content that comes a byte at a time is the same content")
def _(scene):
    primary = scene.primary()
    holdfast = scene.holdfast(primary)
    client = scene.client(holdfast.port)
    for command in ("EHLO client.example.net", "MAIL FROM:<a@example.net>", "RCPT TO:<b@example.org>", "DATA"):
        client.ask(command)
    content = b"Subject: slow\r\n\r\n..\r\n.x\r\nend\r\n"
    for byte in stuff(content) + b".\r\n":
        client.send(bytes([byte]))
    equal(client.reply(), "250 2.0.0 Ok: taken")
    check(primary, holdfast, content, 1)


@test("a series of chunks that was reset leaves nothing in the next message")
def _(scene):
    primary = scene.primary()
    holdfast = scene.holdfast(primary)
    client = scene.client(holdfast.port)
    client.ask("EHLO client.example.net")
    for ending in ("RSET", "EHLO client.example.net"):
        client.ask("MAIL FROM:<a@example.net>")
        client.ask("RCPT TO:<b@example.org>")
        client.send("BDAT 5\r\nold\r\n")
        equal(client.reply(), "250 2.0.0 Ok")
        client.ask(ending)
        client.ask("MAIL FROM:<a@example.net>")
        client.ask("RCPT TO:<b@example.org>")
        client.send("BDAT 5 LAST\r\nnew\r\n")
        equal(client.reply(), "250 2.0.0 Ok")
        equal(primary.messages[-1][1], b"new\r\n", ending)
        equal(holdfast.content(holdfast.entries()[-1]["id"]), b"new\r\n", ending)


main()
