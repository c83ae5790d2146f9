"""A clock of its own for a process that is started."""
import glob


class Clock:
    def __init__(self, scene, says="+0"):
        self.path = scene.path("clock")
        [library] = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
        self.before = ["env", f"LD_PRELOAD={library}", f"FAKETIME_TIMESTAMP_FILE={self.path}", "FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1"]
        self.says(says)

    def says(self, time):
        """From now on: a time, or how far from the machine's, as in "+3d"."""
        with open(self.path, "w") as file:
            file.write(time)
