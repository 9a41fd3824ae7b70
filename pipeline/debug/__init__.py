"""Questions about a running pipeline: is it pure, is it random enough, where does time go?

Begin with profile.py (which stage is slow) or conformance/ (what is promised, and does it hold).
"""

from pipeline.debug.running import live

__all__ = ["live"]
