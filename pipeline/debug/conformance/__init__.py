"""What sources, transforms and datasets promise, as checks that anyone's can be put through.

Begin with source.py, transform.py or dataset.py: one file for each kind of thing that is checked.
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
