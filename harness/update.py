"""How a batch changes the state: every token with its weight in the loss."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from harness.assembly import Assembly
from harness.sharding import host_arrays
from harness.step import Batch, TrainState
from pipeline import JaxFeed


def update(
    parts: Assembly, state: TrainState, batch: Batch
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One step on the batch that the loader gave last; the state is donated.

    The compiled step always takes `weights`, float32[B, L], so that a run in which some are 0 and
    a run in which none are go through the same program: their bits then differ only where the
    weights do. A batch that the run consumes without update has a loss and a gradient norm of 0.
    """
    data_step = parts.loader.last_step
    assert data_step is not None
    batch = prepared(parts, batch, data_step)
    if parts.edits.uses(data_step):
        return parts.functions.train(state, batch)
    total, n = parts.functions.evaluate(state.params, batch)
    return state, {"loss": total / jnp.maximum(n, 1), "grad_norm": jnp.zeros(())}


def prepared(parts: Assembly, batch: Batch, data_step: int) -> Batch:
    """The batch of a data step with the weights that it has in this run."""
    if not parts.edits.masked:
        return weighted(batch)
    rows = JaxFeed(batch["tokens"].sharding).rows(len(batch["tokens"]))
    segment_ids = host_arrays(batch["segment_ids"])[rows]
    return weighted(batch, parts.edits.weights(parts.loader, data_step, segment_ids))


def weighted(batch: Batch, weights: NDArray[np.float32] | None = None) -> Batch:
    """The batch with weights: the given ones of this process's rows, times its own; else ones."""
    tokens = batch["tokens"]
    if weights is not None:
        feed = JaxFeed(tokens.sharding)
        placed = feed.put({"w": weights}, feed.rows(len(tokens)), len(tokens))["w"]
        return {**batch, "weights": placed * batch["weights"] if "weights" in batch else placed}
    return batch if "weights" in batch else {**batch, "weights": _ones(tokens)}


def _ones(like: jax.Array) -> jax.Array:
    return _cached_ones(like.shape, like.sharding)


@cache
def _cached_ones(shape: tuple[int, ...], sharding: Any) -> jax.Array:
    def shard(index: Any) -> Any:
        return np.broadcast_to(np.float32(1), shape)[index]

    return jax.make_array_from_callback(shape, sharding, shard)
