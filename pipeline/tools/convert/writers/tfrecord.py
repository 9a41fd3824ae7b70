"""How TFRecord files are written: length, its checksum, the record, its checksum."""

from __future__ import annotations

import struct
from typing import Any

from pipeline.errors import need
from pipeline.tools.convert.writers.values import as_bytes


class TFRecords:
    """Writes rows as records: bytes as they are, text in UTF-8, all else as JSON.

    Raises:
        MissingExtraError: the package google-crc32c is not installed.
    """

    def __init__(self, path: str) -> None:
        try:
            import google_crc32c
        except ImportError as e:
            raise need("formats", "google-crc32c") from e
        self._crc = google_crc32c.value
        self._path = path
        self._file = open(path, "wb")  # noqa: SIM115

    def write(self, rows: list[Any]) -> None:
        for row in rows:
            record = as_bytes(row, "a TFRecord file")
            length = struct.pack("<Q", len(record))
            self._file.write(length + self._masked(length) + record + self._masked(record))

    def _masked(self, data: bytes) -> bytes:
        # rotated and shifted, so that checksums of checksums do not repeat (TensorFlow's crc32c.h)
        crc = self._crc(data)
        return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)

    def close(self) -> list[str]:
        self._file.close()
        return [self._path]
