"""What is saved: the state of a loader, and how the parts of several hosts become one."""

from pipeline.checkpoint.state import merge

__all__ = ["merge"]
