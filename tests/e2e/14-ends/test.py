"""How held mail ends: delivered, bounced, expired or dropped, each on record; and nobody is told who should not be."""
import datetime
import email
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from harness import *
from clock import Clock

QUICK = "failover:\n  probe_interval: 100ms\n  takeover_after: 1s\n  release_after: 300ms\n  retry_min: 100ms\n  retry_max: 200ms"
CHECKED = "Authentication-Results: gw.example.org; spf=pass smtp.mailfrom=a@example.net\r\n"


def held(scene, holdfast, primary, messages):
    """Has Holdfast hold messages: (recipient, content, further parameters of RCPT)."""
    wait_for(lambda: primary.sessions, what="a probe")
    primary.stop()
    wait_for(lambda: holdfast.status()["routes"][0]["state"] == "hold", what="hold")
    client = scene.client(holdfast.port)
    client.ask("EHLO client.example.net")
    for sender, recipient, content, params in messages:
        for command in (f"MAIL FROM:<{sender}> RET=HDRS ENVID=E1", f"RCPT TO:<{recipient}>{params}", "DATA"):
            reply = client.ask(command)
            assert reply[:3] in ("250", "354"), (command, reply)
        client.send(content + ".\r\n")
        assert client.reply().startswith("250")
    return [entry["id"] for entry in holdfast.entries()]


def world(scene, egress=True, extra="", refusal=b"550 5.1.1 nobody here\r\n"):
    """A Holdfast with people imported, its primary, an egress; and how the primary answers after the hold."""
    port = free_port()
    primary, outside = scene.primary(port=port), scene.primary()
    people = scene.path("people.csv")
    with open(people, "w") as file:
        file.write("address;name;aliases\nb@example.org;Bea B;bea@example.org\nc@example.org;C;\ngone@example.org;G;\n")
    yaml = QUICK + extra + f"\ndirectory:\n  file: {people}\n"
    if egress:
        yaml += f"egress:\n  upstreams: [\"127.0.0.1:{outside.port}\"]\n  spf_gateway: gw.example.org\n"
    holdfast = scene.holdfast(primary, yaml=yaml)
    # What the primary offers is known from the first probe on.
    wait_for(lambda: any(line.startswith(b"QUIT") or line.startswith(b"RSET") for line in primary.lines()), what="a whole probe")
    def comes_back():
        return scene.primary(port=port, replies={"RCPT": lambda session, line: refusal if b"gone@" in line else b"250 2.1.5 Ok\r\n"})
    return holdfast, primary, outside, comes_back


def start_with_clock(scene, holdfast, time):
    """Starts it on a machine whose clock says that; returns the clock."""
    clock = Clock(scene, time)
    holdfast.before = clock.before
    holdfast.start()
    return clock


def outcome(holdfast, entry):
    return json.loads(holdfast.run("journal", "show", str(entry), "--json").stdout)["recipients"][0]


@test("a permanent refusal of a verified sender's message makes a notification, by the egress route, with the original header")
def _(scene):
    holdfast, primary, outside, comes_back = world(scene)
    entry, = held(scene, holdfast, primary, [("a@example.net", "gone@example.org", CHECKED + "Message-ID: <1@x>\r\nSubject: =?utf-8?q?h=C3=A4llo?=\r\nX-Raw: h\u00e4llo\r\n\r\nsecret body\r\n", " NOTIFY=FAILURE ORCPT=rfc822;gone@example.org")])
    comes_back()
    wait_for(lambda: outside.messages, what="the notification")
    envelope, content = outside.messages[0]
    equal([line.split(b" SIZE")[0].split(b" NOTIFY")[0] for line in envelope], [b"MAIL FROM:<>", b"RCPT TO:<a@example.net>"])
    assert b"BODY=8BITMIME" in envelope[0], envelope[0]  # the header that it returns is
    report = email.message_from_bytes(content)
    equal(report.get_content_type(), "multipart/report")
    equal(report.get_param("report-type"), "delivery-status")
    text, status, header = report.get_payload()
    facts = status.get_payload()
    equal((facts[0]["Reporting-MTA"], facts[0]["Original-Envelope-Id"]), ("dns; holdfast.example.org", "E1"))
    equal((facts[1]["Final-Recipient"], facts[1]["Action"], facts[1]["Status"]), ("rfc822; gone@example.org", "failed", "5.1.1"))
    equal(header.get_content_type(), "text/rfc822-headers")
    assert "Subject: =?utf-8?q?h" in header.get_payload() and b"secret body" not in content
    wait_for(lambda: outcome(holdfast, entry)["outcome"] == "bounced", what="the outcome")
    wait_for(lambda: holdfast.entries()[-1]["recipients"][0]["outcome"] == "delivered", what="the notification's outcome")
    equal(holdfast.entries()[-1]["direction"], "outbound")
    wait_for(lambda: [one["held"] for one in holdfast.status()["routes"]] == [0, 0], what="empty queues")


