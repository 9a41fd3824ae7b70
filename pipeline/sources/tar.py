"""Which members a tar file has, and where their bytes are: headers alone are read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pipeline.errors import SourceError
from pipeline.sources.storage.files import unreadable
from pipeline.sources.storage.gather import Window, refuse_packed
from pipeline.sources.storage.storage import Stat, Storage

_BLOCK = 512
_REGULAR = b"0\x007"
_NAMELESS = b""


class Member(NamedTuple):
    """A regular file in a tar file: the header starts at `head`, its bytes are `[start, stop)`.

    One that is cut stops past the file's end; if that cuts its header, it has no name.
    """

    name: bytes
    head: int
    start: int
    stop: int


def members(stat: Stat, storage: Storage) -> Iterator[Member]:
    """The regular files of a tar file, in order: ustar, GNU and PAX, with their long names.

    Raises:
        SourceError: the file is compressed or no tar file, or a header is corrupt.
    """
    window, at, begun = Window(stat, storage), 0, 0
    refuse_packed(stat.path, window.at(0, 8))
    said: dict[bytes, bytes] = {}  # by the headers before the one it is about
    always: dict[bytes, bytes] = {}
    while at < stat.size:
        head = window.at(at, _BLOCK)
        if len(head) < _BLOCK:
            yield Member(_NAMELESS, begun, at, stat.size + 1)
            return
        if not any(head):  # the end, filled up with zeros
            return
        _check(stat, head, at)
        kind, size = head[156:157], _size(stat, head, said, at)
        start, stop = at + _BLOCK, at + _BLOCK + size
        at = start + -(-size // _BLOCK) * _BLOCK
        if kind in b"xgLK":
            said, always = _extended(kind, window.at(start, size), said, always)
            continue
        if kind in _REGULAR:
            yield Member({**always, **said}.get(b"path") or _name(head), begun, start, stop)
        elif kind == b"S":
            raise unreadable(stat.path, f"a sparse member at byte {start - _BLOCK}")
        if stop <= stat.size < at:  # cut in what fills up a block: who knows what followed
            yield Member(_NAMELESS, at, at, at + 1)
        begun, said = at, {}


def _size(stat: Stat, head: bytes, said: dict[bytes, bytes], at: int) -> int:
    try:
        size = int(said[b"size"]) if b"size" in said else _number(head[124:136])
    except ValueError:
        size = -1
    if size < 0:
        raise unreadable(stat.path, f"the member whose header is at byte {at} has no valid size")
    return size


def _extended(
    kind: bytes, data: bytes, said: dict[bytes, bytes], always: dict[bytes, bytes]
) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
    if kind == b"g":
        return said, {**always, **_pax(data)}
    if kind == b"x":
        return {**said, **_pax(data)}, always
    if kind == b"L":
        return {**said, b"path": data.rstrip(b"\0")}, always
    return said, always  # a long link's target


def _pax(data: bytes) -> dict[bytes, bytes]:
    """Records "length key=value newline", the length that of the whole record."""
    found: dict[bytes, bytes] = {}
    while (size := data.partition(b" ")[0]).isdigit() and int(size):
        record, data = data[: int(size)], data[int(size) :]
        key, _, value = record[len(size) + 1 : -1].partition(b"=")
        found[key] = value
    return found


def _check(stat: Stat, head: bytes, at: int) -> None:
    try:
        expected = _number(head[148:156])
    except ValueError:
        expected = -1
    if sum(head) - sum(head[148:156]) + 8 * ord(" ") != expected:
        raise SourceError(
            f"the header at bytes {at} to {at + _BLOCK} of {stat.path} fails its checksum, so the "
            "members after it cannot be found. Is this a tar file? Rewrite it, or remove it from "
            "paths."
        )


def _number(field: bytes) -> int:
    if field[0] & 0x80:  # GNU: base 256, for what eleven octal digits cannot say
        return int.from_bytes(field, "big") & ~(0x80 << 8 * (len(field) - 1))
    return int(field.strip(b" \0") or b"0", 8)


def _name(head: bytes) -> bytes:
    name, prefix = (field.split(b"\0", 1)[0] for field in (head[:100], head[345:500]))
    posix = head[257:263] == b"ustar\0"  # GNU keeps other things where POSIX has the prefix
    return prefix + b"/" + name if posix and prefix else name
