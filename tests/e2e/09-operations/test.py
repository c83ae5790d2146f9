"""What operators do: check, reload, stop, and the limits they set."""
import fcntl
import os
import select
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from harness import *


@test("the complete example is a valid configuration, and explains every key")
def _(scene):
    example = os.path.join(ROOT, "deploy", "holdfast.yaml")
    text = open(example).read()
    checked = run(BINARY, "-c", example, "check")
    # Its certificates are not on this machine; that must be the only complaint.
    assert checked.returncode == 0 or "cannot use it as a certificate" in checked.stderr, checked.stderr
    for key in ("hostname", "listeners", "address", "role", "tls", "proxy_protocol_from", "route", "certificates", "minimum_version", "ca_file", "routes", "name", "domains",
                "upstreams", "identity", "tls_name", "limits", "connections", "per_client", "message_size", "line_length", "recipients", "commands", "errors", "timeouts", "connect",
                "greeting", "command", "mail", "rcpt", "data_start", "data_block", "data_end", "reuse", "transactions", "idle", "journal", "path", "order", "segment_size",
                "segment_age", "key_file", "access_log", "retention", "publish_heads", "when_full", "admin", "socket", "log", "format", "level", "shutdown_grace", "threads", "unknown_recipients", "failover", "mode",
                "probe_interval", "trip_after", "takeover_after", "release_after", "max_hold", "delay_notice", "max_held", "keep_free", "retry_min", "retry_max", "drain_concurrency", "flag_file",
                "directory", "file", "catch_all", "sub_address_separator", "domain_aliases", "positive_ttl", "negative_ttl", "max_learned", "ldap", "url", "start_tls", "bind_dn", "password_file", "base", "filter", "alias_attributes", "page_size", "interval", "timeout", "egress", "implicit_tls", "spf_gateway", "quota", "recipients_per_hour"):
        assert f"{key}:" in text, f"deploy/holdfast.yaml does not explain {key}"