@test("who wanted to know of success is told that it was passed on, where the primary that is back tells of none (RFC 3461 5.2.2)")
def _(scene):
    holdfast, primary, outside, _ = world(scene)
    curious, other = held(scene, holdfast, primary, [("a@example.net", "b@example.org", CHECKED + "Message-ID: <1@x>\r\n\r\nx\r\n", " NOTIFY=SUCCESS,FAILURE"),
                                                     ("a@example.net", "c@example.org", CHECKED + "Message-ID: <2@x>\r\n\r\nx\r\n", "")])
    back = scene.primary(port=primary.port, replies={"EHLO": b"250-primary.example.org\r\n250 8BITMIME\r\n"})
    wait_for(lambda: [outcome(holdfast, one)["outcome"] for one in (curious, other)] == ["delivered"] * 2, what="both deliveries")
    assert not any(b"NOTIFY" in line for envelope, _ in back.messages for line in envelope), back.messages
    wait_for(lambda: outside.messages, what="the notification")
    envelope, content = outside.messages[0]
    assert envelope[0].startswith(b"MAIL FROM:<>"), envelope
    text, status, _ = email.message_from_bytes(content).get_payload()
    assert "passed on to a mail server that does not tell about delivery itself" in text.get_payload(), text
    facts = status.get_payload()
    equal((facts[1]["Final-Recipient"], facts[1]["Action"], facts[1]["Status"]), ("rfc822; b@example.org", "relayed", "2.0.0"))
    wait_for(lambda: [one["held"] for one in holdfast.status()["routes"]] == [0, 0], what="empty queues")
    equal(len(outside.messages), 1)


