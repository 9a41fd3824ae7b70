"""Seeded damage to the bytes of a file."""

from __future__ import annotations

import random

# numbers that a parser may wrap, allocate or loop over
EXTREMES = [
    b"\x00", b"\xff", b"\x7f", b"\x80", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f",
    b"\xff" * 8, b"\xff" * 7 + b"\x7f", b"\x00" * 7 + b"\x80", b"\xff" * 10, b"9" * 30, b"-1",
    b"[" * 50, b"{", b"}", b"'", b'"', b"\n", b"\\", b"\x00" * 8, b"1e999", b"NaN", b"%n", b"=",
]  # fmt: skip


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The bytes with one to four faults in them."""
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        data = rng.choice(_FAULTS)(data, rng)
    return data


def _place(data: bytes, rng: random.Random) -> int:
    # half of the faults hit the first or last 256 bytes, where headers and footers are
    n = len(data)
    near = rng.randrange(min(n, 256) or 1)
    return rng.choice([near, max(0, n - 1 - near), rng.randrange(n or 1), rng.randrange(n or 1)])


def _flip(data: bytes, rng: random.Random) -> bytes:
    at = _place(data, rng)
    return (
        data[:at]
        + bytes([(data[at : at + 1] or b"\0")[0] ^ 1 << rng.randrange(8)])
        + data[at + 1 :]
    )


def _overwrite(data: bytes, rng: random.Random) -> bytes:
    at, new = _place(data, rng), rng.choice(EXTREMES)
    return data[:at] + new + data[at + len(new) :]


def _insert(data: bytes, rng: random.Random) -> bytes:
    at = _place(data, rng)
    return data[:at] + rng.choice(EXTREMES) * rng.choice([1, 1, 9]) + data[at:]


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: _place(data, rng)]


def _remove(data: bytes, rng: random.Random) -> bytes:
    at = _place(data, rng)
    return data[:at] + data[at + rng.choice([1, 4, 8, 64, 512]) :]


def _repeat(data: bytes, rng: random.Random) -> bytes:
    at, size = _place(data, rng), rng.choice([1, 4, 8, 64, 512])
    return data[: at + size] + data[at:]


def _noise(data: bytes, rng: random.Random) -> bytes:
    at, size = _place(data, rng), rng.choice([1, 2, 8, 40])
    return data[:at] + rng.randbytes(size) + data[at + size :]


_FAULTS = [_flip, _flip, _flip, _overwrite, _overwrite, _insert, _cut, _remove, _repeat, _noise]
