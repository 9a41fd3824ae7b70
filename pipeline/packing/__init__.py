"""How rows packed from documents of known lengths are found: by position, before any is read."""

from pipeline.packing.root import PackedRoot

__all__ = ["PackedRoot"]
