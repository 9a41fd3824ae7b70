"""Writers of text: each row is a line, as JSON or as it is."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from pipeline.errors import ChainError
from pipeline.tools.convert.writers.values import as_json, in_utf8


class Lines:
    """Writes rows as lines. A format defines the line of a row."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = open(path, "wb")  # noqa: SIM115

    def write(self, rows: list[Any]) -> None:
        self._file.write(b"".join(self._line(row) + b"\n" for row in rows))

    def close(self) -> list[str]:
        self._file.close()
        return [self._path]

    def _line(self, row: Any) -> bytes:
        raise NotImplementedError


class JsonLines(Lines):
    """Writes JSON lines. Arrays become lists; bytes that hold JSON become its value."""

    def _line(self, row: Any) -> bytes:
        if isinstance(row, bytes):  # byte records of other formats hold rows as JSON
            with contextlib.suppress(ValueError):
                row = json.loads(row)
        return as_json(row, "a file of JSON lines")


class TextLines(Lines):
    """Writes text, bytes in UTF-8, or dicts whose only field is "text"."""

    def _line(self, row: Any) -> bytes:
        text = row["text"] if isinstance(row, dict) and set(row) == {"text"} else row
        data = in_utf8(text, "a file of lines") if isinstance(text, str) else text
        if not isinstance(data, bytes) or b"\n" in data or b"\r" in data:
            raise ChainError(
                f"a file of lines cannot hold the row {str(row)[:80]!r}: it must be text without "
                "line breaks. Write .jsonl, or give --map module:function, which returns such text."
            )
        return data
