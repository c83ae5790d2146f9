"""A mail server that says what a scenario wants it to say, and remembers what it was told."""
import contextlib
import socket
import ssl
import threading

from ports import free_port


class ScriptedPrimary:
    """A primary that records every byte it gets and says what it is told to.

    replies maps a verb (or "greeting", "content") to the bytes of its reply, or to a function of (session, line) that returns
    them; None closes the connection. Each finished message is in messages, each session's bytes in sessions.
    """

    EHLO = b"250-primary.example.org\r\n250-PIPELINING\r\n250-SIZE 200000000\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n250-ENHANCEDSTATUSCODES\r\n250 CHUNKING\r\n"

    def __init__(self, replies=None, port=0, tls=None, on_accept=None, host="127.0.0.1"):
        self.replies = {"greeting": b"220 primary.example.org ESMTP\r\n", "EHLO": self.EHLO, "HELO": b"250 primary.example.org\r\n",
                        "MAIL": b"250 2.1.0 Ok\r\n", "RCPT": b"250 2.1.5 Ok\r\n", "DATA": b"354 Go ahead\r\n", "content": b"250 2.0.0 Ok: taken\r\n",
                        "BDAT": b"250 2.0.0 Ok\r\n", "RSET": b"250 2.0.0 Ok\r\n", "NOOP": b"250 2.0.0 Ok\r\n", "QUIT": b"221 2.0.0 Bye\r\n",
                        "STARTTLS": b"220 2.0.0 Go ahead\r\n", "AUTH": b"235 2.7.0 Welcome\r\n"}
        self.replies.update(replies or {})
        self.messages, self.sessions, self.is_stopped = [], [], False
        self.tls, self.on_accept = tls, on_accept
        self.listener = socket.create_server((host, port or free_port()), backlog=200, family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def leave(self):
        """Listens no more; sessions go on."""
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def stop(self):
        self.is_stopped = True
        self.leave()
        for session in self.sessions:
            session.close()

    def _accept(self):
        while True:
            try:
                connection, peer = self.listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            session = PrimarySession(self, connection, peer[0])
            self.sessions.append(session)
            if self.is_stopped:  # it came in the last moment
                session.close()
            threading.Thread(target=session.run, daemon=True).start()

    def takes_chunks(self):
        """Whether it knows BDAT: to one that does not, what follows the line are commands."""
        ehlo = self.replies["EHLO"]
        return callable(ehlo) or b"CHUNKING" in ehlo

    def lines(self):
        """All command lines of all sessions, in order."""
        return [line for session in self.sessions for line in session.lines]


class PrimarySession:
    def __init__(self, primary, connection, peer):
        self.primary, self.connection, self.peer = primary, connection, peer
        self.reads, self.lines = [], []
        self.buffer = bytearray()
        self.chunks, self.envelope = [], []
        self.is_tls = False

    def close(self):
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()

    @property
    def received(self):
        return b"".join(self.reads)

    def more(self):
        data = self.connection.recv(65536)
        if not data:
            raise ConnectionError
        self.reads.append(data)
        self.buffer += data

    def take(self, size):
        """So many bytes, once they have come."""
        while len(self.buffer) < size:
            self.more()
        taken = bytes(self.buffer[:size])
        del self.buffer[:size]
        return taken

    def take_before(self, end):
        """All before these bytes, once they have come; they go too."""
        looked_at = 0
        while (at := self.buffer.find(end, looked_at)) < 0:
            looked_at = max(0, len(self.buffer) - len(end))
            self.more()
        return self.take(at + len(end))[:at]

    def line(self):
        return self.take_before(b"\r\n")

    def say(self, what, line=b""):
        unknown = b"502 5.5.2 Error: command not recognized\r\n"
        is_known = what != "BDAT" or self.primary.takes_chunks()
        reply = self.primary.replies.get(what, unknown) if is_known else unknown
        if callable(reply):
            reply = reply(self, line)
        if reply is None:
            raise ConnectionError
        if reply:
            self.connection.sendall(reply)
        return reply

    def run(self):
        try:
            if self.primary.on_accept:
                self.primary.on_accept(self)
            self.say("greeting")
            while True:
                line = self.line()
                self.lines.append(line)
                verb = line.split(b" ")[0].decode("latin-1").upper()
                if verb == "BDAT" and self.primary.takes_chunks():
                    self.bdat(line)
                    continue
                reply = self.say(verb, line)
                if verb in ("EHLO", "HELO", "RSET"):
                    self.chunks, self.envelope = [], []
                if verb in ("MAIL", "RCPT") and reply.startswith(b"2"):
                    self.envelope.append(line)
                if verb == "STARTTLS" and reply.startswith(b"220"):
                    self.connection = self.primary.tls.wrap_socket(self.connection, server_side=True)
                    self.is_tls, self.buffer = True, bytearray()
                if verb == "DATA" and reply.startswith(b"354"):
                    self.data()
                if verb == "QUIT":
                    raise ConnectionError
        except (ConnectionError, OSError, ssl.SSLError, ValueError):
            self.close()

    def data(self):
        self.buffer[:0] = b"\r\n"  # so that the end of an empty content looks like any other's
        text = self.take_before(b"\r\n.\r\n")
        lines = [*text.split(b"\r\n")[1:], b""] if text else []
        self.finish(b"\r\n".join(line[1:] if line.startswith(b".") else line for line in lines))

    def bdat(self, line):
        words = line.split()
        self.chunks.append(self.take(int(words[1])))
        if len(words) > 2:
            content, self.chunks = b"".join(self.chunks), []
            self.finish(content, "BDAT")
        else:
            self.say("BDAT", line)

    def finish(self, content, kind="content"):
        self.primary.messages.append((self.envelope, content))
        self.envelope = []
        self.say(kind)
