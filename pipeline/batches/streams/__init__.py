"""Which rows each batch takes: one stream for indexed datasets, one for counted ones."""

from pipeline.batches.streams.counted import CountedStream
from pipeline.batches.streams.indexed import IndexedStream
from pipeline.batches.streams.take import Share, Stream, Take

__all__ = ["CountedStream", "IndexedStream", "Share", "Stream", "Take"]
