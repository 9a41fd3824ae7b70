"""HighwayHash-64 with Riegeli's key, of many byte strings at once.

The hash (Alakuijala, Cox, Wassenberg, "Fast keyed hash/pseudo-random function using SIMD multiply
and permute", 2016) goes through a string in packets of 32 bytes, each needing the one before it:
NumPy works on one packet of every string at a time, so many strings cost little more than one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.block import Int64s
from pipeline.sources.riegeli.varints import Bytes

Words = NDArray[np.uint64]


def _words(*values: int) -> Words:
    return np.array(values, np.uint64)


_KEY = np.frombuffer(b"Riegeli/records\nRiegeli/records\n", "<u8")
_MUL0 = _words(0xDBE6D5D5FE4CCE2F, 0xA4093822299F31D0, 0x13198A2E03707344, 0x243F6A8885A308D3)
_MUL1 = _words(0x3BD39E10CB0EF593, 0xC0ACF169B5F18A8C, 0xBE5466CF34E90C6C, 0x452821E638D01377)
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)

# where each byte of a pair of lanes goes: the "zipper merge", for both pairs
_ZIP = np.array([3, 12, 2, 5, 14, 1, 15, 0, 11, 4, 10, 13, 9, 6, 8, 7])
_ZIPPER = np.concatenate([_ZIP, _ZIP + 16])


def hashes(data: Bytes, starts: Int64s, sizes: Int64s) -> Words:
    """The hash of `data[starts[i] : starts[i] + sizes[i]]` for each i: uint64[n].

    >>> data = np.arange(64, dtype=np.uint8)
    >>> [f"{h:016x}" for h in hashes(data, np.array([0, 3]), np.array([0, 33])).tolist()]
    ['72c3b1e9c0139fe1', '208abefd78bccce0']
    """
    # longest first: those that have a k-th packet are then a prefix
    order = np.argsort(-sizes, kind="stable")
    begin, size = starts[order], sizes[order]
    state = _State(len(order))
    whole = size // 32
    lanes = np.arange(32)
    for k in range(int(whole.max(initial=0))):
        n = int(np.searchsorted(-whole, -k))  # how many have more than k
        packets = data[(begin[:n] + 32 * k)[:, None] + lanes]
        state.update(packets.view("<u8"), n)
    state.update_rest(data, begin + 32 * whole, size % 32)
    found = np.empty(len(order), np.uint64)
    found[order] = state.finish()
    return found


class _State:
    """v0, v1, mul0, mul1 of n strings: uint64[n, 4] each."""

    def __init__(self, n: int) -> None:
        self.mul0, self.mul1 = np.tile(_MUL0, (n, 1)), np.tile(_MUL1, (n, 1))
        self.v0 = self.mul0 ^ _KEY
        self.v1 = self.mul1 ^ (_KEY >> _HALF | _KEY << _HALF)

    def update(self, lanes: Words, n: int) -> None:
        """One packet of each of the first n strings."""
        v0, v1, mul0, mul1 = self.v0[:n], self.v1[:n], self.mul0[:n], self.mul1[:n]
        v1 += mul0
        v1 += lanes
        mul0 ^= (v1 & _LOW) * (v0 >> _HALF)
        v0 += mul1
        mul1 ^= (v0 & _LOW) * (v1 >> _HALF)
        v0 += _zipped(v1)
        v1 += _zipped(v0)

    def update_rest(self, data: Bytes, begin: Int64s, size: Int64s) -> None:
        """What is left of each string: 1 to 31 bytes; strings with none are left alone."""
        some = np.flatnonzero(size)
        rest = _State(len(some))
        rest.v0, rest.v1 = self.v0[some], self.v1[some]
        rest.mul0, rest.mul1 = self.mul0[some], self.mul1[some]
        count = size[some].astype(np.uint64)[:, None]
        rest.v0 += (count << _HALF) + count
        rest.v1 = _rotated(rest.v1, count.astype(np.uint32))
        rest.update(_packets_of_rest(data, begin[some], size[some]).view("<u8"), len(some))
        self.v0[some], self.v1[some] = rest.v0, rest.v1
        self.mul0[some], self.mul1[some] = rest.mul0, rest.mul1

    def finish(self) -> Words:
        for _ in range(4):
            lanes = self.v0[:, [2, 3, 0, 1]]
            self.update(lanes >> _HALF | lanes << _HALF, len(lanes))
        return (self.v0 + self.v1 + self.mul0 + self.mul1)[:, 0]


def _zipped(lanes: Words) -> Any:
    return lanes.view(np.uint8).take(_ZIPPER, axis=1, mode="clip").view(np.uint64)


def _rotated(lanes: Words, count: Any) -> Words:
    halves = lanes.view(np.uint32)
    return (halves << count | halves >> (np.uint32(32) - count)).view(np.uint64)


def _packets_of_rest(data: Bytes, begin: Int64s, size: Int64s) -> Bytes:
    # whole words of four stay; what is over goes to 16..18, or with its neighbours to 28..31
    lanes, words, over = np.arange(32), size & ~3, size & 3
    packets = data.take(begin[:, None] + lanes, mode="clip")
    packets[lanes >= words[:, None]] = 0
    long = np.flatnonzero(size & 16)
    packets[long, 28:] = data[(begin + size)[long, None] + np.arange(-4, 0)]
    short = np.flatnonzero((size & 16 == 0) & (over > 0))
    first, left = (begin + words)[short], over[short]
    packets[short, 16] = data[first]
    packets[short, 17] = data[first + (left >> 1)]
    packets[short, 18] = data[first + left - 1]
    return packets
