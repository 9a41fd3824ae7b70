"""Whether a shuffle looks random: its statistics beside those of truly random permutations.

Begin with verdict.py, the report. statistics.py has the figures, dataset.py a dataset's order.
"""

from pipeline.debug.audit.dataset import audit_dataset
from pipeline.debug.audit.verdict import Figure, Permute, Report, audit

__all__ = ["Figure", "Permute", "Report", "audit", "audit_dataset"]
