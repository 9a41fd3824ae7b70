"""Which requests fetch many ranges: near ones in one, huge ones in several, equal ones once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pipeline.sources.storage.location import Range


class Plan(NamedTuple):
    """Requests, and where each range lies in their answers.

    Attributes:
        requests: what to fetch.
        runs: for each run of neighbouring ranges, its first request, the end of its requests, and
            where in the file it starts.
        places: the run of each range, in the order asked.
    """

    requests: list[Range]
    runs: list[tuple[int, int, int]]
    places: list[int]

    def parts(self, ranges: Sequence[Range], answers: Sequence[bytes]) -> list[bytes]:
        """The bytes of each range, given those of each request."""
        joined = [
            answers[first] if end == first + 1 else b"".join(answers[first:end])
            for first, end, _ in self.runs
        ]
        found: list[bytes] = []
        for span, run in zip(ranges, self.places, strict=True):
            data, offset = joined[run], self.runs[run][2]
            found.append(data[span.start - offset : span.stop - offset])
        return found


def plan(ranges: Sequence[Range], *, gap: int, largest: int) -> Plan:
    """Requests for ranges (none of them empty) of any files.

    Args:
        ranges: in any order, overlaps and repeats included.
        gap: unwanted bytes between two ranges that are fetched rather than asked around.
        largest: bytes of a request at most: ranges are merged up to it, and split beyond.

    >>> near = [Range("a", 30, 40), Range("a", 0, 10), Range("a", 12, 20), Range("a", 0, 10)]
    >>> p = plan(near, gap=4, largest=15)
    >>> [(r.start, r.stop) for r in p.requests]
    [(0, 10), (12, 20), (30, 40)]
    >>> [(r.start, r.stop) for r in plan(near, gap=4, largest=99).requests]
    [(0, 20), (30, 40)]
    """
    order = sorted(range(len(ranges)), key=lambda i: _key(ranges[i]))
    requests: list[Range] = []
    runs: list[tuple[int, int, int]] = []
    places = [0] * len(ranges)
    run: Range | None = None
    for i in order:
        span = ranges[i]
        if run is not None and _joins(run, span, gap, largest):
            run = run._replace(stop=max(run.stop, span.stop))
        else:
            _close(run, requests, runs, largest)
            run = span
        places[i] = len(runs)
    _close(run, requests, runs, largest)
    return Plan(requests, runs, places)


def _key(span: Range) -> tuple[str, str, int, int]:
    return span.path, span.tag, span.start, -span.stop


def _joins(run: Range, span: Range, gap: int, largest: int) -> bool:
    if (span.path, span.tag) != (run.path, run.tag):
        return False
    near = span.start <= run.stop + gap and span.stop - run.start <= largest
    return near or span.stop <= run.stop


def _close(
    run: Range | None, requests: list[Range], runs: list[tuple[int, int, int]], largest: int
) -> None:
    if run is None:
        return
    first = len(requests)
    for start in range(run.start, run.stop, largest):
        requests.append(run._replace(start=start, stop=min(start + largest, run.stop)))
    runs.append((first, len(requests), run.start))
