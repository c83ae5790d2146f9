"""Holdfast as a service of the machine: a user of its own, and a service manager that starts, watches and stops it."""
import ctypes
import os
import signal
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from harness import *
from service_manager import ServiceManager

DAEMON_USER = "nobody"
AS_DAEMON = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]


@contextlib.contextmanager
def stopped(thread):
    """One thread of a process, by its number, stands still meanwhile."""
    PTRACE_ATTACH, PTRACE_DETACH, WALL = 16, 17, 0x40000000
    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    equal(ptrace(PTRACE_ATTACH, thread, None, None), 0, "ptrace")
    os.waitpid(thread, WALL)
    try:
        yield
    finally:
        ptrace(PTRACE_DETACH, thread, None, None)


def daemon_of_a_user(scene, **options):
    """A Holdfast that is not root; its folder is "home"."""
    home = scene.path("home")
    os.mkdir(home)
    shutil.chown(home, DAEMON_USER, "nogroup")
    holdfast = Holdfast(scene, scene.primary(), journal_path=os.path.join(home, "journal"), before=AS_DAEMON, **options)
    holdfast.socket = os.path.join(home, "admin.sock")
    holdfast.binary = shutil.copy(BINARY, scene.path("holdfast"))  # the build may be in a folder that only root may enter
    return holdfast.start()


@test("what root's commands leave in the journal of a daemon that does not run as root, the daemon can use")
def _(scene):
    holdfast = daemon_of_a_user(scene)
    for _ in range(3):
        assert scene.client(holdfast.port).send_mail().startswith("250")
    wait_for(lambda: len([one for one in holdfast.entries() if one["recipients"][0]["outcome"] == "forwarded"]) == 3, what="three entries")
    ids = [one["id"] for one in holdfast.entries()]
    commands = (("list",), ("verify",), ("seal",), ("erase", "--id", "ID", "--reason", "a request"), ("rekey", "--reason", "yearly"), ("seal",),
                ("export", str(ids[2]), "--reason", "a question"), ("replay", "--to", "maildir:" + scene.path("maildir")), ("rebuild",), ("stats",))
    backup = scene.path("backup")
    for is_up in (True, False):
        if not is_up:
            holdfast.stop()
            # As after a restore, or where they were never made.
            run("find", holdfast.journal_path, "-name", "*-lock", "-delete")
        for command in commands:
            done = run(BINARY, "-c", holdfast.config, "journal", *(str(ids[is_up]) if word == "ID" else word for word in command))
            equal(done.returncode, 0, (command, done))
        for command in (["journal", "backup", backup], ["mailbox", "add", f"ada{is_up}@example.org", "--generate"]):
            done = run(BINARY, "-c", holdfast.config, *command)
            equal(done.returncode, 0, done)
        others = run("find", scene.path("home"), "!", "-user", DAEMON_USER).stdout
        equal(others, "", "files of others in the journal")
        # What is not the daemon's stays root's.
        equal(run("find", backup, "!", "-user", "root").stdout, "")
        equal(run("find", backup, "-type", "f", "-perm", "/077", "!", "-name", "signing.pub").stdout, "", "of a backup that others may read")
    holdfast.start()
    assert scene.client(holdfast.port).send_mail().startswith("250")


@test("a key file in a folder of root's stays the daemon's when root puts another master key in its place")
def _(scene):
    os.mkdir(scene.path("keys"))
    key = scene.path("keys/master.key")
    with open(key, "w") as file:
        file.write(os.urandom(32).hex())
    os.chmod(key, 0o600)
    shutil.chown(key, DAEMON_USER, "nogroup")
    holdfast = daemon_of_a_user(scene, journal=f"key_file: {key}")
    holdfast.stop()
    before = open(key).read()
    holdfast.run("journal", "rekey", "--reason", "yearly")
    assert open(key).read() != before
    holdfast.start()


@test("the service manager is told: ready, how things are, reloading, stopping, and that it is alive")
def _(scene):
    primary = scene.primary()
    for path, name in ((scene.path("notify"), scene.path("notify")), (f"\0holdfast-{os.getpid()}", f"@holdfast-{os.getpid()}")):
        manager = ServiceManager(scene, path)
        holdfast = Holdfast(scene, primary, before=["env", f"NOTIFY_SOCKET={name}"]).start()
        equal(manager.next(), "READY=1")
        equal(manager.next(), "STATUS=mail passes")
        equal(manager.next(but=None), "WATCHDOG=1")
        holdfast.run("failover", "hold", "--reason", "a drill")
        equal(manager.next(), "STATUS=primary: hold, 0 held")
        holdfast.run("failover", "auto", "--reason", "done")
        while (said := manager.next()) != "STATUS=mail passes":
            assert said.startswith("STATUS=primary: "), said
        holdfast.signal(signal.SIGHUP)
        said = dict(line.split("=") for line in manager.next().splitlines())
        equal(said["RELOADING"], "1")
        assert 0 < time.monotonic() - int(said["MONOTONIC_USEC"]) / 1e6 < 60
        equal(manager.next(), "READY=1")
        holdfast.process.terminate()
        equal(manager.next(), "STOPPING=1")
        holdfast.process.wait()


