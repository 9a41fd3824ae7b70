"""Bijections that look shuffled and are not: what an audit must tell from random orders."""

from __future__ import annotations

import numpy as np

from pipeline.block import Int64s
from pipeline.seeds import derive_seed


class AffineFeistel:
    """A balanced Feistel network whose round function is affine modulo 2**k, walked into [0, n)."""

    def __init__(self, n: int, key: int) -> None:
        self.n = n
        self.half = ((n - 1).bit_length() + 1) // 2
        rng = np.random.default_rng(key)
        self.keys = [(2 * int(m) + 1, int(c)) for m, c in rng.integers(1 << 30, size=(8, 2))]

    def __call__(self, indices: Int64s) -> Int64s:
        x = self._once(indices)
        while (outside := x >= self.n).any():
            x[outside] = self._once(x[outside])
        return x

    def _once(self, x: Int64s) -> Int64s:
        mask = (1 << self.half) - 1
        left, right = x >> self.half, x & mask
        for multiplier, constant in self.keys:
            left, right = right, (left + right * multiplier + constant) & mask
        return left << self.half | right


def affine_feistel(n: int):
    return lambda seed, epoch: AffineFeistel(n, derive_seed(seed, epoch))


def congruential(n: int):
    """i * a + c modulo n, a coprime to n."""

    def permute(seed: int, epoch: int):
        rng = np.random.default_rng([seed, epoch])
        a = next(a for a in map(int, rng.integers(n // 4, n, 1000)) if np.gcd(a, n) == 1)
        c = int(rng.integers(n))
        return lambda i: (i * a + c) % n

    return permute


def rotation(n: int):
    def permute(seed: int, epoch: int):
        c = int(np.random.default_rng([seed, epoch]).integers(n))
        return lambda i: (i + c) % n

    return permute


def true_random(n: int):
    def permute(seed: int, epoch: int):
        order = np.random.default_rng([7, seed, epoch]).permutation(n)
        return lambda i: order[i]

    return permute
