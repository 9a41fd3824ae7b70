"""A run as a page: its curves, spikes, and the rows of its steps. Begin with `report.py`."""

from pipeline.debug.report.report import report

__all__ = ["report"]
