"""What the cases share: a scene of servers that goes at the end, and Holdfast's limits out of the way."""
import contextlib
import os
import shutil
import sys
import tempfile

from harness import Client, Scene

LIMITS = "limits:\n  per_client: 20000\n  connections: 20000"
QUIET = 0.3  # seconds between two measurements, for what the last one left to be done


@contextlib.contextmanager
def scene():
    with contextlib.ExitStack() as stack:
        folder = tempfile.mkdtemp(prefix="holdfast-bench.")
        os.chmod(folder, 0o755)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        yield Scene(folder, stack)


def print_journal(holdfast):
    verified = holdfast.run("journal", "verify", check=False)
    if verified.returncode != 0:
        sys.exit("the journal does not verify:\n" + verified.stdout)


def teach(holdfast, count=200):
    """Recipients that the directory knows. smtp-source sends to one of them, the drain's load to all."""
    client = Client(holdfast.port)
    client.ask("EHLO teacher")
    client.ask("MAIL FROM:<a@example.net>")
    for address in ["b@example.org", *[f"p{number}@example.org" for number in range(count)]]:
        client.ask(f"RCPT TO:<{address}>")
    client.ask("QUIT")
