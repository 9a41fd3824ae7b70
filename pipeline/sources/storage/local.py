"""Opening local files of Lockstep's own safely, and reading byte ranges of local files."""

from __future__ import annotations

import errno
import functools
import os
import platform
import stat
import time
import weakref
from contextlib import suppress

from pipeline.sources.complaints import changed
from pipeline.sources.storage.location import Stat, is_url


def open_regular(path: str | os.PathLike[str], flags: int = os.O_RDONLY) -> int:
    """Open a regular file that Lockstep itself keeps, such as a cache entry or a lock.

    A symbolic link is refused, so that nobody who can write to a shared folder redirects us to
    another file. A folder, FIFO or device is refused as well, without blocking.

    Args:
        path: the file.
        flags: as for `os.open`; with O_CREAT the umask determines the permissions.

    Returns:
        A file descriptor.

    Raises:
        OSError: it cannot be opened, or is not a regular file.
    """
    fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "it is no regular file", os.fspath(path))
    return fd


def stat_of(path: str, found: os.stat_result) -> Stat:
    """Size and tag of a local file. The tag is its modification time, as build tools use it."""
    return Stat(path, found.st_size, str(found.st_mtime_ns))


def check_same(was: Stat, now: Stat) -> None:
    """Raise SourceError if a file is another one than when it was looked up.

    Args:
        was: the file then; if its tag is "", only sizes are compared.
        now: the file.
    """
    if now.size != was.size:
        raise changed(was.path, f"{was.size} bytes", f"{now.size}")
    if was.tag and now.tag != was.tag:
        if is_url(was.path):
            raise changed(was.path, f"tag {was.tag}", now.tag)
        raise changed(was.path, f"been modified at {_time(was)}", f"at {_time(now)}")


def _time(stat: Stat) -> str:
    seconds, rest = divmod(int(stat.tag), 10**9)
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(seconds))}.{rest:09}"


@functools.cache
def machine() -> str:
    """Tells this machine, since it was started, from others. Containers count as machines."""
    booted = ""
    with suppress(OSError), open("/proc/sys/kernel/random/boot_id") as f:
        booted = f.read().strip()
    return f"{platform.node()} {booted}"


def pread(handle: int, start: int, stop: int) -> bytes:
    """Bytes `[start, stop)` of an open file, fewer at its end. Safe in several threads at once.

    >>> handle = os.open(os.devnull, os.O_RDONLY)
    >>> pread(handle, 0, 10)
    b''
    >>> os.close(handle)
    """
    data = os.pread(handle, stop - start, start)
    while len(data) < stop - start:  # one call returns 2 GiB at most
        more = os.pread(handle, stop - start - len(data), start + len(data))
        if not more:
            break
        data += more
    return data


class LocalFile:
    """An open regular file that Lockstep itself keeps. It is closed once it is garbage.

    Args:
        path, flags: as for `open_regular`.

    Raises:
        OSError: as for `open_regular`.
    """

    def __init__(self, path: str | os.PathLike[str], flags: int = os.O_RDONLY) -> None:
        self.path = os.fspath(path)
        self.fd = open_regular(path, flags)
        weakref.finalize(self, os.close, self.fd).atexit = False

    @property
    def size(self) -> int:
        """Current size in bytes."""
        return os.fstat(self.fd).st_size

    def read(self, start: int, stop: int) -> bytes:
        """Bytes `[start, stop)`; fewer if the file was truncated."""
        return pread(self.fd, start, stop)

    def touch(self) -> None:
        """Set the access time to now, which file systems mounted with noatime do not."""
        with suppress(OSError):
            os.utime(self.fd, ns=(time.time_ns(), os.fstat(self.fd).st_mtime_ns))
