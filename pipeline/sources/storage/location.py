"""Where bytes lie: a file as it was found, a range of it, and which paths are URLs."""

from __future__ import annotations

import re
from typing import NamedTuple

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://")
_MAGIC = re.compile(r"[*?\[]")


class Range(NamedTuple):
    """Bytes `[start, stop)` of a file.

    Attributes:
        path: an absolute path, or a URL.
        start: the first byte.
        stop: the byte after the last.
        tag: if given, the file must still be the one that had this tag.
        size: bytes of the file; 0 if not known, and then a cache keeps no parts of it.
    """

    path: str
    start: int
    stop: int
    tag: str = ""
    size: int = 0


class Stat(NamedTuple):
    """A file as it was found.

    Attributes:
        path: an absolute path, or a URL.
        size: bytes.
        tag: changes with the contents (generation, etag, time of writing); "" for local files.
    """

    path: str
    size: int
    tag: str = ""

    def range(self, start: int, stop: int) -> Range:
        """Bytes [start, stop) of this file as it was found: an error if it was replaced since.

        >>> Stat("gs://bucket/a", 10, "17").range(2, 4)
        Range(path='gs://bucket/a', start=2, stop=4, tag='17', size=10)
        """
        return Range(self.path, start, stop, self.tag, self.size)


class Answer(NamedTuple):
    """What a server sent for a range, and what it says about it.

    Attributes:
        data: the bytes.
        start: the first byte's place in the file; None if the server does not say.
        size: bytes of the whole file; None if it is not known.
        tag: of the file; "" if it is not known.
    """

    data: bytes
    start: int | None
    size: int | None = None
    tag: str = ""


def is_url(path: str) -> bool:
    """Whether a path is a URL like gs://bucket/name, which local calls do not understand."""
    return bool(_URL.match(path))


def protocol(url: str) -> str:
    """What stands before the ://, in lower case."""
    return url.split("://", 1)[0].lower()


def has_magic(url: str) -> bool:
    """Whether a URL may be a pattern; a question mark starts the query of a web address.

    >>> has_magic("gs://b/a-?.parquet"), has_magic("https://h/a.parquet?version=1")
    (True, False)
    """
    if protocol(url) in ("http", "https"):
        return "*" in url
    return bool(_MAGIC.search(url))
