"""How each lane of a counted dataset is read: row after row, from any place on."""

from pipeline.lanes.open import lane_blocks, late, open_reader
from pipeline.lanes.parts import origin_of_part, read_part
from pipeline.lanes.passes import PassRows
from pipeline.lanes.reader import Pending, Reader

__all__ = [
    "PassRows",
    "Pending",
    "Reader",
    "lane_blocks",
    "late",
    "open_reader",
    "origin_of_part",
    "read_part",
]
