"""Finding the members of a tar file. Only headers are read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pipeline.errors import SourceError
from pipeline.sources.storage.files import unreadable
from pipeline.sources.storage.gather import Window, refuse_packed
from pipeline.sources.storage.storage import Stat, Storage

_BLOCK = 512
_REGULAR = b"0\x007"
_EMPTY = b"123456"  # links, devices, folders and FIFOs: no contents follow, whatever size is said
_NAMELESS = b""
_EXTENSION = 16 << 20  # bytes of an extended header at most: names and attributes


class Member(NamedTuple):
    """A regular file in a tar file: its header starts at `head`, its contents are `[start, stop)`.

    If the member is truncated, `stop` is beyond the file's end. If its header is, it has no name.
    """

    name: bytes
    head: int
    start: int
    stop: int


def members(stat: Stat, storage: Storage) -> Iterator[Member]:
    """The regular files of a tar file in order (ustar, GNU and PAX, including long names).

    Raises:
        SourceError: the file is compressed or not a tar file, a header is corrupt, or a member is
            sparse.
    """
    window, at, begun = Window(stat, storage), 0, 0
    refuse_packed(stat.path, window.at(0, 8))
    own: dict[bytes, bytes] = {}  # extended header of the next member
    shared: dict[bytes, bytes] = {}  # extended header of all members that follow
    while at < stat.size:
        head = window.at(at, _BLOCK)
        if len(head) < _BLOCK:
            yield Member(_NAMELESS, begun, at, stat.size + 1)
            return
        if not any(head):  # the end of the archive
            return
        _check(stat, head, at)
        kind = head[156:157]
        size = 0 if kind in _EMPTY else _size(stat, head, own, at)
        start, stop = at + _BLOCK, at + _BLOCK + size
        at = start + -(-size // _BLOCK) * _BLOCK
        if kind in b"xgLK":
            if size > _EXTENSION:
                raise unreadable(
                    stat.path, f"the header at byte {start - _BLOCK} has {size} bytes of extensions"
                )
            _extend(kind, window.at(start, size), own, shared)
            continue
        if kind == b"S" or any(map(_is_sparse, own)):
            raise unreadable(
                stat.path,
                f"the member at byte {start - _BLOCK} is sparse: write the file without holes, "
                "as GNU tar does without -S and bsdtar with --no-read-sparse",
            )
        if kind in _REGULAR:
            name = own.get(b"path") or shared.get(b"path") or _name(head)
            yield Member(name, begun, start, min(stop, stat.size + 1))
        if stop <= stat.size < at:  # truncated in the padding of a block: what followed is unknown
            yield Member(_NAMELESS, at, at, at + 1)
        begun, own = at, {}


def _is_sparse(key: bytes) -> bool:
    return key.startswith(b"GNU.sparse.") or key == b"SCHILY.realsize"


def _size(stat: Stat, head: bytes, own: dict[bytes, bytes], at: int) -> int:
    said = own.get(b"size")
    try:
        size = _number(head[124:136]) if said is None else int(said) if said.isdigit() else -1
    except ValueError:
        size = -1
    if size < 0:
        raise unreadable(stat.path, f"the member whose header is at byte {at} has no valid size")
    return size


def _extend(kind: bytes, data: bytes, own: dict[bytes, bytes], shared: dict[bytes, bytes]) -> None:
    if kind == b"L":
        own[b"path"] = data.rstrip(b"\0")
    elif kind != b"K":  # the target of a long link
        (shared if kind == b"g" else own).update(_pax(data))


def _pax(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Records "length key=value newline"; the length is that of the whole record."""
    at = 0
    while (space := data.find(b" ", at, at + 20)) > at and data[at:space].isdigit():
        stop = at + int(data[at:space])
        if stop <= space:
            return
        key, _, value = data[space + 1 : stop - 1].partition(b"=")
        yield key, value
        at = stop


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
    if field[0] & 0x80:  # GNU: base 256, for numbers too large for eleven octal digits
        value = int.from_bytes(field, "big") & ~(0x80 << 8 * (len(field) - 1))
        return -1 if field[0] & 0x40 else value  # the sign
    return int(field.strip(b" \0") or b"0", 8)


def _name(head: bytes) -> bytes:
    name, prefix = (field.split(b"\0", 1)[0] for field in (head[:100], head[345:500]))
    posix = head[257:263] == b"ustar\0"  # GNU uses the bytes of POSIX's prefix otherwise
    return prefix + b"/" + name if posix and prefix else name
