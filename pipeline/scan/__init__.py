"""How something is found out once about every record of a dataset, and kept beside the data."""

from pipeline.scan.scan import scan

__all__ = ["scan"]
