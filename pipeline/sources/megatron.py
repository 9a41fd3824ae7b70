"""Megatron's indexed datasets: tokens in .bin files, their boundaries in .idx files."""

from __future__ import annotations

import functools
from typing import Literal

import numpy as np

from pipeline.errors import SourceError
from pipeline.sources.storage.arrays import Arrays
from pipeline.sources.storage.at_once import at_once
from pipeline.sources.storage.files import Files, ListedPath, Paths, expand, unreadable
from pipeline.sources.storage.location import beside, named
from pipeline.sources.storage.manifest import Facts
from pipeline.sources.storage.side_index import indexed
from pipeline.sources.storage.storage import Stat, Storage, is_url
from pipeline.sources.token_records import TokenRecords

_MAGIC = b"MMIDIDX\0\0"
_HEAD = 34  # bytes: magic, version, dtype code, number of sequences and of document indices
_FARTHEST = 1 << 60  # the largest offset to which a sequence's length can be added without overflow
_TYPES = {1: "<u1", 2: "<i1", 3: "<i2", 4: "<i4", 5: "<i8", 6: "<f8", 7: "<f4", 8: "<u2"}


class MegatronSource(TokenRecords):
    """Sequences or documents of Megatron's `.bin` and `.idx` files, each an array of tokens.

    The format is version 1 of Megatron-LM's `IndexedDataset` (magic `MMIDIDX`), which GPT-NeoX and
    NeMo write too. A document is one or more adjacent sequences.

    Args:
        paths: `.bin` files, each with its `.idx` beside it; a path, a glob, or a list of these.
        records: whether a record is a sequence or a document.
        storage: how URLs are read.

    Raises:
        SourceError: a file is missing or truncated, `.bin` and `.idx` do not belong together, or
            dtypes differ.

    >>> import struct, tempfile
    >>> path = tempfile.mkdtemp() + "/a"
    >>> np.array([5, 6, 7], np.uint16).tofile(path + ".bin")
    >>> with open(path + ".idx", "wb") as f:
    ...     _ = f.write(b"MMIDIDX\\0\\0" + struct.pack("<QBQQ", 1, 8, 2, 3))
    ...     _ = f.write(struct.pack("<2i2q3q", 2, 1, 0, 4, 0, 1, 2))
    >>> [s.tolist() for s in MegatronSource(path + ".bin").read(np.array([1, 0]))]
    [[7], [5, 6]]
    """

    def __init__(
        self,
        paths: Paths,
        *,
        records: Literal["sequences", "documents"] = "sequences",
        storage: Storage | None = None,
    ) -> None:
        if records not in ("sequences", "documents"):
            raise SourceError(f'{records=}: choose "sequences" or "documents"')
        storage = storage or Storage()
        bins = [ListedPath.of(stat) for stat in expand(paths, storage, empty=True)]
        for found in bins:
            if named(found.stat.path).endswith(".idx"):
                raise is_index(found.stat.path)
        load = functools.partial(_load, records == "documents")
        super().__init__(bins, "", load, storage, ("megatron", records))
        files = self._files
        sides = expand(map(_side, files.paths), storage)
        far = any(is_url(side.path) for side in sides)
        heads = at_once(lambda side: _head(side, storage), sides, far=far)
        self._dtype = heads[0][0]
        for path, (dtype, *_) in zip(files.paths, heads, strict=True):
            if dtype != self._dtype:
                raise SourceError(
                    f"tokens are {self.dtype} in {files.paths[0]} but {np.dtype(dtype)} in {path}. "
                    "Rewrite one, or join two sources by concatenate."
                )

    def fingerprint(self) -> str:
        """32 hex digits from base names, sizes, counts and ends of both files, and `records`."""
        files = self._files
        paths = list(map(_side, files.paths))
        sides = Files.counted_together(paths, lambda found: [Facts(0)] * len(found), files.storage)
        return files.fingerprint(*self._identity, sides.fingerprint("idx"))


def is_index(path: str) -> SourceError:
    """The error for an `.idx` file that was named instead of its `.bin`."""
    return SourceError(
        f"{path} is the index of a Megatron file: name the .bin beside it, {beside(path, '.bin')}."
    )


def _side(path: str) -> str:
    return beside(path, ".idx")


def _load(documents: bool, stat: Stat, storage: Storage) -> Arrays:
    (side,) = expand(_side(stat.path), storage)
    if documents:
        return indexed(side, storage, "megatron documents 1", _documents)
    return indexed(side, storage, "megatron sequences 1", _sequences)


def _sequences(side: Stat, storage: Storage) -> Arrays:
    dtype, sequences, _ = _head(side, storage)
    parts = (_HEAD, _HEAD + 4 * sequences, _HEAD + 12 * sequences)
    (raw,) = storage.read([side.range(parts[0], parts[2])])
    lengths = np.frombuffer(raw, "<i4", sequences).astype(np.int64)
    start = np.frombuffer(raw, "<i8", sequences, parts[1] - parts[0]).astype(np.int64)
    for i in np.flatnonzero((start < 0) | (start > _FARTHEST) | (lengths < 0))[:1].tolist():
        raise unreadable(
            side.path,
            f"a negative or impossible length or place of sequence {i}, {lengths[i]} tokens from "
            f"byte {start[i]} on: see its bytes {parts[0] + 4 * i} and {parts[1] + 8 * i}",
        )
    return {"start": start, "stop": start + lengths * np.dtype(dtype).itemsize}


def _documents(side: Stat, storage: Storage) -> Arrays:
    sequences = _sequences(side, storage)
    start, stop = sequences["start"], sequences["stop"]
    _, n, documents = _head(side, storage)
    (raw,) = storage.read([side.range(_HEAD + 12 * n, _HEAD + 12 * n + 8 * documents)])
    first = np.frombuffer(raw, "<i8").astype(np.int64)
    rises = len(first) and first[0] == 0 and first[-1] == n and (first[1:] >= first[:-1]).all()
    if not rises or (start[1:] != stop[:-1]).any():
        raise unreadable(
            side.path, f"its documents do not divide {n} sequences that follow each other"
        )
    ends = np.append(start, stop[-1] if n else 0)
    return {"start": ends[first[:-1]], "stop": ends[first[1:]]}


def _head(side: Stat, storage: Storage) -> tuple[str, int, int]:
    """(dtype, number of sequences, number of document indices) of an .idx file."""
    (head,) = storage.read([side.range(0, min(_HEAD, side.size))])
    if len(head) < _HEAD or not head.startswith(_MAGIC):
        raise unreadable(side.path, "it is no Megatron index (magic MMIDIDX)")
    version, code = int.from_bytes(head[9:17], "little"), head[17]
    sequences, documents = (int.from_bytes(head[a : a + 8], "little") for a in (18, 26))
    if version != 1 or code not in _TYPES:
        raise unreadable(side.path, f"version {version} with dtype code {code} is not known")
    size = _HEAD + 12 * sequences + 8 * documents
    if side.size not in (size, size + sequences):  # a byte per sequence, its mode, may follow
        raise unreadable(
            side.path, f"{sequences} sequences need {size} bytes, but it has {side.size}"
        )
    return _TYPES[code], sequences, documents
