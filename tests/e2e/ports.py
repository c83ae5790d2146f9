"""Ports to listen on, for tests that run beside each other."""
import contextlib
import random
import socket

claimed = []


def free_port():
    """A port to listen on, of this test alone: below the range from which the system gives ports to connections, so that none takes
    it meanwhile, and claimed by a name that no test running beside this one can have too."""
    with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
        first_given = int(file.read().split()[0])
    while True:
        port = random.SystemRandom().randrange(first_given // 2, first_given)
        claim = socket.socket(socket.AF_UNIX)
        with socket.socket() as probe, contextlib.suppress(OSError):
            claim.bind(f"\0holdfast-test-port-{port}")
            probe.bind(("127.0.0.1", port))
            claimed.append(claim)
            return port
        claim.close()
