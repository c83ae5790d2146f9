"""A reader of journals written from journal/FORMAT.md alone, with nothing of Holdfast: if it fails, the page or Holdfast is wrong."""
import hashlib
import itertools
import json
import os
import re
import struct
import sys

import lmdb
import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

FRAME, CELL = 65252, 4080
OUTCOMES = ["pending", "forwarded", "held", "delivered", "rejected", "deferred", "bounced", "expired", "dropped", "erased", "abandoned"]


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


class Fields:
    def __init__(self, data):
        self.data, self.at = data, 0

    def raw(self, size):
        self.at += size
        assert self.at <= len(self.data), "cut short"
        return self.data[self.at - size:self.at]

    def number(self, form):
        return struct.unpack("<" + form, self.raw(struct.calcsize("<" + form)))[0]

    def string(self):
        return self.raw(self.number("I"))

    def rest(self):
        return self.raw(len(self.data) - self.at)


def unseal(key, sealed, associated):
    return AESGCM(key).decrypt(sealed[:12], sealed[12:], associated)


def unseal_with_one(keys, sealed, associated):
    for key in keys:
        try:
            return unseal(key, sealed, associated)
        except InvalidTag:
            pass
    raise InvalidTag()


def read_key_ring(path):
    """The base key and the wrapping keys."""
    with open(os.path.join(path, "master.key")) as file:
        master = bytes.fromhex(file.read().strip())
    with open(os.path.join(path, "keys")) as file:
        first, *copies = file.read().splitlines()
    assert first == "holdfast-keys-1"
    for copy in copies:
        try:
            ring = unseal(master, bytes.fromhex(copy), b"key ring")
            return ring[:32], [ring[at:at + 32] for at in range(32, len(ring), 32)]
        except InvalidTag:
            pass
    raise InvalidTag()


