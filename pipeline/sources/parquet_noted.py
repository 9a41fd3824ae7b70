"""What manifests keep about Parquet files: rows of each row group, and a digest of the schema."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.block import Int64s
from pipeline.sources.complaints import unreadable
from pipeline.sources.parquet_footer import Footer, arrow_schema, footers
from pipeline.sources.storage.location import named
from pipeline.sources.storage.manifest import Facts
from pipeline.sources.storage.storage import Stat, Storage

if TYPE_CHECKING:
    import pyarrow.parquet as pq

KIND = "parquet 1"
_SUMMARIES = ("_metadata", "_common_metadata")  # which Spark and others write beside their files
_MOST_GROUPS = 1 << 22  # a manifest that lists more row groups in a file is damaged


def counted(
    storage: Storage, parsed: dict[str, pq.FileMetaData], most: int, stats: Sequence[Stat]
) -> Iterator[Facts]:
    """Facts about each file. `more` is [[[rows, row groups], ...], digest of the schema].

    Row groups of equal size that follow each other are one [rows, row groups] pair.

    Args:
        storage: how files are read.
        parsed: filled with the metadata of the first `most` files, by path.
        most: see `parsed`.
        stats: the files.

    Raises:
        SourceError: a file is not a Parquet file, or cannot be read.
    """
    for stat in stats:
        if os.path.basename(named(stat.path)) in _SUMMARIES:
            raise unreadable(stat.path, "it only describes other files")
    for stat, metadata in zip(stats, footers(stats, storage), strict=True):
        rows = Footer(metadata, ()).rows().tolist()
        runs = [[n, len(list(same))] for n, same in groupby(rows)]
        schema = arrow_schema(stat.path, metadata).remove_metadata().serialize()
        if len(parsed) < most:
            parsed[stat.path] = metadata
        mark = hashlib.blake2b(schema, digest_size=8).hexdigest()
        yield Facts(sum(rows), [runs, mark])


def groups_of(more: Any) -> Int64s:
    """int64[row groups]: rows of each row group, from the `more` that `counted` yields."""
    runs = np.array(more[0], np.int64).reshape(-1, 2)
    return np.repeat(runs[:, 0], runs[:, 1])


def is_sane(facts: Facts) -> bool:
    """Whether facts from a manifest have the form that `counted` yields.

    >>> is_sane(Facts(5, [[[2, 2], [1, 1]], "00"])), is_sane(Facts(5, [[[2, 2]], "00"]))
    (True, False)
    """
    try:
        runs, mark = facts.more
        counts = [n * k for n, k in runs if type(n) is type(k) is int and n >= 0 and k > 0]
        few = sum(k for _, k in runs) <= _MOST_GROUPS
        whole = len(counts) == len(runs) and sum(counts) == facts.records
        return isinstance(mark, str) and whole and few
    except (TypeError, ValueError):
        return False
