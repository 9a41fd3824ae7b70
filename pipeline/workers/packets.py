"""How parent and workers talk: pickled packets over Unix sockets, whole or not at all."""

from __future__ import annotations

import array
import pickle
import socket
from typing import Any

PACKET = 1 << 16  # bytes: well inside the kernel's limit for one packet
_SPACE = socket.CMSG_SPACE(4 * array.array("i").itemsize)


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a connection that keeps packets apart and tells when the other end is gone."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(link: socket.socket, message: Any, fds: tuple[int, ...] = ()) -> None:
    """One message, in several packets if it is large."""
    data = pickle.dumps(message, 5)
    while len(data) > PACKET:
        link.send(b"+" + data[:PACKET])
        data = data[PACKET:]
    if fds:
        socket.send_fds(link, [b"." + data], list(fds))
    else:
        link.send(b"." + data)


class Inbox:
    """The receiving end of a link: messages, each with the file descriptors sent beside it."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._parts: list[bytes] = []

    def receive(self, *, wait: bool = True) -> tuple[Any, list[int]] | None:
        """The next message; None if the other end is gone.

        Raises:
            BlockingIOError: there is none yet, and `wait` is False.
        """
        flags = 0 if wait else socket.MSG_DONTWAIT
        while True:
            try:
                data, ancillary, _, _ = self._link.recvmsg(PACKET + 1, _SPACE, flags)
            except ConnectionError:
                return None
            if not data:
                return None
            self._parts.append(data[1:])
            if data[:1] == b".":
                whole, self._parts = b"".join(self._parts), []
                return pickle.loads(whole), [fd for _, _, sent in ancillary for fd in _fds(sent)]


def _fds(sent: bytes) -> list[int]:
    fds = array.array("i")
    fds.frombytes(sent[: len(sent) - len(sent) % fds.itemsize])
    return fds.tolist()
