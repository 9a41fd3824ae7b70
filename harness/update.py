"""Applying a batch to the state, with the weight of every token in the loss."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from harness.assembly import Assembly
from harness.sharding import host_arrays
from harness.step import TrainState
from harness.task import Batch
from pipeline import JaxFeed


def update(
    parts: Assembly, state: TrainState, batch: Batch
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Do one step, on the batch that the loader returned last. The state is donated.

    The compiled step always takes `weights`, float32[B, L]. So runs with and without masked tokens
    use the same program, and their bits differ only where weights do. A batch that the run consumes
    without update has a gradient norm of 0.
    """
    data_step = parts.loader.last_step
    assert data_step is not None
    batch = prepared(parts, batch, data_step)
    if parts.edits.uses(data_step):
        return parts.functions.train(state, batch)
    total, n = parts.functions.evaluate(state.params, batch)
    return state, {"loss": total / jnp.maximum(n, 1), "grad_norm": jnp.zeros(())}


def prepared(parts: Assembly, batch: Batch, data_step: int) -> Batch:
    """The batch of a data step, with the weights that it has in this run."""
    batch = weighted(batch)
    if not parts.edits.masked:
        return batch
    weights = batch["weights"]
    rows = JaxFeed(weights.sharding).rows(len(weights))
    segment_ids = host_arrays(batch["segment_ids"])[rows] if "segment_ids" in batch else None
    shape = (len(rows), *weights.shape[1:])
    masked = parts.edits.weights(parts.loader, data_step, shape, segment_ids)
    return batch if masked is None else times(batch, masked)


def times(batch: Batch, factors: NDArray[np.float32]) -> Batch:
    """A weighted batch, its weights multiplied by factors for this process's rows."""
    weights = batch["weights"]
    feed = JaxFeed(weights.sharding)
    placed = feed.put({"w": factors}, feed.rows(len(weights)), len(weights))["w"]
    return {**batch, "weights": placed * weights}


def weighted(batch: Batch) -> Batch:
    """The batch with weights; they are ones if it has none."""
    if "weights" in batch:
        return batch
    if "tokens" in batch:
        shape, sharding = batch["tokens"].shape, batch["tokens"].sharding
    else:  # one weight for each row
        first = next(iter(batch.values()))
        shape, sharding = first.shape[:1], first.sharding
    return {**batch, "weights": _ones(shape, sharding)}


@cache
def _ones(shape: tuple[int, ...], sharding: Any) -> jax.Array:
    def shard(index: Any) -> Any:
        return np.broadcast_to(np.float32(1), shape)[index]

    return jax.make_array_from_callback(shape, sharding, shard)
