"""The optimizer: the Optax chain and its schedule, by the names in the settings."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import optax
from optax import contrib

from harness.config import Config
from harness.leaves import map_named


def make_schedule(cfg: Config) -> optax.Schedule:
    """The learning rate of each step: linear warmup, then cfg.optim.schedule.

    "cosine" and "linear" fall until cfg.steps; "wsd" stays at the peak and falls linearly in the
    last cfg.optim.decay of the steps (Hu et al. 2024, MiniCPM); "constant" stays at the peak.

    >>> rate = make_schedule(Config(steps=10, warmup=2, learning_rate=1.0))
    >>> [round(float(rate(step)), 2) for step in (0, 1, 2, 10)]
    [0.5, 0.75, 1.0, 0.05]
    """
    peak, warm, end = cfg.learning_rate, cfg.warmup, cfg.steps
    first = 0.0 if cfg.optim.from_zero else peak / max(warm, 1)
    last = peak * cfg.optim.final
    if cfg.optim.schedule == "cosine":
        return optax.warmup_cosine_decay_schedule(first, peak, warm, end, last)
    falls = {"wsd": max(1, round(end * cfg.optim.decay)), "linear": end - warm, "constant": 0}
    steps = min(falls[cfg.optim.schedule], end - warm)
    parts = [optax.linear_schedule(first, peak, warm), optax.constant_schedule(peak)]
    if steps:
        parts.append(optax.linear_schedule(peak, last, steps))
    return optax.join_schedules(parts, [warm, end - steps][: len(parts) - 1])


def make_optimizer(cfg: Config) -> optax.GradientTransformation:
    """Clipping by global norm, then AdamW or Muon; if set, averaged gradients and parameters."""
    optim = cfg.optim
    schedule = _by_update(make_schedule(cfg), optim.every)
    if optim.name == "muon":
        update = contrib.muon(
            schedule,
            weight_decay=cfg.weight_decay,
            weight_decay_mask=_matrices,
            adam_b1=optim.b1,
            adam_b2=optim.b2,
            eps=optim.eps,
            muon_weight_dimension_numbers=_inner_matrices,
            consistent_rms=0.2,  # updates as large as AdamW's, so that one learning rate suits both
        )
    else:
        update = optax.adamw(
            schedule,
            b1=optim.b1,
            b2=optim.b2,
            eps=optim.eps,
            weight_decay=cfg.weight_decay,
            mask=_matrices,
        )
    parts = [optax.clip_by_global_norm(cfg.clip), update]
    chain = (
        optax.chain(*parts, average_of_parameters(optim.ema)) if optim.ema else optax.chain(*parts)
    )
    if optim.every == 1:
        return chain
    return optax.MultiSteps(chain, optim.every).gradient_transformation()


def _by_update(rate: optax.Schedule, every: int) -> optax.Schedule:
    """The rate of each update, which is all that an optimizer counts: that of its last step.

    >>> rate = _by_update(lambda step: step, 4)
    >>> [rate(update) for update in (0, 1)]
    [3, 7]
    """
    return rate if every == 1 else lambda update: rate((update + 1) * every - 1)


def _matrices(params: Any) -> Any:
    # gains of norms and biases do not decay, even if a scan over layers gives them two axes
    return map_named(
        lambda name, p: p.ndim > 1 and not {"scale", "bias"} & set(name.split("/")), params
    )


def _inner_matrices(params: Any) -> Any:
    """Muon's matrices: the last two axes of kernels, except those of the embedding and the head."""

    def axes(name: str, p: Any) -> Any:
        inner = "kernel" in name.split("/") and "head" not in name.split("/") and p.ndim in (2, 3)
        return contrib.MuonDimensionNumbers(p.ndim - 2, p.ndim - 1) if inner else None

    return map_named(axes, params)


class AverageState(NamedTuple):
    """An exponential moving average of parameters."""

    average: Any


def average_of_parameters(decay: float) -> optax.GradientTransformation:
    """A transformation that averages the parameters after each update; updates pass unchanged."""

    def update(updates: Any, state: AverageState, params: Any = None) -> tuple[Any, AverageState]:
        after = optax.apply_updates(params, updates)
        mixed = jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, state.average, after)
        return updates, AverageState(mixed)

    return optax.GradientTransformation(AverageState, update)  # pyright: ignore
