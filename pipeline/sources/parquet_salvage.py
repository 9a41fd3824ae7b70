"""Reading what is left of a corrupt row group, and describing the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.sources.arrow_arrays import check_batch
from pipeline.sources.chunks import damage
from pipeline.sources.parquet_footer import Footer
from pipeline.sources.parquet_int96 import out_of_nanoseconds
from pipeline.sources.storage.ranges import RangeFile
from pipeline.sources.storage.spans import Span
from pipeline.sources.storage.storage import Stat

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_2_GIB = 1 << 31
_PIECES = 256  # a corrupt group is read in so many pieces, so at most one readable piece is lost


class Part(NamedTuple):
    """The bytes of a row group, with all that is needed to decode it and to describe its errors.

    Attributes:
        stat: its file.
        footer: of its file.
        group: its number in the file.
        first: its first row in the file.
        spans: ascending, the byte ranges that were read.
        data: the bytes of each span.
    """

    stat: Stat
    footer: Footer
    group: int
    first: int
    spans: Sequence[Span]
    data: Sequence[Any]

    def table(self, columns: Sequence[str], *, verify: bool, threads: bool) -> pa.Table:
        """The group's columns.

        Raises:
            OSError, ArrowException, ValueError: a page cannot be decoded.
        """
        import pyarrow as pa

        if self.footer.metadata.row_group(self.group).total_byte_size < _2_GIB:
            try:
                with self.opened(verify=verify) as file:
                    return file.read_row_group(
                        self.group, columns=list(columns), use_threads=threads
                    )
            except pa.ArrowNotImplementedError as e:
                if "chunked" not in str(e):
                    raise
        # pyarrow reads nested text of more than 2 GiB only in pieces
        with self.opened(verify=verify) as file:
            batches = list(self.pieces(file, columns))
            return pa.Table.from_batches(batches, None if batches else self.schema(file, columns))

    def pieces(self, file: pq.ParquetFile, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The group's columns, in up to 256 batches of rows."""
        rows = self.footer.metadata.row_group(self.group).num_rows
        size = max(1, -(-rows // _PIECES))
        return file.iter_batches(size, [self.group], list(columns), use_threads=False)

    def schema(self, file: pq.ParquetFile, columns: Sequence[str]) -> pa.Schema:
        """The file's schema, limited to the top-level columns that hold `columns`."""
        import pyarrow as pa

        tops = [c for c in file.schema_arrow if any(_within(column, c.name) for column in columns)]
        return pa.schema(tops)

    def out_of_nanoseconds(self, *, verify: bool) -> dict[str, NDArray[np.bool_]]:
        """bool[rows] for each column with INT96 timestamps out of the range of nanoseconds."""
        if not (columns := self.footer.int96()):
            return {}

        def read(unit: str) -> pa.Table:
            with self.opened(verify=verify, coerce_int96_timestamp_unit=unit) as file:
                return file.read_row_group(self.group, columns=columns)

        return out_of_nanoseconds(read)

    def opened(self, *, verify: bool, **options: Any) -> pq.ParquetFile:
        """A new reader that has just this group's bytes; `options` are pyarrow's."""
        import pyarrow.parquet as pq

        # a reader cannot be shared by threads, and opening one takes 30 µs once metadata is known
        view = RangeFile(self.stat.size, self.spans, self.data).opened()
        metadata = self.footer.metadata
        return pq.ParquetFile(
            view,
            metadata=metadata,
            pre_buffer=False,  # else it would read what lies between the selected columns
            page_checksum_verification=verify,
            **options,
        )


def salvage(
    part: Part, columns: Sequence[str], error: Exception, *, verify: bool
) -> tuple[pa.Table, dict[str, NDArray[np.bool_]], str]:
    """The rows before the first corrupt page, and the error for the others.

    Args:
        part: the row group.
        columns: the selected columns.
        error: what decoding it raised.
        verify: check page checksums.

    Returns:
        The rows; the result of `out_of_nanoseconds` for them; and the error message.
    """
    column, (start, stop) = _culprit(part, verify)
    table = _before(part, columns, verify)
    why = " ".join(str(error).split()).rstrip(".")
    end = part.first + part.footer.metadata.row_group(part.group).num_rows
    why = f"column {column!r}, bytes {start} to {stop - 1}: {why}"
    rows = part.first + table.num_rows, end
    late: dict[str, NDArray[np.bool_]] = {}
    if old := part.footer.int96():
        late = out_of_nanoseconds(
            lambda unit: _before(part, old, verify, coerce_int96_timestamp_unit=unit)
        )
        late = {name: bad[: table.num_rows] for name, bad in late.items()}
    return table, late, damage(part.stat.path, rows, f"row group {part.group}", why)


def _culprit(part: Part, verify: bool) -> tuple[str, Span]:
    # the first column that fails alone, and the span of its bytes
    metadata = part.footer.metadata
    names = [metadata.schema.column(leaf).path for leaf in part.footer.leaves]
    spans = part.footer.spans(part.group)
    for name, span in zip(names, spans, strict=True):
        if _fails(part, [name], verify):
            return name, span
    return ", ".join(names), (min(s[0] for s in spans), max(s[1] for s in spans))


def _fails(part: Part, columns: list[str], verify: bool) -> bool:
    import pyarrow as pa

    try:
        for batch in part.table(columns, verify=verify, threads=False).to_batches():
            check_batch(batch)
    except (OSError, ValueError, pa.ArrowException, MemoryError):
        return True
    return False


def _before(part: Part, columns: Sequence[str], verify: bool, **options: Any) -> pa.Table:
    import pyarrow as pa

    batches: list[pa.RecordBatch] = []
    with part.opened(verify=verify, **options) as file:
        schema = part.schema(file, columns)
        with suppress(OSError, ValueError, pa.ArrowException, MemoryError):
            for batch in part.pieces(file, columns):
                check_batch(batch)  # pyarrow does not check indices into dictionaries
                batches.append(batch)
    return pa.Table.from_batches(batches) if batches else schema.empty_table()


def _within(column: str, top: str) -> bool:
    return column == top or column.startswith(top + ".")