@test("no notification for the null sender, for NOTIFY=NEVER, or where the sender is not verified: that is kept for the operator, who retries or drops it")
def _(scene):
    holdfast, primary, outside, comes_back = world(scene)
    null, never, forged, other = held(scene, holdfast, primary, [
        ("", "gone@example.org", CHECKED + "\r\nx\r\n", ""), ("a@example.net", "gone@example.org", CHECKED + "\r\nx\r\n", " NOTIFY=NEVER"),
        ("a@example.net", "gone@example.org", "Subject: forged\r\n\r\nx\r\n", ""), ("a@example.net", "bea@example.org", "Subject: y\r\n\r\nx\r\n", "")])
    back = comes_back()
    wait_for(lambda: outcome(holdfast, other)["outcome"] == "delivered", what="the good one")
    for entry in (null, never):
        wait_for(lambda: outcome(holdfast, entry)["outcome"] == "bounced", what="the end")
        assert "no notification" in outcome(holdfast, entry)["reply"]
    wait_for(lambda: holdfast.status()["routes"][0]["kept_for_operator"] == 1, what="the kept one")
    equal(outcome(holdfast, forged)["outcome"], "held")
    listed = [json.loads(line) for line in holdfast.run("queue", "list", "--json").stdout.splitlines()]
    equal([(one["id"], one["recipients"][0]["status"]) for one in listed], [(forged, "kept")])
    shown = json.loads(holdfast.run("queue", "show", str(forged), "--json").stdout)
    equal((shown["id"], shown["recipients"][0]["held"]["status"], shown["recipients"][0]["held"]["reply"]), (forged, "kept", "550 5.1.1 nobody here"))
    assert re.search(r"\n +kept  550 5.1.1 nobody here\n", holdfast.run("queue", "show", str(forged)).stdout)
    ended = holdfast.run("queue", "show", str(other))
    assert "delivered" in ended.stdout and "is not held" in ended.stderr, ended
    equal(holdfast.run("queue", "show", "99999", check=False).returncode, 66)
    assert "KEPT FOR YOU" in holdfast.run("status").stdout
    equal(outside.messages, [])
    holdfast.run("queue", "retry", str(forged))
    wait_for(lambda: sum(line.startswith(b"RCPT TO:<gone@") for line in back.lines()) >= 4, what="another attempt")
    wait_for(lambda: holdfast.status()["routes"][0]["kept_for_operator"] == 1, what="kept again")
    missing = holdfast.run("queue", "drop", str(forged), check=False)
    assert missing.returncode == 64 and "--reason" in missing.stderr + missing.stdout, missing
    holdfast.run("queue", "drop", str(forged), "--reason", "spam")
    wait_for(lambda: outcome(holdfast, forged)["outcome"] == "dropped", what="the drop")
    assert "spam" in outcome(holdfast, forged)["reply"] and "user " in outcome(holdfast, forged)["reply"]
    assert holdfast.run("queue", "drop", str(forged), "--reason", "again", check=False).returncode != 0
    equal(holdfast.status()["routes"][0]["held"], 0)


@test("held mail that can no longer be read is kept for the operator, who sees it in the queue and ends it; all other mail flows")
def _(scene):
    holdfast, primary, outside, comes_back = world(scene)
    lost = held(scene, holdfast, primary, [("a@example.net", "b@example.org", "Subject: lost\r\n\r\nx\r\n", "")] * 2)
    holdfast.stop()
    with open(os.path.join(holdfast.journal_path, "segments", "0000000001.lmdb"), "r+b") as file:
        file.truncate(10000)
    holdfast.start()
    assert scene.client(holdfast.port).send_mail(recipient="c@example.org").startswith("250")
    back = comes_back()
    wait_for(lambda: back.messages, what="the one that came after")
    wait_for(lambda: holdfast.status()["routes"][0]["held"] == 2, what="its outcome")
    listed = [json.loads(line) for line in holdfast.run("queue", "list", "--json").stdout.splitlines()]
    equal([(one["id"], one["route"], one["recipients"][0]["status"]) for one in listed], [(id, "primary", "kept") for id in lost])
    assert "cannot be read" in holdfast.run("queue", "list").stdout
    assert holdfast.run("queue", "retry", str(lost[0]), check=False).returncode != 0
    equal(holdfast.status()["routes"][0]["kept_for_operator"], 2)
    for id in lost:
        holdfast.run("queue", "drop", str(id), "--reason", "the disk broke")
    equal(holdfast.status()["routes"][0]["held"], 0)
    equal(holdfast.run("queue", "list", "--json").stdout, "")
    assert holdfast.run("queue", "list", "--route", "nowhere", check=False).returncode != 0


