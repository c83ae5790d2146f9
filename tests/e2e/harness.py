"""What the end-to-end scenarios share: a Holdfast of their own, primaries real and scripted, and a client that sends raw bytes.

A scenario is a folder with a test.py that defines tests with @test("a sentence") and ends with main(). Everything runs on
loopback, on free ports, in a temporary folder that goes at the end. There are no sleeps: wait_for() waits for a condition.
"""
import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import traceback

from ports import free_port
from scripted_primary import PrimarySession, ScriptedPrimary

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
BINARY = os.environ.get("HOLDFAST", os.path.join(ROOT, "build", "release", "holdfast"))
os.environ["PATH"] += ":/usr/sbin"

# For scenarios that look at what clients are told when the primary fails and nothing is held.
PASS = "failover:\n  mode: pass\n  takeover_after: 200ms\n  probe_interval: 1h\n"

_tests = []


def test(sentence):
    def add(function):
        _tests.append((sentence, function))
        return function
    return add


def be_root():
    """Servers with users of their own, mounts and networks need it: begins anew with sudo where it is not."""
    if os.geteuid() != 0:
        os.execvp("sudo", ["sudo", "-E", sys.executable, *sys.argv])


def main():
    be_root()
    wanted = sys.argv[1:]
    failures = 0
    for sentence, function in _tests:
        if wanted and not any(word in sentence for word in wanted):
            continue
        with contextlib.ExitStack() as stack:
            folder = tempfile.mkdtemp(prefix="holdfast-e2e.")
            os.chmod(folder, 0o755)
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            try:
                function(Scene(folder, stack))
                print(f"ok: {sentence}", flush=True)
            except Exception:
                failures += 1
                traceback.print_exc(file=sys.stdout)
                for name in sorted(os.listdir(folder)):
                    if name.endswith(".log"):
                        print(f"--- {name}")
                        with open(os.path.join(folder, name), errors="replace") as log:
                            print("".join(log.readlines()[-30:]))
                print(f"FAILED: {sentence}", flush=True)
    sys.exit(1 if failures else 0)


def wait_for(condition, seconds=60, what="condition"):
    """Waits until condition() is true and returns its value. It is asked ever more rarely: to ask often starts a program, and keeps a core busy."""
    begin = time.monotonic()
    while True:
        value = condition()
        if value:
            return value
        waited = time.monotonic() - begin
        if waited > seconds:
            raise AssertionError(f"waited {seconds} s in vain for {what}")
        time.sleep(min(max(0.02, waited / 20), 0.2))


def equal(actual, expected, what=""):
    if actual != expected:
        raise AssertionError(f"{what}\n  expected: {expected!r}\n  got:      {actual!r}")


class Scene:
    """One test's world; everything started in it is stopped at its end."""

    def __init__(self, folder, stack):
        self.folder, self.stack, self.daemons = folder, stack, 0

    def path(self, name):
        return os.path.join(self.folder, name)

    def holdfast(self, primary=None, **options):
        return Holdfast(self, primary, **options).start()

    def postfix(self, *lines, name="postfix", before=()):
        server = Postfix(self, name, lines, before)
        self.stack.callback(server.stop)
        return server.start()

    def primary(self, **options):
        server = ScriptedPrimary(**options)
        self.stack.callback(server.stop)
        return server

    def client(self, port, **options):
        client = Client(port, **options)
        self.stack.callback(client.close)
        return client

    def certificate(self, name, *names, days=90, before=()):
        """A self-signed certificate; returns the paths of certificate and key."""
        paths = self.path(f"{name}.pem"), self.path(f"{name}.key")
        alternatives = ",".join(f"DNS:{one}" for one in names or (name,))
        subprocess.run([*before, "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", str(days),
                        "-subj", f"/CN={name}", "-addext", f"subjectAltName={alternatives}", "-out", paths[0], "-keyout", paths[1]],
                       check=True, capture_output=True)
        return paths


