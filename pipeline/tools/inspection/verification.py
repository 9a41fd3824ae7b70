"""Verifying files: every record is read, in parallel, and checksums are checked."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline.block import Int64s
from pipeline.dataset import Dataset
from pipeline.errors import SourceError, StorageError
from pipeline.meter import weight
from pipeline.nodes.faults import survivors
from pipeline.scan.progress import progress
from pipeline.sources import Storage
from pipeline.tools.inspection.opening import close, files_of, opened
from pipeline.tools.inspection.words import listed, many, size
from pipeline.tools.pieces import done_by
from pipeline.types import Source, where

_LEAST, _MOST = 1024, 65_536  # records in a worker's piece
_PIECES = 64  # pieces at least, so that workers end at about the same time
_HELD = 8 << 20  # approximate bytes that are read at once


@dataclass(frozen=True)
class Bad:
    """Adjacent records of a file that fail with the same error.

    Attributes:
        file: its path; for a source without files, its class.
        first, last: their indices in it; None if the file as a whole fails.
        error: why, and what to do.
    """

    file: str
    first: int | None
    last: int | None
    error: str

    @property
    def records(self) -> int:
        """How many records; 0 if unknown."""
        return 0 if self.first is None or self.last is None else self.last - self.first + 1

    def __str__(self) -> str:
        inner = f", record {self.first}" if self.records == 1 else ""
        inner = f", records {self.first} to {self.last}" if self.records > 1 else inner
        return f"{self.file}{inner}: {self.error.removeprefix(f'cannot read {self.file}: ')}"


@dataclass(frozen=True)
class Verification:
    """The result of a verification.

    Attributes:
        files: how many files were read, including those that do not open.
        records: how many records were tried.
        bytes: of all files.
        seconds: how long it took.
        bad: what cannot be read.
    """

    files: int
    records: int
    bytes: int
    seconds: float
    bad: tuple[Bad, ...]

    @property
    def ok(self) -> bool:
        """Whether everything can be read."""
        return not self.bad

    def as_json(self) -> dict[str, Any]:
        """The result as plain data."""
        return {**asdict(self), "ok": self.ok}

    def lines(self) -> Iterator[str]:
        """The result for people: bad records, and a summary in the last line."""
        yield from listed("BAD", self.bad)
        records = sum(bad.records for bad in self.bad)
        whole = sum(not bad.records for bad in self.bad)
        rate = self.records / max(self.seconds, 1e-9)
        of_bad = [many(n, what) for n, what in ((records, "record"), (whole, "whole file")) if n]
        yield (
            f"{many(self.records, 'record')} in {many(self.files, 'file')}, {size(self.bytes)}, "
            f"{self.seconds:.1f} s ({rate:,.0f}/s): "
            + (f"{' and '.join(of_bad)} cannot be read" if of_bad else "all can be read")
        )


def verify(data: Any, *, workers: Any = 0, storage: Storage | None = None) -> Verification:
    """Read every record, check checksums if the format has any, and name what is bad.

    For a dataset its sources' records are read; its stages are not run. Records that cannot be read
    do not keep others from being read.

    Args:
        data: a path or glob, a Dataset, or anything else that `Dataset` takes.
        workers: who reads, as for `Loader`: 0, n processes, "auto".
        storage: how URLs are read.

    Raises:
        SourceError: a file does not exist, its suffix is unknown, or files do not fit together.
        StorageError: a file cannot be read.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "a.jsonl"
    >>> _ = path.write_text('{"id": 1}\\n{"id": \\n{"id": 3}\\n')
    >>> found = verify(str(path))
    >>> found.records, [(bad.first, bad.last) for bad in found.bad]
    (3, [(1, 1)])
    """
    start = time.monotonic()
    what = opened(data, storage)
    sources = [_verifying(component.source) for component in what.components]
    bad = [Bad(broken.file, None, None, broken.error) for broken in what.broken]
    try:
        bad += _read(sources, workers)
    finally:
        for source in sources:
            close(source)
    every = [files for files in map(files_of, sources) if files is not None]
    return Verification(
        sum(len(files.paths) for files in every) + len(what.broken),
        sum(map(len, sources)),
        sum(sum(files.sizes) for files in every),
        time.monotonic() - start,
        tuple(_joined(bad)),
    )


def _verifying(source: Source) -> Source:
    better = getattr(source, "verifying", None)
    return source if better is None else better()


def _read(sources: Sequence[Source], workers: Any) -> list[Bad]:
    pieces = np.concatenate(
        [np.zeros((0, 3), np.int64), *map(_pieces, range(len(sources)), sources)]
    )
    if not len(pieces):
        return []
    check = CheckPiece(tuple(map(Dataset, sources)), tuple(map(_at_once, sources)), pieces)
    bad: list[Bad] = []
    with progress("verify", sum(map(len, sources)), "records") as show:
        tried = 0
        found = done_by(workers, check, range(len(pieces)), name="verify")
        for (_, start, stop), some in zip(pieces.tolist(), found, strict=True):
            bad += some
            tried += stop - start
            show(tried)
    return bad


def _at_once(source: Source) -> int:
    # a first guess from the stored size; a worker adapts it to the sizes of records
    files = files_of(source)
    mean = _HELD // _LEAST if files is None else sum(files.sizes) // max(1, len(source))
    return min(max(1, _HELD // 4 // max(1, mean)), _MOST)


def _pieces(number: int, source: Source) -> Int64s:
    # int64[k, 3]: source, start, stop; cut at bounds of storage chunks if one is near
    n = len(source)
    size = min(max(n // _PIECES, _LEAST), _MOST)
    cuts = np.arange(size, n, size)
    chunks = getattr(source, "chunk_bounds", None)
    if chunks is not None and len(cuts):
        after = np.minimum(np.searchsorted(chunks, cuts), len(chunks) - 1)
        near = np.stack([chunks[np.maximum(after - 1, 0)], chunks[after]])
        best = near[np.abs(near - cuts).argmin(axis=0), np.arange(len(cuts))]
        cuts = np.unique(np.where(np.abs(best - cuts) <= size // 2, best, cuts))
    ends = np.unique([0, *cuts.tolist(), n])
    return np.stack([np.full(len(ends) - 1, number), ends[:-1], ends[1:]], axis=1)


@dataclass(frozen=True)
class CheckPiece:
    """Maps a piece's number to what is bad in it.

    Attributes:
        datasets: one for each source.
        at_once: for each, how many records to read at once at first.
        pieces: int64[k, 3]: number of the dataset, first record, the record after the last.
    """

    datasets: tuple[Dataset, ...]
    at_once: tuple[int, ...]
    pieces: Int64s

    def __call__(self, piece: int) -> list[Bad]:
        which, start, stop = self.pieces[int(piece)].tolist()
        bad: list[Bad] = []
        size = self.at_once[which]
        while start < stop:
            end = min(stop, start + size)
            held, some = _tried(self.datasets[which], np.arange(start, end))
            bad += some
            # records may have any size: read as many at once as fit
            size = min(2 * size, _MOST) if held < _HELD else max(1, size // 2)
            start = end
        return bad


def _tried(ds: Dataset, records: Int64s) -> tuple[int, list[Bad]]:
    """Approximate bytes that records take, and those of them that are bad."""
    source = ds.components[0].source
    try:
        good, errors = survivors(ds.read, records)
    except StorageError:
        raise
    # a whole file is bad, or needs more memory than there is: read the others without it
    except (SourceError, OSError, MemoryError) as error:
        return _apart(ds, records, error)
    held = sum(weight(block) for _, block in good)
    return held, [_bad(source, record, error) for record, error in sorted(errors.items())]


def _apart(ds: Dataset, records: Int64s, error: Exception) -> tuple[int, list[Bad]]:
    source = ds.components[0].source
    files = files_of(source)
    if files is None:
        raise error
    cuts = np.unique(np.searchsorted(records, files.bounds))
    parts = [p for p in np.split(records, cuts) if len(p)]
    if len(parts) == 1:
        return 0, [Bad(where(source, int(records[0]))[0], None, None, _why(error))]
    tried = [_tried(ds, part) for part in parts]
    return sum(held for held, _ in tried), [one for _, some in tried for one in some]


def _bad(source: Source, record: int, error: Exception) -> Bad:
    file, inner = where(source, record)
    return Bad(file, inner, inner, _why(error))


def _why(error: Exception) -> str:
    known = isinstance(error, SourceError)
    return str(error) if known else f"{type(error).__name__}: {error}"


def _joined(bad: Sequence[Bad]) -> list[Bad]:
    """Merges adjacent records with the same error. A file that fails as a whole is listed once."""
    out: list[Bad] = []
    for one in bad:
        last = out[-1] if out else None
        if last is None or (last.file, last.error) != (one.file, one.error):
            out.append(one)
        elif last.last is not None and last.last + 1 == one.first:
            out[-1] = Bad(last.file, last.first, one.last, last.error)
        elif one.first is not None:
            out.append(one)
    return out
