"""Local files: opening them so that no link or pipe misleads us, and reading ranges of them."""

from __future__ import annotations

import errno
import os
import stat
import time
import weakref
from contextlib import suppress


def open_regular(path: str | os.PathLike[str], flags: int = os.O_RDONLY) -> int:
    """A descriptor of a regular file of our own, such as a cache entry or a lock.

    The name itself may be no link, so that nobody who can write to a shared folder leads us to
    another file; a folder, FIFO or device is refused as well, and never waited for.

    Args:
        path: the file.
        flags: of `os.open`; with O_CREAT the umask decides who may read it.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "it is no regular file", os.fspath(path))
    return fd


def pread(handle: int, start: int, stop: int) -> bytes:
    """Bytes `[start, stop)` of an open file, fewer where it ends before; threads may share it.

    >>> handle = os.open(os.devnull, os.O_RDONLY)
    >>> pread(handle, 0, 10)
    b''
    >>> os.close(handle)
    """
    data = os.pread(handle, stop - start, start)
    while len(data) < stop - start:  # one call gives 2 GiB at most
        more = os.pread(handle, stop - start - len(data), start + len(data))
        if not more:
            break
        data += more
    return data


class LocalFile:
    """A regular file of our own, open until nobody uses it any more.

    Args:
        path, flags: as of `open_regular`.

    Raises:
        OSError: as of `open_regular`.
    """

    def __init__(self, path: str | os.PathLike[str], flags: int = os.O_RDONLY) -> None:
        self.path = os.fspath(path)
        self.fd = open_regular(path, flags)
        weakref.finalize(self, os.close, self.fd).atexit = False

    @property
    def size(self) -> int:
        """Bytes of the file as it is now."""
        return os.fstat(self.fd).st_size

    def read(self, start: int, stop: int) -> bytes:
        """Bytes `[start, stop)`; fewer if the file was cut."""
        return pread(self.fd, start, stop)

    def touch(self) -> None:
        """Set the time of the last use, which file systems mounted with noatime do not."""
        with suppress(OSError):
            os.utime(self.fd, ns=(time.time_ns(), os.fstat(self.fd).st_mtime_ns))