class Segment:
    def __init__(self, path, wrapping_keys, is_sealed):
        self.env = lmdb.open(path, subdir=False, readonly=True, lock=not is_sealed, map_size=1 << 40)
        with self.env.begin() as transaction:
            fields = Fields(transaction.get(bytes(8)))
            assert fields.raw(8) == b"HOLDFAST" and fields.number("I") == 1
            self.number, self.first, self.created, self.previous = fields.number("I"), fields.number("Q"), fields.number("q"), fields.raw(32)
            self.follows_damage, self.is_compacted = fields.number("B"), fields.number("B")
            self.key = unseal_with_one(wrapping_keys, fields.string(), b"segment key" + struct.pack("<I", self.number))
            assert fields.rest() == b""
            sealed = b"".join(self.pieces(transaction, 0))
            self.dictionary = zstandard.ZstdCompressionDict(unseal(self.key, sealed, b"dictionary")) if sealed else None

    def pieces(self, transaction, number):
        for index in itertools.count():
            piece = transaction.get(struct.pack(">QI", 2 * number, index))
            if piece is None:
                return
            yield piece

    def unpack(self, packed):
        if packed[0] == 0:
            return packed[1:]
        assert packed[0] == 1 or self.dictionary
        return zstandard.ZstdDecompressor(self.dictionary if packed[0] == 2 else None).decompress(packed[1:])

    def records(self):
        with self.env.begin() as transaction:
            for key, value in transaction.cursor():
                number = int.from_bytes(key, "big")
                if len(key) == 8 and number % 2 == 1:
                    yield number // 2, Record(number // 2, Fields(value), self)

    def content(self, record, message):
        return self.compacted_content(record, message) if self.is_compacted else self.content_as_written(record, message)

    def compacted_content(self, record, message):
        with self.env.begin() as transaction:
            pieces = list(self.pieces(transaction, record.number))
        assert all(len(piece) == (record.piece_size if index else record.first_piece) for index, piece in enumerate(pieces[:-1]))
        stored, content = Fields(b"".join(pieces)), b""
        for index, size in enumerate(record.frames):
            is_last = index + 1 == len(record.frames)
            content += self.unpack(unseal(self.key, stored.raw(size), b"packed frame" + message["content_id"] + struct.pack("<IB", index, is_last)))
        assert stored.rest() == b""
        return content

    def content_as_written(self, record, message):
        with self.env.begin() as transaction:
            cells = [transaction.get(struct.pack(">Q", 2 * (first + i))) for first, count in record.extents for i in range(count)]
        content = b""
        for index in range(max(1, -(-message["size"] // FRAME))):
            size = min(FRAME, message["size"] - len(content))
            count = -(-(size + 28) // CELL)
            is_last = len(content) + size == message["size"]
            content += unseal(self.key, b"".join(cells[:count]), b"frame" + message["content_id"] + struct.pack("<IB", index, is_last))
            cells = cells[count:]
        assert not cells
        return content


class Record:
    def __init__(self, number, fields, segment):
        self.number = number
        self.kind, form, zero = fields.number("B"), fields.number("B"), fields.number("H")
        assert (form, zero) == (2 if segment.is_compacted else 1, 0)
        self.commitment = fields.raw(32)
        self.link = None if segment.is_compacted else fields.raw(32)
        if segment.is_compacted:
            if self.kind == 1:
                self.first_piece, self.piece_size = fields.number("I"), fields.number("I")
                self.frames = [fields.number("I") for _ in range(fields.number("I"))]
        else:
            self.extents = [(fields.number("Q"), fields.number("I")) for _ in range(fields.number("I"))]
        sealed = fields.rest()
        self.is_erased = not sealed
        if sealed:
            plain = unseal(segment.key, sealed, b"record" + bytes([self.kind, form]))
            self.encoded = segment.unpack(plain[16:]) if segment.is_compacted else plain[16:]
            assert sha256(plain[:16], self.encoded) == self.commitment


def decode_message(data):
    fields = Fields(data)
    message = {"time_us": fields.number("q"), "direction": ["inbound", "outbound"][fields.number("B")]}
    for name in ("session", "route", "client", "server", "helo", "protocol", "tls", "auth", "mail_from", "mail_params"):
        message[name] = fields.string().decode("utf-8", "replace")
    message["recipients"] = []
    for _ in range(fields.number("I")):
        one = {name: fields.string().decode("utf-8", "replace") for name in ("address", "params", "reply")}
        one["outcome"] = OUTCOMES[fields.number("B")]
        message["recipients"].append(one)
    message["size"], message["sha256"], message["content_id"] = fields.number("Q"), fields.raw(32).hex(), fields.raw(16)
    message["message_id"], message["subject"] = fields.string().decode("utf-8", "replace"), fields.string().decode("utf-8", "replace")
    assert fields.rest() == b""
    return message


def decode_outcome(data):
    fields = Fields(data)
    outcome = {"time_us": fields.number("q"), "entry": fields.number("Q"), "possible_duplicate": fields.number("B") == 1}
    outcome["changes"] = [(fields.number("I"), OUTCOMES[fields.number("B")], fields.string().decode("utf-8", "replace")) for _ in range(fields.number("I"))]
    assert fields.rest() == b""
    return outcome


def decode_state(data):
    fields = Fields(data)
    state = {"time_us": fields.number("q"), "route": fields.string().decode(), "state": ["pass", "hold", "drain"][fields.number("B")], "mode": ["auto", "hold", "pass"][fields.number("B")]}
    state["by"], state["reason"] = fields.string().decode(), fields.string().decode()
    assert fields.rest() == b""
    return state


def decode_erasure(data):
    fields = Fields(data)
    erasure = {"time_us": fields.number("q"), "by": fields.string().decode(), "reason": fields.string().decode()}
    erasure["records"] = [fields.number("Q") for _ in range(fields.number("I"))]
    assert fields.rest() == b""
    return erasure


def merkle_root(commitments):
    if not commitments:
        return sha256(b"")
    if len(commitments) == 1:
        return sha256(b"\0", commitments[0])
    split = 1 << ((len(commitments) - 1).bit_length() - 1)
    return sha256(b"\1", merkle_root(commitments[:split]), merkle_root(commitments[split:]))


def verify_text(text, signature, key):
    Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(bytes.fromhex(signature), text)


def read_journal(path):
    """All there is, checked on the way: entries by id, states, erasures, and the number of heads and manifests that hold."""
    _, wrapping_keys = read_key_ring(path)
    folder = os.path.join(path, "segments")
    numbers = sorted(int(name[:10]) for name in os.listdir(folder) if re.fullmatch(r"\d{10}\.lmdb", name))
    found = {"entries": {}, "states": [], "erasures": [], "erased": set(), "heads": 0, "manifests": 0}
    link, before = None, None
    for number in numbers:
        segment = Segment(os.path.join(folder, f"{number:010}.lmdb"), wrapping_keys, number != numbers[-1])
        assert segment.number == number and (link is None or segment.follows_damage or segment.previous == link)
        link, commitments = segment.previous, []
        for id, record in segment.records():
            link = sha256(link, record.commitment)
            assert record.link in (None, link), f"record {id}: the chain"
            commitments.append(record.commitment)
            if record.is_erased:
                found["erased"].add(id)
            elif record.kind == 1:
                message = decode_message(record.encoded)
                message["content"] = segment.content(record, message)
                assert hashlib.sha256(message["content"]).hexdigest() == message["sha256"]
                found["entries"][id] = message
            elif record.kind == 2:
                outcome = decode_outcome(record.encoded)
                recipients = found["entries"][outcome["entry"]]["recipients"]
                for index, what, reply in outcome["changes"]:
                    for one in [one for one in recipients if one["outcome"] == "pending"] if index == 0xffffffff else [recipients[index]]:
                        one["outcome"], one["reply"] = what, reply
            elif record.kind == 3:
                found["states"].append(decode_state(record.encoded))
            elif record.kind == 4:
                found["erasures"].append(decode_erasure(record.encoded))
        head_path = os.path.join(path, "heads", f"{number:010}.head")
        if os.path.exists(head_path):
            with open(head_path) as file:
                line = file.read().rstrip("\n")
            text, signature = line.split(" signature=")
            fields = dict(word.split("=") for word in text.split(" ")[1:])
            verify_text(text.encode(), signature, fields["key"])
            assert (int(fields["segment"]), int(fields["first"]), int(fields["records"])) == (number, segment.first, len(commitments))
            assert (fields["previous"], fields["last"], fields["root"]) == (segment.previous.hex(), link.hex(), merkle_root(commitments).hex())
            assert before is None or fields["before"] == sha256(before.encode()).hex()
            before, found["heads"] = line, found["heads"] + 1
            with open(os.path.join(folder, f"{number:010}.manifest")) as file:
                manifest = file.read()
            text, signature = manifest.split("signature=")
            verify_text(text.encode(), signature.strip(), fields["key"])
            with open(os.path.join(folder, f"{number:010}.lmdb"), "rb") as file:
                data = file.read()
            assert text.splitlines()[1:] == [hashlib.sha256(data[at:at + (1 << 20)]).hexdigest() for at in range(0, len(data), 1 << 20)]
            found["manifests"] += 1
    return found


if __name__ == "__main__":
    print(json.dumps(read_journal(sys.argv[1]), default=lambda value: value.hex() if isinstance(value, bytes) else sorted(value)))
