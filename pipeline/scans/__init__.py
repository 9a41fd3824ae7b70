"""How something is found out once about every record of a dataset, and kept beside the data."""

from pipeline.scans.scan import scan

__all__ = ["scan"]
