"""Tokenizers: the bytes of UTF-8, or a tokenizer.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from harness.errors import ConfigError
from pipeline.errors import need

BOS = 256
VOCAB = 264  # 256 bytes and BOS, rounded up to a multiple of 8


def encode(text: bytes) -> NDArray[np.int32]:
    """Tokens of a document: BOS, then its bytes.

    >>> encode(b"Hi").tolist()
    [256, 72, 105]
    """
    return np.concatenate([[BOS], np.frombuffer(text, np.uint8)]).astype(np.int32)


def decode(tokens: NDArray[np.int32]) -> str:
    """The text of tokens. BOS is dropped, and an incomplete character becomes U+FFFD.

    >>> decode(encode("§ 1".encode()))
    '§ 1'
    """
    return bytes(tokens[tokens < BOS].astype(np.uint8)).decode(errors="replace")


class Tokenizer(Protocol):
    """From text to tokens and back. `vocab` is the number of tokens."""

    vocab: int

    def encode(self, text: bytes, *, begins: bool = True) -> NDArray[np.int32]: ...

    def decode(self, tokens: NDArray[np.int32]) -> str: ...

    def sizes(self) -> list[int]:
        """Bytes of text in each token that it knows; 0 for one that is not text."""
        ...


class Bytes:
    """The bytes of UTF-8, with BOS at the beginning of a document."""

    vocab = VOCAB

    def encode(self, text: bytes, *, begins: bool = True) -> NDArray[np.int32]:
        return encode(text)[0 if begins else 1 :]

    def decode(self, tokens: NDArray[np.int32]) -> str:
        return decode(tokens)

    def sizes(self) -> list[int]:
        return [1] * BOS + [0] * (VOCAB - BOS)


class JsonTokenizer:
    """A tokenizer.json of Hugging Face's tokenizers, whose own template adds special tokens.

    Documents stay whole, whatever length the file would cut or pad them to. `vocab` is rounded up
    to a multiple of 8, so that it can be split over devices.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._tokenizer = _load(path)
        self.vocab = -(-self._tokenizer.get_vocab_size() // 8) * 8

    def __reduce__(self) -> Any:
        return JsonTokenizer, (self._path,)  # worker processes read the file themselves

    def encode(self, text: bytes, *, begins: bool = True) -> NDArray[np.int32]:
        ids = self._tokenizer.encode(text.decode(), add_special_tokens=begins).ids
        return np.array(ids, np.int32)

    def decode(self, tokens: NDArray[np.int32]) -> str:
        return self._tokenizer.decode(tokens.tolist())

    def sizes(self) -> list[int]:
        known = self._tokenizer.get_vocab()
        # byte-level tokenizers write each byte as one character, a space as this one
        by_byte = any(text.startswith("\u0120") for text in known)
        sizes = [0] * (max(known.values(), default=0) + 1)
        for text, token in known.items():
            one = len(text) if by_byte else len(text.replace("\u2581", " ").encode())
            sizes[token] = 1 if text.startswith("<0x") and not by_byte else one
        for token, added in self._tokenizer.get_added_tokens_decoder().items():
            sizes[token] = 0 if added.special else len(added.content.encode())
        return sizes


def _load(path: str) -> Any:
    try:
        from tokenizers import Tokenizer as Loaded
    except ImportError as e:
        raise need("convert", "tokenizers") from e
    if not Path(path).is_file():
        raise ConfigError(f"data.tokenizer={path!r} is no file: give a tokenizer.json, or 'bytes'.")
    try:
        loaded = Loaded.from_file(path)
    except Exception as e:  # the package raises bare Exceptions
        raise ConfigError(f"data.tokenizer={path!r} is no tokenizer.json: {e}.") from e
    loaded.no_truncation()
    loaded.no_padding()
    return loaded


def make_tokenizer(name: str) -> Tokenizer:
    """The tokenizer of the setting data.tokenizer.

    >>> make_tokenizer("bytes").encode(b"Hi", begins=False).tolist()
    [72, 105]
    """
    return Bytes() if name == "bytes" else JsonTokenizer(name)
