"""What is learned: a model, the losses of its rows, and how a row is shown to people.

The loop, checkpoints, ledger and replay only use `Task`. Your own task is a class `MyTask(cfg)`
with these three methods, named by the setting `task = "module:MyTask"`. Its rows come from `data =
"module:function"`.
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
from harness.errors import ConfigError
from harness.model import Transformer
from harness.named import called, load_named
from harness.tokens import Tokenizer, make_tokenizer

# a batch: arrays whose first axis is rows; optionally weights (float32, of each unit of loss) and
# mask (bool[B], False for rows that only fill up the last batch of a pass)
Batch = Mapping[str, Any]


class Task(Protocol):
    """One kind of training. In shapes, B is the number of rows; further axes are the batch's."""

    def model(self, rngs: nnx.Rngs) -> nnx.Module:
        """A new model. Its nnx.Param variables are trained."""
        ...

    def losses(
        self, model: Any, batch: Batch, key: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """Losses and their weights, both float32[B, ...]. Their weighted mean is minimised.

        It must be a pure function of its arguments. `key` is the step's random key, for dropout and
        the like; None when the model is evaluated. Rows that only fill up a batch get weight 0,
        whatever their weights here.
        """
        ...

    def show(self, row: Mapping[str, np.ndarray], segment: int) -> str:
        """One row of a batch as text; of a packed row, its segment, counted from 0."""
        ...


def make_task(cfg: Config) -> Task:
    """The task that the settings name.

    Raises:
        ConfigError: cfg.task cannot be imported or made, or is no task.
    """
    if cfg.task == "language":
        return Language(cfg)
    made = called("task", cfg.task, load_named("task", cfg.task), cfg)
    if lacks := [name for name in ("model", "losses", "show") if not hasattr(made, name)]:
        raise ConfigError(
            f"task={cfg.task!r} makes a {type(made).__name__}, which lacks {', '.join(lacks)}: see "
            "Task in harness/task.py."
        )
    return made


def row_weights(batch: Batch, like: jax.Array) -> jax.Array:
    """The batch's weights, float32 in the shape of `like`; 0 for rows that only fill up the batch.

    >>> row_weights({"mask": jnp.array([True, False])}, jnp.ones(2)).tolist()
    [1.0, 0.0]
    """
    return without_padding(batch, batch.get("weights", jnp.ones(like.shape, jnp.float32)))


def without_padding(batch: Batch, weights: jax.Array) -> jax.Array:
    """Weights [B, ...], with 0 for rows that only fill up the last batch of a pass.

    >>> without_padding({"mask": jnp.array([True, False])}, jnp.ones((2, 1))).tolist()
    [[1.0], [0.0]]
    """
    if "mask" not in batch:
        return weights
    return jnp.where(batch["mask"].reshape(-1, *(1,) * (weights.ndim - 1)), weights, 0)


class Language:
    """Next tokens of packed documents: fields tokens, segment_ids, positions, int32[B, L]."""

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        self.tokenizer: Tokenizer = make_tokenizer(cfg.data.tokenizer)

    def model(self, rngs: nnx.Rngs) -> Transformer:
        return Transformer(self.cfg, rngs=rngs, vocab=self.tokenizer.vocab)

    def losses(
        self, model: Any, batch: Batch, key: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """Cross-entropies in nats of tokens 1, ..., L - 1, and their weights: float32[B, L - 1]."""
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

    The first token of a document and padding are not predicted, so their weight is 0. So is that of
    rows that only fill up the last batch of a pass (`mask` is False). Later tokens of a document
    still see a token of weight 0, but it is not predicted.

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
    """Losses [B, L], for `chunk` tokens of each row at a time, so that few logits exist at once."""
    b, length, d = x_BxLxD.shape
    x = x_BxLxD.reshape(b, length // chunk, chunk, d).swapaxes(0, 1)
    at = targets.reshape(b, length // chunk, chunk).swapaxes(0, 1)
    again = jax.checkpoint(losses)  # logits are not kept, but computed again in the backward pass
    return jax.lax.map(lambda part: again(params, *part), (x, at)).swapaxes(0, 1).reshape(b, length)
