"""What is learned: a model, the losses of its rows, and how a row is shown to people.

The loop, checkpoints, ledger and replay know no more of it than `Task`. A task of your own is a
class `MyTask(cfg)` with these three methods, named by the setting `task = "module:MyTask"`; its
rows come from `data = "module:function"`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from harness.config import Config
from harness.model import Transformer
from harness.named import load_named
from harness.tokens import Tokenizer, make_tokenizer

# a batch: arrays whose first axis is rows, maybe among them weights (float32, of each unit of loss)
# and mask (bool[B], False where a row only fills up the last batch of a pass)
Batch = Mapping[str, Any]


class Task(Protocol):
    """One kind of training; shapes: B rows, and what else a batch has."""

    def model(self, rngs: nnx.Rngs) -> nnx.Module:
        """A new model; its nnx.Param variables are trained."""
        ...

    def losses(
        self, model: Any, batch: Batch, key: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """Losses and their weights, both float32[B, ...]: what is minimised is the weighted mean.

        A function of its arguments alone. `key` is the step's, for dropout and the like; None
        where the model is evaluated.
        """
        ...

    def show(self, row: Mapping[str, np.ndarray], segment: int) -> str:
        """One row of a batch, or the segment of a packed one, counted from 0."""
        ...


def make_task(cfg: Config) -> Task:
    """The task of the settings.

    Raises:
        ConfigError: cfg.task cannot be imported.
    """
    return Language(cfg) if cfg.task == "language" else load_named("task", cfg.task)(cfg)


def row_weights(batch: Batch, like: jax.Array) -> jax.Array:
    """The batch's weights, float32 as `like`; rows that only fill up have 0.

    >>> row_weights({"mask": jnp.array([True, False])}, jnp.ones(2)).tolist()
    [1.0, 0.0]
    """
    weights = batch.get("weights", jnp.ones(like.shape, jnp.float32))
    if "mask" in batch:
        mask = batch["mask"].reshape(-1, *(1,) * (like.ndim - 1))
        weights = jnp.where(mask, weights, 0)
    return weights


class Language:
    """Next tokens of packed documents: rows of tokens, segment_ids, positions, int32[B, L]."""

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        self.tokenizer: Tokenizer = make_tokenizer(cfg.data.tokenizer)

    def model(self, rngs: nnx.Rngs) -> Transformer:
        return Transformer(self.cfg, rngs=rngs, vocab=self.tokenizer.vocab)

    def losses(
        self, model: Any, batch: Batch, key: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """Cross-entropies float32[B, L - 1] in nats, of tokens 1, ..., L - 1 of each row."""
        weights = predicted(batch)
        chunk, z_loss = self.cfg.model.loss_chunk, self.cfg.model.z_loss if key is not None else 0.0
        tokens = (batch["tokens"], batch["segment_ids"], batch["positions"], key)
        if not chunk:
            return cross_entropy(model(*tokens)[:, :-1], batch["tokens"][:, 1:], z_loss), weights
        features_BxLxD = model.features(*tokens)
        targets_BxL = jnp.roll(batch["tokens"], -1, axis=1)
        graph, params = nnx.split(model)

        def losses(params: Any, x: jax.Array, targets: jax.Array) -> jax.Array:
            return cross_entropy(nnx.merge(graph, params).logits(x), targets, z_loss)

        return _in_chunks(losses, params, features_BxLxD, targets_BxL, chunk)[:, :-1], weights

    def show(self, row: Mapping[str, np.ndarray], segment: int) -> str:
        return self.tokenizer.decode(row["tokens"][row["segment_ids"] == segment + 1])


def cross_entropy(logits: jax.Array, targets: jax.Array, z_loss: float = 0.0) -> jax.Array:
    """-log softmax at each target, plus z_loss log(sum(exp(logits)))^2 (PaLM, section 5)."""
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    return loss + z_loss * jax.nn.logsumexp(logits, -1) ** 2 if z_loss else loss


def predicted(batch: Batch) -> jax.Array:
    """Weights float32[B, L - 1] of the predictions of tokens 1, ..., L - 1.

    The first token of a document and padding are predicted by nobody; rows that only fill up
    the last batch of a pass (`mask` False) count for nothing. A token of weight 0 is still seen by
    those after it in its document, but it is not predicted.

    >>> predicted({"segment_ids": jnp.array([[1, 1, 2, 0]])}).tolist()
    [[1.0, 0.0, 0.0]]
    """
    segments = batch["segment_ids"]
    counts = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] > 0)
    weights = row_weights(batch, segments)[:, 1:]
    return jnp.where(counts, weights, 0)


def _in_chunks(
    losses: Callable[..., jax.Array],
    params: Any,
    x_BxLxD: jax.Array,
    targets: jax.Array,
    chunk: int,
) -> jax.Array:
    """Losses [B, L], `chunk` tokens of each row at a time: only their logits exist at once."""
    b, length, d = x_BxLxD.shape
    x = x_BxLxD.reshape(b, length // chunk, chunk, d).swapaxes(0, 1)
    at = targets.reshape(b, length // chunk, chunk).swapaxes(0, 1)
    again = jax.checkpoint(losses)  # logits are computed a second time on the way back, not kept
    return jax.lax.map(lambda part: again(params, *part), (x, at)).swapaxes(0, 1).reshape(b, length)
