"""How good the model is on text that it never saw."""

from __future__ import annotations

import math
from collections import deque
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from harness.assembly import Assembly
from harness.data import held_out_data
from harness.ledger import finite, float_bits
from harness.metrics import Screen
from harness.sharding import batch_sharding
from pipeline import JaxFeed, Loader

_UNDER_WAY = 8  # batches given to the devices before the first of them is waited for


class Score(NamedTuple):
    """What the model scored on the held-out part.

    Attributes:
        loss: mean cross-entropy, nats a token.
        tokens: how many were predicted.
    """

    loss: float
    tokens: int

    def told(self, step: int, corpus: Any) -> dict[str, Any]:
        """The score after `step` steps as plain data.

        A token of the embedded corpus is a byte, so bits a byte are nats a token over ln 2.
        """
        return {
            "step": step,
            "loss": finite(self.loss),
            "loss_bits": float_bits(self.loss),
            "bits_per_byte": finite(self.loss / math.log(2)),
            "tokens": self.tokens,
            "unigram_entropy": corpus.unigram_entropy,
        }


def evaluate(parts: Assembly, params: Any, screen: Screen) -> Score:
    """The held-out speeches in order, each record at most once on any number of processes.

    All of them, or the first `evaluate_batches` batches where that is set.
    """
    cfg, feed = parts.cfg, JaxFeed(batch_sharding(parts.mesh))
    data = held_out_data(parts.corpus, cfg)
    about = math.ceil(parts.corpus.held_out_tokens / (cfg.length * cfg.batch_size))
    limit = cfg.evaluate_batches or None
    under_way: deque[Any] = deque()
    sums: list[float] = []
    tokens = 0
    with (
        Loader(data, cfg.batch_size, feed=feed, remainder="pad") as loader,
        screen.meter("evaluate", total=min(about, limit or about), unit="batches") as meter,
    ):
        batches = islice(loader.once(), limit)
        while True:
            batch = next(batches, None)
            if batch is not None:
                under_way.append(parts.functions.evaluate(params, batch))
            if len(under_way) > _UNDER_WAY or (batch is None and under_way):
                total, n = under_way.popleft()
                sums.append(float(np.asarray(total)))
                tokens += int(np.asarray(n))
                meter.advance()
            elif batch is None:
                return Score(math.fsum(sums) / tokens, tokens)
