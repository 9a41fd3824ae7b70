"""Computes something once for every record of a dataset, and keeps it beside the data.

Begin with scan.py. The result, `Scanned`, lies in pipeline/sampling/scanned.py, as orders and
nodes use it.
"""

from pipeline.scan.scan import scan

__all__ = ["scan"]