@test("what is refused for now waits: the queue tells until when and why, and retry does not wait")
def _(scene):
    primary = scene.primary(replies={"RCPT": b"451 4.2.1 mailbox busy\r\n"})
    holdfast = scene.holdfast(primary, route="unknown_recipients: accept", yaml="failover:\n  retry_min: 1h\n  retry_max: 2h\n")
    holdfast.run("failover", "hold", "--reason", "test")
    assert scene.client(holdfast.port).send_mail().startswith("250")
    holdfast.run("failover", "auto", "--reason", "test")

    def recipient():
        return json.loads(holdfast.run("queue", "list", "--json").stdout)["recipients"][0]
    wait_for(lambda: recipient()["status"] == "deferred", what="the refusal")
    [entry] = holdfast.entries()
    left = datetime.datetime.fromisoformat(recipient()["next_attempt"]) - datetime.datetime.now(datetime.timezone.utc)
    assert datetime.timedelta(minutes=50) < left < datetime.timedelta(minutes=61), left
    told = r"deferred, again at \d{4}-\d\d-\d\dT[0-9:.]+Z  451 4\.2\.1 mailbox busy\n"
    for words in (["list"], ["show", str(entry["id"])]):
        assert re.search(told, holdfast.run("queue", *words).stdout), words
    primary.replies["RCPT"] = b"250 2.1.5 Ok\r\n"
    holdfast.run("queue", "retry", str(entry["id"]))
    wait_for(lambda: outcome(holdfast, entry["id"])["outcome"] == "delivered", what="the delivery")


@test("what is held for longer than max_hold expires, with a notification; a delay is told before, once")
def _(scene):
    holdfast, primary, outside, comes_back = world(scene, extra="\n  max_hold: 2s\n  delay_notice: 500ms")
    entry, = held(scene, holdfast, primary, [("a@example.net", "b@example.org", CHECKED + "\r\nx\r\n", "")])
    wait_for(lambda: len(outside.messages) == 2, what="delay and expiry")
    actions = [email.message_from_bytes(content).get_payload()[1].get_payload()[1] for _, content in outside.messages]
    equal([one["Action"] for one in actions], ["delayed", "failed"])
    assert actions[0]["Will-Retry-Until"] and actions[1]["Status"] == "4.4.7", actions[1].as_string()
    wait_for(lambda: outcome(holdfast, entry)["outcome"] == "expired", what="the outcome")
    back = comes_back()
    wait_for(lambda: holdfast.status()["routes"][0]["state"] == "pass", what="pass")
    equal(back.messages, [])


@test("what a primary that is there never takes expires as well, and the notification says what happened, in the words of RFC 3464")
def _(scene):
    holdfast, primary, outside, comes_back = world(scene, extra="\n  max_hold: 3s\n  delay_notice: 0s")
    held(scene, holdfast, primary, [("a@example.net", "b@example.org", CHECKED + "\r\nx\r\n", "")])
    comes_back().replies["content"] = None  # closes
    wait_for(lambda: outside.messages, what="the notification")
    report = email.message_from_bytes(outside.messages[0][1]).get_payload()[1].get_payload()[1]
    equal((report["Action"], report["Status"]), ("failed", "4.4.7"))
    equal(report["Diagnostic-Code"], "smtp; 450 4.4.7 the mail server did not take it in time: it closed the connection")


@test("what a machine without its clock has held does not expire when it gets the time")
def _(scene):
    holdfast, primary, outside, comes_back = world(scene, extra="\n  max_hold: 1h\n  delay_notice: 30m")
    assert scene.client(holdfast.port).send_mail().startswith("250")  # the journal knows a better time
    holdfast.stop()
    clock = start_with_clock(scene, holdfast, "@2001-01-01 00:00:00")
    sent = len(primary.lines())
    wait_for(lambda: len(primary.lines()) > sent, what="a probe")
    *_, entry = held(scene, holdfast, primary, [("a@example.net", "b@example.org", CHECKED + "\r\nx\r\n", "")])
    assert json.loads(holdfast.run("journal", "show", str(entry), "--json").stdout)["time"].startswith("2001-01-01")
    clock.says("+0")
    def looked():  # for what has expired: it does ten times a second
        before = holdfast.status()["uptime_s"]
        wait_for(lambda: holdfast.status()["uptime_s"] >= before + 2, what="some time to pass")
    looked()
    holdfast.stop()
    holdfast.before = []
    holdfast.start()
    looked()
    equal(outcome(holdfast, entry)["outcome"], "held")
    back = comes_back()
    wait_for(lambda: holdfast.status()["routes"][0]["state"] == "pass", what="pass")
    equal(len(back.messages), 1)
    equal(outside.messages, [])


