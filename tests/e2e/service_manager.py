"""What systemd is to a daemon: somebody who is told how things are, and who keeps listening sockets over a restart."""
import os
import socket
import sys
import time

class ServiceManager:
    """What a daemon says to systemd."""

    def __init__(self, scene, path):
        self.socket = scene.stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        self.socket.bind(path)
        self.socket.settimeout(10)

    def next(self, but="WATCHDOG=1", patience=60):
        end = time.monotonic() + patience
        while time.monotonic() < end:
            said = self.socket.recv(4096).decode()
            if said != but and not said.startswith("FDSTORE=1"):
                return said
        raise AssertionError("it says nothing else")


# Becomes the command that follows the numbers of the descriptors to be passed: they are 3, 4 and so on then (sd_listen_fds(3)).
PASS_ON = """
import fcntl, os, sys
count = int(sys.argv[1])
passed = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 1000) for number in sys.argv[2:2 + count]]
for number, descriptor in enumerate(passed, 3):
    os.dup2(descriptor, number)
    os.close(descriptor)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(count), LISTEN_FDNAMES=":".join(["listener"] * count))
os.execv(sys.argv[2 + count], sys.argv[2 + count:])
"""


class KeepingManager(ServiceManager):
    """Keeps what it is given (FDSTORE), lets go of what listens no more, and passes the rest to the next start."""

    def __init__(self, scene, path):
        super().__init__(scene, path)
        self.path, self.kept = path, {}
        self.socket.settimeout(0)

    def hear(self):
        """Everything that was said so far."""
        while True:
            try:
                said, descriptors, _, _ = socket.recv_fds(self.socket, 4096, 253)
            except BlockingIOError:
                break
            if descriptors:
                assert said == b"FDSTORE=1\nFDNAME=listener", said
            for descriptor in descriptors:
                listener = socket.socket(fileno=descriptor)
                self.kept[os.fstat(descriptor).st_ino] = listener
        for inode, listener in list(self.kept.items()):
            if not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                listener.close()
                del self.kept[inode]
        return self

    def ports(self):
        return sorted(listener.getsockname()[1] for listener in self.hear().kept.values())

    def prepare(self, holdfast):
        """What it is to be started with now."""
        numbers = [listener.fileno() for listener in self.hear().kept.values()]
        holdfast.passed = numbers
        holdfast.before = ["env", f"NOTIFY_SOCKET={self.path}", sys.executable, "-c", PASS_ON, str(len(numbers)), *map(str, numbers)]
        return holdfast
