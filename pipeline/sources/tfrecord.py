"""TFRecord files. They have no index, so each file is read through once."""

from __future__ import annotations

from copy import copy
from typing import Any

import numpy as np

from pipeline.block import Int64s
from pipeline.errors import MissingExtraError, SourceError
from pipeline.sources.crc32c import masked, masked_columns
from pipeline.sources.framed import FramedSource
from pipeline.sources.storage.arrays import Arrays
from pipeline.sources.storage.files import Paths
from pipeline.sources.storage.gather import Window, refuse_packed
from pipeline.sources.storage.side_index import indexed
from pipeline.sources.storage.storage import Stat, Storage

# bytes before a record (its length, and the length's checksum) and after it (its checksum)
_HEAD, _FOOT = 12, 4
_LAYOUT = np.dtype([("length", "<u8"), ("crc", "<u4")])


class TFRecordSource(FramedSource):
    """Records of TFRecord files as bytes objects. Several files count as one, in the order given.

    Each file is read through once to find where its records begin, and the offsets are kept in the
    cache folder. Checksums of lengths are checked then, those of records when they are read.
    `parse_example` turns a record that is a `tf.train.Example` into a dict, and
    `parse_sequence_example` one that is a `SequenceExample` into two.

    Args:
        paths: a path, a glob, or a list of these; globs are sorted.
        verify: whether to check each record's CRC-32C, with google-crc32c.
        storage: how URLs are read.

    Raises:
        SourceError: a file is missing, compressed or not a TFRecord file, or a length is corrupt.
        MissingExtraError: google-crc32c is not installed, and verify is True.

    >>> import pathlib, struct, tempfile
    >>> def framed(data):
    ...     size = struct.pack("<Q", len(data))
    ...     return size + struct.pack("<I", masked(size)) + data + struct.pack("<I", masked(data))
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "a.tfrecord"
    >>> _ = path.write_bytes(b"".join(map(framed, [b"to", b"be", b"or"])))
    >>> TFRecordSource(path).read(np.array([2, 0, 2]))
    [b'or', b'to', b'or']
    """

    _scanned = True

    def __init__(
        self, paths: Paths, *, verify: bool = True, storage: Storage | None = None
    ) -> None:
        self._verify = verify
        if verify:
            _check_can_verify()
        super().__init__(paths, "tfrecord 1", _load, storage, ("tfrecord",))

    def read(self, indices: Int64s) -> list[bytes]:
        """Records by index: a list of n bytes objects, in the order given, repeats included.

        Raises:
            PositionError: an index is negative or beyond the end.
            RecordError: a record is truncated or fails its checksum; the others stay readable.
            SourceError: a file was removed, truncated or replaced.
        """
        at = self._locate(indices)
        frames = self._fetch(at)
        records = [frame[_HEAD:-_FOOT] for frame in frames]
        if self._verify:
            for i, record in enumerate(records):
                if masked(record) != int.from_bytes(frames[i][-_FOOT:], "little"):
                    raise self._bad(at, i, "its checksum (CRC-32C) does not fit")
        return records

    def verifying(self) -> TFRecordSource:
        """The same source, with checksums of records checked.

        Raises:
            MissingExtraError: google-crc32c is not installed.
        """
        _check_can_verify()
        same = copy(self)
        same._verify = True
        return same


def _check_can_verify() -> None:
    try:
        masked(b"")
    except MissingExtraError as e:
        e.add_note("or leave checksums unchecked: TFRecordSource(paths, verify=False)")
        raise


def _load(stat: Stat, storage: Storage) -> Arrays:
    return indexed(stat, storage, "tfrecord 1", _scan)


def _scan(stat: Stat, storage: Storage) -> Arrays:
    """Start and stop of each record's frame. A truncated record stops beyond the file's end."""
    window, offset, heads = Window(stat, storage), 0, bytearray()
    starts: list[int] = []
    refuse_packed(stat.path, window.at(0, _HEAD))
    while offset < stat.size:
        head = window.at(offset, _HEAD)
        starts.append(offset)
        heads += head
        offset += _HEAD + _FOOT + int.from_bytes(head[:8], "little")
    start = np.array(starts, np.int64)
    left = len(heads) % _HEAD  # bytes of a last head that the end of the file cuts off
    whole = np.frombuffer(heads, _LAYOUT, len(heads) // _HEAD)
    _check_lengths(stat, start, whole)
    # a length may be up to 2**64 - 1; the file's size is enough to mark it as truncated
    length = np.minimum(whole["length"], np.uint64(stat.size)).astype(np.int64)
    stop = start[: len(whole)] + length + _HEAD + _FOOT
    return {"start": start, "stop": np.append(stop, stat.size + _FOOT) if left else stop}


def _check_lengths(stat: Stat, start: Int64s, heads: Any) -> None:
    lengths = np.ascontiguousarray(heads["length"]).view(np.uint8).reshape(len(heads), 8)
    for i in np.flatnonzero(masked_columns(lengths) != heads["crc"])[:1].tolist():
        raise SourceError(
            f"the length of record {i} of {stat.path}, bytes {start[i]} to {start[i] + _HEAD}, "
            "fails its checksum, so the records after it cannot be found. Is this a TFRecord "
            "file? Rewrite it, or remove it from paths."
        )
