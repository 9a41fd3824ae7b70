"""XXH3-128 of many inputs of 16 bytes, each with a seed of its own, as arithmetic on arrays.

The algorithm is XXH3's for lengths of 9 to 16 bytes, from its specification: xxHash 0.8,
doc/xxhash_spec.md, "Small input", `XXH3_128_9to16`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

UInt64s = NDArray[np.uint64]

_PRIME32_2 = np.uint64(0x85EBCA77)
_PRIME64_1, _PRIME64_2 = np.uint64(0x9E3779B185EBCA87), np.uint64(0xC2B2AE3D27D4EB4F)
_AVALANCHE = np.uint64(0x165667919E3779F9)
# of the default secret: bytes 32 to 39 xor 40 to 47, and 48 to 55 xor 56 to 63
_LOW, _HIGH = np.uint64(0x59973F0033362349), np.uint64(0xC202797692D63D58)
_HALF, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)


def summed(inputs: bytes, seeds: NDArray[Any]) -> int:
    """The sum modulo 2^128 of the hashes of n inputs.

    Args:
        inputs: 16 n bytes.
        seeds: int64[n], not negative.

    >>> import xxhash
    >>> summed(bytes(range(32)), np.array([7, 1 << 40])) == (
    ...     xxhash.xxh3_128_intdigest(bytes(range(16)), 7)
    ...     + xxhash.xxh3_128_intdigest(bytes(range(16, 32)), 1 << 40)
    ... ) % (1 << 128)
    True
    """
    words, seed = np.frombuffer(inputs, "<u8").reshape(-1, 2), seeds.astype(np.uint64)
    first, last = words[:, 0], words[:, 1]
    low, high = _product(first ^ last ^ (_LOW - seed), _PRIME64_1)
    low = low + np.uint64(15 << 54)  # the length less 1
    last = last ^ (_HIGH + seed)
    high = high + last + (last & _HALF) * (_PRIME32_2 - np.uint64(1))
    low, more = _product(low ^ high.byteswap(), _PRIME64_2)
    return (_total(_mixed(low)) + (_total(_mixed(more + high * _PRIME64_2)) << 64)) % (1 << 128)


def _product(a: UInt64s, b: np.uint64) -> tuple[UInt64s, UInt64s]:
    # of 64 by 64 bits: the lower and the upper 64
    a0, a1, b0, b1 = a & _HALF, a >> _32, b & _HALF, b >> _32
    cross, other = a1 * b0, a0 * b1
    middle = (a0 * b0 >> _32) + (cross & _HALF) + (other & _HALF)
    return a * b, a1 * b1 + (cross >> _32) + (other >> _32) + (middle >> _32)


def _mixed(h: UInt64s) -> UInt64s:
    h = (h ^ (h >> np.uint64(37))) * _AVALANCHE
    return h ^ (h >> _32)


def _total(h: UInt64s) -> int:
    return int((h & _HALF).sum()) + (int((h >> _32).sum()) << 32)
