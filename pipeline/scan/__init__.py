"""How something is found out once about every record of a dataset, and kept beside the data.

Begin with scan.py. What a scan found, `Scanned`, lies in pipeline/sampling/scanned.py, as orders
and nodes use it.
"""

from pipeline.scan.scan import scan

__all__ = ["scan"]
