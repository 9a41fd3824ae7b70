"""How Bagz files are written: each record compressed alone, a table of their ends at the end."""

from __future__ import annotations

from typing import Any

from pipeline.errors import need
from pipeline.tools.convert.writers.values import as_bytes


class Bagz:
    """Writes rows as records: bytes as they are, text in UTF-8, all else as JSON.

    Raises:
        MissingExtraError: the package bagz is not installed.
    """

    def __init__(self, path: str) -> None:
        try:
            import bagz
        except ImportError as e:
            raise need("formats", "bagz") from e
        self._path = path
        # named, as temporary files have no suffix to tell it by
        options = bagz.Writer.Options(compression=bagz.CompressionZstd())
        self._writer = bagz.Writer(path, options)

    def write(self, rows: list[Any]) -> None:
        for row in rows:
            self._writer.write(as_bytes(row, "a Bagz file"))

    def close(self) -> list[str]:
        self._writer.close()
        return [self._path]
