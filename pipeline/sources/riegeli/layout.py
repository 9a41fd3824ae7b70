"""A summary of ArrayRecord files for people: codec, groups, sizes, and advice."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.sources.riegeli.chunks import HEADER, cut
from pipeline.sources.riegeli.codecs import NAMES
from pipeline.sources.riegeli.index import Index
from pipeline.sources.riegeli.shards import indexes_of
from pipeline.sources.storage.files import Files
from pipeline.sources.storage.storage import Stat, Storage

_HEAD = 128  # bytes of a chunk that include its header, its codec and perhaps a block header
_LARGE = 500_000  # a file with so many chunks takes long to open


def layouts(files: Files) -> list[dict[str, Any]]:
    """Facts about each file as plain data."""
    stats = [files.stat(i) for i in range(len(files.paths))]
    found = list(indexes_of(stats, files.storage))
    return [
        _layout(stat, index, int(n), files.storage)
        for stat, index, n in zip(stats, found, files.counts, strict=True)
    ]


def _layout(stat: Stat, index: object, records: int, storage: Storage) -> dict[str, Any]:
    facts: dict[str, Any] = {"path": stat.path, "bytes": stat.size, "records": records}
    if not isinstance(index, Index):
        why = str(index)
        return facts | {"advice": [f"read by the array_record package, whole: {why}"]}
    sizes = np.diff(index.offsets)
    codec, transposed = _first_chunk(stat, index, storage)
    facts |= {
        "decoded_bytes": index.decoded,
        "chunks": len(sizes),
        "group_size": index.group,
        "chunk_bytes": [int(f(sizes)) for f in (np.min, np.mean, np.max)] if len(sizes) else [],
        "codec": codec,
        "transposed": transposed,
        "options": index.options,
    }
    return facts | {"advice": _advice(index, transposed)}


def _first_chunk(stat: Stat, index: Index, storage: Storage) -> tuple[str, bool]:
    """The codec of the first chunk, and whether it is transposed."""
    if len(index.offsets) < 2:
        return "none", False
    where = index.offsets[:1]
    stop = min(stat.size, int(where[0]) + _HEAD)
    head = storage.read([stat.range(int(where[0]), stop)])
    data, start, _ = cut(head, where, np.zeros(1, np.int64), where, np.array([stop]))
    kind, codec = data[int(start[0]) + 24], data[int(start[0]) + HEADER]
    return NAMES.get(codec, f"{codec:#04x}"), kind == ord("t")


def _advice(index: Index, transposed: bool) -> list[str]:
    chunks = len(index.offsets) - 1
    said: list[str] = []
    if transposed:
        said.append("transposed: read by the array_record package, remote files whole")
    if index.group > 1:
        said.append(f"{index.group} records a group: a record read alone costs its whole group")
    elif index.records:
        said.append("one record a group: fine for random access")
    if chunks >= _LARGE:
        said.append(f"{chunks} groups in one file make opening slow: write more, smaller files")
    if "pad_to_block_boundary:true" in index.options:
        said.append("padded to blocks of 64 KiB: small records fetch and store mostly padding")
    return said
