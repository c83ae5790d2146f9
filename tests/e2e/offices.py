"""An office: a Holdfast with IMAP, submission, egress and a directory, whose primary can go away."""
import smtplib

from mailboxes import *


class Office(World):
    """With a submission listener, an egress, a directory, and the primary's route for example.org."""

    def __init__(self, scene, mailbox="open: hold\ngrace: 1h", egress=None, egress_yaml="", **options):
        self.egress, self.submission_port, self.http_port = egress or scene.primary(), free_port(), free_port()
        with open(scene.path("people.csv"), "w") as file:
            file.write("address,name,aliases\nada@example.org,Ada,countess@example.org\nbob@example.org,Bob M\u00fcller,\n")
        super().__init__(scene, mailbox=mailbox, yaml=f'egress:\n  upstreams: ["127.0.0.1:{self.egress.port}"]\n{egress_yaml}'
                         f'directory:\n  file: {scene.path("people.csv")}\nfailover:\n  probe_interval: 200ms\n  release_after: 100ms\n', **options)
        self.holdfast.listeners += f"\n- address: 127.0.0.1:{self.submission_port}\n  role: submission"
        self.holdfast.admin = f"http: 127.0.0.1:{self.http_port}"
        self.holdfast.stop()
        self.holdfast.start()

    def hold(self):
        self.holdfast.run("failover", "hold", "--reason", "test")

    def back(self):
        self.holdfast.run("failover", "auto", "--reason", "test")

    def submission(self, person="ada", password=PASSWORD):
        session = smtplib.SMTP("127.0.0.1", self.submission_port, local_hostname="laptop.example.org")
        self.scene.stack.callback(session.close)
        session.login(f"{person}@example.org", password)
        return session

    def settle(self):
        """Until the catalog knows all that is in the journal: mailboxes show it then."""
        newest = self.holdfast.entries("--newest", "--limit", "1")[0]["subject"]
        wait_for(lambda: newest in subjects(self.log_in("ada")), what="the mailbox to show the newest")
