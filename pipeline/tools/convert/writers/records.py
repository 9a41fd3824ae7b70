"""Writers of byte records: ArrayRecord, Bagz, TFRecord."""

from __future__ import annotations

import struct
from typing import Any

from pipeline.errors import need
from pipeline.tools.convert.writers.values import as_bytes


class Records:
    """Writes rows as byte records: bytes as they are, text in UTF-8, anything else as JSON.

    Args:
        path: of the file.
        writer: has `write(bytes)` and `close()`.
        what: the kind of file, for messages.
    """

    def __init__(self, path: str, writer: Any, what: str) -> None:
        self._path, self._writer, self._what = path, writer, what

    def write(self, rows: list[Any]) -> None:
        for row in rows:
            self._writer.write(as_bytes(row, self._what))

    def close(self) -> list[str]:
        self._writer.close()
        return [self._path]


def array_records(path: str) -> Records:
    """ArrayRecord with one record in each chunk, so that reading one takes a single small read."""
    from array_record.python.array_record_module import (  # pyright: ignore[reportMissingImports, reportMissingTypeStubs]
        ArrayRecordWriter,
    )

    return Records(path, ArrayRecordWriter(path, "group_size:1"), "an ArrayRecord file")


def bagz(path: str) -> Records:
    """Bagz: each record is compressed by itself; a table of their ends follows at the end.

    Raises:
        MissingExtraError: the package bagz is not installed.
    """
    try:
        import bagz
    except ImportError as e:
        raise need("formats", "bagz") from e
    # stated, since temporary files have no suffix that would tell
    options = bagz.Writer.Options(compression=bagz.CompressionZstd())
    return Records(path, bagz.Writer(path, options), "a Bagz file")


def tf_records(path: str) -> Records:
    """TFRecord: length, its checksum, the record, its checksum.

    Raises:
        MissingExtraError: the package google-crc32c is not installed.
    """
    return Records(path, _TFRecordFile(path), "a TFRecord file")


class _TFRecordFile:
    def __init__(self, path: str) -> None:
        try:
            import google_crc32c
        except ImportError as e:
            raise need("formats", "google-crc32c") from e
        self._crc = google_crc32c.value
        self._file = open(path, "wb")  # noqa: SIM115
        self.close = self._file.close

    def write(self, record: bytes) -> None:
        length = struct.pack("<Q", len(record))
        self._file.write(length + self._masked(length) + record + self._masked(record))

    def _masked(self, data: bytes) -> bytes:
        # rotated and shifted, so that checksums of checksums do not repeat (TensorFlow's crc32c.h)
        crc = self._crc(data)
        return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)
