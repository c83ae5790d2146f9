"""Mail as companies get it: prose, HTML alternatives and some attachments, with the headers that a few hops leave."""
import base64
import glob
import gzip
import random
import re


def _paragraphs():
    """Prose from the documentation that every Debian has."""
    found = []
    for path in sorted(glob.glob("/usr/share/doc/*/*.gz") + glob.glob("/usr/share/doc/*/copyright") + glob.glob("/usr/share/common-licenses/*")):
        try:
            with (gzip.open if path.endswith(".gz") else open)(path, "rb") as file:
                text = re.sub(r"[^\n\t -~\u00a0-\uffff]", "", file.read(200000).decode("utf-8", "ignore"))
        except OSError:
            continue
        found += [part.strip() for part in re.split(r"\n\s*\n", text) if 80 < len(part) < 1200]
        if len(found) > 40000:
            break
    return found


class OrdinaryMail:
    def __init__(self, seed=1):
        self.random, self.paragraphs = random.Random(seed), _paragraphs()

    def token(self, size):
        return base64.b64encode(self.random.randbytes(size * 3 // 4)).decode().replace("/", "x").replace("+", "y")

    def _wrap(self, data):
        text = base64.b64encode(data).decode()
        return "\r\n".join(text[at:at + 76] for at in range(0, len(text), 76))

    def header(self, number):
        host = f"mail{self.random.randrange(40)}.example.{self.random.choice(('net', 'com', 'org'))}"
        signature = self.token(344)
        return (f"Received: from {host} ({host} [192.0.2.{number % 250}])\r\n\tby mx.example.org (Postfix) with ESMTPS id {self.token(12)}\r\n"
                f"\tfor <person{number % 200}@example.org>; Wed, 25 Nov 2026 10:{number % 60:02}:12 +0100 (CET)\r\n"
                f"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d={host}; s=mail;\r\n\tt=1795600000; bh={self.token(44)};\r\n\th=From:To:Subject:Date;\r\n"
                f"\tb={signature[:70]}\r\n\t {signature[70:140]}\r\n\t {signature[140:]}\r\n"
                f"Date: Wed, 25 Nov 2026 10:{number % 60:02}:11 +0100\r\nFrom: Somebody <somebody{number % 70}@{host}>\r\nTo: person{number % 200}@example.org\r\n"
                f"Message-ID: <{self.token(20)}.{number}@{host}>\r\nSubject: {' '.join(self.random.choice(self.paragraphs).split()[:7])}\r\nMIME-Version: 1.0\r\n")

    def text(self, paragraphs):
        return "\r\n\r\n".join(re.sub(r"\r?\n", "\r\n", self.random.choice(self.paragraphs)) for _ in range(paragraphs)) + "\r\n"

    def message(self, number):
        kind, text = self.random.random(), self.text(self.random.randrange(2, 10))
        if kind < 0.6:
            return self.header(number) + "Content-Type: text/plain; charset=utf-8\r\n\r\n" + text
        cells = "".join(f'<tr><td style="padding:8px;font-family:Arial,sans-serif;font-size:14px;color:#333333">{part}</td></tr>\r\n' for part in text.split("\r\n\r\n"))
        html = f'<!DOCTYPE html><html><head><meta charset="utf-8"><style>td{{margin:0}}</style></head><body><table width="100%">\r\n{cells}</table></body></html>\r\n'
        alternative = f"--a1\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{text}--a1\r\nContent-Type: text/html; charset=utf-8\r\n\r\n{html}--a1--\r\n"
        if kind < 0.95:
            return self.header(number) + "Content-Type: multipart/alternative; boundary=a1\r\n\r\n" + alternative
        attachment = self._wrap(self.random.randbytes(self.random.randrange(5000, 60000)))  # compressed already, as pictures and documents are
        return (self.header(number) + f"Content-Type: multipart/mixed; boundary=b1\r\n\r\n--b1\r\nContent-Type: multipart/alternative; boundary=a1\r\n\r\n{alternative}"
                f"--b1\r\nContent-Type: application/pdf; name=report.pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n{attachment}\r\n--b1--\r\n")
