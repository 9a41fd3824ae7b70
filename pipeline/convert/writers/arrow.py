"""How Parquet and Arrow IPC files are written: columns, in groups that a shuffle can read alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import ChainError

if TYPE_CHECKING:
    import pyarrow as pa

GROUP = 1000  # rows a row group: the smallest read


class _Columns:
    # rows gather until they fill a group; the first group's types hold for the file
    def __init__(self, path: str) -> None:
        self._path = path
        self._rows: list[Any] = []
        self._schema: pa.Schema | None = None

    def write(self, rows: list[Any]) -> None:
        self._rows += rows
        while len(self._rows) >= GROUP:
            self._group(self._rows[:GROUP])
            del self._rows[:GROUP]

    def close(self) -> list[str]:
        if self._rows or self._schema is None:
            self._group(self._rows)
        self._end()
        return [self._path]

    def _group(self, rows: list[Any]) -> None:
        import pyarrow as pa

        try:
            table = pa.Table.from_pylist([_fields(row) for row in rows], schema=self._schema)
        except (pa.ArrowException, TypeError) as e:
            before = "" if self._schema is None else f" The columns are {_named(self._schema)}."
            raise ChainError(
                f"rows do not fit the columns of {self._path}: {' '.join(str(e).split())}.{before} "
                "Give --map module:function, which returns rows of one type."
            ) from e
        if self._schema is None:
            self._schema = table.schema
            self._begin(table.schema)
        self._put(table)

    def _begin(self, schema: pa.Schema) -> None:
        raise NotImplementedError

    def _put(self, table: pa.Table) -> None:
        raise NotImplementedError

    def _end(self) -> None:
        raise NotImplementedError


class Parquet(_Columns):
    """Writes rows as Parquet columns, in row groups of 1,000, with page checksums."""

    def _begin(self, schema: pa.Schema) -> None:
        import pyarrow.parquet as pq

        self._writer = pq.ParquetWriter(
            self._path, schema, compression="zstd", write_page_checksum=True
        )

    def _put(self, table: pa.Table) -> None:
        if len(table):
            self._writer.write_table(table, row_group_size=GROUP)

    def _end(self) -> None:
        self._writer.close()


class ArrowIpc(_Columns):
    """Writes rows as an Arrow IPC file, in record batches of 1,000."""

    def _begin(self, schema: pa.Schema) -> None:
        import pyarrow as pa

        options = pa.ipc.IpcWriteOptions(compression="zstd")
        self._writer = pa.ipc.new_file(self._path, schema, options=options)

    def _put(self, table: pa.Table) -> None:
        if len(table):
            self._writer.write_table(table, max_chunksize=GROUP)

    def _end(self) -> None:
        self._writer.close()


def _fields(row: Any) -> dict[str, Any]:
    if isinstance(row, dict):
        return {str(k): _arrow(v) for k, v in row.items()}
    if isinstance(row, str):
        return {"text": row}
    return {"tokens" if isinstance(row, np.ndarray) else "record": _arrow(row)}


def _arrow(value: Any) -> Any:
    # Arrow keeps the dtype of an array with one axis, also inside of lists
    if isinstance(value, np.ndarray) and value.ndim > 1:
        return [_arrow(v) for v in value]
    return value


def _named(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in schema)
