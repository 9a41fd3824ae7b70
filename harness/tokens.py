"""How text becomes tokens: the bytes of UTF-8, after one token that begins a document."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BOS = 256
VOCAB = 264  # 256 bytes and BOS, rounded up to a multiple of 8


def encode(text: bytes) -> NDArray[np.int32]:
    """Tokens of a document: BOS, then its bytes.

    >>> encode(b"Hi").tolist()
    [256, 72, 105]
    """
    return np.concatenate([[BOS], np.frombuffer(text, np.uint8)]).astype(np.int32)


def decode(tokens: NDArray[np.int32]) -> str:
    """Text of tokens; BOS vanishes, and a character cut in two shows as U+FFFD.

    >>> decode(encode("§ 1".encode()))
    '§ 1'
    """
    return bytes(tokens[tokens < BOS].astype(np.uint8)).decode(errors="replace")
