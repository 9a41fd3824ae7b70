"""What each step did, in a file: one line a step, enough to prove a recomputed step equal to it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.debug.journal.index import GROUP, Span, index_path, load, none, record_of
from pipeline.debug.journal.line import Line, line_of
from pipeline.debug.journal.lineage import Lineage, follows_above
from pipeline.debug.journal.lines import LineLog, parsed
from pipeline.errors import JournalError

_CHUNK = 1 << 24  # bytes that are read at once where all lines are
_KEPT = 16  # groups whose lines are kept once they were read


class Ledger:
    """The ledger as its one writer sees it; `append` hands each line to the kernel."""

    def __init__(self, path: Path) -> None:
        self._log, self._index = LineLog(path), index_path(path)
        # what the index lacks is read once: after a kill some hundred lines, of an old run all
        known = LedgerFile(path)
        self._tail, self._last, self._count = known.tail_spans, known.last, len(known)
        self._write_index(known.records)

    def __len__(self) -> int:
        """Lines."""
        return self._count

    def append(self, line: Line) -> None:
        start = self._log.end
        self._log.append(line.as_json())
        follows = follows_above(line, self._last)
        self._tail.append((start, self._log.end, line.step, line.data_end, follows))
        self._last, self._count = line, self._count + 1
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
        self._groups: dict[int, list[Line]] = {}
        self.records = load(index_path(path))
        if not self._fits(size):
            self.records, self._groups = none(), {}
        self.tail_spans: list[Span] = []
        self._tail: list[Line] = []
        self._scan()

    def _fits(self, size: int) -> bool:
        # an edited ledger has its lines elsewhere: then the last group is not what the index says
        if not len(self.records):
            return True
        i, last = len(self.records) - 1, self.records[-1]
        if self.records[0]["start"] != 0 or not 0 <= last["start"] < last["stop"] <= size:
            return False
        try:
            lines = list(self.lines(*self._bytes(i), GROUP * i))
        except JournalError:
            return False
        self._groups[i] = [line for _, _, line in lines]
        spans = [(start, stop, line.step, line.data_end, True) for start, stop, line in lines]
        found = record_of(spans)
        found["breaks"] = last["breaks"]  # it depends on the group before
        return len(spans) == GROUP and bool(found == last)

    def _scan(self) -> None:
        above, more, spans = self._before_tail(), [self.records], list[Span]()
        start, first = (self.records[-1]["stop"], GROUP * len(self.records)) if above else (0, 0)
        for begin, end, line in self.lines(int(start), None, first):
            spans.append((begin, end, line.step, line.data_end, follows_above(line, above)))
            self._tail.append(line)
            above = line
            if len(spans) == GROUP:
                more.append(record_of(spans))
                self._tail, spans = [], []
        self.records, self.tail_spans = np.concatenate(more), spans

    def _before_tail(self) -> Line | None:
        return self._group(len(self.records) - 1)[-1] if len(self.records) else None

    def lines(
        self, start: int, stop: int | None, first: int = -1
    ) -> Iterator[tuple[int, int, Line]]:
        """The whole lines of a range of bytes, each with its place; a torn last one is left out.

        Args:
            start, stop: the range; without an end it goes on to the end of the file.
            first: number of the line that begins at `start`, where lines are to know theirs.
        """
        if not self.file.exists():
            return
        with open(self.file, "rb") as f:
            f.seek(start)
            at, rest, count = start, b"", first
            while data := f.read(_CHUNK if stop is None else min(_CHUNK, stop - f.tell())):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    place, at = at, at + len(line) + 1
                    number = lambda place=place: self._number(place)  # noqa: E731
                    found = parsed(self.file, line, number)
                    yield place, at, line_of(self.file, found, number, count)
                    count += first >= 0

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
        return (line for _, _, line in self.lines(0, None, 0))

    # ---- one line

    def at(self, number: int) -> Line:
        """The line of a number, from 0, in the order written."""
        group, place = divmod(number, GROUP)
        return self._group(group)[place]

    @property
    def last(self) -> Line | None:
        """The line that was written last."""
        return self.at(len(self) - 1) if self else None

    def of_step(self, step: int) -> list[Line]:
        """All lines of a step, the oldest first."""
        return [
            x for i in self._around("low", step, step) for x in self._group(i) if x.step == step
        ]

    def latest(self, step: int) -> Line | None:
        """The line of a step that led to where the run stands; else that written last, or None."""
        lines = self.of_step(step)
        led = self.lineage.leads_on(np.array([x.number for x in lines], np.int64))
        ranked = sorted(zip(led.tolist(), range(len(lines)), strict=True))
        return lines[ranked[-1][1]] if ranked else None

    def ending_in(self, low: int, high: int) -> list[Line]:
        """The lines whose batches end at a data step of [low, high], in the order written."""
        groups = self._around("data_low", low, high)
        return [x for i in groups for x in self._group(i) if low <= x.data_end <= high]

    def ending_at(self, data_step: int) -> Line | None:
        """The line whose batches end nearest before a data step, of several the last written."""
        lows, highs = self.records["data_low"], self.records["data_high"]
        # of groups that end before it the highest alone; of those around it, each
        below = np.where(highs <= data_step, highs, -1)
        last = np.flatnonzero(below == below.max(initial=0))[-1:]
        around = np.flatnonzero((lows <= data_step) & (highs > data_step))
        groups = sorted({*last.tolist(), *around.tolist(), len(self.records)})
        lines = [x for i in groups for x in self._group(i) if x.data_end <= data_step]
        return max(lines, key=lambda x: (x.data_end, x.number), default=None)

    def _around(self, low: str, least: int, most: int) -> list[int]:
        # groups that may have lines whose value is in [least, most]; the tail is one
        inside = (self.records[low] <= most) & (least <= self.records[low.replace("low", "high")])
        return [*np.flatnonzero(inside).tolist(), len(self.records)]

    def _group(self, i: int) -> list[Line]:
        # the lines that a record covers; behind the last record, the tail
        if i == len(self.records):
            return self._tail
        if i not in self._groups:
            while len(self._groups) >= _KEPT:
                del self._groups[next(iter(self._groups))]
            lines = self.lines(*self._bytes(i), GROUP * i)
            self._groups[i] = [line for _, _, line in lines]
        return self._groups[i]

    def _bytes(self, i: int) -> tuple[int, int]:
        return int(self.records["start"][i]), int(self.records["stop"][i])

    # ---- which lines led to where the run stands

    @cached_property
    def lineage(self) -> Lineage:
        """Which line each follows."""
        return Lineage(self)

    def breaks(self) -> list[int]:
        """Numbers of the lines that do not follow the line above them."""
        found: list[int] = []
        for i in np.flatnonzero(self.records["breaks"]).tolist():
            above = self.at(GROUP * i - 1) if i else None
            for line in self._group(i):
                found += [] if follows_above(line, above) else [line.number]
                above = line
        first = GROUP * len(self.records)
        return found + [first + k for k, span in enumerate(self.tail_spans) if not span[4]]

    @property
    def steps(self) -> range:
        """From the first step that led to where the run stands to behind the last."""
        path = self.lineage.ranges
        return (
            range(self.at(path[0].start).step, self.at(path[-1][-1]).step + 1) if path else range(0)
        )

    def path(self, start: int = 0, stop: int = 1 << 62) -> Iterator[Line]:
        """The lines of steps [start, stop) that led to where the run stands, in rising order.

        Where the run went back, as after a crash or to pass over records, what it had done from
        there on is left out.
        """
        for numbers in self.lineage.ranges:
            for i in range(numbers.start // GROUP, numbers[-1] // GROUP + 1):
                for line in self._read(i, start, stop):
                    if line.number in numbers and start <= line.step < stop:
                        yield line

    def _read(self, i: int, start: int, stop: int) -> Iterator[Line]:
        # the lines of a group, if any is of [start, stop); few groups are kept, but all are read
        if i == len(self.records):
            yield from self._tail
        elif self.records["low"][i] < stop and start <= self.records["high"][i]:
            yield from (line for _, _, line in self.lines(*self._bytes(i), GROUP * i))

    def stretches(self, every: int = 1) -> Iterator[tuple[int, int, int]]:
        """Ranges of bytes that hold all lines, each with the number of its first line.

        With `every`, only one of so many stretches of 256 lines.
        """
        if every > 1:
            for i in range(0, len(self.records), every):
                yield *self._bytes(i), GROUP * i
        else:
            ends = self.records["stop"]
            i = 0
            while i < len(ends):
                start = int(self.records["start"][i])
                first, i = i, max(i + 1, int(np.searchsorted(ends, start + _CHUNK)))
                yield start, int(ends[i - 1]), GROUP * first
        if self.tail_spans:
            yield self.tail_spans[0][0], self.tail_spans[-1][1], GROUP * len(self.records)


def read(path: Path) -> list[Line]:
    """All lines in the order written; a last line torn by a kill is left out.

    Raises:
        JournalError: a line is not JSON, or not a ledger entry.
    """
    return list(LedgerFile(path))