class Holdfast:
    def __init__(self, scene, primary, yaml="", listener="", listeners="", route="", journal="", routes="", upstreams=None, journal_path=None, before=()):
        self.scene = scene
        self.upstreams = upstreams or [f"127.0.0.1:{getattr(primary, 'port', primary)}"]
        self.port = free_port()
        self.yaml, self.listener, self.listeners, self.route, self.routes, self.journal = yaml, listener, listeners, route, routes, journal
        scene.daemons += 1
        name = "holdfast" if scene.daemons == 1 else f"holdfast{scene.daemons}"
        self.journal_path = journal_path or scene.path(f"{name}.journal")
        self.socket = scene.path(f"{name}.sock")
        self.config = scene.path(f"{name}.yaml")
        self.log = scene.path(f"{name}.log")
        self.process, self.admin = None, ""
        self.before, self.binary = before, BINARY  # what starts it: a command and its arguments; and the program
        self.passed = ()  # descriptors that it gets
        scene.stack.callback(self.stop)

    def write_config(self):
        # Probes would stand in the scripted primaries' records: only scenarios about failover have them. And a slow machine is no failure.
        failover = "" if "failover:" in self.yaml else "failover:\n  probe_interval: 1h\n  takeover_after: 5s\n"
        listed = ", ".join(f'"{one}"' for one in self.upstreams)
        with open(self.config, "w") as file:
            file.write(f"""hostname: holdfast.example.org
listeners:
  - address: 127.0.0.1:{self.port}
{indent(self.listener, 4)}{indent(self.listeners, 2)}routes:
  - name: primary
    domains: ["*"]
    upstreams: [{listed}]
{indent(self.route, 4)}{indent(self.routes, 2)}journal:
  path: {self.journal_path}
{indent(self.journal, 2)}admin:
  socket: {self.socket}
{indent(self.admin, 2)}{failover}{self.yaml}
""")

    def start(self, ready=True):
        self.write_config()
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([*self.before, self.binary, "-c", self.config, "serve"], stderr=log, pass_fds=self.passed)
        if ready:
            wait_for(lambda: self.process.poll() is not None or self.answers(), what="Holdfast to start")
            if self.process.poll() is not None:
                raise AssertionError("Holdfast did not start:\n" + open(self.log).read())
        return self

    def answers(self):
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(self.socket) == 0

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def signal(self, number):
        self.process.send_signal(number)

    def run(self, *arguments, check=True, binary=False):
        result = subprocess.run([BINARY, "-c", self.config, *arguments], capture_output=True, text=not binary)
        if check and result.returncode != 0:
            raise AssertionError(f"holdfast {' '.join(arguments)}: exit {result.returncode}\n{result.stdout}\n{result.stderr}")
        return result

    def entries(self, *filters):
        return [json.loads(line) for line in self.run("journal", "list", "--json", *filters).stdout.splitlines()]

    def content(self, entry):
        return self.run("journal", "export", str(entry), binary=True).stdout

    def status(self):
        return json.loads(self.run("status", "--json").stdout)

    def logged(self, text):
        with open(self.log, errors="replace") as log:
            return text in log.read()

    def wakes(self, thread):
        """How often threads of that name have waited for something, and it came."""
        tasks = f"/proc/{self.process.pid}/task"
        states = [open(f"{tasks}/{task}/status").read() for task in os.listdir(tasks)]
        return sum(int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)$", state, re.MULTILINE).group(1)) for state in states if state.startswith(f"Name:\t{thread}\n"))

    def memory(self, key="VmRSS"):
        """In KiB."""
        with open(f"/proc/{self.process.pid}/status") as status:
            return int(next(line for line in status if line.startswith(key)).split()[1])


def indent(text, width):
    return "".join(" " * width + line + "\n" for line in text.splitlines())


