"""A DNS server of a few lines (RFC 1035), and what makes a process ask it and nobody else."""
import socket
import struct
import threading

A, PTR = 1, 12
SERVFAIL, NXDOMAIN = 2, 3


def wire(name):
    return b"".join(bytes([len(label)]) + label for label in name.split(b".")) + b"\0"


def reverse(address):
    return ".".join(reversed(address.split("."))) + ".in-addr.arpa"


class NameServer:
    """Answers from records: {(name, type): data, or an error's number, or None for silence}. Who has no record does not exist."""

    def __init__(self, scene, records, address="127.0.0.77"):  # a resolver asks on port 53, so each scenario needs one of its own
        self.address = address
        self.records = {(name.lower(), kind): data for (name, kind), data in records.items()}
        self.asked = []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((self.address, 53))
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        scene.stack.callback(self.stop)
        files = {"hosts": "127.0.0.1 localhost\n", "resolv.conf": f"nameserver {self.address}\noptions timeout:1 attempts:1\n", "nsswitch.conf": "hosts: files dns\n"}
        for name, text in files.items():
            with open(scene.path(name), "w") as file:
                file.write(text)
        mounts = " && ".join(f"mount --bind {scene.path(name)} /etc/{name}" for name in files)
        self.before = ["unshare", "--mount", "sh", "-c", mounts + ' && exec "$@"', "sh"]  # what starts a process that asks here

    def stop(self):
        self.socket.sendto(b"", self.socket.getsockname())
        self.thread.join()
        self.socket.close()

    def run(self):
        while True:
            query, client = self.socket.recvfrom(4096)
            if not query:  # stop()
                return
            labels, at = [], 12
            while query[at]:
                labels.append(query[at + 1:at + 1 + query[at]])
                at += 1 + query[at]
            name, (kind, _) = b".".join(labels).decode().lower(), struct.unpack("!HH", query[at + 1:at + 5])
            self.asked.append((name, kind))
            exists = any(known == name for known, _ in self.records)
            data = self.records.get((name, kind), 0 if exists else NXDOMAIN)
            if data is None:
                continue
            error, answer = (data, b"") if isinstance(data, int) else (0, b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 60, len(data)) + data)
            self.socket.sendto(query[:2] + struct.pack("!HHHHH", 0x8180 | error, 1, 1 if answer else 0, 0, 0) + query[12:at + 5] + answer, client)