def fills_up(stack, path):
    """True when one more sender finds room. Each has only so much of its own; the queue of who is told is as long as the machine has it."""
    sender = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    sender.setblocking(False)
    sender.connect(path)
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            sender.send(b"X=1")
            sent += 1
    return sent > 0


@test("a service manager that is slow is told again, and nothing waits for it")
def _(scene):
    manager = ServiceManager(scene, scene.path("notify"))
    with contextlib.ExitStack() as others:
        while fills_up(others, scene.path("notify")):
            continue
        holdfast = Holdfast(scene, scene.primary(), before=["env", f"NOTIFY_SOCKET={scene.path('notify')}"]).start()
        assert scene.client(holdfast.port).send_mail().startswith("250")
        wait_for(lambda: float(json.loads(holdfast.run("status", "--json").stdout)["uptime_s"]) >= 1, what="some ticks")
    equal(manager.next(but="X=1"), "READY=1\nSTATUS=mail passes")
    equal(manager.next(but=None), "WATCHDOG=1")


def thread(holdfast, name):
    """Its id, once it has been started."""
    def found():
        for one in os.listdir(f"/proc/{holdfast.process.pid}/task"):
            with open(f"/proc/{holdfast.process.pid}/task/{one}/comm") as file:
                if file.read().strip() == name:
                    return int(one)
    return wait_for(found, what=f"the thread {name}")


@test("a loop that stands still is no longer called alive")
def _(scene):
    manager = ServiceManager(scene, scene.path("notify"))
    holdfast = Holdfast(scene, scene.primary(), before=["env", f"NOTIFY_SOCKET={scene.path('notify')}"], yaml="threads: 1").start()
    with stopped(thread(holdfast, "loop")):
        # What was on its way before.
        manager.socket.settimeout(3)
        try:
            while True:
                manager.next(but=None)
        except TimeoutError:
            pass
        holdfast.run("status")
    manager.socket.settimeout(10)
    equal(manager.next(but="STATUS=mail passes"), "WATCHDOG=1")


