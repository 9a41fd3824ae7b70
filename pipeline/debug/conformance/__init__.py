"""What sources and transforms promise, as checks that anyone's can be put through."""

from pipeline.debug.conformance.records import same
from pipeline.debug.conformance.source import check_source
from pipeline.debug.conformance.transform import check_transform

__all__ = ["check_source", "check_transform", "same"]
