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
        Mean loss, of tokens in nats, and the number of them; NaN and 0 where nothing is held out.
    """
    cfg, feed = parts.cfg, JaxFeed(batch_sharding(parts.mesh))
    data = held_out_data(parts.corpus, cfg)
    if data is None:
        return math.nan, 0
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
            tokens += round(float(n))
            meter.advance()
    return math.fsum(sums) / tokens, tokens
