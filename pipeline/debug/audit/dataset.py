"""Whether the order of a dataset looks random: its epochs are audited as they are served."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pipeline.block import Int64s
from pipeline.checks import whole
from pipeline.dataset import Dataset
from pipeline.debug.audit.verdict import Figure, Report, audit
from pipeline.errors import ChainError
from pipeline.types import ENDLESS, At

_OF_ONE = 7  # epochs behind the first that stand for further orders of one seed
_MOST_RANKED = 1 << 26  # most rows of a slice whose records are listed


def audit_dataset(ds: Dataset, *, batch: int = 256, epochs: int = 40) -> Report:
    """Compare the orders of a dataset's epochs with random permutations, without reading records.

    Of a streamed dataset, the indexed part is audited. A shuffle by window or by chunks is not a
    uniform permutation, nor is an interleave or a mix; the figures say how far from it they are.

    Args:
        ds: the dataset.
        batch: rows in a batch.
        epochs: number of orders to examine, from epoch 0 on; at least 23.

    Raises:
        BatchError: an epoch has fewer than two batches.
        ChainError: the dataset has no epochs, or is a slice with too many rows to list.

    >>> ds = Dataset({"x": np.arange(2000)})
    >>> audit_dataset(ds.shuffle(), epochs=23).ok, audit_dataset(ds.shuffle(window=50)).ok
    (True, False)
    """
    n = ds.top.period
    if n == ENDLESS:
        raise ChainError("an audit compares epochs, but this dataset never begins anew")
    seeds = whole("epochs", epochs, 16 + _OF_ONE) - _OF_ONE
    records = _Records(ds, n)

    def permute(seed: int, epoch: int) -> Any:
        # the seed of the dataset stays as it is, so every order is another epoch of it
        number = seeds - 1 + epoch if epoch else seed
        return lambda positions: records.at(number, positions)

    found = audit(
        permute, n, batch=batch, seeds=range(seeds), epochs=_OF_ONE + 1, parts=records.parts
    )
    return replace(found, figures=tuple(_of_epochs(found.figures)))


def _of_epochs(figures: Sequence[Figure]) -> Iterator[Figure]:
    # what `audit` calls seeds are epochs here; its figures of other pairs would say the same again
    for figure in figures:
        family, _, statistic = figure.name.partition(": ")
        if family == "seeds":
            yield replace(figure, name=f"epochs: {statistic}")
        elif family not in ("epochs", "seeds x epochs"):
            yield figure


class _Records:
    """Maps a position of an epoch to the number of its record, counted over all sources."""

    def __init__(self, ds: Dataset, n: int) -> None:
        self._top, self._n = ds.top, n
        sizes = [len(component.source) for component in ds.components]
        self._firsts = np.cumsum([0, *sizes])
        self._members: Int64s | None = None
        if n != sum(sizes):
            self._members = np.sort(self._ids(0, np.arange(self._rankable())))
        firsts = self._firsts[:-1]
        self.parts = (firsts if self._members is None else self._rank(firsts)).tolist()

    def _rankable(self) -> int:
        if self._n > _MOST_RANKED:
            raise ChainError(
                f"an audit lists the records of a part of a source: {self._n} rows are more than "
                f"{_MOST_RANKED}. Audit the dataset beneath the slice, or a smaller one."
            )
        return self._n

    def _ids(self, epoch: int, positions: Int64s) -> Int64s:
        top = self._top
        at = At.of_rows(epoch * self._n + positions, max(1, top.length))
        origin = top.origin(at)
        return self._firsts[origin.component] + origin.record

    def _rank(self, ids: Int64s) -> Int64s:
        assert self._members is not None
        return np.searchsorted(self._members, ids).astype(np.int64)

    def at(self, epoch: int, positions: Int64s) -> Int64s:
        ids = self._ids(epoch, positions)
        return ids if self._members is None else self._rank(ids)
