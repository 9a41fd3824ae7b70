"""Checks of what sources, transforms and datasets promise: for those of the library and for yours.

Begin with source.py, transform.py or dataset.py: one file for each kind of object.
"""

from pipeline.debug.conformance.dataset import Fault, Report, check_dataset, examine
from pipeline.debug.conformance.records import same
from pipeline.debug.conformance.source import check_source
from pipeline.debug.conformance.transform import check_transform

__all__ = [
    "Fault",
    "Report",
    "check_dataset",
    "check_source",
    "check_transform",
    "examine",
    "same",
]
