"""Mail without end, and a note of what was acknowledged."""
import contextlib
import hashlib
import random
import threading

from harness import Client, equal


class Load(threading.Thread):
    """One client that sends message after message, and notes which it was told are taken."""

    def __init__(self, port, number, seed, acknowledged):
        super().__init__(daemon=True)
        self.port, self.number, self.noise, self.acknowledged = port, number, random.Random(seed), acknowledged

    def content(self, name):
        size = self.noise.choice([0, 100, 3000, 10000, 70000, 300000])
        return (f"Message-ID: <{name}>\r\n\r\n" + ("%064x\r\n" % self.noise.getrandbits(256)) * (size // 66)).encode()

    def run(self):
        with contextlib.suppress(OSError, EOFError):
            client = Client(self.port)
            client.ask("EHLO load.example.net")
            while True:
                name = f"{self.number}.{self.noise.getrandbits(64)}@example.net"
                content = self.content(name)
                if self.noise.random() < 0.5:
                    client.send("MAIL FROM:<a@example.net>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n")
                    replies = [client.reply() for _ in range(3)]
                    client.send(content + b".\r\n")
                else:
                    client.send(b"MAIL FROM:<a@example.net>\r\nRCPT TO:<b@example.org>\r\nBDAT %d LAST\r\n" % len(content) + content)
                    replies = [client.reply() for _ in range(2)]
                if client.reply().startswith("250"):
                    self.acknowledged[name] = hashlib.sha256(content).hexdigest()


def check_acknowledged(holdfast, acknowledged, when):
    """All that was acknowledged is in the journal, whole."""
    journal = {one["message_id"]: one for one in holdfast.entries()}
    for name, digest in acknowledged.items():
        assert name in journal, f"{when}: {name} was acknowledged and is not in the journal"
        equal(journal[name]["sha256"], digest, f"{when}: {name}")
