"""The size of a model: its parameters, and the floating-point operations for a token."""

from __future__ import annotations

import math
from typing import Any

import jax
from flax import nnx

from harness.config import Config
from harness.leaves import leaf_names
from harness.task import make_task


def parameter_shapes(cfg: Config) -> dict[str, tuple[int, ...]]:
    """Shapes of all parameters by name. Allocates nothing."""

    def made() -> Any:
        return nnx.state(make_task(cfg).model(nnx.Rngs(0)), nnx.Param)

    shapes = jax.eval_shape(made)
    named = zip(leaf_names(shapes), jax.tree.leaves(shapes), strict=True)
    return {name: tuple(leaf.shape) for name, leaf in named}


def count_parameters(cfg: Config) -> int:
    """The number of trained values."""
    return sum(math.prod(shape) for shape in parameter_shapes(cfg).values())


def flops_per_token(cfg: Config) -> int:
    """Floating-point operations of training on one token, forward and backward.

    6 for each parameter in a matrix product, and for attention 12 x length x width of all heads in
    each layer, over the whole row. The embedding's table is looked up, not multiplied, unless it is
    the head too. This is TorchTitan's count; MaxText halves the attention for causality. What remat
    computes twice counts once.
    """
    shapes = parameter_shapes(cfg)
    multiplied = sum(
        math.prod(shape)
        for name, shape in shapes.items()
        if len(shape) > 1 and ("kernel" in name or (cfg.model.tied and "embedding" in name))
    )
    inner = cfg.heads * (cfg.model.head_width or cfg.width // cfg.heads)
    return 6 * multiplied + 12 * cfg.layers * inner * cfg.length
