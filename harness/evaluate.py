"""Evaluating the model on held-out data."""

from __future__ import annotations

import math
from collections import deque
from itertools import islice
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from harness.assembly import Assembly
from harness.data import held_out_data
from harness.ledger import finite, float_bits
from harness.metrics import Screen
from harness.sharding import batch_sharding, replicated
from harness.task import Language, predicted
from pipeline import JaxFeed, Loader

_UNDER_WAY = 8  # batches dispatched to the devices before the result of the first is awaited


class Score(NamedTuple):
    """The model's result on the held-out part.

    Attributes:
        loss: mean loss, for tokens in nats; NaN if nothing is held out, or nothing of it counts.
        tokens: how many were predicted, each by its weight.
        size: bytes of text in these tokens, likewise; 0 or NaN if rows are not text.
    """

    loss: float
    tokens: float
    size: float

    def told(self, step: int, unigram_entropy: float | None) -> dict[str, Any]:
        """The score after `step` steps, as plain data.

        >>> Score(math.log(2), 8, 4).told(7, None)["bits_per_byte"]
        2.0
        """
        bits = self.loss * self.tokens / math.log(2)
        return {
            "step": step,
            "loss": finite(self.loss),
            "loss_bits": float_bits(self.loss),
            "bits_per_byte": finite(bits / self.size) if self.size else None,
            "tokens": round(self.tokens),
            "unigram_entropy": unigram_entropy,
        }


def evaluate(parts: Assembly, params: Any, screen: Screen) -> Score:
    """Evaluate on the held-out rows, in order; each record counts once on any number of processes.

    If `evaluate.batches` is set, only the first so many batches are used.
    """
    cfg, feed = parts.cfg, JaxFeed(batch_sharding(parts.mesh))
    data = held_out_data(parts.corpus, cfg)
    if data is None:
        return Score(math.nan, 0, 0)
    about = math.ceil(parts.corpus.held_out_tokens / (cfg.length * cfg.batch_size))
    limit = cfg.evaluate.batches or None
    known = [n for n in (about, limit) if n]  # of own data it is not known how many batches it has
    measure = _measure(parts)
    under_way: deque[Any] = deque()
    sums: list[list[float]] = []
    with (
        Loader(data, cfg.batch_size, feed=feed, remainder="pad") as loader,
        screen.meter("evaluate", total=min(known, default=None), unit="batches") as meter,
    ):
        for batch in islice(loader.once(), limit):
            under_way.append((*parts.functions.evaluate(params, batch), measure(batch)))
            meter.advance()
            if len(under_way) > _UNDER_WAY:
                sums.append([float(np.asarray(x)) for x in under_way.popleft()])
        sums += [[float(np.asarray(x)) for x in told] for told in under_way]
    total, n, size = (math.fsum(told[i] for told in sums) for i in range(3))
    return Score(total / n if n else math.nan, n, size)


def _measure(parts: Assembly) -> Any:
    """A function: batch -> bytes of text in its predicted tokens, each by its weight, float32[].

    It is NaN where the tokenizer lacks a token: then tokens of your own are of another one.
    """
    if not isinstance(parts.task, Language):
        return lambda batch: 0
    sizes = np.array(parts.task.tokenizer.sizes(), np.float32)

    def measure(batch: Any) -> jax.Array:
        each = jnp.asarray(sizes).at[batch["tokens"][:, 1:]].get(mode="fill", fill_value=jnp.nan)
        weights = predicted(batch)
        return jnp.sum(each * weights, where=weights > 0)

    return jax.jit(measure, out_shardings=replicated(parts.mesh))
