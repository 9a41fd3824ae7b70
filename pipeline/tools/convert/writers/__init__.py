"""How records are written: one file a format, each taking rows as they come from a dataset."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from pipeline.tools.convert.writers.array_record import ArrayRecords
from pipeline.tools.convert.writers.arrow import arrow_ipc, parquet
from pipeline.tools.convert.writers.bagz import Bagz
from pipeline.tools.convert.writers.lines import JsonLines, TextLines
from pipeline.tools.convert.writers.tfrecord import TFRecords
from pipeline.tools.convert.writers.tokens import MegatronTokens, NumpyTokens, Tokens
from pipeline.tools.convert.writers.webdataset import WebDataset

__all__ = ["WRITERS", "Writer"]


class Writer(Protocol):
    """One file being written; the same rows give the same bytes."""

    def write(self, rows: list[Any]) -> None:
        """Some more rows, each a record as a source gives it.

        Raises:
            ChainError: a row cannot be a record of this format; it says what to map it to.
        """
        ...

    def close(self) -> list[str]:
        """Finish; the paths of what was written: the file, and what belongs to it."""
        ...


WRITERS: dict[str, Callable[[str], Writer]] = {
    ".array_record": ArrayRecords,
    ".arrayrecord": ArrayRecords,
    ".arrow": arrow_ipc,
    ".feather": arrow_ipc,
    ".bagz": Bagz,
    ".bin": Tokens,
    ".idx": MegatronTokens,
    ".jsonl": JsonLines,
    ".npy": NumpyTokens,
    ".parquet": parquet,
    ".tar": WebDataset,
    ".tfrecord": TFRecords,
    ".txt": TextLines,
}
