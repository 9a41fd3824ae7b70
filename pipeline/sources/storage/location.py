"""Descriptions of files and byte ranges, and which paths are URLs."""

from __future__ import annotations

import os
import re
from fnmatch import fnmatchcase
from typing import NamedTuple

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://")
# parameters of web addresses that Amazon, Google and CloudFront sign
_SIGNED = re.compile(
    r"(x-(amz|goog)-[\w-]+|signature|expires|awsaccesskeyid|googleaccessid|policy|key-pair-id)=",
    re.IGNORECASE,
)
_AZURE = re.compile(r"(s[a-z]{1,2}|sk[a-z]+|sig)=", re.IGNORECASE)
_MAGIC = re.compile(r"[*?\[]")


class Range(NamedTuple):
    """Bytes `[start, stop)` of a file.

    Attributes:
        path: an absolute path, or a URL.
        start: the first byte.
        stop: the byte after the last.
        tag: if given, reading fails unless the file still has this tag.
        size: bytes of the whole file; 0 if unknown, and then the range is not cached.
    """

    path: str
    start: int
    stop: int
    tag: str = ""
    size: int = 0


class Stat(NamedTuple):
    """A file's size and tag when it was looked up.

    Attributes:
        path: an absolute path, or a URL.
        size: bytes.
        tag: changes with the contents: generation or etag, else the time of the last change, of a
            local file in nanoseconds. "" if unknown.
    """

    path: str
    size: int
    tag: str = ""

    def range(self, start: int, stop: int) -> Range:
        """Bytes `[start, stop)` of this file. Reading them fails if the file was replaced since.

        >>> Stat("gs://bucket/a", 10, "17").range(2, 4)
        Range(path='gs://bucket/a', start=2, stop=4, tag='17', size=10)
        """
        return Range(self.path, start, stop, self.tag, self.size)


class Answer(NamedTuple):
    """A server's response to a range request.

    Attributes:
        data: the bytes.
        start: the offset of the first byte in the file; None if the server does not say.
        size: bytes of the whole file; None if unknown.
        tag: of the file; "" if unknown.
    """

    data: bytes
    start: int | None
    size: int | None = None
    tag: str = ""


def is_url(path: str) -> bool:
    """Whether a path is a URL such as gs://bucket/name rather than a local path."""
    return bool(_URL.match(path))


def protocol(url: str) -> str:
    """The scheme of a URL, in lower case."""
    return url.split("://", 1)[0].lower()


def is_web(path: str) -> bool:
    """Whether a path is a web address, which may have a query."""
    return is_url(path) and protocol(path) in ("http", "https")


def named(path: str) -> str:
    """A path without the query of a web address: its suffix tells the format.

    >>> named("https://h/a.parquet?download=true"), named("gs://b/a?.txt")
    ('https://h/a.parquet', 'gs://b/a?.txt')
    """
    return path.partition("?")[0] if is_web(path) else path


def beside(path: str, suffix: str) -> str:
    """The file beside another one that differs in its suffix, such as an index.

    >>> beside("d/a.bin", ".idx"), beside("https://h/a.bin?raw=1", ".idx")
    ('d/a.idx', 'https://h/a.idx?raw=1')
    """
    name = named(path)
    return os.path.splitext(name)[0] + suffix + path[len(name) :]


def lasting(path: str) -> str:
    """A path without the signature of a web address, which is another one each time it is signed.

    >>> lasting("https://h/a.txt?version=3&X-Amz-Date=20260101T000000Z&X-Amz-Signature=0a")
    'https://h/a.txt?version=3'
    """
    name = named(path)
    parts = path[len(name) + 1 :].split("&")
    signed = any(part.lower().startswith("sig=") for part in parts)  # so Azure signs
    kept = [p for p in parts if not _SIGNED.match(p) and not (signed and _AZURE.match(p))]
    return "?".join(part for part in (name, "&".join(kept)) if part)


def has_magic(url: str) -> bool:
    """Whether a URL may be a glob. In a web address "?" begins the query, so only "*" counts there.

    >>> has_magic("gs://b/a-?.parquet"), has_magic("https://h/a.parquet?version=1")
    (True, False)
    """
    if is_web(url):
        return "*" in url
    return bool(_MAGIC.search(url))


def matches(pattern: str, url: str) -> bool:
    """Whether a pattern matches a URL by the rules of `glob.glob`, as it matches local paths.

    Like there, a wildcard matches no name that begins with a dot: drafts and caches of programs.

    >>> [matches("gs://b/**/*.txt", f"gs://b/{name}") for name in ("1.txt", "a/1.txt", "a/.1.txt")]
    [True, True, False]
    """
    plain = re.sub(r"[?\[]", r"[\g<0>]", pattern) if is_web(pattern) else pattern
    return _match(*([part for part in path.split("/") if part] for path in (plain, url)))


def _match(parts: list[str], names: list[str]) -> bool:
    if not parts or not names:
        return parts == names
    shown = not names[0].startswith(".")
    if parts[0] != "**":
        found = (shown or parts[0].startswith(".")) and fnmatchcase(names[0], parts[0])
        return found and _match(parts[1:], names[1:])
    if len(parts) == 1:
        return not any(name.startswith(".") for name in names)
    return _match(parts[1:], names) or (shown and _match(parts, names[1:]))
