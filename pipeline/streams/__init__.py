"""Which rows each batch takes: one stream for indexed datasets, one for counted ones."""

from pipeline.streams.counted import CountedStream
from pipeline.streams.indexed import IndexedStream
from pipeline.streams.take import Share, Stream, Take

__all__ = ["CountedStream", "IndexedStream", "Share", "Stream", "Take"]
