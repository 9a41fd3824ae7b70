"""Shuffling: a keyed bijection on [0, n) that is computed, not stored.

Up to n = 4,096 it is a table, sorted by hash. Above, it is a Feistel network over mixed radices
(Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002, section 5), iterated until the
result is inside [0, n).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from operator import index
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.block import Int64s, as_int64
from pipeline.errors import ChainError, PositionError

MOST: Final = 1 << 48
TABLE: Final = 1 << 12  # up to this n, a table costs about as much as one call of the network
CHUNK: Final = 1 << 14  # indices at a time, so that temporaries stay in the L2 cache
KEPT: Final = 2048  # orders, and tables of at most 8 KB: mixes have many datasets
FEW: Final = 8  # up to so many indices, Python integers are faster than arrays
ROUND_PAIRS: Final = 4

UInt32s = NDArray[np.uint32]
Scalar = NDArray[Any]  # 0-d array: a ufunc takes it 0.2 µs faster than a number


@dataclass(frozen=True, slots=True)
class Permutation:
    """A keyed bijection on [0, n): vectorised, exact, and the same on every platform and NumPy.

    All indices cost about the same. Nothing of size n is stored beyond n = 4,096. It pickles as two
    numbers. It has good statistics, but is not secure.

    Args:
        n: number of positions, 0 to 2**48.
        key: 128 bits from `derive_seed`.

    Raises:
        ChainError: n or the key is outside its range.

    >>> from pipeline.seeds import derive_seed
    >>> order = Permutation(5, derive_seed(0, "shuffle", 0))
    >>> sorted(order(np.arange(5)).tolist())
    [0, 1, 2, 3, 4]
    >>> order.inverse(order(np.array([3, 0, 3]))).tolist()
    [3, 0, 3]
    """

    n: int
    key: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", index(self.n))  # as NumPy integers they would overflow
        object.__setattr__(self, "key", index(self.key))
        if not 0 <= self.n <= MOST:
            raise ChainError(
                f"a permutation orders 0 to 2**48 positions, got n={self.n}. Shuffle parts of it."
            )
        if not 0 <= self.key < 1 << 128:
            raise ChainError(f"key={self.key} is not of 128 bits. Take it from derive_seed.")

    def __call__(self, indices: Int64s) -> Int64s:
        """The values at the positions `indices`: int64[m] to int64[m], in any order, with repeats.

        Raises:
            PositionError: an index is outside [0, n).
        """
        x = self._checked(indices)
        if self.n <= TABLE:
            return _table(self.n, self.key)[x].astype(np.int64)
        return _chunked(_network(self.n, self.key).forward, x)

    def inverse(self, values: Int64s) -> Int64s:
        """The positions of `values`: int64[m] to int64[m].

        Raises:
            PositionError: a value is outside [0, n).
        """
        x = self._checked(values)
        if self.n <= TABLE:
            return _inverse_table(self.n, self.key)[x].astype(np.int64)
        return _chunked(_network(self.n, self.key).backward, x)

    def _checked(self, indices: Int64s) -> Int64s:
        x = as_int64(indices)
        # as unsigned integers, negative ones are huge: a single pass checks both ends
        if x.size and int(x.view(np.uint64).max()) >= self.n:
            bad = int(x[(x < 0) | (x >= self.n)][0])
            raise PositionError(f"position {bad} lies outside [0, {self.n}). Ask for one inside.")
        return x


def _words(n: int, key: int, dtype: str, count: int) -> list[int]:
    # n is hashed too, so that orders of two lengths with the same key are unrelated
    text = key.to_bytes(16, "little") + n.to_bytes(8, "little")
    digest = hashlib.blake2b(text, digest_size=64, person=b"permutation").digest()
    return [int(word) for word in np.frombuffer(digest, dtype=dtype, count=count)]


def _mix64(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    # the finaliser of SplitMix64 (Stafford's mix 13): a bijection on 64 bits
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@lru_cache(maxsize=KEPT)
def _table(n: int, key: int) -> NDArray[np.uint16]:
    low, high = (np.uint64(word) for word in _words(n, key, "<u8", 2))
    indices = np.arange(n, dtype=np.uint64)
    hashed = _mix64(_mix64(indices + low) ^ high)
    # the index in the lowest bits breaks ties, so the result does not depend on the sort algorithm
    index_bits = np.uint64(TABLE)
    packed = np.sort(hashed // index_bits * index_bits + indices)
    table = (packed % index_bits).astype(np.uint16)
    table.flags.writeable = False
    return table


@lru_cache(maxsize=KEPT)
def _inverse_table(n: int, key: int) -> NDArray[np.uint16]:
    table = np.empty(n, np.uint16)
    table[_table(n, key)] = np.arange(n, dtype=np.uint16)
    table.flags.writeable = False
    return table


def _chunked(step: Callable[[Int64s], Int64s], x: Int64s) -> Int64s:
    if len(x) <= CHUNK:
        return step(x)
    out = np.empty_like(x)
    for start in range(0, len(x), CHUNK):
        out[start : start + CHUNK] = step(x[start : start + CHUNK])
    return out


def _scalar(value: int, dtype: type[np.generic]) -> Scalar:
    return np.array(value, dtype)


_FIFTEEN: Final = _scalar(15, np.uint32)
_THIRTY_TWO: Final = _scalar(32, np.uint64)
_MULTIPLIER: Final = _scalar(0x846CA68B, np.uint32)  # from lowbias32, Wellons, hash-prospector


class _Network:
    """A Feistel network: a bijection on [0, a * 2**q), the smallest such domain that holds n.

    A number is split as l * 2**q + r. Even rounds add a hash of r to l modulo a, odd rounds xor a
    hash of l into r. As a and 2**q are near the root of n, fewer than one position in 2**(q - 1)
    maps to outside of [0, n) and is mapped again.
    """

    def __init__(self, n: int, key: int) -> None:
        self.n = n
        self.q = q = (n - 1).bit_length() // 2
        self.a = a = -(-n >> q)
        words = _words(n, key, "<u4", 4 * ROUND_PAIRS)
        pairs = list(zip(words[::2], (word | 1 for word in words[1::2]), strict=True))
        self.numbers = list(zip(pairs[::2], pairs[1::2], strict=True))
        scalars = [(_scalar(add, np.uint32), _scalar(odd, np.uint32)) for add, odd in pairs]
        self.rounds = list(zip(scalars[::2], scalars[1::2], strict=True))
        self.shift, self.mask = _scalar(q, np.int64), _scalar((1 << q) - 1, np.int64)
        self.a32, self.a64 = _scalar(a, np.uint32), _scalar(a, np.uint64)
        self.top = _scalar(32 - q, np.uint32)

    def forward(self, x: Int64s) -> Int64s:
        if len(x) <= FEW:
            return np.array([self._one(i) for i in x.tolist()], np.int64)
        y = self._forward(x)
        outside = self._outside(y)
        if outside.size:
            y[outside] = self.forward(y[outside])
        return y

    def backward(self, y: Int64s) -> Int64s:
        x = self._backward(y)
        outside = self._outside(x)
        if outside.size:
            x[outside] = self.backward(x[outside])
        return x

    def _outside(self, y: Int64s) -> NDArray[np.intp]:
        # what is outside [0, n) is mapped again until it is inside: this keeps it a bijection
        return np.flatnonzero(y >= self.n)

    def _one(self, i: int) -> int:
        # the same with Python integers: ten times as fast as arrays of one element
        while True:
            l, r = i >> self.q, i & ((1 << self.q) - 1)
            for (add0, odd0), (add1, odd1) in self.numbers:
                l = (l + (_hash_one(r, add0, odd0) * self.a >> 32)) % self.a
                r ^= _hash_one(l, add1, odd1) >> (32 - self.q)
            i = l << self.q | r
            if i < self.n:
                return i

    def _forward(self, x: Int64s) -> Int64s:
        l, r = self._split(x)
        t, s, wide = _scratch(len(x))
        for even, odd in self.rounds:
            self._below_a(r, even, t, s, wide)
            np.add(l, t, l)
            np.subtract(l, self.a32, t)
            np.minimum(l, t, out=l)  # l - a wraps around to a huge number if l < a
            self._below_2q(l, odd, t, s)
            np.bitwise_xor(r, t, r)
        return self._join(l, r)

    def _backward(self, y: Int64s) -> Int64s:
        l, r = self._split(y)
        t, s, wide = _scratch(len(y))
        for even, odd in reversed(self.rounds):
            self._below_2q(l, odd, t, s)
            np.bitwise_xor(r, t, r)
            self._below_a(r, even, t, s, wide)
            np.subtract(l, t, l)
            np.add(l, self.a32, t)
            np.minimum(l, t, out=l)  # l - t wraps around if it is negative
        return self._join(l, r)

    def _split(self, x: Int64s) -> tuple[UInt32s, UInt32s]:
        return (x >> self.shift).astype(np.uint32), (x & self.mask).astype(np.uint32)

    def _join(self, l: UInt32s, r: UInt32s) -> Int64s:
        out = l.astype(np.int64)
        np.left_shift(out, self.shift, out)
        return np.bitwise_or(out, r, out)

    def _below_a(
        self, x: UInt32s, key: tuple[Scalar, Scalar], t: UInt32s, s: UInt32s, wide: Scalar
    ) -> None:
        _hash(x, key, t, s)
        np.multiply(t, self.a64, wide, dtype=np.uint64)
        np.right_shift(wide, _THIRTY_TWO, wide)
        np.copyto(t, wide, casting="unsafe")

    def _below_2q(self, x: UInt32s, key: tuple[Scalar, Scalar], t: UInt32s, s: UInt32s) -> None:
        _hash(x, key, t, s)
        np.right_shift(t, self.top, t)


_network = lru_cache(maxsize=KEPT)(_Network)


def _scratch(m: int) -> tuple[UInt32s, UInt32s, NDArray[np.uint64]]:
    return np.empty(m, np.uint32), np.empty(m, np.uint32), np.empty(m, np.uint64)


def _hash(x: UInt32s, key: tuple[Scalar, Scalar], t: UInt32s, s: UInt32s) -> None:
    # xor, multiply, xorshift, multiply: far from affine in the high bits, the only ones used
    add, odd = key
    np.bitwise_xor(x, add, t)
    np.multiply(t, odd, t)
    np.right_shift(t, _FIFTEEN, s)
    np.bitwise_xor(t, s, t)
    np.multiply(t, _MULTIPLIER, t)


def _hash_one(x: int, add: int, odd: int) -> int:
    t = (x ^ add) * odd & 0xFFFFFFFF
    return (t ^ t >> 15) * 0x846CA68B & 0xFFFFFFFF
