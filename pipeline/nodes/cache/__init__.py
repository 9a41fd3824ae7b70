"""Where the rows of a cache are kept: in memory, or in a folder that processes and runs share.

Begin with memory.py; disk.py keeps rows in files, in the form that rows.py gives them.
"""

from pipeline.nodes.cache.disk import Disk
from pipeline.nodes.cache.memory import Memory

__all__ = ["Disk", "Memory"]
