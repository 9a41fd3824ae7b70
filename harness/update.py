"""How a batch changes the state: every token with its weight in the loss."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import numpy as np

from harness.step import StepFunctions, TrainState
from harness.task import Batch


def update(
    functions: StepFunctions, state: TrainState, batch: Batch
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One step; the state is donated.

    The compiled step always takes `weights`, float32[B, L], so that a run in which some are 0 and
    a run in which none are go through the same program: their bits then differ only where the
    weights do. A batch without weights gets ones.
    """
    return functions.train(state, weighted(batch))


def weighted(batch: Batch) -> Batch:
    """The batch with weights, ones where it has none."""
    if "weights" in batch:
        return batch
    if "tokens" in batch:
        shape, sharding = batch["tokens"].shape, batch["tokens"].sharding
    else:  # one weight a row
        first = next(iter(batch.values()))
        shape, sharding = first.shape[:1], first.sharding
    return {**batch, "weights": _ones(shape, sharding)}


@cache
def _ones(shape: tuple[int, ...], sharding: Any) -> jax.Array:
    def shard(index: Any) -> Any:
        return np.broadcast_to(np.float32(1), shape)[index]

    return jax.make_array_from_callback(shape, sharding, shard)
