"""Which records cannot be read: all are, in parallel, their checksums checked."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline.block import Int64s
from pipeline.dataset import Dataset
from pipeline.errors import SourceError, StorageError
from pipeline.nodes.faults import survivors
from pipeline.scan.progress import progress
from pipeline.sources import Storage
from pipeline.tools.inspection.opening import close, files_of, opened
from pipeline.tools.inspection.words import listed, many, size
from pipeline.tools.pieces import done_by
from pipeline.types import Source, where
from pipeline.workers.tickets import weight

_LEAST, _MOST = 1024, 65_536  # records of a worker's piece
_PIECES = 64  # at least so many, so that workers end together
_HELD = 8 << 20  # bytes read at once, about


@dataclass(frozen=True)
class Bad:
    """Neighbouring records of a file that fail alike.

    Attributes:
        file: its path; the class of a source that has no files.
        first, last: their indices in it; None where the file as a whole fails.
        error: why, and what to do.
    """

    file: str
    first: int | None
    last: int | None
    error: str

    @property
    def records(self) -> int:
        """How many; 0 where nobody knows."""
        return 0 if self.first is None or self.last is None else self.last - self.first + 1

    def __str__(self) -> str:
        inner = f", record {self.first}" if self.records == 1 else ""
        inner = f", records {self.first} to {self.last}" if self.records > 1 else inner
        return f"{self.file}{inner}: {self.error.removeprefix(f'cannot read {self.file}: ')}"


@dataclass(frozen=True)
class Verification:
    """What a verification found.

    Attributes:
        files: how many were read, those that do not open included.
        records: how many were tried.
        bytes: of the files.
        seconds: it took.
        bad: what cannot be read.
    """

    files: int
    records: int
    bytes: int
    seconds: float
    bad: tuple[Bad, ...]

    @property
    def ok(self) -> bool:
        """Whether all is well."""
        return not self.bad

    def as_json(self) -> dict[str, Any]:
        """All as plain data."""
        return {**asdict(self), "ok": self.ok}

    def lines(self) -> Iterator[str]:
        """For people: bad records, and a last line that sums up."""
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
    """Read every record, check checksums where the format has any, and name what is bad.

    Of a dataset the sources' records are read; what its stages do with them is not tried. What
    cannot be read does not keep others from being read.

    Args:
        data: a path or glob, a Dataset, or what else `Dataset` takes.
        workers: who reads, as `Loader` takes it: 0, n processes, "auto".
        storage: how URLs are reached.

    Raises:
        SourceError: no such file, a suffix that no format has, or files that disagree.
        StorageError: a file cannot be reached.

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
    # as stored; a worker corrects it by what records turn out to take
    files = files_of(source)
    mean = _HELD // _LEAST if files is None else sum(files.sizes) // max(1, len(source))
    return min(max(1, _HELD // 4 // max(1, mean)), _MOST)


def _pieces(number: int, source: Source) -> Int64s:
    # int64[k, 3]: source, start, stop; at ends of storage's own chunks where those are near
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
    """A map from a piece's number to what is bad in it.

    Attributes:
        datasets: of one source each.
        at_once: how many records of each to begin with.
        pieces: int64[k, 3], the dataset, the first record and the one after the last.
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
            # records may be of any size: as many at once as fit
            size = min(2 * size, _MOST) if held < _HELD else max(1, size // 2)
            start = end
        return bad


def _tried(ds: Dataset, records: Int64s) -> tuple[int, list[Bad]]:
    """About how many bytes records take, and which of them are bad."""
    source = ds.components[0].source
    try:
        good, errors = survivors(ds.read, records)
    except StorageError:
        raise
    # a whole file is at fault, or asks for more memory than there is: others are read without it
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
    """Neighbours that fail alike as one; a file that fails as a whole once."""
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