@test("a decision that is taken late is told when it is taken; one that takes too long is not called refused, and is taken")
def _(scene):
    holdfast = Holdfast(scene, scene.primary()).start()
    control = thread(holdfast, "control")

    def decide(mode):
        return subprocess.Popen([BINARY, "-c", holdfast.config, "failover", mode, "--reason", "test"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with stopped(control):
        late = decide("hold")
        try:
            raise AssertionError(f"it gave up: {late.wait(timeout=1)}")
        except subprocess.TimeoutExpired:
            pass
    out, problem = late.communicate(timeout=10)
    equal((late.returncode, out, problem), (0, "route primary: state hold, mode hold\n", ""))
    with stopped(control):
        waiting = decide("auto")
        [route] = holdfast.status()["routes"]
        equal(waiting.poll(), None, "the decision waits, and the state is told")
        equal((route["state"], route["reason"], route["late_s"] >= 0), ("hold", "test", True))
        assert re.search(r"NOT UP TO DATE: .* for \d+ s", holdfast.run("status").stdout)
        out, problem = waiting.communicate(timeout=10)
        assert "takes effect when it does" in problem, problem
    wait_for(lambda: holdfast.status()["routes"][0]["mode"] == "auto", what="the decision")


@test("the state is told at once while the name of another user is looked up at a server that is away")
def _(scene):
    slow = scene.path("slow")
    names = f"""#include <pwd.h>
#include <unistd.h>
int getpwuid_r(uid_t uid, struct passwd *entry, char *memory, size_t size, struct passwd **found) {{
  (void)uid; (void)entry; (void)memory; (void)size;
  while (access("{slow}", F_OK) == 0) usleep(10000);
  *found = 0;
  return 0;
}}
struct passwd *getpwuid(uid_t uid) {{ struct passwd *found; getpwuid_r(uid, 0, 0, 0, &found); return 0; }}
"""
    holdfast = scene.holdfast(scene.primary(), before=preloading(scene, names))
    open(slow, "w").close()
    deciding = subprocess.Popen([BINARY, "-c", holdfast.config, "failover", "hold", "--reason", "test"], stdout=subprocess.DEVNULL)
    for _ in range(5):
        equal(holdfast.status()["routes"][0]["state"], "pass")
    equal(deciding.poll(), None, "it waits for the name")
    os.unlink(slow)
    equal(deciding.wait(10), 0)
    equal(holdfast.status()["routes"][0]["by"], "user uid 0")


@test("whoever closes standard input, output and error before starting it: the log goes nowhere, and not into the journal")
def _(scene):
    closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]
    holdfast = scene.holdfast(scene.primary(), before=closed)
    for _ in range(3):
        assert scene.client(holdfast.port).send_mail().startswith("250")
    wait_for(lambda: len(holdfast.entries()) == 3, what="three entries")
    for command, expected in (("verify", 74), ("list", 74), ("seal", 74), ("erase --id 2 --reason x", 74)):
        equal(subprocess.run([*closed, BINARY, "-c", holdfast.config, "journal", *command.split()]).returncode, expected, command)
    holdfast.stop()
    equal(subprocess.run([*closed, BINARY, "-c", holdfast.config, "journal", "rebuild"]).returncode, 74)
    assert "all is well" in holdfast.run("journal", "verify").stdout
    equal(len(holdfast.entries()), 2)


@test("whoever blocks all signals before starting it, or ignores them, can still decide and stop it by signals")
def _(scene):
    blocked = "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())"
    ignored = "[signal.signal(one, signal.SIG_IGN) for one in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD)]"
    for left in (blocked, ignored):
        holdfast = scene.holdfast(scene.primary(), before=[sys.executable, "-c", f"import os, signal, sys; {left}; os.execvp(sys.argv[1], sys.argv[1:])"])
        for number, mode in ((signal.SIGUSR1, "hold"), (signal.SIGUSR2, "auto")):
            holdfast.signal(number)
            wait_for(lambda: holdfast.status()["routes"][0]["mode"] == mode, what=mode)
        holdfast.signal(signal.SIGHUP)
        wait_for(lambda: holdfast.logged("certificates were read again"), what="a reload")
        holdfast.signal(signal.SIGTERM)
        equal(holdfast.process.wait(20), 0)


@test("what systemd's journal reads has a priority, and no time of its own")
def _(scene):
    for log_format, expected in (("text", r"<6>info ready listening="), ("json", r'<6>\{.*"event":"ready"')):
        ours, theirs = socket.socketpair()
        stream = os.fstat(theirs.fileno())
        holdfast = Holdfast(scene, scene.primary(), yaml=f"log:\n  format: {log_format}")
        holdfast.write_config()
        holdfast.process = subprocess.Popen([BINARY, "-c", holdfast.config, "serve"], stderr=theirs, env={**os.environ, "JOURNAL_STREAM": f"{stream.st_dev}:{stream.st_ino}"})
        theirs.close()
        ours.settimeout(10)
        with ours, ours.makefile() as lines:
            assert any(re.match(expected, line) for line in lines), expected
        holdfast.stop()


@test("the Debian package has the program and what it needs, a service that systemd takes, the pages, and scripts that a shell takes")
def _(scene):
    root, control = scene.path("root"), scene.path("control")
    packed = run("cpack", "-B", scene.path("packages"), "--config", os.path.join(ROOT, "build", "release", "CPackConfig.cmake"))
    equal(packed.returncode, 0, packed.stderr)
    [package] = [os.path.join(scene.path("packages"), name) for name in os.listdir(scene.path("packages")) if name.endswith(".deb")]
    for option, folder in (("-x", root), ("-e", control)):
        equal(run("dpkg-deb", option, package, folder).returncode, 0)
    needs = run("dpkg-deb", "-f", package, "Depends").stdout
    for one in ("adduser", "liblmdb0", "libgmime-3.0-0", "libcurl4", "libldap-2.5-0"):  # the last three are loaded when they are needed
        assert one in needs, needs
    for script in ("postinst", "prerm", "postrm"):
        equal(run("sh", "-n", os.path.join(control, script)).stderr, "")
    equal(sorted(os.listdir(os.path.join(root, "usr/share/doc/holdfast"))), ["README.md", "alerts.yaml", "dashboard.json", "for-auditors.md", "holdfast.nft", "holdfast.yaml", "three-in-the-morning.md"])
    unit = os.path.join(root, "usr/lib/systemd/system/holdfast.service")
    checked = run("systemd-analyze", "verify", "--recursive-errors=no", f"--root={root}", unit)
    equal((checked.returncode, checked.stdout + checked.stderr), (0, ""))
    assert os.path.exists(os.path.join(root, "usr/share/man/man8/holdfast.8"))
    program = os.path.join(root, "usr/bin/holdfast")
    assert run(program, "--version").stdout.startswith("holdfast")
    hardened = run("readelf", "-W", "-h", "-d", "--dyn-syms", program).stdout
    for trait in ("(Position-Independent Executable file)", "BIND_NOW", "__stack_chk_fail", "_chk@"):
        assert trait in hardened, trait


main()
