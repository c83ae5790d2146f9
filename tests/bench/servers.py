"""What the benchmarks measure through: smtp-sink at the end, and HAProxy, Postfix or Holdfast in between.

Each is started on loopback, on a free port, in the scene's folder, and stopped at the scene's end.
"""
import os
import socket
import subprocess

from harness import free_port, wait_for


def answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Process:
    """A server in the foreground, stopped by its own pid."""

    def __init__(self, scene, port, command):
        self.port = port
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        scene.stack.callback(self.stop)
        wait_for(lambda: answers(port), what=f"{command[0]} to listen")

    def stop(self):
        self.process.terminate()
        self.process.wait()


def sink(scene, *options, port=None):
    port = port or free_port()
    as_user = ["-u", "postfix"] if os.geteuid() == 0 else []
    return Process(scene, port, ["smtp-sink", *as_user, *options, f"127.0.0.1:{port}", "1000"])


def haproxy(scene, target):
    port = free_port()
    path = scene.path("haproxy.cfg")
    with open(path, "w") as file:
        file.write(f"""global
  maxconn 2000
defaults
  mode tcp
  timeout connect 5s
  timeout client 5m
  timeout server 5m
listen smtp
  bind 127.0.0.1:{port}
  server primary 127.0.0.1:{target}
""")
    return Process(scene, port, ["haproxy", "-db", "-f", path])


def postfix_proxy(scene, target):
    """A Postfix that hands each message to the sink before it answers, and keeps nothing."""
    return scene.postfix(f"smtpd_proxy_filter = 127.0.0.1:{target}", "smtpd_client_connection_count_limit = 0", name="proxy")


def postfix_relay(scene, target):
    """A Postfix that queues each message and sends it on."""
    return scene.postfix("virtual_mailbox_domains =", f"relayhost = [127.0.0.1]:{target}", "smtpd_recipient_restrictions = permit_mynetworks, reject",
                         "smtpd_client_connection_count_limit = 0", name="relay")


def queued(postfix):
    """How many messages a Postfix still has."""
    count = 0
    for queue in ("maildrop", "incoming", "active", "deferred"):
        for _, _, names in os.walk(os.path.join(postfix.folder, "spool", queue)):
            count += len(names)
    return count