@test("a start waits for a command that has the journal open, and a command for a daemon that starts or for another command")
def _(scene):
    holdfast = scene.holdfast(scene.primary())
    scene.client(holdfast.port).send_mail()
    holdfast.stop()
    lock_path = os.path.join(holdfast.journal_path, "daemon.lock")

    def locked(text):
        lock = open(lock_path, "r+")
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.truncate()
        lock.write(text)
        lock.flush()
        return lock

    with locked("4711 command\n"):
        holdfast.start(ready=False)
        wait_for(lambda: holdfast.logged("a holdfast command (process 4711) has this journal open"), what="the note")
        assert not holdfast.answers()
    wait_for(holdfast.answers, what="the start")
    assert scene.client(holdfast.port).send_mail().startswith("250")
    holdfast.stop()
    for holder in ("4711 command\n", "4711\n"):
        with locked(holder):
            command = subprocess.Popen([BINARY, "-c", holdfast.config, "journal", "seal"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            time.sleep(0.3)  # in which it finds the journal locked
            equal(command.poll(), None)
        if holder == "4711\n":
            holdfast.start()
        command.wait()
        equal(command.returncode, 0, command.stderr.read())
    holdfast.stop()
    with locked("4711\n"):
        refused = holdfast.run("journal", "seal", check=False)
        equal(refused.returncode, 75)
        assert "Holdfast (process 4711) writes this journal, and could not be asked at admin.socket" in refused.stderr, refused.stderr
    holdfast.start()
    holdfast.signal(signal.SIGSTOP)
    refused = holdfast.run("journal", "seal", check=False)
    holdfast.signal(signal.SIGCONT)
    equal(refused.returncode, 75)
    assert "the daemon has not answered" in refused.stderr, refused.stderr


@test("exit codes are those of sysexits.h, and errors say what to do")
def _(scene):
    bad = scene.path("bad.yaml")
    with open(bad, "w") as file:
        file.write("listeners: []\n")
    for arguments, code, words in ((["-c", bad, "check"], 78, "name at least one address"), (["-c", scene.path("none.yaml"), "check"], 78, "-c FILE"), (["-c", bad, "serve"], 78, "name at least"),
                                   (["frobnicate"], 64, "frobnicate"), ([], 64, "subcommand"), (["journal"], 64, "subcommand"), (["--help"], 0, "journal"), (["journal", "list", "--help"], 0, "--since")):
        result = run(BINARY, *arguments)
        equal(result.returncode, code, arguments)
        assert words in result.stdout + result.stderr, (arguments, result.stdout, result.stderr)
    holdfast = scene.holdfast(scene.primary())
    second = run(BINARY, "-c", holdfast.config, "serve")
    equal(second.returncode, 75)
    assert "already writes this journal" in second.stderr, second.stderr
    # Another journal on the same port: the system would let the two share it, and split the mail.
    other = scene.path("other.yaml")
    with open(holdfast.config) as file:
        text = file.read()
    with open(other, "w") as file:
        file.write(text.replace(holdfast.journal_path, scene.path("other.journal")).replace(holdfast.socket, scene.path("other.sock")))
    second = run(BINARY, "-c", other, "serve")
    equal(second.returncode, 75)
    assert "another program listens there" in second.stderr, second.stderr
    holdfast.stop()
    stopped = holdfast.run("status", check=False)
    equal(stopped.returncode, 75)
    assert "is `holdfast serve` running" in stopped.stderr


@test("what a process may not do is no damage: verify says what it wants, and does not call the journal damaged")
def _(scene):
    holdfast = scene.holdfast(scene.primary())
    assert scene.client(holdfast.port).send_mail().startswith("250")
    holdfast.stop()
    verdicts = {}
    for most in range(4, 12):
        done = run("prlimit", f"--nofile={most}", BINARY, "-c", holdfast.config, "journal", "verify")
        verdicts[most] = done.returncode
        assert done.returncode == 0 or "Too many open files" in done.stderr, done
    assert 65 not in verdicts.values() and {0, 75} <= set(verdicts.values()), verdicts


@test("the manual page names every command, and no other")
def _(scene):
    def commands_of(*words):
        text = run(BINARY, *words, "--help").stdout
        found = re.findall(r"^  (\S+)", text[text.index("Subcommands:"):], re.M) if "Subcommands:" in text else []
        return set().union(*(commands_of(*words, one) for one in found)) or {" ".join(words)}
    with open(os.path.join(ROOT, "deploy", "holdfast.8")) as file:
        page = re.findall(r"^\.It Cm (.*)", file.read(), re.M)
    named = set()
    for line in page:
        names = re.split(r" Fl | Op ", line)[0].split(" | ")
        group, _, first = names[0].rpartition(" ")
        named |= {f"{group} {one}".strip() for one in [first, *names[1:]]}
    equal(named, {re.sub(r"^(journal legal-hold) .*", r"\1", one) for one in commands_of()})


@test("output that cannot be written is an error, not a crash and not success; an empty value is no filter for everything")
def _(scene):
    holdfast = scene.holdfast(scene.primary())
    client = scene.client(holdfast.port)
    for _ in range(2000):
        client.send_mail(helo=None)
    command = [BINARY, "-c", holdfast.config]
    target = ["--to", f"eml:{scene.path('eml')}", "--reason", "test"]
    for words in (["journal", "list"], ["journal", "list", "--json"], ["journal", "verify"], ["journal", "stats"], ["journal", "show", "2"], ["status"], ["journal", "export", "2"],
                  ["journal", "replay", "--json", *target]):
        with open("/dev/full", "w") as full:
            done = subprocess.run([*command, *words], stdout=full, stderr=subprocess.PIPE, text=True)
        equal(done.returncode, 74, words)
        assert "cannot write the output: No space left on device" in done.stderr, (words, done.stderr)
    # Whoever reads the output may go when it has seen enough.
    for disposition in (signal.SIG_DFL, signal.SIG_IGN):
        list_it = subprocess.Popen([*command, "journal", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=lambda: signal.signal(signal.SIGPIPE, disposition))
        list_it.stdout.readline()
        list_it.stdout.close()
        equal(list_it.stderr.read(), b"")
        assert list_it.wait() in (-signal.SIGPIPE, 74), list_it.returncode
    for words in (["journal", "list", "--recipient", ""], ["journal", "replay", "--sender", "", *target], ["journal", "erase", "--recipient", "", "--reason", "test"],
                  ["journal", "legal-hold", "set", "x", "--recipient", "", "--reason", "test"], ["journal", "erase", "--id", "2", "--reason", ""]):
        done = run(*command, *words)
        equal(done.returncode, 64, words)
        assert "is empty" in done.stderr, (words, done.stderr)
    before = holdfast.run("journal", "accesses").stdout
    equal(run(*command, "journal", "replay", "--to", "ftp://x", "--reason", "test").returncode, 64)
    equal(holdfast.run("journal", "accesses").stdout, before)


@test("words typed on a terminal that speaks Latin-1 do what they should")
def _(scene):
    holdfast = scene.holdfast(scene.primary(), yaml="mailbox: {}\n")
    cafe = b"caf\xe9"

    def typed(*words):
        done = subprocess.run([BINARY, "-c", holdfast.config, *words], capture_output=True)
        assert done.returncode >= 0, (words, done.stderr)
        return done
    equal(typed("failover", "hold", "--reason", cafe).returncode, 0)
    equal(holdfast.status()["routes"][0]["reason"], "caf\ufffd")
    for words in (["failover", "hold", "--route", cafe, "--reason", "x"], ["mailbox", "disable", cafe], ["queue", "drop", "1", "--reason", cafe]):
        assert typed(*words).returncode > 0, words
    equal(typed("journal", "replay", "--to", b"eml:" + scene.path("").encode() + cafe, "--reason", cafe).returncode, 0)


@test("SIGTERM lets a message finish, turns idle clients away, and exits 0")
def _(scene):
    primary = scene.primary()
    holdfast = scene.holdfast(primary)
    idle = scene.client(holdfast.port)
    idle.ask("EHLO idle.example.net")
    busy = scene.client(holdfast.port)
    for command in ("EHLO busy.example.net", "MAIL FROM:<a@example.net>", "RCPT TO:<b@example.org>", "DATA"):
        busy.ask(command)
    holdfast.signal(signal.SIGTERM)
    equal(idle.reply(), "421 4.3.2 holdfast.example.org Service is shutting down, try again later")
    busy.send("Subject: x\r\n\r\nlast words\r\n.\r\n")
    equal(busy.reply(), "250 2.0.0 Ok: taken")
    equal(busy.reply(), "421 4.3.2 holdfast.example.org Service is shutting down, try again later")
    equal(holdfast.process.wait(20), 0)
    wait_for(lambda: holdfast.entries()[0]["recipients"][0]["outcome"] == "forwarded", what="the outcome")


@test("shutdown_grace bounds the wait for a client that does not finish")
def _(scene):
    holdfast = scene.holdfast(scene.primary(), yaml="shutdown_grace: 300ms")
    client = scene.client(holdfast.port)
    for command in ("EHLO busy.example.net", "MAIL FROM:<a@example.net>", "RCPT TO:<b@example.org>", "DATA"):
        client.ask(command)
    holdfast.signal(signal.SIGTERM)
    equal(holdfast.process.wait(20), 0)


@test("SIGHUP says what changed, opens and closes listeners, and keeps the old configuration when the new is bad")
def _(scene):
    first, second = scene.primary(), scene.primary(replies={"greeting": b"220 second.example.org ESMTP\r\n"})
    holdfast = scene.holdfast(first)
    talking = scene.client(holdfast.port)
    holdfast.upstreams = [f"127.0.0.1:{second.port}"]
    old_port, holdfast.port = holdfast.port, free_port()
    holdfast.write_config()
    holdfast.signal(signal.SIGHUP)
    wait_for(lambda: holdfast.logged("routes changed") and holdfast.logged("listeners changed"), what="the log")
    equal(scene.client(holdfast.port).greeting, "220 second.example.org ESMTP")
    wait_for(lambda: socket.socket().connect_ex(("127.0.0.1", old_port)) != 0, what="the old listener's end")
    equal(talking.send_mail(), "250 2.0.0 Ok: taken", "a session of before goes on")
    equal(len(first.messages), 1)
    # What is found out late, when a listener cannot be opened or a file cannot be read, changes nothing either.
    taken = socket.create_server(("127.0.0.1", 0))
    scene.stack.callback(taken.close)
    route = "- name: other\n  domains: [\"other.example.org\"]\n  upstreams: [\"127.0.0.1:1\"]"
    for listeners, directory in ((f"- address: 127.0.0.1:{taken.getsockname()[1]}", ""), ("", f"directory:\n  file: {scene.path('missing.csv')}\n")):
        open(holdfast.log, "w").close()
        holdfast.routes, holdfast.listeners, holdfast.yaml = route, listeners, directory
        holdfast.write_config()
        holdfast.signal(signal.SIGHUP)
        wait_for(lambda: holdfast.logged("the old configuration stays"), what="the complaint")
        equal([one["name"] for one in holdfast.status()["routes"]], ["primary"])
        equal(holdfast.run("failover", "hold", "--route", "other", "--reason", "test", check=False).returncode, 66)
    holdfast.routes = holdfast.listeners = holdfast.yaml = ""
    holdfast.write_config()
    with open(holdfast.config, "a") as file:
        file.write("surprise: yes\n")
    holdfast.signal(signal.SIGHUP)
    wait_for(lambda: holdfast.logged("the old configuration stays") and holdfast.logged("surprise: there is no such key"), what="the complaint")
    equal(scene.client(holdfast.port).greeting, "220 second.example.org ESMTP")


@test("limits on connections, in all and by client, each have their reply")
def _(scene):
    holdfast = scene.holdfast(scene.primary(), yaml="limits:\n  connections: 3\n  per_client: 2")
    kept = [scene.client(holdfast.port) for _ in range(2)]
    refused = scene.client(holdfast.port)
    equal(refused.greeting, "421 4.7.0 holdfast.example.org Error: too many connections from 127.0.0.1")
    equal(refused.rest(), "")
    refused.close()
    wait_for(lambda: holdfast.status()["connections"] == 2, what="the refused connection's end")
    other = scene.client(holdfast.port, source=("127.0.0.2", 0))
    equal(other.greeting, "220 primary.example.org ESMTP")
    wait_for(lambda: holdfast.status()["connections"] == 3, what="three connections")
    equal(scene.client(holdfast.port, source=("127.0.0.3", 0)).greeting, "421 4.3.2 holdfast.example.org Error: too many connections")
    for client in kept:
        client.close()
    wait_for(lambda: holdfast.status()["connections"] == 1, what="room again")
    equal(scene.client(holdfast.port).greeting, "220 primary.example.org ESMTP")


@test("where the system has fewer file descriptors than limits.connections needs, fewer connections are taken, and the primary is not blamed")
def _(scene):
    primary = scene.primary()
    holdfast = scene.holdfast(primary, before=["prlimit", "--nofile=400"], yaml="failover:\n  probe_interval: 100ms\n  trip_after: 2\n  takeover_after: 200ms\nthreads: 1\nlimits:\n  per_client: 1000")
    clients = [scene.client(holdfast.port) for _ in range(300)]
    greetings = [client.greeting[:3] for client in clients]
    assert greetings.count("220") == 100 and greetings.count("421") == 200, greetings
    equal(clients[0].send_mail(), "250 2.0.0 Ok: taken")
    equal([route["state"] for route in holdfast.status()["routes"]], ["pass"])
    assert "only 100 connections are taken at once" in open(holdfast.log).read()
    for client in clients:
        client.close()
    wait_for(lambda: holdfast.status()["connections"] == 0, what="the sessions' end")
    equal(scene.client(holdfast.port).send_mail(), "250 2.0.0 Ok: taken")


@test("status answers in well under a second, for people and as JSON")
def _(scene):
    primary = scene.primary()
    holdfast = scene.holdfast(primary)
    scene.client(holdfast.port).send_mail()
    status = holdfast.status()
    route = status["routes"][0]
    equal((len(status["routes"]), route["name"], route["state"], route["mode"], route["held"]), (1, "primary", "pass", "auto", 0))
    equal(route["upstreams"], [{"address": f"127.0.0.1:{primary.port}", "healthy": True, "last_error": ""}])
    equal(status["journal"]["entries"], 1)
    assert status["journal"]["bytes"] > 0 and status["journal"]["last_id"] > 0 and status["journal"]["writable"]
    assert status["version"] and status["uptime_s"] >= 0
    text = holdfast.run("status").stdout
    assert "1 entries" in text and "healthy" in text, text


@test("a command reads the daemon's whole answer, however it comes, and takes no part of one for it")
def _(scene):
    holdfast = scene.holdfast(scene.primary())
    status = holdfast.run("status", "--json").stdout
    holdfast.stop()
    content = status.encode()
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(content), content)
    large = json.dumps({"listeners": ["x" * 8000000], **json.loads(status)}).encode()
    cut_short = "the daemon has not answered (Connection reset by peer); whether it did what it was asked is not known"
    for pieces, code, words in (([answer], 0, ""), ([bytes([byte]) for byte in answer], 0, ""), ([b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(large), large], 0, ""),
                                ([], 75, cut_short), ([answer[:40]], 75, cut_short), ([answer[:-1]], 75, cut_short), ([b"220 mail.example.org ESMTP\r\n"], 75, cut_short),
                                ([b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK"], 74, "the daemon's answer is no JSON; is it the same version?")):
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(holdfast.socket)
            server.listen()
            command = subprocess.Popen([BINARY, "-c", holdfast.config, "status", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            with server.accept()[0] as client:
                asked = client.recv(4096)
                while not asked.endswith(b"\r\n\r\n{}"):
                    asked += client.recv(4096)
                for piece in pieces:
                    client.sendall(piece)
        os.unlink(holdfast.socket)
        told, complained = command.communicate()
        equal((command.returncode, told != ""), (code, code == 0), complained)
        assert words in complained, complained
        assert asked.startswith(b"POST /status HTTP/1.1\r\n"), asked
    with socket.socket(socket.AF_UNIX) as server, contextlib.ExitStack() as others:
        server.bind(holdfast.socket)
        server.listen(0)
        waiting = others.enter_context(socket.socket(socket.AF_UNIX))
        waiting.setblocking(False)
        while waiting.connect_ex(holdfast.socket) == 0:  # until no more may wait
            waiting = others.enter_context(socket.socket(socket.AF_UNIX))
            waiting.setblocking(False)
        full = holdfast.run("status", check=False)
    os.unlink(holdfast.socket)
    equal(full.returncode, 75)
    assert "the daemon has not answered (it takes too long)" in full.stderr, full.stderr
    equal(holdfast.run("status", check=False).returncode, 75)


@test("metrics for collectors: each has its kind and an explanation, counts what happens, and names nobody; the alerts are about such metrics")
def _(scene):
    primary = scene.primary(replies={"content": lambda session, line: b"550 5.7.1 no\r\n" if len(primary.messages) == 3 else b"250 2.0.0 Ok: taken\r\n"})
    odd = '- name: "a \\"quoted\\" one\\\\"\n  domains: [example.com]\n  upstreams: ["127.0.0.1:1"]'
    holdfast = Holdfast(scene, primary, routes=odd, yaml="directory:\n  catch_all: [example.org]")
    port = free_port()
    holdfast.admin = f"http: 127.0.0.1:{port}"
    holdfast.start()
    for _ in range(3):
        scene.client(holdfast.port).send_mail()
    holdfast.run("failover", "hold", "--route", "primary", "--reason", "test")
    scene.client(holdfast.port).send_mail()
    head, page = run("curl", "-s", "-D", "-", f"http://127.0.0.1:{port}/metrics").stdout.split("\n\n", 1)
    assert "Content-Type: text/plain; version=0.0.4" in head, head
    only_head = run("curl", "-sSI", f"http://127.0.0.1:{port}/metrics")
    assert only_head.stdout.startswith("HTTP/1.1 200 OK") and "holdfast" not in only_head.stdout, only_head
    values, kinds = {}, set()
    for line in page.splitlines():
        if line.startswith("# "):
            words = re.fullmatch(r"# (?:HELP (holdfast_\w+) \S.+|TYPE (holdfast_\w+) (?:gauge|counter))", line)
            kinds.add(words[1] or words[2])
            continue
        sample = re.fullmatch(r'(holdfast_\w+)(\{(?:\w+="(?:[^"\\]|\\[\\"n])*",?)+\})? (\d+(?:\.\d+)?(?:e\+\d+)?)', line)
        assert sample and sample[1] in kinds, line
        values[sample[1] + (sample[2] or "")] = float(sample[3])
    expected = {'holdfast_route_state{route="primary",state="hold"}': 1, 'holdfast_route_state{route="primary",state="pass"}': 0,
                'holdfast_route_automatic{route="primary"}': 0, 'holdfast_route_automatic{route="a \\"quoted\\" one\\\\"}': 1,
                'holdfast_messages_total{route="primary",outcome="forwarded"}': 2, 'holdfast_messages_total{route="primary",outcome="rejected"}': 1,
                'holdfast_messages_total{route="primary",outcome="held"}': 1, 'holdfast_held_messages{route="primary"}': 1,
                "holdfast_journal_writable": 1, "holdfast_journal_keys_in_place": 1, "holdfast_journal_entries": 4, "holdfast_accepted_connections_total": 4, 'holdfast_info{version="0.1.0"}': 1}
    equal({name: values.get(name) for name in expected}, expected)
    assert "example.org" not in page and "example.net" not in page, page
    with open(os.path.join(ROOT, "deploy", "alerts.yaml")) as alerts:
        named = set(re.findall(r"holdfast_\w+", alerts.read()))
    assert named and named <= kinds, named - kinds


@test("a log that nobody reads holds up no mail: lines are lost, and counted once it is read again")
def _(scene):
    holdfast = scene.holdfast(scene.primary())
    holdfast.stop()
    for is_socket in (False, True):  # journald's is a socket
        unread_log(scene, holdfast, is_socket)


def unread_log(scene, holdfast, is_socket):
    reads, writes = [end.detach() for end in socket.socketpair()] if is_socket else os.pipe()
    holdfast.process = subprocess.Popen([BINARY, "-c", holdfast.config, "serve"], stderr=writes)
    os.close(writes)
    wait_for(holdfast.answers, what="Holdfast to start")
    client = scene.client(holdfast.port)
    for number in range(4000):
        equal(client.send_mail(helo=None if number else "client.example.net"), "250 2.0.0 Ok: taken")
    text = b""

    def read():
        nonlocal text
        while select.select([reads], [], [], 0)[0]:
            text += os.read(reads, 65536)
        return text
    read()
    client.send_mail(helo=None)
    wait_for(lambda: b"log lost=" in read(), what="the lost lines to be counted")
    lost = int(re.search(rb"log lost=(\d+)", text)[1])
    for line in text.splitlines():
        assert re.match(rb"\d{4}-\d\d-\d\dT[\d:.]+Z (info|warning|error) ", line), line
    told = len([line for line in text.splitlines() if b" info message " in line])
    assert told >= 100 and abs(told + lost - 4001) < 20, (told, lost)
    os.close(reads)
    equal(client.send_mail(helo=None), "250 2.0.0 Ok: taken", "and when its reader is gone")
    holdfast.stop()


@test("the log tells a message's story on lines that no client can forge, as text and as JSON")
def _(scene):
    holdfast = scene.holdfast(scene.primary(), yaml="log:\n  format: json")
    scene.client(holdfast.port).send_mail(sender='"x=1\\" event=forged"@example.net')
    line = wait_for(lambda: next((line for line in open(holdfast.log) if '"event":"message"' in line), None), what="the line")
    event = json.loads(line)
    equal(event["from"], '"x=1\\" event=forged"@example.net')
    equal((event["recipients"], event["outcome"]), (1, "forwarded"))

@test("alert_command is run when somebody should know something now; what happened is in its environment, and is never run")
def _(scene):
    told, trap, files = scene.path("told"), scene.path("trap"), scene.path("files")
    holdfast = scene.holdfast(scene.primary(), journal="max_size: 2MiB",
                              yaml=f'alert_command: printf "%s|%s|%s\\n" "$HOLDFAST_EVENT" "$HOLDFAST_STATE" "$HOLDFAST_ALERT" >> {told}; ls -l /proc/$$/fd > {files}')

    def lines():
        return open(told).read().splitlines() if os.path.exists(told) else []
    reason = f"\"; touch {trap}; $(touch {trap}) `touch {trap}`\r\nx"
    holdfast.run("failover", "hold", "--reason", reason)
    wait_for(lambda: len(lines()) == 1, what="the first alert")
    assert lines()[0].startswith("state|hold|route primary: HOLD (mode hold), by user root: \\\"; touch"), lines()
    assert not os.path.exists(trap)
    holdfast.run("failover", "auto", "--reason", "over")
    wait_for(lambda: len(lines()) == 2, what="the second alert")
    equal(lines()[1], "state|pass|route primary: PASS (mode auto), by user root: over")
    client = scene.client(holdfast.port)
    client.ask("EHLO client.example.net")
    wait_for(lambda: client.send_mail("Subject: x\r\n\r\n" + "x" * 60 + "\r\n" + 2000 * ("y" * 60 + "\r\n"), helo=None).startswith("452"), what="a full journal")
    wait_for(lambda: any(line.startswith("journal||journal: NOT WRITABLE: journal.max_size") for line in lines()), what="an alert of it")
    assert "lmdb" not in open(files).read() and "socket" not in open(files).read(), open(files).read()
    # One that fails is told in the log, one that hangs holds up nobody, and a changed one counts from the reload on.
    for command, problem in (("exit 3", "alert_command: it ended with exit code 3"), ("kill -TERM $$", "it ended with signal 15")):
        holdfast.yaml = f"alert_command: {command}"
        holdfast.write_config()
        holdfast.signal(signal.SIGHUP)
        wait_for(lambda: holdfast.logged("alert_command changed"), what="the reload")
        wait_for(lambda: holdfast.run("failover", "hold", "--reason", "x") and holdfast.run("failover", "auto", "--reason", "x") and holdfast.logged(problem), what=problem)
    hanging = scene.path("hanging")
    holdfast.yaml = f"alert_command: touch {hanging}; exec sleep 20"
    holdfast.write_config()
    holdfast.signal(signal.SIGHUP)
    wait_for(lambda: holdfast.run("failover", "hold", "--reason", "x") and holdfast.run("failover", "auto", "--reason", "x") and os.path.exists(hanging), what="one that hangs")
    holdfast.process.terminate()
    equal(holdfast.process.wait(10), 0)


@test("a hostname that primaries would not take in a greeting is cautioned about")
def _(scene):
    holdfast = scene.holdfast(scene.primary())
    with open(holdfast.config) as file:
        text = file.read()
    for name, is_cautioned in (("mx", True), ("mx.example.org", False), ("'[192.0.2.1]'", False)):
        config = scene.path("other.yaml")
        with open(config, "w") as file:
            file.write(text.replace("hostname: holdfast.example.org", f"hostname: {name}"))
        checked = run(BINARY, "-c", config, "check")
        equal((checked.returncode, "a word of caution about hostname" in checked.stderr), (0, is_cautioned), name)


@test("a password file that cannot be read, or has none in it, is cautioned about by check and at the start")
def _(scene):
    secret = scene.path("secret")
    holdfast = scene.holdfast(scene.primary(), yaml=f'egress:\n  upstreams: ["127.0.0.1:{free_port()}"]\n  tls: required\n  auth:\n    user: holdfast\n    password_file: {secret}\n')
    wait_for(lambda: holdfast.logged(f"{secret}: the password file cannot be read"), what="the caution")
    for content, problem in ((None, "cannot be read"), ("\r\n", "no password in its first line"), ("s3cret\r\n", "")):
        if content:
            with open(secret, "w") as file:
                file.write(content)
        checked = holdfast.run("check").stderr
        equal((problem in checked, "a word of caution about egress.auth.password_file" in checked), (True, bool(problem)), checked)


@test("without file descriptors for more, newcomers wait and are served later; the log says so once, however long it lasts")
def _(scene):
    holdfast = scene.holdfast(scene.primary())
    scene.client(holdfast.port).close()
    process = f"/proc/{holdfast.process.pid}/fd"
    limit = ["prlimit", "--pid", str(holdfast.process.pid)]
    run(*limit, f"--nofile={len(os.listdir(process)) + 3}:20000", check=True)
    waiting = [socket.create_connection(("127.0.0.1", holdfast.port)) for _ in range(6)]
    wait_for(lambda: holdfast.logged("Too many open files"), what="the log to say so")
    before = holdfast.wakes("loop")
    wait_for(lambda: holdfast.wakes("loop") >= before + 10, what="it to look again and again")
    run(*limit, "--nofile=20000:20000", check=True)
    for connection in waiting:
        connection.settimeout(20)
        equal(connection.recv(3), b"220")
        connection.close()
    equal(open(holdfast.log).read().count(" error accept "), 1)


main()
