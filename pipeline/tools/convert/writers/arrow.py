"""How Parquet and Arrow IPC files are written: columns, in groups that a shuffle can read alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import ChainError

if TYPE_CHECKING:
    import pyarrow as pa

GROUP = 1000  # rows a row group: the smallest read


class ColumnFile:
    """Writes rows as columns, in groups of 1,000; the first group's types hold for the file.

    Args:
        path: of the file.
        begin: opens what writes tables of a schema to a path; it has write_table and close.
    """

    def __init__(self, path: str, begin: Callable[[str, pa.Schema], Any]) -> None:
        self._path, self._begin = path, begin
        self._rows: list[Any] = []
        self._schema: pa.Schema | None = None
        self._writer: Any = None

    def write(self, rows: list[Any]) -> None:
        self._rows += rows
        while len(self._rows) >= GROUP:
            self._group(self._rows[:GROUP])
            del self._rows[:GROUP]

    def close(self) -> list[str]:
        if self._rows or self._schema is None:
            self._group(self._rows)
        self._writer.close()
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
            self._writer = self._begin(self._path, table.schema)
        self._writer.write_table(table)


def parquet(path: str) -> ColumnFile:
    """Writes rows as Parquet columns, with page checksums."""
    return ColumnFile(path, _parquet)


def arrow_ipc(path: str) -> ColumnFile:
    """Writes rows as an Arrow IPC file, a record batch a group."""
    return ColumnFile(path, _arrow_ipc)


def _parquet(path: str, schema: pa.Schema) -> Any:
    import pyarrow.parquet as pq

    return pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True)


def _arrow_ipc(path: str, schema: pa.Schema) -> Any:
    import pyarrow as pa

    return pa.ipc.new_file(path, schema, options=pa.ipc.IpcWriteOptions(compression="zstd"))


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
