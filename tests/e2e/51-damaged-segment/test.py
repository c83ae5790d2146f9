"""One segment of the journal is damaged: nobody is kept from what is in the others, and whoever misses something is told."""
import os
import re
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from journals import *

PEOPLE = ("ada", "bob", "eve")
DAMAGED = "0000000002.lmdb"


def damage_key(path):
    """A bit of what the segment's key is sealed in, at the end of its header, wherever a page has that."""
    header = struct.Struct("<8sIIQq32sBBI60s")
    with open(path, "rb") as file:
        content = file.read()
    for found in re.finditer(b"HOLDFAST\x01\0\0\0", content):
        flip(path, found.start() + header.size - 1)


def damage_pages(path):
    """Some in the middle."""
    pages = os.path.getsize(path) // 4096
    with open(path, "r+b") as file:
        file.seek(pages // 3 * 4096)
        file.write(random.Random(7).randbytes(pages // 3 * 4096))


def cut(path):
    os.truncate(path, os.path.getsize(path) // 2)


def subjects(contents):
    return {re.search(rb"Subject: ([^\r]*)", content).group(1).decode() for content in contents}


@test("what is in the others is listed, found, replayed, copied, erased, delivered and sealed, with the daemon and without it")
def _(scene):
    for damage in (damage_key, damage_pages, cut):
        primary = scene.primary()
        holdfast = scene.holdfast(primary, route="unknown_recipients: accept", journal_path=scene.path(damage.__name__))
        for number in range(1, 5):
            holdfast.run("failover", "pass" if number < 3 else "hold", "--reason", "test")
            for person in PEOPLE:
                content = f"Message-ID: <{person}.{number}@example.net>\r\nSubject: {person} {number}\r\n\r\n{noise(9000, number)}\r\n"
                assert scene.client(holdfast.port).send_mail(content, recipient=f"{person}@example.org").startswith("250")
            if number < 4:
                holdfast.run("journal", "seal")
                wait_for(lambda: holdfast.logged(f"compacted journal segment {number}"), what="compaction")
        holdfast.stop()
        damage(os.path.join(holdfast.journal_path, "segments", DAMAGED))
        there = {f"{person} {number}" for number in (1, 3, 4) for person in PEOPLE}

        def left_out(*command):
            done = holdfast.run("journal", *command, check=False)
            equal(done.returncode, 65, (damage, command, done.stdout, done.stderr))
            return done

        def in_others(found):
            return {one for one in found if not one.endswith(" 2")}
        for is_running in (False, True):
            if is_running:
                os.unlink(os.path.join(holdfast.journal_path, "directory.lmdb"))  # who is known is learned from the journal then
                holdfast.start()
                wait_for(lambda: holdfast.logged("the journal does not tell all recipients"), what="a word of what is not learned")
            listed = left_out("list", "--json")
            equal(in_others(json.loads(line)["subject"] for line in listed.stdout.splitlines()), there)
            assert "damaged records or segments were left out" in listed.stderr, listed.stderr
            of_ada = left_out("list", "--json", "--recipient", "ada@example.org")
            equal(in_others(json.loads(line)["subject"] for line in of_ada.stdout.splitlines()), {one for one in there if one.startswith("ada")})
            folder = scene.path(f"{damage.__name__} {is_running}")
            left_out("replay", "--to", f"eml:{folder}", "--reason", "test")
            equal(in_others(subjects(open(os.path.join(folder, name), "rb").read() for name in os.listdir(folder))), there)
            assert DAMAGED in left_out("verify").stdout
            assert DAMAGED in left_out("rebuild").stderr
            backup = left_out("backup", scene.path(f"{damage.__name__}.backup"))
            assert DAMAGED in backup.stdout + backup.stderr, backup
            person = PEOPLE[2 - is_running]
            left_out("erase", "--recipient", f"{person}@example.org", "--including-held", "--reason", "test")
            there = {one for one in there if not one.startswith(person)}
        holdfast.run("failover", "pass", "--reason", "test")
        wait_for(lambda: holdfast.status()["routes"][0]["held"] == 0, what="what was held to arrive")
        assert subjects(content for _, content in primary.messages) >= {"ada 3", "ada 4"}
        newest = holdfast.status()["journal"]["segment"]
        holdfast.run("journal", "seal")
        wait_for(lambda: holdfast.logged(f"compacted journal segment {newest}"), what="what comes after to be sealed")
        holdfast.stop()


main()
