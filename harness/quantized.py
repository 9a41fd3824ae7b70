"""Quantization-aware training: the blocks' matrices see the numbers that a quantized model has."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp

from pipeline.errors import need

KINDS = {"int8": "int8", "int4": "int4", "float8": "float8_e4m3fn"}


@cache  # one function a kind: models that hold it are compiled once
def rounding(kind: str) -> Callable[..., jax.Array]:
    """A product of matrices whose operands are rounded by qwix to "int8", "int4" or "float8".

    Each token and each output channel has a scale of its own. Gradients pass the rounding as if it
    were not there (Bengio et al. 2013, straight-through), so parameters stay in float.

    Raises:
        MissingExtraError: qwix is not installed.
    """
    try:
        import qwix  # pyright: ignore[reportMissingImports]
    except ImportError as e:
        raise need("qwix", "qwix") from e
    qtype = jnp.dtype(KINDS[kind])

    def rounded(x: jax.Array, contracted: Any) -> jax.Array:
        scaled = [axis for axis in range(x.ndim) if axis not in contracted]
        seen = qwix.dequantize(qwix.quantize(x, qtype, channelwise_axes=scaled))
        return x + jax.lax.stop_gradient(seen.astype(x.dtype) - x)

    def multiply(lhs: jax.Array, rhs: jax.Array, dimensions: Any, **more: Any) -> jax.Array:
        of_lhs, of_rhs = dimensions[0]
        return jax.lax.dot_general(rounded(lhs, of_lhs), rounded(rhs, of_rhs), dimensions, **more)

    return multiply
