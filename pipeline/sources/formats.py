"""Which source reads what people give: by a path's suffix, or by what the object offers."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import Any

from pipeline.block import Columns
from pipeline.errors import ChainError, SourceError
from pipeline.sources.array_record import ArrayRecordSource
from pipeline.sources.arrow_ipc import ArrowIpcSource
from pipeline.sources.bagz import BagzSource
from pipeline.sources.lines import JsonLinesSource, LinesSource
from pipeline.sources.megatron import MegatronSource
from pipeline.sources.memory import MemorySource
from pipeline.sources.parquet import ParquetSource
from pipeline.sources.sequence import SequenceSource, batched
from pipeline.sources.storage.files import Found, expand
from pipeline.sources.storage.storage import Storage
from pipeline.sources.tfrecord import TFRecordSource
from pipeline.sources.tokens import TokenSource
from pipeline.sources.webdataset import WebDatasetSource
from pipeline.types import Source


def _tokens(paths: tuple[str, ...], *, storage: Storage | None = None) -> Source:
    # Megatron's .bin has an .idx beside it; others are tokens alone
    try:
        (storage or Storage()).stats([os.path.splitext(path)[0] + ".idx" for path in paths])
    except FileNotFoundError:
        return TokenSource(paths, storage=storage)
    return MegatronSource(paths, storage=storage)


def _packed(paths: tuple[str, ...], *, storage: Storage | None = None) -> Source:
    raise SourceError(
        f"{paths[0]} is compressed as a whole, so no record in it can be read alone. Decompress "
        "it, or convert it to ArrayRecord or .bagz, which compress by record."
    )


def _index(paths: tuple[str, ...], *, storage: Storage | None = None) -> Source:
    raise SourceError(
        f"{paths[0]} is the index of a Megatron file: name the .bin beside it, "
        f"{os.path.splitext(paths[0])[0]}.bin."
    )


SUFFIXES: dict[str, Callable[..., Source]] = {
    ".array_record": ArrayRecordSource,
    ".arrayrecord": ArrayRecordSource,
    ".arrow": ArrowIpcSource,
    ".feather": ArrowIpcSource,
    ".idx": _index,
    ".ipc": ArrowIpcSource,
    ".parquet": ParquetSource,
    ".pq": ParquetSource,
    ".bag": BagzSource,
    ".bagz": BagzSource,
    ".bin": _tokens,
    ".gz": _packed,
    ".json": JsonLinesSource,
    ".jsonl": JsonLinesSource,
    ".ndjson": JsonLinesSource,
    ".npy": TokenSource,
    ".tar": WebDatasetSource,
    ".tfrecord": TFRecordSource,
    ".tfrecords": TFRecordSource,
    ".txt": LinesSource,
    ".u16": TokenSource,
    ".u32": TokenSource,
    ".uint16": TokenSource,
    ".uint32": TokenSource,
    ".zst": _packed,
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
    ... Narrow the pattern, or build the source by its class.
    """
    files, opened = found(path, storage=storage)
    # with the pattern, by which a manifest tells what is missing
    return opened([Found.of(file.stat, os.fspath(path)) for file in files])


def found(
    path: str | os.PathLike[str], *, storage: Storage | None = None
) -> tuple[tuple[Found, ...], Callable[[Sequence[Found]], Source]]:
    """The files of a path or glob, and what makes a source of some of them.

    Raises:
        SourceError: no such file, an unknown suffix, or files of several formats.
    """
    stats = expand(path, storage, empty=True)  # their sources say who knows empty files
    kinds = {_format(stat.path): os.path.basename(stat.path) for stat in stats}
    if len(kinds) > 1:
        raise SourceError(
            f"{os.fspath(path)} matches files of several formats, such as "
            f"{' and '.join(kinds.values())}. Narrow the pattern, and join sources by concatenate "
            "or mix."
        )
    kind, options = next(iter(kinds)), {} if storage is None else {"storage": storage}

    def opened(files: Sequence[Found]) -> Source:
        return kind(tuple(files), **options)

    return tuple(Found.of(stat) for stat in stats), opened


def _format(file: str) -> Callable[..., Source]:
    suffix = os.path.splitext(_SHARD.sub("", file))[1].lower()
    if suffix not in SUFFIXES:
        raise SourceError(
            f"{file} has the suffix {suffix!r}; known are {', '.join(_known())}. "
            "Narrow the pattern, or build the source by its class."
        )
    return SUFFIXES[suffix]


def _known() -> list[str]:
    return [suffix for suffix, kind in SUFFIXES.items() if kind not in (_index, _packed)]


def source_of(source: Any) -> Source:
    """The source of a path, columns, records, or of what is one.

    Raises:
        SourceError: the path cannot be opened.
        ChainError: it is none of these.

    >>> type(source_of({"x": [1, 2]})).__name__
    'MemorySource'
    """
    if isinstance(source, str) or hasattr(source, "__fspath__"):
        return open_path(source)
    if isinstance(source, Columns):
        return MemorySource(source.tree)
    if isinstance(source, Source):
        return source
    if batched(source):
        return SequenceSource(source)
    if isinstance(source, dict) or (hasattr(source, "__len__") and hasattr(source, "__getitem__")):
        return MemorySource(source)
    raise ChainError(
        f"a dataset needs a source (with len and read), a dict of columns, a sequence or a path: "
        f"got {type(source).__name__}. Write a source: see README, 'Your own source'."
    )
