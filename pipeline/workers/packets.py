"""How parent and workers communicate: pickled messages over Unix sockets, whole or not at all."""

from __future__ import annotations

import array
import mmap
import os
import pickle
import socket
import tempfile
from collections.abc import Iterable, Sequence
from typing import Any

PACKET = 1 << 16  # bytes, well below the kernel's limit for one packet
_SPACE = socket.CMSG_SPACE(4 * array.array("i").itemsize)
_PART, _LAST, _SPILL = b"+", b".", b"@"  # first byte of a packet; a spill carries a descriptor


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a connection that preserves packets and reports when the other end is gone."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(link: socket.socket, message: Any, fds: Sequence[int] = (), *, wait: bool = True) -> None:
    """Send one message, in several packets if it is large. Only for links with a single reader.

    Raises:
        BlockingIOError: the link is full, and `wait` is False.
    """
    rest = memoryview(pickle.dumps(message, 5))
    flags = 0 if wait else socket.MSG_DONTWAIT
    while len(rest) > PACKET:
        link.sendmsg([_PART, rest[:PACKET]], (), flags)
        rest = rest[PACKET:]
    link.sendmsg([_LAST, rest], _rights(fds), flags)


def send_whole(link: socket.socket, message: Any) -> None:
    """Send one message as one packet, however large. For links that several processes read from.

    Raises:
        BlockingIOError: the link is full.
    """
    data = pickle.dumps(message, 5)
    if len(data) <= PACKET:
        link.sendmsg([_LAST, data], (), socket.MSG_DONTWAIT)
        return
    fd = memory([data])
    try:
        link.sendmsg([_SPILL], _rights([fd]), socket.MSG_DONTWAIT)
    finally:
        os.close(fd)


def memory(parts: Iterable[bytes | memoryview], align: int = 1) -> int:
    """A descriptor of unnamed memory that holds these bytes, with each part aligned."""
    try:
        fd = os.memfd_create("lockstep-message")
    except (OSError, AttributeError):
        with tempfile.TemporaryFile() as file:  # it has no name, so nothing is left over
            fd = os.dup(file.fileno())
    try:
        for part in parts:
            rest = memoryview(part)
            while rest:
                rest = rest[os.write(fd, rest) :]
            end = -(-os.lseek(fd, 0, os.SEEK_CUR) // align) * align
            os.ftruncate(fd, end)
            os.lseek(fd, end, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd


class Inbox:
    """The receiving end of a link. Each message comes with the file descriptors sent along."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._parts: list[bytes] = []

    def receive(self, *, wait: bool = True) -> tuple[Any, list[int]] | None:
        """The next message and its file descriptors; None if the other end is gone.

        Raises:
            BlockingIOError: there is none yet, and `wait` is False.
        """
        flags = 0 if wait else socket.MSG_DONTWAIT
        while True:
            try:
                data, ancillary, _, _ = self._link.recvmsg(PACKET + 1, _SPACE, flags)
            except ConnectionError:
                return None
            fds = [fd for _, _, sent in ancillary for fd in _fds(sent)]
            if not data:
                return None
            if data[:1] == _SPILL:
                return _spilled(fds[0]), []
            self._parts.append(data[1:])
            if data[:1] == _LAST:
                whole, self._parts = b"".join(self._parts), []
                return pickle.loads(whole), fds


def _spilled(fd: int) -> Any:
    try:
        with mmap.mmap(fd, 0, access=mmap.ACCESS_READ) as data:
            return pickle.loads(data)
    finally:
        os.close(fd)


def _rights(fds: Sequence[int]) -> list[tuple[int, int, array.array[int]]]:
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []


def _fds(sent: bytes) -> list[int]:
    fds = array.array("i")
    fds.frombytes(sent[: len(sent) - len(sent) % fds.itemsize])
    return fds.tolist()
