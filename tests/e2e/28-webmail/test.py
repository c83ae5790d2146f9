"""The emergency webmail in a real browser, from the primary's death to its return. Screenshots are kept in build/webmail-screenshots."""
import os
import shutil
import signal
import http.cookiejar
import sys
import urllib.error
import urllib.parse
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from mailboxes import *
from offices import *

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "..", "..", "..")
SCREENSHOTS = os.path.join(ROOT, "build", "webmail-screenshots")

WITH_ATTACHMENT = """MIME-Version: 1.0\r
Content-Type: multipart/mixed; boundary=b\r
\r
--b\r
Content-Type: text/html; charset=utf-8\r
\r
<html><body><p>Here are the <b>bold figures</b>.</p><script>evil()</script><img src="http://192.0.2.1/spy.png"></body></html>\r
--b\r
Content-Type: application/pdf\r
Content-Disposition: attachment; filename*=utf-8''%C3%9Cbersicht.pdf\r
Content-Transfer-Encoding: base64\r
\r
JVBERi0xLjQK\r
--b--\r
"""


def node_modules():
    """The folder that has what drives the browser and what judges its pages; fetched once."""
    folder = os.path.join(ROOT, "build", "browser")
    needed = ("playwright-core", "axe-core")
    if not all(os.path.isdir(os.path.join(folder, "node_modules", one)) for one in needed):
        os.makedirs(folder, exist_ok=True)
        subprocess.run(["npm", "install", "--silent", "--no-save", "--prefix", folder, *needed], check=True, stdout=subprocess.DEVNULL)
    return os.path.join(folder, "node_modules")


class Browser:
    def __init__(self, scene, url, device, language):
        os.makedirs(SCREENSHOTS, exist_ok=True)
        self.process = subprocess.Popen(["node", os.path.join(HERE, "browse.js"), url, SCREENSHOTS, device, language], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, env={**os.environ, "NODE_PATH": node_modules()})
        scene.stack.callback(self.process.kill)

    def reaches(self, step):
        line = self.process.stdout.readline().strip()
        equal(line, f"at {step}")

    def go_on(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()


def webmail(scene, office):
    port = free_port()
    log = open(scene.path("webmail.log"), "wb")
    process = subprocess.Popen([os.path.join(ROOT, "deploy", "mailbox"), "--imap", f"127.0.0.1:{office.imap_port}", "--submission", f"127.0.0.1:{office.submission_port}",
                                "--address-book", f"http://127.0.0.1:{office.http_port}/address-book", "--listen", f"127.0.0.1:{port}"], stdout=log, stderr=log)
    scene.stack.callback(process.wait)
    scene.stack.callback(process.terminate)
    wait_for(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0, seconds=300, what="the webmail to start")
    return f"http://127.0.0.1:{port}/"


def reload(holdfast, yaml):
    holdfast.yaml = yaml
    holdfast.write_config()
    holdfast.signal(signal.SIGHUP)


def story(scene, device, language):
    office = Office(scene, mailbox="open: hold\ngrace: 1s\nrecipients_per_hour: 2")
    office.send("Yesterday", "ada")
    office.send("Unwanted", "ada")
    office.send("Figures with attachment", "ada", raw=WITH_ATTACHMENT)
    office.primary.replies["RCPT"] = lambda session, line: b"550 5.1.1 who is that?\r\n" if b"nobody" in line else b"250 2.1.5 Ok\r\n"
    client = scene.client(office.holdfast.port)
    for line in ("EHLO client.example.net", "MAIL FROM:<out@example.net>", "RCPT TO:<nobody@example.org>"):
        client.ask(line)
    url = webmail(scene, office)
    office.primary.stop()  # it dies
    wait_for(lambda: office.holdfast.status()["routes"][0]["state"] == "hold", what="the hold")
    browser = Browser(scene, url, device, language)
    browser.reaches("arrival")
    office.send("Arrives now", "ada")
    wait_for(lambda: len(office.holdfast.entries("--recipient", "ada@example.org")) == 4, what="the message")
    office.settle()
    browser.go_on()
    browser.reaches("no room")
    before = office.holdfast.yaml
    reload(office.holdfast, before + "  keep_free: 100TiB\n")
    wait_for(lambda: "LIMIT REACHED" in office.holdfast.run("status").stdout, what="the limit")
    browser.go_on()
    browser.reaches("return")
    reload(office.holdfast, before)
    wait_for(lambda: any(b"Thank you, Ada" in content for _, content in office.egress.messages), what="the reply to reach the world")
    primary = scene.primary(port=office.primary.port)
    wait_for(lambda: office.holdfast.status()["routes"][0]["state"] == "pass" and office.holdfast.status()["routes"][0]["held"] == 0, what="all to flow back")
    contents = [content for _, content in primary.messages]
    for wanted in (b"Subject: Arrives now", f"Subject: For Bob from the {device}".encode(), b"X-Holdfast-Sent"):
        assert any(wanted in content for content in contents), wanted
    wait_for(lambda: is_shut(office), what="the mailbox to close")
    browser.go_on()
    browser.reaches("end")


def is_shut(office):
    try:
        office.log_in("ada")
        return False
    except imaplib.IMAP4.error:
        return True


class StaysHere(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


@test("whoever guesses passwords on the page, behind what gives it TLS, keeps out nobody else; cookies are for TLS only there")
def _(scene):
    office = Office(scene)
    office.hold()
    url = webmail(scene, office)

    refusals = []

    def log_in(address, password):
        """True when she is in: the page sends her on."""
        jar = http.cookiejar.CookieJar()
        page = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar), StaysHere)
        page.addheaders = [("X-Forwarded-For", address), ("X-Forwarded-Proto", "https"), ("User-Agent", "test")]
        # The page is asked for in the clear, but behind TLS: the jar would not send its cookies.
        token = re.search(r'name="_token" value="([^"]+)"', page.open(url).read().decode())[1]
        cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in jar)
        assert all(cookie.secure for cookie in jar), cookies
        form = urllib.parse.urlencode({"_token": token, "_task": "login", "_action": "login", "_user": "ada@example.org", "_pass": password}).encode()
        page.addheaders.append(("Cookie", cookies))
        try:
            page.open(url + "?_task=login", form)
        except urllib.error.HTTPError as other:
            if other.code == 401:
                refusals.append(other.read().decode())
            return {302: True, 401: False}[other.code]
        raise AssertionError("neither in nor refused")
    assert log_in("198.51.100.7", PASSWORD)  # from then on Roundcube knows her too
    for _ in range(8):
        assert not log_in("203.0.113.5", "guess")
    assert "Login failed" in refusals[0]
    assert any("Too many wrong passwords. Wait a moment, at most 1 min" in refusal for refusal in refusals)
    assert office.holdfast.logged('person=ada@example.org client=203.0.113.5 refused="too many wrong passwords"')
    assert log_in("198.51.100.7", PASSWORD)
    assert office.holdfast.logged("person=ada@example.org client=198.51.100.7 login=")


@test("desktop, in English: from the death of the primary to its return")
def _(scene):
    story(scene, "desktop", "en-US")


@test("phone, in German: the same")
def _(scene):
    story(scene, "phone", "de-DE")


main()
