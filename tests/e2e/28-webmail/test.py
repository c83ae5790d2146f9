"""The emergency webmail in a real browser, from the primary's death to its return. Screenshots are kept in build/webmail-screenshots."""
import os
import shutil
import sys

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


def playwright():
    """The folder that has it; fetched once."""
    folder = os.path.join(ROOT, "build", "browser")
    if not os.path.isdir(os.path.join(folder, "node_modules", "playwright-core")):
        os.makedirs(folder, exist_ok=True)
        subprocess.run(["npm", "install", "--silent", "--no-save", "--prefix", folder, "playwright-core"], check=True, stdout=subprocess.DEVNULL)
    return os.path.join(folder, "node_modules")


class Browser:
    def __init__(self, scene, url, device, language):
        os.makedirs(SCREENSHOTS, exist_ok=True)
        self.process = subprocess.Popen(["node", os.path.join(HERE, "browse.js"), url, SCREENSHOTS, device, language], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, env={**os.environ, "NODE_PATH": playwright()})
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


def story(scene, device, language):
    office = Office(scene, mailbox="open: hold\ngrace: 1s")
    office.send("Yesterday", "ada")
    office.send("Unwanted", "ada")
    office.send("Figures with attachment", "ada", raw=WITH_ATTACHMENT)
    url = webmail(scene, office)
    office.primary.stop()  # it dies
    wait_for(lambda: office.holdfast.status()["routes"][0]["state"] == "hold", what="the hold")
    browser = Browser(scene, url, device, language)
    browser.reaches("arrival")
    office.send("Arrives now", "ada")
    wait_for(lambda: len(office.holdfast.entries("--recipient", "ada@example.org")) == 4, what="the message")
    office.settle()
    browser.go_on()
    browser.reaches("return")
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


@test("desktop, in English: from the death of the primary to its return")
def _(scene):
    story(scene, "desktop", "en-US")


@test("phone, in German: the same")
def _(scene):
    story(scene, "phone", "de-DE")


main()
