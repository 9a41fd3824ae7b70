"""Per-row effects of a batch on a model: losses of its tokens, norm of its gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from harness.task import Batch
from pipeline.debug.documents import Document

Losses = Callable[[Any, Batch], tuple[jax.Array, jax.Array]]
_AT_ONCE = 8  # rows whose gradients exist at the same time


def token_losses(losses: Losses, params: Any, batch: Batch) -> tuple[NDArray[Any], NDArray[Any]]:
    """The loss of each token, and whether it counts, float32[B, L] each.

    The weighted sum of losses is linear in the weights. So its derivative by a token's weight is
    that token's loss, whatever the model.

    Args:
        losses: (params, batch) -> (weighted sum, sum of weights).
        params: of the model.
        batch: with `weights`; only tokens with a weight above 0 count.
    """
    by_weight, counted = _compiled(losses)[0](params, batch)
    return np.asarray(by_weight), np.asarray(counted)


def gradient_norms(losses: Losses, params: Any, batch: Batch) -> NDArray[np.float32]:
    """The norm of the gradient of each row's mean loss, float32[B]."""
    return np.asarray(_compiled(losses)[1](params, dict(batch)))


@cache
def _compiled(losses: Losses) -> tuple[Callable[..., Any], Callable[..., Any]]:
    def by_weight(params: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
        def sums(weights: jax.Array) -> tuple[jax.Array, jax.Array]:
            return losses(params, {**batch, "weights": weights})

        _, pull = jax.vjp(sums, batch["weights"])
        one, zero = jnp.ones((), jnp.float32), jnp.zeros((), jnp.float32)
        return pull((one, zero))[0], pull((zero, one))[0]

    def norms(params: Any, batch: Batch) -> jax.Array:
        def of_row(row: Batch) -> jax.Array:
            def mean(params: Any) -> jax.Array:
                total, n = losses(params, {k: v[None] for k, v in row.items()})
                return total / jnp.where(n > 0, n, 1)

            return optax.tree.norm(jax.grad(mean)(params))

        return jax.lax.map(of_row, batch, batch_size=_AT_ONCE)

    return jax.jit(by_weight), jax.jit(norms)


def document_losses(
    documents: list[Document],
    losses_BxL: NDArray[Any],
    counts_BxL: NDArray[Any],
    segment_ids: NDArray[Any],
) -> list[float]:
    """The mean loss of each document's tokens in a batch; -inf if none of its tokens counts."""
    found: list[float] = []
    for document in documents:
        total = n = 0.0
        for row, segment, *_ in document.pieces:
            here = segment_ids[row] == segment if segment else slice(None)
            total += float(losses_BxL[row][here].sum())
            n += float(counts_BxL[row][here].sum())
        found.append(total / n if n else -math.inf)
    return found
