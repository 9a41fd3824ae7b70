"""Writers of file formats: each takes rows as they come from a dataset. Begin with `Writer`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from pipeline.tools.convert.writers.arrow import ArrowFile, ColumnFile, ParquetFile
from pipeline.tools.convert.writers.lines import JsonLines, TextLines
from pipeline.tools.convert.writers.records import array_records, bagz, tf_records
from pipeline.tools.convert.writers.tokens import MegatronTokens, NumpyTokens, Tokens
from pipeline.tools.convert.writers.webdataset import WebDataset

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["COLUMNS", "TOKENS", "WRITERS", "ColumnFile", "Writer", "new_writer"]


class Writer(Protocol):
    """Writes one file. The same calls give the same bytes."""

    def write(self, rows: list[Any]) -> None:
        """Write rows, each a record as a source returns it.

        Raises:
            ChainError: the format cannot hold a row; the message says what to map it to.
        """
        ...

    def close(self) -> list[str]:
        """Finish. Returns the paths that were written: the file, and files that belong to it."""
        ...


COLUMNS = {".arrow": ArrowFile, ".feather": ArrowFile, ".parquet": ParquetFile}
TOKENS = {".bin": Tokens, ".idx": MegatronTokens, ".npy": NumpyTokens}
_OTHERS: dict[str, Callable[[str], Writer]] = {
    ".array_record": array_records,
    ".arrayrecord": array_records,
    ".bagz": bagz,
    ".jsonl": JsonLines,
    ".tar": WebDataset,
    ".tfrecord": tf_records,
    ".txt": TextLines,
}
WRITERS = sorted({*COLUMNS, *TOKENS, *_OTHERS})  # suffixes


def new_writer(suffix: str, path: str, schema: pa.Schema | None) -> Writer:
    """The writer for a file.

    Args:
        suffix: of the format, one of `WRITERS`.
        path: of the file.
        schema: for the formats in `COLUMNS`.

    Raises:
        MissingExtraError: the format's package is not installed.
    """
    if suffix in COLUMNS:
        assert schema is not None  # determined before any shard is written
        return COLUMNS[suffix](path, schema)
    return (TOKENS | _OTHERS)[suffix](path)