@test("before held mail expires somebody is told, while there is time: the alert, the log, status and metrics; a larger max_hold ends it")
def _(scene):
    http, told = free_port(), scene.path("told")
    holdfast, primary, outside, comes_back = world(scene, extra=f"\n  max_hold: 5d\nalert_command: echo \"$HOLDFAST_EVENT|$HOLDFAST_ROUTE|$HOLDFAST_ALERT\" >> {told}")
    holdfast.admin = f"http: 127.0.0.1:{http}"
    holdfast.stop()
    holdfast.write_config()
    clock = start_with_clock(scene, holdfast, "+0")
    entry, = held(scene, holdfast, primary, [("a@example.net", "b@example.org", CHECKED + "\r\nx\r\n", "")])

    def route():
        return holdfast.status()["routes"][0]

    def metric():
        page = run("curl", "-s", f"http://127.0.0.1:{http}/metrics").stdout
        return int(re.search(r'holdfast_held_expires_seconds\{route="primary"\} (\d+)', page)[1])
    day = 86400
    assert 5 * day - 60 < route()["expires_in_s"] <= 5 * day and not route()["expires_soon"], route()
    assert 5 * day - 60 < metric() <= 5 * day
    assert "EXPIRES" not in holdfast.run("status").stdout
    clock.says("+97h")
    wait_for(lambda: "EXPIRES SOON: the oldest held message in 22 h" in holdfast.run("status").stdout, what="a word in status")
    wait_for(lambda: os.path.exists(told) and "held|primary|route primary: EXPIRES SOON: the oldest held message expires in 22 h" in open(told).read(), what="an alert")
    assert holdfast.logged("remedy=\"repair the primary, or raise failover.max_hold (5d) and SIGHUP\"")
    assert 22 * 3600 < metric() < 23 * 3600
    assert 'holdfast_held_expires_soon{route="primary"} 1\n' in run("curl", "-s", f"http://127.0.0.1:{http}/metrics").stdout
    holdfast.yaml = holdfast.yaml.replace("max_hold: 5d", "max_hold: 14d")
    holdfast.write_config()
    holdfast.signal(signal.SIGHUP)
    wait_for(lambda: not route()["expires_soon"], what="all to be well")
    assert route()["expires_in_s"] > 9 * day
    comes_back()
    wait_for(lambda: route()["state"] == "pass", what="pass")
    assert route()["expires_in_s"] is None and outcome(holdfast, entry)["outcome"] == "delivered"
    equal(open(told).read().count("EXPIRES"), 1)


@test("held mail has limits, on its count and on the disk that it leaves free: senders are told 452, the log and status name the limit")
def _(scene):
    port = free_port()
    primary = scene.primary(port=port)
    holdfast = scene.holdfast(primary, yaml=QUICK + "\n  max_held: 3")
    scene.client(holdfast.port).send_mail()
    holdfast.run("failover", "hold", "--reason", "test")
    for number in range(3):
        assert scene.client(holdfast.port).send_mail().startswith("250")
    equal(scene.client(holdfast.port).send_mail(), "452 4.3.1 Error: too much mail is held already, try again later")
    wait_for(lambda: "LIMIT REACHED: failover.max_held" in holdfast.run("status").stdout and holdfast.logged("failover.max_held is reached"), what="the limit to be named")
    holdfast.yaml = QUICK + "\n  keep_free: 100TiB"
    holdfast.write_config()
    holdfast.signal(signal.SIGHUP)
    wait_for(lambda: "LIMIT REACHED: failover.keep_free" in holdfast.run("status").stdout, what="the other limit")
    equal(scene.client(holdfast.port).send_mail(), "452 4.3.1 Error: too little disk space is left for held mail, try again later")
    holdfast.yaml = QUICK
    holdfast.write_config()
    holdfast.signal(signal.SIGHUP)
    wait_for(lambda: holdfast.logged("there is room for held mail again"), what="room")
    assert scene.client(holdfast.port).send_mail().startswith("250")
    holdfast.run("failover", "auto", "--reason", "test")
    wait_for(lambda: len(primary.messages) == 5, what="the drain")


