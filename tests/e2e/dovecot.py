"""Debian's Dovecot as a mail store with LMTP and IMAP, with a folder of its own; it takes everybody, with any password."""
import os
import shutil
import socket
import subprocess

from harness import free_port, wait_for


class Dovecot:
    def __init__(self, scene, mail_location="maildir:%h"):
        self.folder, self.lmtp_port, self.imap_port = scene.path("dovecot"), free_port(), free_port()
        self.user = "nobody"
        group = subprocess.run(["id", "-gn", self.user], capture_output=True, text=True, check=True).stdout.strip()
        os.makedirs(self.folder + "/mail")
        for folder in (self.folder, self.folder + "/mail"):
            shutil.chown(folder, self.user)
        self.config = self.folder + "/dovecot.conf"
        with open(self.config, "w") as file:
            file.write(f"""base_dir = {self.folder}/run
state_dir = {self.folder}/state
log_path = {self.folder}/log
protocols = lmtp imap
default_internal_user = {self.user}
default_internal_group = {group}
default_login_user = {self.user}
ssl = no
disable_plaintext_auth = no
mail_location = {mail_location}
mail_max_userip_connections = 10000
first_valid_uid = 1
passdb {{
  driver = static
  args = nopassword=y
}}
userdb {{
  driver = static
  args = uid={self.user} gid={group} home={self.folder}/mail/%u allow_all_users=yes
}}
service lmtp {{
  chroot =
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {self.lmtp_port}
  }}
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    address = 127.0.0.1
    port = {self.imap_port}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service imap {{
  process_limit = 10000
}}
service anvil {{
  chroot =
}}
lmtp_add_received_header = no
""")
        self.process = subprocess.Popen(["dovecot", "-F", "-c", self.config], stderr=subprocess.PIPE)
        scene.stack.callback(self.process.wait)
        scene.stack.callback(self.process.terminate)
        wait_for(lambda: self.process.poll() is not None or self.answers(), what="Dovecot to start")
        assert self.process.poll() is None, self.process.stderr.read()

    def answers(self):
        return all(socket.socket().connect_ex(("127.0.0.1", port)) == 0 for port in (self.lmtp_port, self.imap_port))

    def processes(self):
        """Ids of all its processes."""
        found = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True).stdout.split()
        return [self.process.pid, *map(int, found)]
