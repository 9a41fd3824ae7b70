"""Where randomness comes from: seeds hash names; a row's generator hashes its provenance."""

from __future__ import annotations

import ctypes
import hashlib
import struct
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Name = str | int | bytes | tuple["Name", ...] | None


def _encode(name: Name) -> bytes:
    # type tag and length before each name: ("a", "b") and ("ab",) must never collide
    if name is None:
        return b"n0:"
    if isinstance(name, tuple):
        body = b"".join(_encode(part) for part in name)
        return b"t%d:" % len(name) + body
    if isinstance(name, bytes):
        return b"b%d:" % len(name) + name
    if isinstance(name, str):
        text = name.encode()
        return b"s%d:" % len(text) + text
    if isinstance(name, int | np.integer) and not isinstance(name, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
        digits = b"%d" % int(name)
        return b"i%d:" % len(digits) + digits
    raise TypeError(
        f"a seed is made of str, int, bytes, None and tuples of them, not {name!r} "
        f"({type(name).__name__})"
    )


def derive_seed(*names: Name) -> int:
    """A 128-bit seed from names, by BLAKE2b over an unambiguous encoding; stable everywhere.

    Seeds are hashed, never added: `seed + epoch` makes run 0's second epoch run 1's first.

    >>> derive_seed(0, "shuffle", 1) == derive_seed(0, "shuffle", 1)
    True
    >>> derive_seed(0, "shuffle", 1) == derive_seed(1, "shuffle", 0)
    False
    """
    digest = hashlib.blake2b(b"".join(_encode(name) for name in names), digest_size=16).digest()
    return int.from_bytes(digest, "little")


def _fold(place: Sequence[int]) -> int:
    # places of depth 0 and 1 keep their value, so no two of them meet; deeper ones are hashed
    steps = [p for p in place if p >= 0]
    if not steps:
        return 0
    return steps[0] + 1 if len(steps) == 1 else derive_seed("place", tuple(steps)) >> 64


class RowGenerators:
    """The generators of one random stage in one component: Philox with provenance as its counter.

    `at` returns the same Generator object each time, set to another row, so it is valid until the
    next call. A new Philox costs 7 µs, setting its state 2; writing the counter where NumPy keeps
    it costs half a microsecond.

    >>> rows = RowGenerators(derive_seed(0, ("en",), "random_map", "crop"))
    >>> first = rows.at(0, record=5).integers(1000)
    >>> int(rows.at(0, record=5).integers(1000)) == int(first)
    True
    """

    def __init__(self, key: int) -> None:
        words = np.array([key & (2**64 - 1), key >> 64], dtype=np.uint64)
        self._bits = np.random.Philox(key=words)
        self._key = words
        self._generator = np.random.Generator(self._bits)
        self._memory = _memory_of(self._bits) if _laid_out_as_known() else None

    def at(self, epoch: int, record: int, place: Sequence[int] = ()) -> np.random.Generator:
        """The generator of one row, as if freshly made."""
        folded = _fold(place) if place else 0
        if self._memory is not None:
            counter, rest = self._memory
            _COUNTER(counter, 0, 0, folded, record, epoch)
            _REST(rest, 0, 4, 0, 0)
            return self._generator
        self._bits.state = _state(self._key, folded, record, epoch)
        return self._generator


def _state(key: NDArray[np.uint64], *words: int) -> Any:
    return {
        "bit_generator": "Philox",
        "state": {"counter": np.array([0, *words], dtype=np.uint64), "key": key},
        "buffer": np.zeros(4, np.uint64),
        "buffer_pos": 4,
        "has_uint32": 0,
        "uinteger": 0,
    }


# ---- where NumPy keeps the state of a Philox: `philox_state` of numpy/random/src/philox/philox.h.
# Pointers to counter and key, buffer_pos, four words of buffer, has_uint32, uinteger.

_COUNTER = struct.Struct("=4Q").pack_into
_REST = struct.Struct("=i4x32xiI").pack_into
_WORDS, _AFTER = ctypes.c_char * 32, ctypes.c_char * 48


def _memory_of(bits: np.random.Philox) -> tuple[Any, Any]:
    # the generator's own memory: good as long as the generator is there
    address = int(bits.ctypes.state_address)
    counter = ctypes.c_uint64.from_address(address).value
    return _WORDS.from_address(counter), _AFTER.from_address(address + 16)


@cache
def _laid_out_as_known() -> bool:
    """Whether memory holds what `state` tells, found by reading alone before anything is written.

    It does in every NumPy so far; where it does not, `state` is set.
    """
    if ctypes.sizeof(ctypes.c_void_p) != 8:
        return False
    bits = np.random.Philox(key=np.array([3, 5], np.uint64), counter=[7, 11, 13, 17])
    np.random.Generator(bits).integers(0, 9, 3, dtype=np.uint32)  # half of a word is left over
    told: Any = bits.state
    address = int(bits.ctypes.state_address)
    counter, key = struct.unpack("=2Q", ctypes.string_at(address, 16))
    inside = {address + at for at in range(-1024, 1024, 8)}  # both lie in the object itself
    if not {counter, key} <= inside:
        return False
    position, *buffer, has, left = struct.unpack("=i4x4QiI", ctypes.string_at(address + 16, 48))
    return (
        ctypes.string_at(counter, 32) == told["state"]["counter"].tobytes()
        and ctypes.string_at(key, 16) == told["state"]["key"].tobytes()
        and buffer == told["buffer"].tolist()
        and (position, has, left) == (told["buffer_pos"], told["has_uint32"], told["uinteger"])
    )
