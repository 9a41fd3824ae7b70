"""How text is written: a row a line, as JSON or as it is."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from pipeline.errors import ChainError
from pipeline.tools.convert.writers.values import as_json


class JsonLines:
    """Writes rows as lines of JSON; arrays become lists, and bytes that are JSON what they say."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = open(path, "wb")  # noqa: SIM115

    def write(self, rows: list[Any]) -> None:
        lines = [as_json(_said(row), "a file of JSON lines") for row in rows]
        self._file.write("".join(f"{line}\n" for line in lines).encode())

    def close(self) -> list[str]:
        self._file.close()
        return [self._path]


def _said(row: Any) -> Any:
    # as records of bytes hold rows of other formats
    if isinstance(row, bytes):
        with contextlib.suppress(ValueError):
            return json.loads(row)
    return row


class TextLines:
    """Writes rows as lines: text, or bytes in UTF-8, or dicts with nothing but a field "text"."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = open(path, "wb")  # noqa: SIM115

    def write(self, rows: list[Any]) -> None:
        self._file.write(b"".join(_line(row) for row in rows))

    def close(self) -> list[str]:
        self._file.close()
        return [self._path]


def _line(row: Any) -> bytes:
    text = row["text"] if isinstance(row, dict) and set(row) == {"text"} else row
    data = text.encode() if isinstance(text, str) else text
    if not isinstance(data, bytes) or b"\n" in data or b"\r" in data:
        raise ChainError(
            f"a file of lines cannot hold the row {str(row)[:80]!r}: it must be text without line "
            "breaks. Write .jsonl, or give --map module:function, which returns such text."
        )
    return data + b"\n"
