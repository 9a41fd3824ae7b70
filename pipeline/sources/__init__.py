"""Where records live: one file for each format.

Begin with file_source.py (what file sources share) and formats.py (which source opens which path).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.sources.array_record import ArrayRecordSource
    from pipeline.sources.arrow_ipc import ArrowIpcSource
    from pipeline.sources.bagz import BagzSource
    from pipeline.sources.formats import SUFFIXES, found, open_path, source_of
    from pipeline.sources.lines import JsonLinesSource, LinesSource
    from pipeline.sources.megatron import MegatronSource
    from pipeline.sources.memory import MemorySource
    from pipeline.sources.parquet import ParquetSource
    from pipeline.sources.sequence import SequenceSource
    from pipeline.sources.storage.storage import Storage
    from pipeline.sources.tf_example import parse_example, parse_sequence_example
    from pipeline.sources.tfrecord import TFRecordSource
    from pipeline.sources.token_documents import TokenDocumentSource
    from pipeline.sources.tokens import TokenSource
    from pipeline.sources.webdataset import WebDatasetSource
    from pipeline.sources.whole_files import FilesSource
    from pipeline.sources.windows import WindowSource

__all__ = [
    "SUFFIXES",
    "ArrayRecordSource",
    "ArrowIpcSource",
    "BagzSource",
    "FilesSource",
    "JsonLinesSource",
    "LinesSource",
    "MegatronSource",
    "MemorySource",
    "ParquetSource",
    "SequenceSource",
    "Storage",
    "TFRecordSource",
    "TokenDocumentSource",
    "TokenSource",
    "WebDatasetSource",
    "WindowSource",
    "found",
    "open_path",
    "parse_example",
    "parse_sequence_example",
    "source_of",
]

# imported on first use: most programs read a single format
_HOMES = {
    "ArrayRecordSource": "array_record",
    "ArrowIpcSource": "arrow_ipc",
    "BagzSource": "bagz",
    "FilesSource": "whole_files",
    "JsonLinesSource": "lines",
    "LinesSource": "lines",
    "MegatronSource": "megatron",
    "MemorySource": "memory",
    "ParquetSource": "parquet",
    "SUFFIXES": "formats",
    "SequenceSource": "sequence",
    "Storage": "storage.storage",
    "TFRecordSource": "tfrecord",
    "TokenDocumentSource": "token_documents",
    "TokenSource": "tokens",
    "WebDatasetSource": "webdataset",
    "WindowSource": "windows",
    "found": "formats",
    "open_path": "formats",
    "parse_example": "tf_example",
    "parse_sequence_example": "tf_example",
    "source_of": "formats",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return found
