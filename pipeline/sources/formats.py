"""Which source opens what users pass: chosen by a path's suffix, or by what an object offers."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from pipeline.block import Columns
from pipeline.errors import ChainError, SourceError
from pipeline.sources.memory import MemorySource
from pipeline.sources.saved import open_saved
from pipeline.sources.sequence import SequenceSource, batched, is_dataset, is_table
from pipeline.sources.storage.location import beside, named
from pipeline.sources.storage.paths import ListedPath, Paths, expand, patterns
from pipeline.sources.storage.storage import Storage
from pipeline.types import Source


def _lazily(name: str) -> Callable[..., Source]:
    # a source class by name; its module is imported when the first file of its format is opened
    def opened(paths: tuple[str, ...], **options: Any) -> Source:
        return getattr(import_module("pipeline.sources"), name)(paths, **options)

    return opened


_ARRAY_RECORD, _ARROW, _BAGZ = map(_lazily, ("ArrayRecordSource", "ArrowIpcSource", "BagzSource"))
_JSON, _LINES, _PARQUET = map(_lazily, ("JsonLinesSource", "LinesSource", "ParquetSource"))
_TFRECORD, _TOKENS, _TAR = map(_lazily, ("TFRecordSource", "TokenSource", "WebDatasetSource"))
_FILES, _MEGATRON = _lazily("FilesSource"), _lazily("MegatronSource")


def _tokens(paths: tuple[str, ...], *, storage: Storage | None = None) -> Source:
    # Megatron's .bin files have an .idx file beside them; others hold just tokens
    try:
        (storage or Storage()).stats([beside(path, ".idx") for path in paths])
    except FileNotFoundError:
        return _TOKENS(paths, storage=storage)
    return _MEGATRON(paths, storage=storage)


def _packed(paths: tuple[str, ...], *, storage: Storage | None = None) -> Source:
    raise SourceError(
        f"{paths[0]} is compressed as a whole, so no record in it can be read alone. Decompress "
        "it, or convert it to ArrayRecord or .bagz, which compress by record."
    )


def _index(paths: tuple[str, ...], *, storage: Storage | None = None) -> Source:
    from pipeline.sources.megatron import is_index

    raise is_index(paths[0])


# formats in which a file is one record: images, sound, films, documents
_WHOLE = re.findall(
    r"\.\w+",
    ".jpg .jpeg .png .gif .bmp .webp .tif .tiff .ppm .pgm .jp2 .avif .wav .flac .mp3 .ogg .opus "
    ".m4a .mp4 .m4v .mov .avi .mkv .webm .pdf",
)

MOST_RECORDS = 1 << 48  # the most for which order arithmetic is exact

SUFFIXES: dict[str, Callable[..., Source]] = {
    ".array_record": _ARRAY_RECORD,
    ".arrayrecord": _ARRAY_RECORD,
    ".arrow": _ARROW,
    ".feather": _ARROW,
    ".idx": _index,
    ".ipc": _ARROW,
    ".parquet": _PARQUET,
    ".pq": _PARQUET,
    ".bag": _BAGZ,
    ".bagz": _BAGZ,
    ".bin": _tokens,
    **dict.fromkeys((".bz2", ".gz", ".tgz", ".xz", ".zip", ".zst"), _packed),
    ".json": _JSON,
    ".jsonl": _JSON,
    ".ndjson": _JSON,
    ".npy": _TOKENS,
    ".tar": _TAR,
    ".tfrecord": _TFRECORD,
    ".tfrecords": _TFRECORD,
    ".txt": _LINES,
    ".u16": _TOKENS,
    ".u32": _TOKENS,
    ".uint16": _TOKENS,
    ".uint32": _TOKENS,
    **dict.fromkeys(_WHOLE, _FILES),
}
# formats that other libraries read into memory
_ELSEWHERE = {
    ".csv": "Dataset(pandas.read_csv(path)), or convert it to Parquet once",
    ".tsv": 'Dataset(pandas.read_csv(path, sep="\\t")), or convert it to Parquet once',
    ".npz": "Dataset(numpy.load(path))",
}
# a list of strings that all end in these suffixes names files; any other holds records
_LISTED = (".parquet", ".arrow", ".array_record", ".tfrecord", ".bagz", ".tar")

_SHARD = re.compile(r"-\d+-of-\d+$")


def open_path(path: Paths, *, storage: Storage | None = None) -> Source:
    """The source for a path, a glob or a list of these. The suffix determines the format.

    `train.array_record-00000-of-00008` counts as `.array_record`. A folder that Hugging Face's
    `save_to_disk` wrote is opened as a whole.

    Raises:
        SourceError: a file does not exist, a suffix is unknown, the files have several formats, or
            a folder holds several splits.

    >>> open_path("pyproject.toml")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    pipeline.errors.SourceError: ...pyproject.toml has the suffix '.toml'; known are .array_record,
    ... Narrow the pattern, or build the source by its class.
    """
    if (saved := open_saved(path, storage)) is not None:
        return saved
    files, opened = found(path, storage=storage)
    # by the pattern a manifest can tell that files are missing
    pattern = (*patterns(path), "")[0]
    return opened([ListedPath.of(file.stat, pattern) for file in files])


def found(
    path: Paths, *, storage: Storage | None = None
) -> tuple[tuple[ListedPath, ...], Callable[[Sequence[ListedPath]], Source]]:
    """The files of a path, glob or list, and a function that opens some of them as a source.

    Raises:
        SourceError: a file does not exist, a suffix is unknown, or the files have several formats.
    """
    stats = expand(path, storage, empty=True)  # each source decides whether empty files are valid
    kinds = {_format(stat.path): os.path.basename(stat.path) for stat in stats}
    if len(kinds) > 1:
        raise SourceError(
            f"{path} matches files of several formats, such as "
            f"{' and '.join(kinds.values())}. Narrow the pattern, and join sources by concatenate "
            "or mix."
        )
    kind, options = next(iter(kinds)), {} if storage is None else {"storage": storage}

    def opened(files: Sequence[ListedPath]) -> Source:
        return kind(tuple(files), **options)

    return tuple(ListedPath.of(stat) for stat in stats), opened


def _format(file: str) -> Callable[..., Source]:
    suffix = os.path.splitext(_SHARD.sub("", named(file)))[1].lower()
    if suffix not in SUFFIXES:
        remedy = "Narrow the pattern, or build the source by its class"
        if suffix in _ELSEWHERE:
            remedy = f"Give {_ELSEWHERE[suffix]}"
        raise SourceError(
            f"{file} has the suffix {suffix!r}; known are {', '.join(_known())}. {remedy}."
        )
    return SUFFIXES[suffix]


def _known() -> list[str]:
    return [suffix for suffix, kind in SUFFIXES.items() if kind not in (_index, _packed)]


_OURS = ("random_map", "on_error"), ("load_state_dict", "last_step")  # of Dataset, of Loader


def _are_paths(source: Any) -> bool:
    return (
        isinstance(source, list | tuple)
        and len(source) > 0
        and all(isinstance(name, str | Path) for name in source)
        and all(named(str(name)).lower().endswith(_LISTED) for name in source)
    )


def source_of(source: Any) -> Source:
    """The source for a path, a list of paths, a table, columns or records, or a source itself.

    A list names files if every string in it ends in .parquet, .arrow, .array_record, .tfrecord,
    .bagz or .tar. Any other list of strings holds records, even if files of these names exist.

    Raises:
        SourceError: a path cannot be opened, the source's length is not from 0 to 2**48, or a dict
            holds datasets.
        ChainError: it is none of these, or is a Dataset.

    >>> type(source_of({"x": [1, 2]})).__name__, type(source_of(["a.txt", "b.txt"])).__name__
    ('MemorySource', 'MemorySource')
    """
    found = _source_of(source)
    try:
        n = len(found)
    except (TypeError, ValueError, OverflowError) as e:  # negative, no whole number, over 2**63
        raise _no_length(source, str(e)) from e
    if n > MOST_RECORDS:
        raise _no_length(source, f"{n} records")
    return found


def _no_length(source: Any, said: str) -> SourceError:
    return SourceError(
        f"the length of {type(source).__name__} cannot be used: {said}. A source has a whole "
        "number of records, from 0 to 2**48."
    )


def _refuse_datasets(source: Any) -> None:
    # a Dataset, a Loader, or a list of them holds no records
    first = source[0] if isinstance(source, list | tuple) and source else source
    if any(hasattr(first, a) and hasattr(first, b) for a, b in _OURS):
        raise ChainError(
            f"this is a {type(first).__name__} already: chain on a Dataset, as in ds.map(f), or "
            "join several by concatenate, mix, interleave or zip_datasets."
        )


def _source_of(source: Any) -> Source:
    if isinstance(source, type):
        name = source.__name__
        raise ChainError(f"Dataset({name}): {name} is a class. Give an object of it, {name}(…).")
    if isinstance(source, str) or hasattr(source, "__fspath__") or _are_paths(source):
        return open_path(source)
    _refuse_datasets(source)
    if isinstance(source, Columns):
        return MemorySource(source.tree)
    if isinstance(source, Source):
        return source
    if is_table(source) or batched(source):
        return SequenceSource(source)
    if isinstance(source, dict) and (several := [k for k, v in source.items() if is_dataset(v)]):
        raise SourceError(
            f"this {type(source).__name__} holds the datasets {several}, not columns. Choose one, "
            f"as in Dataset(values[{several[0]!r}]), or join them by mix, concatenate or "
            "zip_datasets."
        )
    listed = hasattr(source, "__len__") and hasattr(source, "__getitem__")
    if isinstance(source, dict) or listed or hasattr(source, "__array__"):
        return MemorySource(source)
    remedy = "Write a source: docs/how/files.md shows how"
    if hasattr(source, "__iter__"):
        remedy = "Is it a stream? Give list(…) of it, or write it to files first"
    raise ChainError(
        f"a dataset needs a source (with len and read), a dict of columns, a sequence or a path: "
        f"got {type(source).__name__}. {remedy}."
    )
