"""Which records a run excludes from some step on, and which rows hold one of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.block import Int64s, Origin
from pipeline.checkpoint.position import Exclusion
from pipeline.provenance.records import records_in, records_of
from pipeline.sampling.cuts import Ranges, joined
from pipeline.types import Component


class Exclusions:
    """Records that a run excludes, each from a step on: earlier batches stay what they were.

    Args:
        components: the dataset's components.
        entries: (from_step, component, ranges of its records) of each exclusion.
    """

    def __init__(
        self, components: Sequence[Component] = (), entries: Iterable[Exclusion] = ()
    ) -> None:
        self._components = components
        self.entries = _merged(entries)

    @property
    def components(self) -> int:
        """How many components the dataset has."""
        return len(self._components)

    def plus(self, since: int, records: Any, files: Any) -> Exclusions:
        """These exclusions, and more from step `since` on.

        Args:
            since: the first step without the records.
            records: records to exclude; see `records_of`.
            files: files whose records to exclude; see `records_in`.

        Raises:
            PositionError: there is no such record, component or file.
        """
        named = [*records_of(self._components, records), *records_in(self._components, files)]
        more = [(since, name, ((start, stop),)) for name, start, stop in named]
        return Exclusions(self._components, [*self.entries, *more])

    def active(self, step: int) -> bool:
        """Whether any exclusion is in force at a step."""
        return any(since <= step for since, _, _ in self.entries)

    def named(self, step: int, most: int = 4) -> str:
        """What is excluded at a step, in words: so many ranges of records at most.

        >>> Exclusions(entries=[(0, "a", ((3, 4), (7, 9)))]).named(0)
        "record 3 of 'a', records 7..8 of 'a'"
        """
        found = [
            (f"records {start}..{stop - 1}" if stop - start > 1 else f"record {start}")
            + (f" of {name!r}" if name else "")
            for since, name, ranges in self.entries
            if since <= step
            for start, stop in ranges
        ]
        more = f" and {len(found) - most} more ranges" if len(found) > most else ""
        return ", ".join(found[:most]) + more

    def until(self, step: int) -> int | None:
        """The first later step from which more is excluded; None if there is none."""
        return min((since for since, _, _ in self.entries if since > step), default=None)

    def among(self, origin: Origin, step: int) -> NDArray[np.bool_]:
        """bool[n]: which rows are excluded at a step; a packed or zipped row is if any part is."""
        bad = np.zeros(len(origin), bool)
        for since, component, starts, stops in self._tables:
            if since <= step:
                run = np.searchsorted(starts, origin.record, side="right") - 1
                inside = (run >= 0) & (origin.record < stops[run])
                bad |= inside & (origin.component == component)
        for parts in (origin.segments, origin.beside):
            if parts is not None:
                below = np.cumsum([0, *self.among(parts.origin, step)])
                bad |= np.diff(below[parts.bounds]) > 0
        return bad

    @cached_property
    def _tables(self) -> list[tuple[int, int, Int64s, Int64s]]:
        # the dataset may have lost a component since: then nothing of it is left to exclude
        names = ["/".join(c.path) for c in self._components]
        return [
            (since, names.index(name), *np.array(ranges, np.int64).T)
            for since, name, ranges in self.entries
            if name in names
        ]


def _merged(entries: Iterable[Exclusion]) -> tuple[Exclusion, ...]:
    found: dict[tuple[int, str], Ranges] = {}
    for since, name, ranges in entries:
        found[since, name] = joined([*found.get((since, name), ()), *ranges])
    return tuple((since, name, found[since, name]) for since, name in sorted(found))
