"""How ArrayRecord files are written: a record a chunk, so that any of them is one small read."""

from __future__ import annotations

from typing import Any

from pipeline.tools.convert.writers.values import as_bytes


class ArrayRecords:
    """Writes rows as records: bytes as they are, text in UTF-8, all else as JSON."""

    def __init__(self, path: str) -> None:
        from array_record.python.array_record_module import (  # pyright: ignore[reportMissingImports, reportMissingTypeStubs]
            ArrayRecordWriter,
        )

        self._path = path
        self._writer = ArrayRecordWriter(path, "group_size:1")

    def write(self, rows: list[Any]) -> None:
        for row in rows:
            self._writer.write(as_bytes(row, "an ArrayRecord file"))

    def close(self) -> list[str]:
        self._writer.close()
        return [self._path]