class Postfix:
    """A real Postfix with a folder of its own."""

    def __init__(self, scene, name, lines, before=()):
        self.folder = scene.path(name)
        self.port = free_port()
        self.lines, self.before = lines, before

    def start(self):
        subprocess.run([*self.before, os.path.join(ROOT, "deploy", "trial-primary"), "start", self.folder, str(self.port), *self.lines], check=True)
        return self

    def stop(self):
        subprocess.run([os.path.join(ROOT, "deploy", "trial-primary"), "stop", self.folder], check=False)

    def kill(self):
        """SIGKILL to the master and all that it has started."""
        with open(os.path.join(self.folder, "spool", "pid", "master.pid")) as file:
            os.killpg(int(file.read()), signal.SIGKILL)
        wait_for(lambda: socket.socket().connect_ex(("127.0.0.1", self.port)) != 0, what="Postfix's end")

    def subjects(self):
        """The Subject of each message that was accepted and delivered. One that a killed Postfix delivered again by itself,
        from the same file in its queue, counts once: it was accepted once."""
        found = {}
        for mail in self.mails():
            header = mail.split(b"\n\n")[0]
            queue_id = re.search(rb"\(Postfix\)[^;]*\sid (\w+)", header)[1]
            for subject in re.findall(rb"^Subject: (.*)$", header, re.M):
                found[queue_id, subject.strip()] = None
        return [subject.decode() for _, subject in found]

    def mails(self):
        folder = os.path.join(self.folder, "mail", "all", "new")
        if not os.path.isdir(folder):
            return []
        return [open(os.path.join(folder, name), "rb").read() for name in sorted(os.listdir(folder))]

    def log(self):
        with open(os.path.join(self.folder, "maillog"), errors="replace") as log:
            return log.read()


class Client:
    """Sends what it is told, byte for byte."""

    def __init__(self, port, greeting=True, source=None, host="127.0.0.1", receive_buffer=None):
        self.socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.socket.settimeout(30)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source:
            self.socket.bind(source)
        self.socket.connect((host, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.greeting = self.reply() if greeting else None

    def send(self, data):
        self.socket.sendall(data if isinstance(data, bytes) else data.encode())

    def line(self):
        while b"\n" not in self.buffer:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError(f"closed after {self.buffer!r}")
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line + b"\n"

    def reply(self):
        """One whole reply as text, line ends removed at its end only."""
        lines = b""
        while True:
            line = self.line()
            lines += line
            if line[3:4] != b"-":
                return lines.decode("utf-8", "surrogateescape").rstrip("\r\n")

    def ask(self, command):
        self.send(command + "\r\n" if isinstance(command, str) else command + b"\r\n")
        return self.reply()

    def rest(self):
        """All until the server closes."""
        with contextlib.suppress(ConnectionResetError):
            while True:
                data = self.socket.recv(65536)
                if not data:
                    break
                self.buffer += data
        rest, self.buffer = self.buffer, b""
        return rest.decode("utf-8", "surrogateescape")

    def start_tls(self, name=None, context=None):
        context = context or insecure_tls()
        self.socket = context.wrap_socket(self.socket, server_hostname=name)
        return self

    def close(self):
        with contextlib.suppress(OSError):
            self.socket.close()

    def send_mail(self, content="Subject: x\r\n\r\nhello\r\n", sender="a@example.net", recipient="b@example.org", helo="client.example.net"):
        """A whole transaction; returns the final reply."""
        if helo:
            self.ask(f"EHLO {helo}")
        for command, good in ((f"MAIL FROM:<{sender}>", "250"), (f"RCPT TO:<{recipient}>", "250"), ("DATA", "354")):
            reply = self.ask(command)
            if not reply.startswith(good):
                return reply
        self.send(content)
        self.send(".\r\n")
        return self.reply()


def insecure_tls():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def server_tls(certificate, key):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def preloading(scene, source):
    """What starts a program with a library between it and the C library: the text of a C file, compiled."""
    paths = scene.path("preloaded.c"), scene.path("preloaded.so")
    with open(paths[0], "w") as file:
        file.write(source)
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", paths[1], paths[0], "-ldl"], check=True)
    # A sanitizer of the program wants to be loaded first.
    libraries = subprocess.run(["ldd", BINARY], capture_output=True, text=True, check=True).stdout
    return ["env", "LD_PRELOAD=" + ":".join([*re.findall(r"=> (\S*lib[at]san\S*)", libraries), paths[1]])]


def run(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, **options)
