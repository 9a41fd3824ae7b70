"""How large a model is: its parameters, and the floating-point operations that a token costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from harness.config import Config
from harness.mfu import of_model
from harness.task import make_task


def _parameters(cfg: Config) -> Callable[[], Any]:
    return lambda: nnx.state(make_task(cfg).model(nnx.Rngs(0)), nnx.Param)


def count_parameters(cfg: Config) -> int:
    """How many parameters a model has; nothing is allocated."""
    return sum(x.size for x in jax.tree.leaves(jax.eval_shape(_parameters(cfg))))


def flops_per_token(cfg: Config) -> int:
    """Floating-point operations of a token's training step; attention counts whole (see mfu)."""
    shapes = jax.eval_shape(_parameters(cfg))
    return round(of_model(cfg, shapes).full)
