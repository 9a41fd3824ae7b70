"""Checking a conversion: its files must open as one source, with the records that were written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from pipeline.errors import PipelineError, RecordError, SourceError, StorageError
from pipeline.sources import Storage, found
from pipeline.tools.convert.place import Place
from pipeline.tools.convert.writers import TOKENS
from pipeline.tools.inspection.opening import close, files_of


def check_opens(place: Place, suffix: str, shards: Sequence[dict[str, Any]]) -> None:
    """Open the files of all shards together, and read the first and last record of each.

    Raises:
        SourceError: they do not open together, or hold another number of records.
        StorageError: they cannot be read.
    """
    names = [shard["files"][-1 if suffix == ".idx" else 0]["name"] for shard in shards]
    paths = [place.path(name) for name in names]
    records = sum(shard["records"] for shard in shards)
    if not records:
        return  # files without records cannot be told apart by their format
    try:
        read = _read_ends(paths, place.storage)
    except StorageError:
        raise
    except (PipelineError, OSError) as e:
        raise SourceError(
            f"what was written does not open: {e} Remove {paths[0]} and its fellows, and choose "
            "another format, or --map rows to what it holds."
        ) from e
    if suffix not in TOKENS and read != records:
        raise SourceError(
            f"{records:,} records were written, but {os.path.dirname(paths[0])} holds {read:,} in "
            f"{len(paths)} files. Are there rows that {suffix} cannot tell apart, as two of one "
            "__key__? Choose another format."
        )


def _read_ends(paths: Sequence[str], storage: Storage | None) -> int:
    files = [found(path, storage=storage) for path in paths]
    source = files[0][1]([file for some, _ in files for file in some])
    try:
        known, n = files_of(source), len(source)
        bounds = np.array([0, n], np.int64) if known is None else known.bounds
        ends = np.unique(np.clip(np.concatenate([bounds, bounds - 1]), 0, n - 1))
        with suppress(RecordError):  # for example of a null integer, which the input had too
            source.read(ends)
        return n
    finally:
        close(source)
