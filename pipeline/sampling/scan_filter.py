"""Keeping the rows whose flag in a scan is True. The k-th of them is found by counting flags."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.block import Int64s
from pipeline.errors import ScanError
from pipeline.sampling.order import Order
from pipeline.sampling.scanned import Scanned
from pipeline.types import At, Site

WIDTH = 128  # flags between two stored counts: 8 bytes for 128 rows
CHUNK = 1 << 11  # positions looked up at a time, so that their flags stay in a cache
_PASS = 1 << 20  # flags counted at a time; a multiple of WIDTH


@dataclass(frozen=True)
class ScanFilter(Order):
    """The rows that a scan flags, in order: an indexed dataset of exact length.

    A count for every 128 flags is kept in memory; the flags stay in the scan's file.

    Attributes:
        flags: of the dataset beneath, one bool per row.
        name: for messages and the fingerprint.
        code: digest of the flags, eight hex digits.

    Raises:
        ScanError: the scan holds numbers rather than flags.
    """

    flags: Scanned
    name: str
    code: str = field(init=False, repr=False)
    counts: Int64s = field(init=False, repr=False, compare=False)
    kind = "filter"
    pins_path = True
    sets_length = True

    def __post_init__(self) -> None:
        dtype = self.flags.dtype
        if dtype != np.dtype(bool):
            raise ScanError(
                f"filter wants flags, but {self.flags!r} holds {dtype}. "
                "Say which values stay: scanned.within(least, most)."
            )
        digest, per = hashlib.blake2b(digest_size=4), [np.zeros(1, np.int64)]
        for start in range(0, len(self.flags), _PASS):
            found = self.flags.at(np.arange(start, min(start + _PASS, len(self.flags))))
            digest.update(np.packbits(found).tobytes())
            per.append(np.add.reduceat(found, np.arange(0, len(found), WIDTH), dtype=np.int64))
        object.__setattr__(self, "code", digest.hexdigest())
        object.__setattr__(self, "counts", np.cumsum(np.concatenate(per)))

    def __reduce__(self) -> Any:
        return ScanFilter, (self.flags, self.name)

    def length(self, n: int) -> int:
        return int(self.counts[-1])

    def resolve(self, at: At, n: int, site: Site) -> At:
        parts = [self._rows(at.index[i : i + CHUNK]) for i in range(0, len(at.index), CHUNK)]
        index = np.concatenate(parts) if parts else np.zeros(0, np.int64)
        return At(at.epoch, at.order, index)

    def above(self, index: Int64s, order: int, n: int, site: Site) -> Int64s:
        """Positions of the rows `index` beneath; rows that were filtered out have none."""
        index = index[self.flags.at(index)]
        found = [self._before(i) for i in index.tolist()]
        return np.array(found, np.int64)

    def _before(self, row: int) -> int:
        start = row // WIDTH * WIDTH
        return int(self.counts[row // WIDTH] + self.flags.at(np.arange(start, row)).sum())

    def _rows(self, index: Int64s) -> Int64s:
        block = np.searchsorted(self.counts, index, side="right") - 1
        blocks, inverse = np.unique(block, return_inverse=True)
        run, inside = np.nonzero(self.flags.runs(blocks, WIDTH))
        first = np.searchsorted(run, np.arange(len(blocks)))
        kept = blocks[run] * WIDTH + inside
        return kept[first[inverse] + index - self.counts[block]]

    def written(self) -> str:
        return f".filter({self.flags!r})"

    def fingerprint(self) -> str:
        return f"filter {self.name} scanned {self.code}"