@test("without an egress route nothing is bounced: what was refused is kept")
def _(scene):
    holdfast, primary, outside, comes_back = world(scene, egress=False)
    entry, = held(scene, holdfast, primary, [("a@example.net", "gone@example.org", CHECKED + "\r\nx\r\n", "")])
    comes_back()
    wait_for(lambda: holdfast.status()["routes"][0]["kept_for_operator"] == 1, what="the kept one")
    equal(outcome(holdfast, entry)["outcome"], "held")


@test("the directory is imported from files of both kinds, listed, and bad lines are refused by number; one address is forgotten")
def _(scene):
    holdfast = scene.holdfast(scene.primary())
    plain = scene.path("plain.txt")
    with open(plain, "w") as file:
        file.write("# people\nx@example.org\n\ny@example.org\n")
    assert "2 recipients imported" in holdfast.run("directory", "import", plain).stdout
    with open(plain, "a") as file:
        file.write("no address\n")
    bad = holdfast.run("directory", "import", plain, check=False)
    assert bad.returncode == 65 and "plain.txt:5" in bad.stderr, bad.stderr
    scene.client(holdfast.port).send_mail(recipient="learned@example.org")
    people = {one["address"]: one for one in map(json.loads, holdfast.run("directory", "list", "--json").stdout.splitlines())}
    equal({name: one["source"] for name, one in people.items()}, {"x@example.org": "imported", "y@example.org": "imported", "learned@example.org": "learned"})
    holdfast.stop()
    holdfast.start()
    equal(len(holdfast.run("directory", "list", "--json").stdout.splitlines()), 3, "after a restart")
    for gone in ("Learned@Example.org", "x@example.org"):
        equal(holdfast.run("directory", "remove", gone).stdout, f"{gone} is forgotten\n")
    equal(holdfast.run("directory", "remove", "learned@example.org", check=False).returncode, 66)
    holdfast.stop()
    holdfast.start()
    equal([json.loads(line)["address"] for line in holdfast.run("directory", "list", "--json").stdout.splitlines()], ["y@example.org"])
    with open(plain, "w") as file:
        file.write("z@example.org\n")
    holdfast.yaml = f"directory:\n  file: {plain}\n"
    holdfast.write_config()
    holdfast.signal(signal.SIGHUP)
    wait_for(lambda: "z@example.org" in holdfast.run("directory", "list").stdout, what="the file")
    assert f"in {plain}, the next start or SIGHUP brings it back" in holdfast.run("directory", "remove", "z@example.org").stderr


@test("held mail goes with its original parameters, and a message without a line end at its end stays as it was")
def _(scene):
    port = free_port()
    primary = scene.primary(port=port)
    holdfast = scene.holdfast(primary, yaml=QUICK)
    scene.client(holdfast.port).send_mail(recipient="b\u00fcro@example.org")
    scene.client(holdfast.port).send_mail()
    primary.stop()
    wait_for(lambda: holdfast.status()["routes"][0]["state"] == "hold", what="hold")
    client = scene.client(holdfast.port)
    client.ask("EHLO client.example.net")
    client.ask("MAIL FROM:<j\u00fcrgen@example.net> BODY=8BITMIME SMTPUTF8 RET=FULL ENVID=x+2By SIZE=20")
    client.ask("RCPT TO:<b@example.org> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;b@example.org")
    client.send(b"BDAT 9 LAST\r\na: b\r\n\r\nc")
    assert client.reply().startswith("250")
    primary = scene.primary(port=port)
    wait_for(lambda: primary.messages, what="the delivery")
    envelope, content = primary.messages[0]
    mail, rcpt = [line.decode() for line in envelope]
    for word in ("MAIL FROM:<j\u00fcrgen@example.net>", "BODY=8BITMIME", "SMTPUTF8", "RET=FULL", "ENVID=x+2By"):
        assert word in mail, mail
    equal(rcpt, "RCPT TO:<b@example.org> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;b@example.org")
    assert content.endswith(b"+0000\r\na: b\r\n\r\nc") and content.startswith(b"Received: ") and b"with UTF8SMTP id" in content, content


