"""Writing one shard: rows of a dataset, piece by piece, then delivering the whole file."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pipeline.block import Int64s, Origin
from pipeline.dataset import Dataset
from pipeline.errors import StorageError
from pipeline.nodes.faults import Skips, survivors
from pipeline.tools.convert.columns import GROUP, schema_from
from pipeline.tools.convert.place import NOTES, Place
from pipeline.tools.convert.tables import Tables, tabular
from pipeline.tools.convert.writers import ColumnFile, Writer, new_writer
from pipeline.types import At

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Names(NamedTuple):
    """The names of a conversion's files.

    >>> Names("train", ".parquet", 8).of(3)
    'train-00003-of-00008.parquet'
    """

    stem: str
    suffix: str
    shards: int

    def of(self, shard: int) -> str:
        part = f"-{shard:05d}-of-{self.shards:05d}" if self.shards > 1 else ""
        return f"{self.stem}{part}{self.suffix}"

    def note(self, shard: int) -> str:
        """The name of the note that says that a shard is done."""
        return f"{NOTES}/{self.stem}{self.suffix}-{shard:05d}.json"


@dataclass(frozen=True)
class WriteShard:
    """Maps a shard's number to facts about it, and writes it on the way.

    Attributes:
        dataset: indexed; its rows are written in order.
        place, names: where the files go.
        skip: leave out rows that cannot be read.
        counts: path of a file of int64[shards] with the rows done, for the progress; "" for none.
        schema: of the columns, as returned by `schema_of`; "" for other formats.
    """

    dataset: Dataset
    place: Place
    names: Names
    skip: bool
    counts: str
    schema: str

    def __call__(self, shard: int) -> dict[str, Any]:
        shard = int(shard)
        with self.place.workspace() as folder:
            path = os.path.join(folder, self.names.of(shard))
            schema = schema_from(self.schema) if self.schema else None
            writer = new_writer(self.names.suffix, path, schema)
            try:
                records, skipped = self._write(writer, shard)
                written = writer.close()
            except BaseException as e:
                with contextlib.suppress(Exception):
                    writer.close()  # releases its files; the workspace removes them
                if _is_full(e):
                    raise _no_room(self.place.path(self.names.of(shard)), folder, e) from e
                raise
            files = [self._delivered(path) for path in written]
        facts = {"shard": shard, "records": records, "skipped": skipped, "files": files}
        self.place.note(self.names.note(shard), facts)
        return facts

    def _write(self, writer: Writer, shard: int) -> tuple[int, int]:
        records = skipped = 0
        start, stop = bounds(len(self.dataset), self.names.shards, shard)
        source = tabular(self.dataset) if isinstance(writer, ColumnFile) else None
        tables = Tables(source) if source is not None else None
        for first in range(start, stop, GROUP):
            positions = np.arange(first, min(first + GROUP, stop))
            n = self._copied(writer, tables, positions)
            if n is None:
                rows = self._rows(positions)
                writer.write(rows)
                n = len(rows)
            records, skipped = records + n, skipped + len(positions) - n
            self._tell(shard, records + skipped)
        return records, skipped

    def _copied(self, writer: Writer, tables: Tables | None, positions: Int64s) -> int | None:
        # columns to columns with types kept; None if rows must be evaluated one by one
        import pyarrow as pa

        if tables is None or not isinstance(writer, ColumnFile):
            return None
        try:
            table = tables.rows(self.dataset, positions)
        except (OSError, pa.ArrowException):
            return None  # going through the dataset tells which rows are bad, and reads the others
        writer.write_table(table)
        return len(table)

    def _rows(self, positions: Int64s) -> list[Any]:
        if not self.skip:
            return self.dataset.read(positions).rows()
        # a bad row is left out, not replaced by the next good one: each record is written once
        good, bad = survivors(self.dataset.read, positions)
        skips, top = Skips(), self.dataset.top
        for position, error in bad.items():
            skips.say(top.components, _origin(self.dataset, position), 0, error)
        parts = sorted(good, key=lambda part: int(part[0][0]))
        return [row for _, block in parts for row in block.rows()]

    def _delivered(self, path: str) -> dict[str, Any]:
        digest = hashlib.blake2b(digest_size=16)
        with open(path, "rb") as f:
            while piece := f.read(4 << 20):
                digest.update(piece)
        name = os.path.basename(path)
        size = self.place.deliver(path, name)
        return {"name": name, "bytes": size, "blake2b": digest.hexdigest()}

    def _tell(self, shard: int, rows: int) -> None:
        if self.counts and os.path.exists(self.counts):  # on another machine it does not exist
            with open(self.counts, "r+b") as f:
                f.seek(shard * 8)
                f.write(np.int64(rows).tobytes())


def _is_full(error: BaseException) -> bool:
    # writers of other languages tell of it in words
    known = isinstance(error, OSError) and error.errno in _FULL
    return known or any(os.strerror(code) in str(error) for code in _FULL)


def _no_room(path: str, folder: str, error: BaseException) -> StorageError:
    return StorageError(
        f"{path} cannot be written, as there is no room left in {os.path.dirname(folder)}: "
        f"{' '.join(str(error).split())}. Make room, and convert again: it goes on with the shards "
        "that are missing."
    )


def bounds(n: int, shards: int, shard: int) -> tuple[int, int]:
    """Rows `[start, stop)` of a shard, of near-equal size.

    >>> [bounds(10, 3, i) for i in range(3)]
    [(0, 3), (3, 6), (6, 10)]
    """
    return shard * n // shards, (shard + 1) * n // shards


def _origin(dataset: Dataset, position: int) -> Origin:
    return dataset.top.origin(At.of_rows(np.array([position]), len(dataset)))
