"""Writers of Parquet and Arrow IPC files, in groups that a shuffle can read one by one."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from pipeline.errors import ChainError
from pipeline.sources.arrow_types import plain_schema
from pipeline.tools.convert.columns import table_of

if TYPE_CHECKING:
    import pyarrow as pa

_LARGE = 1 << 30  # bytes of a group whose chunks are not joined: text beyond 2 GiB overflows


class ColumnFile:
    """Writes rows as columns of a schema; the rows of each call are one group.

    Args:
        path: of the file.
        schema: of its columns. Types that the format cannot hold are stored without their encoding.

    Raises:
        ChainError: the format cannot hold a column.
    """

    def __init__(self, path: str, schema: pa.Schema) -> None:
        self._path = path
        self._schema = self._storable(schema)
        self._writer = self._begin(path, self._schema)

    def write(self, rows: list[Any]) -> None:
        self.write_table(table_of(rows, self._schema))

    def write_table(self, table: pa.Table) -> None:
        """Write a table with the schema that was given."""
        if not table.schema.equals(self._schema):
            table = table.cast(self._schema)
        if table.nbytes < _LARGE:
            table = table.combine_chunks()
        if len(table):
            self._writer.write_table(table)

    def close(self) -> list[str]:
        self._writer.close()
        return [self._path]

    def _storable(self, schema: pa.Schema) -> pa.Schema:
        import pyarrow as pa

        fields: list[pa.Field] = []
        for field in schema:
            plain = plain_schema(pa.schema([field])).field(0)
            storable = next((f for f in (field, plain) if self._holds(f)), None)
            if storable is None:
                raise ChainError(
                    f"{self._path} cannot hold column {field.name!r} of type {field.type}. Give "
                    "--map module:function to leave it out, or write .arrow."
                )
            fields.append(storable)
        return pa.schema(fields, metadata=schema.metadata)

    def _holds(self, field: pa.Field) -> bool:
        import pyarrow as pa

        try:
            self._begin(io.BytesIO(), pa.schema([field])).close()
        except (pa.ArrowException, NotImplementedError):
            return False
        return True

    def _begin(self, path: Any, schema: pa.Schema) -> Any:
        raise NotImplementedError


class ParquetFile(ColumnFile):
    """Writes Parquet, with page checksums."""

    def _begin(self, path: Any, schema: pa.Schema) -> Any:
        import pyarrow.parquet as pq

        return pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True)


class ArrowFile(ColumnFile):
    """Writes Arrow IPC, a record batch for each group. Dictionaries may vary: they are decoded."""

    def _holds(self, field: pa.Field) -> bool:
        return "dictionary<" not in str(field.type) and super()._holds(field)

    def _begin(self, path: Any, schema: pa.Schema) -> Any:
        import pyarrow as pa

        options = pa.ipc.IpcWriteOptions(compression="zstd")
        return pa.ipc.new_file(path, schema, options=options)
