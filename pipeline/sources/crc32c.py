"""The checksums in TFRecord files: CRC-32C, masked."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import need

_POLYNOMIAL = 0x82F63B78  # Castagnoli, bit-reversed
_MASK = 0xA282EAD8


def masked(data: bytes) -> int:
    """The masked CRC-32C of some bytes.

    Raises:
        MissingExtraError: google-crc32c is not installed.

    >>> hex(masked(b"123456789"))
    '0xc78ab0e5'
    """
    crc = _native().value(data)
    return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF


def masked_columns(table: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """The masked CRC-32C of each row of a uint8[n, k] table, for small k: uint32[n].

    >>> rows = np.frombuffer(b"123456789", np.uint8).reshape(1, 9)
    >>> hex(masked_columns(rows)[0])
    '0xc78ab0e5'
    """
    crc, steps = np.full(len(table), 0xFFFFFFFF, np.uint32), _steps()
    for column in table.T:
        crc = steps[(crc ^ column) & 0xFF] ^ crc >> 8
    crc = ~crc
    return ((crc >> 15 | crc << 17) + np.uint32(_MASK)).astype(np.uint32)


@functools.cache
def _steps() -> NDArray[np.uint32]:
    steps = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        steps = steps >> 1 ^ (steps & 1) * np.uint32(_POLYNOMIAL)
    return steps.astype(np.uint32)


@functools.cache
def _native() -> Any:
    try:
        import google_crc32c
    except ImportError as e:
        raise need("formats", "google-crc32c") from e
    return google_crc32c
