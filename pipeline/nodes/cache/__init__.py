"""Where the rows of a cache are kept: in memory, or in a folder that processes and runs share."""

from pipeline.nodes.cache.disk import Disk
from pipeline.nodes.cache.memory import Memory

__all__ = ["Disk", "Memory"]
