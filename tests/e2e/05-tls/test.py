"""TLS on both sides: STARTTLS and implicit, names, resumption, reload, and what a route demands of the primary."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from harness import *


def tls_yaml(*pairs, more=""):
    return "tls:\n  certificates:\n" + "".join(f"    - certificate: {certificate}\n      key: {key}\n" for certificate, key in pairs) + more


def name_shown(port, name, starttls=True):
    """The common name of the certificate that a client sees which asks for name."""
    shown = run("openssl", "s_client", "-connect", f"127.0.0.1:{port}", *(["-starttls", "smtp"] if starttls else []),
                *(["-servername", name] if name else ["-noservername"]), input="QUIT\r\n")
    return next((line.split("CN = ")[1] for line in shown.stdout.splitlines() if line.startswith("subject=")), shown.stdout + shown.stderr)


@test("STARTTLS is offered, works, and is not offered again; the journal notes version and cipher")
def _(scene):
    primary = scene.primary()
    holdfast = scene.holdfast(primary, listener="tls: starttls", yaml=tls_yaml(scene.certificate("mx.example.org")))
    client = scene.client(holdfast.port)
    plain = client.ask("EHLO client.example.net")
    assert "250-STARTTLS" in plain, plain
    equal(client.ask("STARTTLS"), "220 2.0.0 Ready to start TLS")
    client.start_tls("mx.example.org")
    secure = client.ask("EHLO client.example.net")
    equal(secure, plain.replace("250-STARTTLS\r\n", ""))
    equal(client.ask("STARTTLS"), "554 5.5.1 Error: TLS already active")
    equal(client.send_mail("Subject: x\r\n\r\n" + "secret\r\n" * 50000, helo=None), "250 2.0.0 Ok: taken")
    equal(primary.messages[0][1], b"Subject: x\r\n\r\n" + b"secret\r\n" * 50000)
    assert holdfast.entries()[0]["tls"].startswith("TLSv1.3 TLS_"), holdfast.entries()[0]["tls"]


@test("a client that has not read what was said before STARTTLS gets it in plain, and then TLS")
def _(scene):
    primary = scene.primary(replies={"HELP": (b"214-" + b"help " * 80 + b"\r\n") * 100 + b"214 2.0.0 that is all\r\n"})
    holdfast = scene.holdfast(primary, listener="tls: starttls", yaml=tls_yaml(scene.certificate("mx.example.org")))
    # How much the system keeps for a client that does not read, only the system knows.
    for count in range(60, 100, 2):
        client = scene.client(holdfast.port, receive_buffer=4096)
        client.ask("EHLO client.example.net")
        client.send("HELP\r\n" * count + "STARTTLS\r\n")
        wait_for(lambda: primary.sessions[-1].lines.count(b"HELP") == count, what="the primary's replies")
        for _ in range(count):
            assert client.reply().endswith("214 2.0.0 that is all")
        equal(client.reply(), "220 2.0.0 Ready to start TLS", count)
        equal(client.start_tls("mx.example.org").send_mail(), "250 2.0.0 Ok: taken")
        client.close()


@test("implicit TLS works from the first byte")
def _(scene):
    primary = scene.primary()
    holdfast = scene.holdfast(primary, listener="tls: implicit", yaml=tls_yaml(scene.certificate("mx.example.org")))
    client = scene.client(holdfast.port, greeting=False).start_tls()
    equal(client.reply(), "220 primary.example.org ESMTP")
    equal(client.send_mail(), "250 2.0.0 Ok: taken")


@test("the certificate is chosen by the name that the client asks for, wildcards too; an unknown name gets the first")
def _(scene):
    holdfast = scene.holdfast(scene.primary(), listener="tls: starttls",
                              yaml=tls_yaml(scene.certificate("mx.example.org"), scene.certificate("other.example.com"), scene.certificate("wild", "*.example.net")))
    for asked, shown in (("mx.example.org", "mx.example.org"), ("OTHER.example.com", "other.example.com"), ("a.example.net", "wild"),
                         ("a.b.example.net", "mx.example.org"), ("unknown.example", "mx.example.org"), (None, "mx.example.org")):
        equal(name_shown(holdfast.port, asked), shown, asked)


@test("TLS 1.1 is refused, 1.2 is taken, and sessions are resumed in 1.2 and 1.3")
def _(scene):
    holdfast = scene.holdfast(scene.primary(), listener="tls: implicit", yaml=tls_yaml(scene.certificate("mx.example.org")))
    for option, works in (("-tls1_1", False), ("-tls1_2", True), ("-tls1_3", True)):
        tried = run("openssl", "s_client", "-connect", f"127.0.0.1:{holdfast.port}", "-cipher", "ALL:@SECLEVEL=0", option, input="")
        equal("BEGIN CERTIFICATE" in tried.stdout, works, option)
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = insecure_tls()
        context.minimum_version = context.maximum_version = version
        first = context.wrap_socket(socket.create_connection(("127.0.0.1", holdfast.port)))
        first.recv(100)
        second = context.wrap_socket(socket.create_connection(("127.0.0.1", holdfast.port)), session=first.session)
        second.recv(100)
        assert second.session_reused, version
        first.close()
        second.close()


@test("SIGHUP takes new certificates without dropping a session; a bad one leaves the old")
def _(scene):
    certificate, key = scene.certificate("old.example.org")
    primary = scene.primary()
    holdfast = scene.holdfast(primary, listener="tls: starttls", yaml=tls_yaml((certificate, key)))
    client = scene.client(holdfast.port)
    client.ask("EHLO client.example.net")
    client.ask("STARTTLS")
    client.start_tls()
    new, new_key = scene.certificate("new.example.org")
    os.replace(new, certificate)
    os.replace(new_key, key)
    holdfast.signal(signal.SIGHUP)
    wait_for(lambda: name_shown(holdfast.port, None) == "new.example.org", what="the new certificate")
    assert holdfast.logged("nothing changed; certificates were read again")
    with open(certificate, "w") as file:
        file.write("rubbish")
    holdfast.signal(signal.SIGHUP)
    wait_for(lambda: holdfast.logged("cannot use it as a certificate"), what="the complaint")
    equal(name_shown(holdfast.port, None), "new.example.org")
    equal(client.send_mail(), "250 2.0.0 Ok: taken")


@test("a certificate that expires is told of in time, and again when it has expired, until it is renewed: check, log, alert, status and metrics")
def _(scene):
    told, http = scene.path("told"), free_port()
    certificate, key = scene.certificate("mail.example.org", days=5)
    holdfast = Holdfast(scene, scene.primary(), listener="tls: starttls", yaml=f'alert_command: echo "$HOLDFAST_EVENT|$HOLDFAST_ALERT" >> {told}\ntls:\n  certificates:\n    - certificate: {certificate}\n      key: {key}\n')
    holdfast.admin = f"http: 127.0.0.1:{http}"
    holdfast.start()

    def alerts():
        return open(told).read().splitlines() if os.path.exists(told) else []

    def seconds():
        page = run("curl", "-s", f"http://127.0.0.1:{http}/metrics").stdout
        return int(re.search(r"holdfast_certificate_expires_seconds\{file=\"[^\"]+\"\} (-?\d+)", page)[1])
    wait_for(lambda: alerts() == [f"certificate|certificate: {certificate}: it expires in 4 d"], what="an alert")
    assert holdfast.logged("where the file is new already: SIGHUP")
    assert f"CERTIFICATE {certificate}: it expires in 4 d" in holdfast.run("status").stdout
    assert f"a word of caution about {certificate}: it expires in 4 d" in holdfast.run("check").stderr
    assert 4 * 86400 < seconds() <= 5 * 86400
    old, old_key = scene.certificate("old.example.org", days=5, before=["faketime", "-f", "-8d"])
    new, new_key = scene.certificate("new.example.org")
    for file, other, word in ((old, old_key, f"certificate|certificate: {certificate}: it expired 3 d ago: who checks it does not connect"), (new, new_key, None)):
        os.replace(file, certificate)
        os.replace(other, key)
        holdfast.signal(signal.SIGHUP)
        if word:
            wait_for(lambda: word in alerts(), what=word)
            assert seconds() < 0
    wait_for(lambda: seconds() > 80 * 86400, what="the new one")
    assert "CERTIFICATE" not in holdfast.run("status").stdout and certificate not in holdfast.run("check").stderr
    equal(len(alerts()), 2)
    os.unlink(key)
    refused = holdfast.run("check", check=False)
    equal((refused.returncode, refused.stderr), (78, f"holdfast: {key}: cannot use it as a private key: No such file or directory\n"))


@test("toward the primary: off, opportunistic, required and verify do what they say")
def _(scene):
    certificate, key = scene.certificate("primary.example.org")
    offers = b"250-primary\r\n250-STARTTLS\r\n250 8BITMIME\r\n"
    unreachable = "421 4.3.2 holdfast.example.org The mail server is not reachable, try again later"
    trust = f"tls:\n  ca_file: {certificate}"
    rows = [
        # route, primary offers STARTTLS, further YAML, is TLS, is refused
        ("tls: off", True, "", False, False),
        ("tls: opportunistic", True, "", True, False),
        ("tls: opportunistic", False, "", False, False),
        ("tls: required", True, "", True, False),
        ("tls: required", False, "", False, True),
        ("tls: verify\ntls_name: primary.example.org", True, trust, True, False),
        ("tls: verify\ntls_name: other.example.org", True, trust, False, True),
        ("tls: verify\ntls_name: primary.example.org", True, "", False, True),
    ]
    for route, has_tls, yaml, is_tls, is_refused in rows:
        replies = {"EHLO": lambda session, line: offers if not session.is_tls else b"250-primary\r\n250 8BITMIME\r\n"} if has_tls else {}
        primary = scene.primary(replies=replies, tls=server_tls(certificate, key))
        holdfast = scene.holdfast(primary, route=route, yaml=yaml + "\n" + PASS)
        client = scene.client(holdfast.port)
        if is_refused:
            equal(client.greeting, unreachable, route)
        else:
            equal(client.send_mail(), "250 2.0.0 Ok: taken", route)
            equal(primary.sessions[-1].is_tls, is_tls, route)
        holdfast.stop()
        primary.stop()


@test("an opportunistic route goes on in plain when the primary's TLS does not work")
def _(scene):
    def broken(session, line):
        session.connection.sendall(b"220 2.0.0 Go ahead\r\n")
        session.connection.recv(1000)
        return None
    primary = scene.primary(replies={"EHLO": b"250-primary\r\n250-STARTTLS\r\n250 8BITMIME\r\n", "STARTTLS": broken})
    holdfast = scene.holdfast(primary, route="tls: opportunistic")
    client = scene.client(holdfast.port)
    equal(client.send_mail(), "250 2.0.0 Ok: taken")


@test("Postfix on both sides: TLS in, TLS out")
def _(scene):
    certificate, key = scene.certificate("mx.example.org")
    postfix = scene.postfix("smtpd_tls_security_level = may", f"smtpd_tls_cert_file = {certificate}", f"smtpd_tls_key_file = {key}", "smtpd_tls_received_header = yes")
    holdfast = scene.holdfast(postfix, listener="tls: starttls", route="tls: required", yaml=tls_yaml((certificate, key)))
    client = scene.client(holdfast.port)
    client.ask("EHLO client.example.net")
    client.ask("STARTTLS")
    client.start_tls()
    assert client.send_mail().startswith("250 2.0.0 Ok: queued as")
    mail = wait_for(postfix.mails, what="the delivery")[0]
    assert b"using TLSv1.3" in mail, mail


main()
