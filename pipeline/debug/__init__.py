"""Tools for looking into a pipeline and its runs: purity, randomness, speed, past steps.

Begin with counterfactual/ (what limits the rate), seen/ (was a document trained on), or
conformance/ (tests of what is promised).
"""

from pipeline.debug.running import live

__all__ = ["live"]
