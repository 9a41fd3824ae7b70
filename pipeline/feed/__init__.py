"""How batches reach devices, and which of their rows are this process's: one file a library.

Begin with jax.py; `Feed` in pipeline/types.py says what a loader asks of either.
"""

from pipeline.feed.jax import JaxFeed
from pipeline.feed.torch import TorchFeed

__all__ = ["JaxFeed", "TorchFeed"]