@test("the time that a message waited is taken off the times it was sent with; what is no time is refused in a hold")
def _(scene):
    offers = b"250-primary.example.org\r\n250-DELIVERBY\r\n250-MT-PRIORITY MIXER\r\n250 FUTURERELEASE 864000 2030-01-01T00:00:00Z\r\n"
    primary = scene.primary(replies={"EHLO": offers})
    holdfast = scene.holdfast(primary, route="unknown_recipients: accept")
    scene.client(holdfast.port).ask("EHLO client.example.net")  # what the primary offers is known
    holdfast.run("failover", "hold", "--reason", "test")
    client = scene.client(holdfast.port)
    client.ask("EHLO client.example.net")
    for bad in ("BY=soon", "BY=0;R", "HOLDFOR=0", "HOLDUNTIL=tomorrow", "MT-PRIORITY=10", "BY=5;N BY=5;N"):
        equal(client.ask(f"MAIL FROM:<a@example.net> {bad}")[:9], "501 5.5.4")
    began = time.time()
    for params in ("BY=1000;R HOLDFOR=1", "BY=1;NT MT-PRIORITY=-3 HOLDFOR=1000"):
        equal([client.ask(line)[:3] for line in (f"MAIL FROM:<a@example.net> {params}", "RCPT TO:<b@example.org>", "DATA", "x: y\r\n\r\nz\r\n.")],
              ["250", "250", "354", "250"])
    sent = time.time()
    wait_for(lambda: time.time() > sent + 3, what="the messages to grow older")
    holdfast.run("failover", "auto", "--reason", "test")
    wait_for(lambda: len(primary.messages) == 2, what="the deliveries")
    waited = time.time() - began
    first, second = [envelope[0].decode().split("> ")[1] for envelope, _ in primary.messages]
    found = re.fullmatch(r"BY=(\d+);R", first)
    assert found and 1000 - waited - 1 < int(found[1]) < 1000, first
    found = re.fullmatch(r"BY=(-\d+);NT MT-PRIORITY=-3 HOLDFOR=(\d+)", second)
    assert found and -waited <= int(found[1]) <= -1 and int(found[2]) - int(found[1]) == 999, second


@test("an envelope id and an original recipient that most take raw are held, and go as xtext to a primary that wants that")
def _(scene):
    postfix = scene.postfix()
    mail, rcpt = "MAIL FROM:<a@example.net> ENVID=a+b=c", "RCPT TO:<postmaster@example.org> NOTIFY=FAILURE ORCPT=rfc822;post+tag@example.org"
    strict = scene.client(postfix.port)
    equal([strict.ask(command)[:3] for command in ("EHLO client.example.net", mail, "MAIL FROM:<a@example.net>", rcpt)], ["250", "501", "250", "501"])
    holdfast = scene.holdfast(postfix, route="unknown_recipients: accept")
    scene.client(holdfast.port).ask("EHLO client.example.net")  # what the primary offers is known
    holdfast.run("failover", "hold", "--reason", "test")
    client = scene.client(holdfast.port)
    equal([client.ask(command)[:3] for command in ("EHLO client.example.net", mail, rcpt, "DATA", "Subject: x\r\n\r\nhello\r\n.")], ["250", "250", "250", "354", "250"])
    holdfast.run("failover", "auto", "--reason", "test")
    wait_for(lambda: holdfast.entries()[0]["recipients"][0]["outcome"] == "delivered", what="the delivery")
    wait_for(lambda: len(postfix.mails()) == 1, what="the mail")


