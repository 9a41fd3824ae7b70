"""Where bytes are: local files and any fsspec URL, read by ranges, many at a time."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://")


class Stat(NamedTuple):
    """A file as it was found.

    Attributes:
        path: an absolute path, or a URL.
        size: bytes.
        tag: changes with the contents (etag, generation, checksum); "" for local files.
    """

    path: str
    size: int
    tag: str = ""


class Range(NamedTuple):
    """Bytes `[start, stop)` of a file."""

    path: str
    start: int
    stop: int


@dataclass(frozen=True)
class Storage:
    """How files are reached: what every source takes as `storage=`. Plain data, so it pickles.

    Attributes:
        options: for the fsspec filesystem of a URL, as `fsspec.filesystem(protocol, **options)`.
    """

    options: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def stat(self, path: str) -> Stat:
        """Size and tag of one file.

        Raises:
            FileNotFoundError: there is none.
        """
        if not is_url(path):
            return Stat(path, os.stat(path).st_size)
        info = self._filesystem(path).info(path)
        tag = info.get("etag") or info.get("generation") or info.get("ETag") or ""
        return Stat(path, int(info["size"]), str(tag))

    def read(self, ranges: Sequence[Range]) -> list[bytes]:
        """The bytes of many ranges, of any files, in the order asked; all in flight together.

        Raises:
            OSError: a range cannot be read, or lies past the end of its file.
        """
        found: list[bytes] = []
        for path, start, stop in ranges:
            if is_url(path):
                data = self._filesystem(path).cat_file(path, start=start, end=stop)
            else:
                with open(path, "rb") as f:
                    f.seek(start)
                    data = f.read(stop - start)
            if len(data) != stop - start:
                raise OSError(f"{path}: bytes {start}..{stop} gave {len(data)} bytes")
            found.append(data)
        return found

    def local(self, stat: Stat) -> str:
        """A local path to the whole file: itself, or a copy in the cache."""
        if not is_url(stat.path):
            return stat.path
        raise OSError(f"{stat.path}: whole remote files are not copied yet")

    def _filesystem(self, path: str) -> Any:
        import fsspec

        protocol = path.split("://", 1)[0]
        return fsspec.filesystem(protocol, **self.options)


def is_url(path: str) -> bool:
    """Whether a path is a URL like gs://bucket/name, which local calls do not understand."""
    return bool(_URL.match(path))
