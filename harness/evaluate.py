"""How good the model is on text that it never saw."""

from __future__ import annotations

import math
from typing import Any

from harness.assembly import Assembly
from harness.data import held_out_data
from harness.metrics import Screen
from harness.sharding import batch_sharding
from pipeline import JaxFeed, Loader


def evaluate(parts: Assembly, params: Any, screen: Screen) -> tuple[float, int]:
    """The held-out speeches exactly once over, in order.

    Returns:
        Mean cross-entropy in nats a token, and the number of tokens predicted.
    """
    cfg, feed = parts.cfg, JaxFeed(batch_sharding(parts.mesh))
    data = held_out_data(parts.corpus, cfg)
    sums: list[float] = []
    tokens = 0
    about = math.ceil(parts.corpus.held_out_tokens / (cfg.length * cfg.batch_size))
    with (
        Loader(data, cfg.batch_size, feed=feed, remainder="pad") as loader,
        screen.meter("evaluate", total=about, unit="batches") as meter,
    ):
        for batch in loader.once():
            total, n = parts.functions.evaluate(params, batch)
            sums.append(float(total))
            tokens += int(n)
            meter.advance()
    return math.fsum(sums) / tokens, tokens
