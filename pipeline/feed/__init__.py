"""How batches reach devices, and which of their rows are this process's: one file a library."""

from pipeline.feed.jax import JaxFeed
from pipeline.feed.torch import TorchFeed

__all__ = ["JaxFeed", "TorchFeed"]
