"""What a dataset is: a tree of nodes, one file a node, each answering every question about itself.

Begin with node.py, the questions; part.py is what a Dataset holds.
"""

from pipeline.nodes.blocks import FAR
from pipeline.nodes.cached import Cached, check_cacheable
from pipeline.nodes.concatenated import Concatenated
from pipeline.nodes.interleaved import Interleaved
from pipeline.nodes.lane_mix import LaneMix
from pipeline.nodes.leaf import Leaf
from pipeline.nodes.mixed import STOPS, Mixed, check_names
from pipeline.nodes.now import lane_blocks
from pipeline.nodes.packed import Packed
from pipeline.nodes.part import Part
from pipeline.nodes.passes import PassRows
from pipeline.nodes.scope import Path
from pipeline.nodes.streamed import Pending, Reader
from pipeline.nodes.zipped import Zipped

__all__ = [
    "FAR",
    "STOPS",
    "Cached",
    "Concatenated",
    "Interleaved",
    "LaneMix",
    "Leaf",
    "Mixed",
    "Packed",
    "Part",
    "PassRows",
    "Path",
    "Pending",
    "Reader",
    "Zipped",
    "check_cacheable",
    "check_names",
    "lane_blocks",
]