@test("what the primary gets after hold and drain is what it would have got live, but for one Received line")
def _(scene):
    contents = [b"Subject: x\r\n\r\nplain\r\n", b"", b"\r\n", b".\r\n..\r\n.x\r\n", b"Subject: 8\r\n\r\n\xff\xfe\x80\r\n", b"a: b\r\n\r\n" + b"y" * 5000 + b"\r\n",
                b"no header at all\r\n", b"Subject: folded\r\n\tline\r\n\r\n\r\n\r\n", b"Received: from x\r\n\r\n" + b"z" * 70 + b"\r\n", (b"l" * 78 + b"\r\n") * 4000]
    # Sizes around a frame's edge.
    contents += [b"s" * (65252 + extra - 2) + b"\r\n" for extra in (-1, 0, 1)]

    def stuffed(content):
        return b"\r\n".join(b"." + line if line.startswith(b".") else line for line in content.split(b"\r\n"))

    def send(port, number, content):
        client = scene.client(port)
        client.ask("EHLO client.example.net")
        client.ask(f"MAIL FROM:<a@example.net> BODY=8BITMIME RET=HDRS ENVID=E{number}")
        client.ask("RCPT TO:<b@example.org> NOTIFY=FAILURE")
        client.ask("DATA")
        client.send(stuffed(content) + b".\r\n")
        assert client.reply().startswith("250")
    port = free_port()
    live = scene.primary(port=port)
    holdfast = scene.holdfast(live, yaml=QUICK)
    for number, content in enumerate(contents):
        send(holdfast.port, number, content)
    equal([content for _, content in live.messages], contents, "live")
    live.stop()
    wait_for(lambda: holdfast.status()["routes"][0]["state"] == "hold", what="hold")
    for number, content in enumerate(contents):
        send(holdfast.port, number, content)
    drained = scene.primary(port=port)
    wait_for(lambda: len(drained.messages) == len(contents), what="the drain")
    for (envelope, content), (late_envelope, late) in zip(live.messages, drained.messages):
        size = b" SIZE=%d" % len(late)
        equal([line.replace(size, b"") for line in late_envelope], envelope, "the envelope but for SIZE")
        end = late.index(b"+0000\r\n") + 7
        assert late.startswith(b"Received: from client.example.net ") and late[:end].count(b"\r\n") == 4, late[:end]
        equal(late[end:], content)


@test("held mail of a route that is taken out of the configuration, or renamed, goes to the primary that serves its recipients now, also over a restart")
def _(scene):
    first, second = scene.primary(), scene.primary()
    other = '- name: {}\n  domains: ["other.example.org"]\n  unknown_recipients: accept\n  upstreams: ["127.0.0.1:{}"]'
    holdfast = scene.holdfast(first, route="unknown_recipients: accept", routes=other.format("other", second.port))

    def send(count):
        holdfast.run("failover", "hold", "--reason", "test")
        for number in range(count):
            equal(scene.client(holdfast.port).send_mail(f"Subject: {number}\r\n\r\n", recipient="x@other.example.org")[:20], "250 2.0.0 Ok: queued")

    def is_drained(primary, count):
        holdfast.run("failover", "auto", "--reason", "test")
        wait_for(lambda: len(primary.messages) == count, what="the mail to arrive")
        equal([b"Subject: %d\r\n" % number in content for number, (_, content) in enumerate(primary.messages[-3:])], [True] * 3)
        equal({one["recipients"][0]["outcome"] for one in holdfast.entries()}, {"delivered"})
        equal({one["held"] for one in holdfast.status()["routes"]}, {0})

    # Renamed, while it runs.
    send(3)
    holdfast.routes = other.format("renamed", second.port)
    holdfast.write_config()
    holdfast.signal(signal.SIGHUP)
    wait_for(lambda: [one["name"] for one in holdfast.status()["routes"]] == ["primary", "renamed"], what="the reload")
    is_drained(second, 3)
    # Taken out, while it does not run.
    send(3)
    holdfast.kill()
    holdfast.routes = ""
    holdfast.start()
    wait_for(lambda: [(one["name"], one["held"]) for one in holdfast.status()["routes"]] == [("primary", 3)], what="the mail to change hands")
    is_drained(first, 3)
    assert holdfast.logged("no longer configured")


main()
