"""Lockstep's data library: a batch is a pure function of (dataset, step)."""

from typing import TYPE_CHECKING, Any

from pipeline import errors
from pipeline.block import Block, Columns
from pipeline.checkpoint import merge
from pipeline.combine import concatenate, interleave, mix, zip_datasets
from pipeline.dataset import Dataset
from pipeline.feed import JaxFeed, TorchFeed
from pipeline.loader import Loader
from pipeline.sampling.scanned import Scanned
from pipeline.scan import scan
from pipeline.transforms import pad_to, padding_share
from pipeline.types import Source
from pipeline.workers import Processes, Ray, Serial, Threads

if TYPE_CHECKING:
    from pipeline.sources import (
        ArrayRecordSource,
        ArrowIpcSource,
        BagzSource,
        FilesSource,
        JsonLinesSource,
        LinesSource,
        MegatronSource,
        MemorySource,
        ParquetSource,
        SequenceSource,
        Storage,
        TFRecordSource,
        TokenDocumentSource,
        TokenSource,
        WebDatasetSource,
        WindowSource,
        parse_example,
        parse_sequence_example,
    )

__all__ = [
    "ArrayRecordSource",
    "ArrowIpcSource",
    "BagzSource",
    "Block",
    "Columns",
    "Dataset",
    "FilesSource",
    "JaxFeed",
    "JsonLinesSource",
    "LinesSource",
    "Loader",
    "MegatronSource",
    "MemorySource",
    "ParquetSource",
    "Processes",
    "Ray",
    "Scanned",
    "SequenceSource",
    "Serial",
    "Source",
    "Storage",
    "TFRecordSource",
    "Threads",
    "TokenDocumentSource",
    "TokenSource",
    "TorchFeed",
    "WebDatasetSource",
    "WindowSource",
    "concatenate",
    "errors",
    "interleave",
    "merge",
    "mix",
    "pad_to",
    "padding_share",
    "parse_example",
    "parse_sequence_example",
    "scan",
    "zip_datasets",
]


def __dir__() -> list[str]:
    # what Tab offers: the public names, not the modules that they come from
    return [*__all__, "__all__", "__doc__", "__file__", "__name__", "__path__"]


def __getattr__(name: str) -> Any:
    # sources, each imported when it is asked for: most programs read one format
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pipeline import sources

    found = globals()[name] = getattr(sources, name)
    return found
