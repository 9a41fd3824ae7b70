"""Where records live: one file a format, and which format a path has."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from pipeline.errors import SourceError
from pipeline.sources.array_record import ArrayRecordSource
from pipeline.sources.arrow_ipc import ArrowIpcSource
from pipeline.sources.files import Found, expand
from pipeline.sources.memory import MemorySource
from pipeline.sources.parquet import ParquetSource
from pipeline.sources.storage import Storage
from pipeline.sources.windows import WindowSource
from pipeline.types import Source

__all__ = [
    "SUFFIXES",
    "ArrayRecordSource",
    "ArrowIpcSource",
    "MemorySource",
    "ParquetSource",
    "Storage",
    "WindowSource",
    "open_path",
]

SUFFIXES: dict[str, Callable[..., Source]] = {
    ".array_record": ArrayRecordSource,
    ".arrayrecord": ArrayRecordSource,
    ".arrow": ArrowIpcSource,
    ".feather": ArrowIpcSource,
    ".ipc": ArrowIpcSource,
    ".parquet": ParquetSource,
    ".pq": ParquetSource,
}

_SHARD = re.compile(r"-\d+-of-\d+$")


def open_path(path: str | os.PathLike[str], *, storage: Storage | None = None) -> Source:
    """The source of a path or glob; the files' suffix says which format.

    `train.array_record-00000-of-00008` counts as `.array_record`.

    Raises:
        SourceError: no such file, an unknown suffix, or files of several formats.

    >>> open_path("pyproject.toml")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    pipeline.errors.SourceError: ...pyproject.toml has the suffix '.toml'; known are .array_record,
    .arrayrecord, .arrow, .feather, .ipc, .parquet, .pq. Narrow the pattern, or build the
    source by its class.
    """
    files = expand(path, storage)
    kinds = {_format(file.path) for file in files}
    if len(kinds) > 1:
        names = sorted(kind.__name__ for kind in kinds)
        raise SourceError(
            f"{os.fspath(path)} matches files of several formats ({', '.join(names)}). "
            "Narrow the pattern, and join sources by concatenate or mix."
        )
    found = tuple(Found.of(file) for file in files)
    return kinds.pop()(found, **({} if storage is None else {"storage": storage}))


def _format(file: str) -> Callable[..., Source]:
    suffix = os.path.splitext(_SHARD.sub("", file))[1].lower()
    if suffix not in SUFFIXES:
        raise SourceError(
            f"{file} has the suffix {suffix!r}; known are {', '.join(SUFFIXES)}. "
            "Narrow the pattern, or build the source by its class."
        )
    return SUFFIXES[suffix]
