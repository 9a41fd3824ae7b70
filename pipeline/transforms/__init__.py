"""What happens to values: each transform is a pure function of a block and its site.

Begin with map.py, one file a transform. calling.py calls users' functions; code.py says what a
function computes, for the fingerprint; collate.py stacks rows into a batch.
"""

from pipeline.transforms.bucket import Bucket
from pipeline.transforms.code import Code, code_digest, code_name
from pipeline.transforms.collate import collate, collate_block
from pipeline.transforms.defaults import refuse_unseen
from pipeline.transforms.filter import Filter
from pipeline.transforms.flat_map import FlatMap
from pipeline.transforms.map import Map, MapWithIndex
from pipeline.transforms.measure import Measure
from pipeline.transforms.pack import Pack
from pipeline.transforms.pad import PadTo, pad_to, padding_share
from pipeline.transforms.random_map import RandomMap
from pipeline.transforms.versions import versions, warn_of_versions

__all__ = [
    "Bucket",
    "Code",
    "Filter",
    "FlatMap",
    "Map",
    "MapWithIndex",
    "Measure",
    "Pack",
    "PadTo",
    "RandomMap",
    "code_digest",
    "code_name",
    "collate",
    "collate_block",
    "pad_to",
    "padding_share",
    "refuse_unseen",
    "versions",
    "warn_of_versions",
]
