"""What each step did, in a file: one line a step, enough to prove a recomputed step equal to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.debug.journal.index import GROUP, Span, index_path, load, none, record_of
from pipeline.debug.journal.line import Line, line_of
from pipeline.debug.journal.lines import LineLog, parsed
from pipeline.errors import JournalError

_CHUNK = 1 << 24  # bytes that are read at once where all lines are


class Ledger:
    """The ledger as its one writer sees it; `append` hands each line to the kernel."""

    def __init__(self, path: Path) -> None:
        self._log, self._index = LineLog(path), index_path(path)
        # what the index lacks is read once: after a kill some hundred lines, of an old run all
        known = LedgerFile(path)
        self._tail = known.tail_spans
        self._write_index(known.records)

    def append(self, line: Line) -> None:
        start = self._log.end
        self._log.append(line.as_json())
        self._tail.append((start, self._log.end, line.step, line.data_end))
        if len(self._tail) == GROUP:
            with open(self._index, "ab") as f:
                f.write(record_of(self._tail).tobytes())
            self._tail = []

    def _write_index(self, records: NDArray[Any]) -> None:
        found = load(self._index)
        if len(found) != len(records) or not np.array_equal(found, records):
            self._index.write_bytes(records.tobytes())

    def fileno(self) -> int:
        return self._log.fileno()

    def sync(self) -> None:
        """Bring all lines to the disk: before a checkpoint, so that none after it is missing."""
        self._log.sync()

    def close(self) -> None:
        self._log.close()


class LedgerFile:
    """The ledger as a reader sees it, while it is written or after; nothing is locked or changed.

    Opening costs the index and the few hundred lines behind it, however long the run.

    Attributes:
        records: the index: one record for each 256 lines.
        tail_spans: of the lines behind the last record.

    Raises:
        JournalError: a line is not JSON, or not a ledger entry.
    """

    def __init__(self, path: Path) -> None:
        self.file = path
        size = path.stat().st_size if path.exists() else 0
        records = load(index_path(path))
        if not self._fits(records, size):
            records = none()
        self.records, self.tail_spans = self._scan(records)

    def _fits(self, records: NDArray[Any], size: int) -> bool:
        # an edited ledger has its lines elsewhere: then the last group is not what the index says
        if not len(records):
            return True
        last = records[-1]
        if last["stop"] > size or records[0]["start"] != 0:
            return False
        try:
            lines = list(self.lines(int(last["start"]), int(last["stop"])))
        except JournalError:
            return False
        spans = [(start, stop, line.step, line.data_end) for start, stop, line in lines]
        return len(spans) == GROUP and bool(record_of(spans) == last)

    def _scan(self, records: NDArray[Any]) -> tuple[NDArray[Any], list[Span]]:
        start = int(records[-1]["stop"]) if len(records) else 0
        more: list[NDArray[Any]] = [records]
        spans: list[Span] = []
        for begin, end, line in self.lines(start, None):
            spans.append((begin, end, line.step, line.data_end))
            if len(spans) == GROUP:
                more.append(record_of(spans))
                spans = []
        return np.concatenate(more), spans

    def lines(self, start: int, stop: int | None) -> Iterator[tuple[int, int, Line]]:
        """The whole lines of a range of bytes, each with its place; a torn last one is left out."""
        if not self.file.exists():
            return
        with open(self.file, "rb") as f:
            f.seek(start)
            at, rest = start, b""
            while data := f.read(_CHUNK if stop is None else min(_CHUNK, stop - f.tell())):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    place, at = at, at + len(line) + 1
                    number = lambda place=place: self._number(place)  # noqa: E731
                    found = parsed(self.file, line, number)
                    yield place, at, line_of(self.file, found, number)

    def _number(self, at: int) -> int:
        # of the line that begins at a byte: counted only where an error names it
        with open(self.file, "rb") as f:
            return 1 + f.read(at).count(b"\n")

    def __bool__(self) -> bool:
        return bool(len(self.records) or self.tail_spans)

    def __len__(self) -> int:
        """Lines, those of steps done twice included."""
        return GROUP * len(self.records) + len(self.tail_spans)

    def __iter__(self) -> Iterator[Line]:
        """All lines in the order written."""
        return (line for _, _, line in self.lines(0, None))

    @property
    def last(self) -> Line | None:
        """The line that was written last."""
        if self.tail_spans:
            return self._at(self.tail_spans[-1])
        if not len(self.records):
            return None
        *_, (_, _, line) = self.lines(*self._bytes(len(self.records) - 1))
        return line

    @property
    def steps(self) -> range:
        """From the lowest step to behind the highest."""
        lows = [*self.records["low"][:], *(s[2] for s in self.tail_spans)]
        highs = [*self.records["high"][:], *(s[2] for s in self.tail_spans)]
        return range(int(min(lows)), int(max(highs)) + 1) if lows else range(0)

    def of_step(self, step: int) -> list[Line]:
        """All lines of a step, the oldest first."""
        inside = (self.records["low"] <= step) & (step <= self.records["high"])
        found: list[Line] = []
        for i in np.flatnonzero(inside).tolist():
            found += [line for _, _, line in self.lines(*self._bytes(i)) if line.step == step]
        return found + [self._at(span) for span in self.tail_spans if span[2] == step]

    def latest(self, step: int) -> Line | None:
        """The line of a step that was written last; None where it has none."""
        for span in reversed(self.tail_spans):
            if span[2] == step:
                return self._at(span)
        inside = (self.records["low"] <= step) & (step <= self.records["high"])
        for i in np.flatnonzero(inside)[::-1].tolist():
            lines = [line for _, _, line in self.lines(*self._bytes(i)) if line.step == step]
            if lines:
                return lines[-1]
        return None

    def leads_on(self, line: Line) -> bool:
        """Whether a line led to where the run stands: it did not go back over the step later."""
        return line in self.path(line.step, line.step + 1)

    def before(self, step: int) -> Line | None:
        """The line of the nearest step before a step; of several, that which was written last."""
        return self._best(step - 1, "low", 2)

    def ending_at(self, data_step: int) -> Line | None:
        """The line whose batches end nearest before a data step, of several the last written."""
        return self._best(data_step, "data_low", 3)

    def _best(self, most: int, low: str, column: int) -> Line | None:
        # the line whose value is the largest up to `most`, of several the last
        values = [(span[column], i) for i, span in enumerate(self.tail_spans)]
        value, at = max((v for v in values if v[0] <= most), default=(-1, -1))
        best = self._at(self.tail_spans[at]) if at >= 0 else None
        lows, highs = self.records[low], self.records[low.replace("low", "high")]
        # of groups that end below `most` the highest alone; of those around it, each
        below = np.where(highs <= most, highs, -1)
        last = np.flatnonzero(below == below.max())[-1:] if len(below) else []
        around = np.flatnonzero((lows <= most) & (highs > most))
        for i in sorted({*around.tolist(), *(int(i) for i in last if below[i] > value)})[::-1]:
            lines = [line for _, _, line in self.lines(*self._bytes(i))]
            ranked = [(x.step if column == 2 else x.data_end, k) for k, x in enumerate(lines)]
            found, k = max((r for r in ranked if r[0] <= most), default=(-1, -1))
            if found > value:
                value, best = found, lines[k]
        return best

    def path(self, start: int = 0, stop: int = 1 << 62) -> Iterator[Line]:
        """The lines of steps [start, stop) that led to where the run stands, in rising order.

        Where the run went back, as after a crash or to pass over records, what it had done from
        there on is left out.
        """
        later = self._later()
        wanted = (self.records["low"] < np.minimum(stop, later)) & (start <= self.records["high"])
        for i in np.flatnonzero(wanted).tolist():
            lines = [line for _, _, line in self.lines(*self._bytes(i))]
            yield from _kept(lines, start, min(stop, int(later[i])))
        if self.tail_spans:
            lines = [line for _, _, line in self.lines(self.tail_spans[0][0], None)]
            yield from _kept(lines[: len(self.tail_spans)], start, stop)

    def stretches(self, every: int = 1) -> Iterator[tuple[int, int, int]]:
        """Ranges of bytes that hold all lines, each with the lowest step of all lines behind it.

        With `every`, only one of so many stretches of 256 lines.
        """
        later = self._later()
        if every > 1:
            for i in range(0, len(self.records), every):
                yield *self._bytes(i), int(later[i])
        else:
            ends = self.records["stop"]
            i = 0
            while i < len(ends):
                start = int(self.records["start"][i])
                i = max(i + 1, int(np.searchsorted(ends, start + _CHUNK)))
                yield start, int(ends[i - 1]), int(later[i - 1])
        if self.tail_spans:
            yield self.tail_spans[0][0], self.tail_spans[-1][1], 1 << 62

    def _later(self) -> NDArray[np.int64]:
        # of each record, the lowest step of all lines behind it
        ahead = min((span[2] for span in self.tail_spans), default=1 << 62)
        lows = np.append(self.records["low"], ahead)
        return np.minimum.accumulate(lows[::-1])[::-1][1:]

    def _bytes(self, i: int) -> tuple[int, int]:
        return int(self.records["start"][i]), int(self.records["stop"][i])

    def _at(self, span: Span) -> Line:
        return next(line for _, _, line in self.lines(span[0], span[1]))


def _kept(lines: list[Line], start: int, stop: int) -> list[Line]:
    # of lines in the order written, those below every later one
    kept: list[Line] = []
    for line in reversed(lines):
        if line.step < stop:
            stop = line.step
            kept.append(line)
    return [line for line in reversed(kept) if line.step >= start]


def read(path: Path) -> list[Line]:
    """All lines in the order written; a last line torn by a kill is left out.

    Raises:
        JournalError: a line is not JSON, or not a ledger entry.
    """
    return list(LedgerFile(path))
