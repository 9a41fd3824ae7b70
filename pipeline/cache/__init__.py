"""Rows kept once they were made: in memory, or in a folder that processes and runs share."""

from pipeline.cache.disk import Disk
from pipeline.cache.memory import Memory
from pipeline.cache.root import Cached

__all__ = ["Cached", "Disk", "Memory"]
