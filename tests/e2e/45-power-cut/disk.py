"""A disk that notes what is written to it and when it is told to keep it: a file for a loop device, by FUSE.

Run as: disk.py IMAGE FOLDER. The disk is FOLDER/disk, as IMAGE is at first. Beside IMAGE, IMAGE.events gets each event: its offset and size and
what was written, or nothing where all before it is to be kept; IMAGE.count, how many there were.
"""
import errno
import mmap
import stat
import struct
import sys

HEAD = struct.Struct("<QQ")


def events(path):
    """What was written, as (offset, bytes), in order; None where all before it was to be kept."""
    with open(path, "rb") as log:
        while head := log.read(HEAD.size):
            offset, size = HEAD.unpack(head)
            yield (offset, log.read(size)) if size else None


class Count:
    """How many events there have been, as any process sees it."""

    def __init__(self, path, is_writer=False):
        with open(path, "w+b" if is_writer else "rb") as file:
            if is_writer:
                file.write(bytes(mmap.PAGESIZE))
                file.flush()
            self.memory = mmap.mmap(file.fileno(), mmap.PAGESIZE, access=mmap.ACCESS_WRITE if is_writer else mmap.ACCESS_READ)

    def __call__(self):
        return struct.unpack_from("<Q", self.memory)[0]

    def increase(self):
        self.memory[:8] = struct.pack("<Q", self() + 1)  # at once, for those who read it meanwhile


def serve(image, folder):
    import fusepy as fuse  # Debian's package

    class Disk(fuse.Operations):
        def __init__(self):
            with open(image, "rb") as file:
                self.content = bytearray(file.read())
            self.log = open(image + ".events", "wb", buffering=0)
            self.count = Count(image + ".count", is_writer=True)

        def note(self, offset, data):
            self.log.write(HEAD.pack(offset, len(data)) + data)
            self.count.increase()

        def getattr(self, path, handle=None):
            if path == "/":
                return {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2}
            if path != "/disk":
                raise fuse.FuseOSError(errno.ENOENT)
            return {"st_mode": stat.S_IFREG | 0o600, "st_nlink": 1, "st_size": len(self.content)}

        def read(self, path, size, offset, handle):
            return bytes(self.content[offset:offset + size])

        def write(self, path, data, offset, handle):
            self.content[offset:offset + len(data)] = data
            self.note(offset, data)
            return len(data)

        def fsync(self, path, only_data, handle):
            self.note(0, b"")
            return 0

        def truncate(self, path, length, handle=None):
            return 0

    fuse.FUSE(Disk(), folder, foreground=True, nothreads=True, big_writes=True)


if __name__ == "__main__":
    serve(*sys.argv[1:])
