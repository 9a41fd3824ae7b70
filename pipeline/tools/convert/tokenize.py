"""The `--tokenizer` option: turning the text of a row into tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ChainError, SourceError, need


class Tokenize:
    """Maps rows to `{"tokens": array[n]}`, uint16 if the vocabulary fits, else uint32.

    Args:
        name: "bytes" (each byte of UTF-8 is a token), or the path of a `tokenizer.json` of the
            tokenizers library.
        field: the field with the text, if rows are dicts; not used if rows are text or bytes.
        eos: a token, by name or number, that is added after each text; None for none.

    Raises:
        MissingExtraError: the tokenizers library is not installed.
        SourceError: the file is not a tokenizer.
        ChainError: it has no such token.

    >>> Tokenize("bytes", eos=0)("to")["tokens"]
    array([116, 111,   0], dtype=uint16)
    """

    def __init__(self, name: str, *, field: str = "text", eos: str | int | None = None) -> None:
        self._name, self._field = name, field
        self._text = "" if name == "bytes" else _read(name)
        self._tokenizer: Any = None
        self._eos = () if eos is None else (self._token(eos),)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_tokenizer": None}  # created again where it is used

    def fingerprint(self) -> str:
        """All that the tokens depend on."""
        return repr((self._name == "bytes", self._text, self._field, self._eos))

    def __call__(self, row: Any) -> dict[str, NDArray[Any]]:
        text = self._text_of(row)
        if self._name == "bytes":
            data = text.encode() if isinstance(text, str) else text
            ids = np.frombuffer(data, np.uint8).astype(np.uint16)
        else:
            words = text if isinstance(text, str) else text.decode()
            known = self._loaded()
            wide = np.uint16 if known.get_vocab_size() <= 1 << 16 else np.uint32
            ids = np.array(known.encode(words).ids, wide)
        return {"tokens": np.concatenate([ids, np.array(self._eos, ids.dtype)])}

    def _text_of(self, row: Any) -> str | bytes:
        text = row.get(self._field) if isinstance(row, dict) else row
        if not isinstance(text, str | bytes):
            has = f"has {sorted(row)}" if isinstance(row, dict) else f"is a {type(row).__name__}"
            raise ChainError(
                f"--tokenizer wants text in field {self._field!r}, and a row {has}. Give --text "
                "FIELD, or --map module:function that returns text."
            )
        return text

    def _loaded(self) -> Any:
        if self._tokenizer is None:
            try:
                from tokenizers import Tokenizer
            except ImportError as e:
                raise need("convert", "tokenizers") from e
            try:
                self._tokenizer = Tokenizer.from_str(self._text)
            except Exception as e:
                raise SourceError(f"{self._name} is no tokenizer.json: {e}. Give another.") from e
            # texts stay whole, whatever length the file would cut or pad them to
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
        return self._tokenizer

    def _token(self, eos: str | int) -> int:
        number = not isinstance(eos, str) or eos.isdecimal()
        most = 256 if self._name == "bytes" else self._loaded().get_vocab_size()
        if number and 0 <= int(eos) <= most:
            return int(eos)
        found = None if number or self._name == "bytes" else self._loaded().token_to_id(str(eos))
        if found is None:
            raise ChainError(f"--eos {eos}: the tokenizer {self._name} has no such token")
        return int(found)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as f:
            return f.read()
    except OSError as e:
        raise SourceError(
            f'--tokenizer {path}: {e.strerror}. Give "bytes", or the path of a tokenizer.json.'
        ) from e
