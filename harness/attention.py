"""Attention: masks, rotary positions, and the attention itself.

Names show shapes: B batch, L length, H query heads, G key and value heads, K head width.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from harness.config import Config, ModelConfig
from harness.errors import ConfigError


def document_mask(segment_ids_BxL: jax.Array) -> jax.Array:
    """bool[B, L, L]: a token sees itself and earlier tokens of its document; padding sees padding.

    >>> document_mask(jnp.array([[1, 1, 2]]))[0].astype(int).tolist()
    [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    """
    same_BxLxL = segment_ids_BxL[:, :, None] == segment_ids_BxL[:, None, :]
    length = segment_ids_BxL.shape[1]
    return same_BxLxL & jnp.tril(jnp.ones((length, length), bool))


def frequencies(half: int, cfg: ModelConfig) -> jax.Array:
    """Angle per position of each rotated plane, float32[half].

    "llama3" is Llama 3.1's rope_scaling: planes whose wavelength is long compared to the original
    context are divided by the factor, planes with a short one are kept, and in between it
    interpolates.
    """
    frequency_k = cfg.rope_theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    if cfg.rope_scaling == "linear":
        return frequency_k / cfg.rope_factor
    if cfg.rope_scaling == "llama3":
        turns_k = cfg.rope_original * frequency_k / (2 * math.pi)
        kept_k = jnp.clip((turns_k - cfg.rope_low) / (cfg.rope_high - cfg.rope_low), 0, 1)
        return frequency_k * (kept_k + (1 - kept_k) / cfg.rope_factor)
    return frequency_k


def rope(
    x_BxLxHxK: jax.Array, positions_BxL: jax.Array, cfg: ModelConfig | None = None
) -> jax.Array:
    """Rotary position embedding (Su et al. 2021, section 3.2.2), computed in float32.

    Args:
        x_BxLxHxK: queries or keys, with K even; the two halves of K form the rotated planes.
        positions_BxL: int32, the position of each token in its document.
        cfg: base and scaling of the frequencies.

    Returns:
        The rotated array, in the input's dtype.

    >>> x = jnp.ones((1, 2, 1, 4))
    >>> bool((rope(x, jnp.zeros((1, 2), jnp.int32)) == x).all())
    True
    """
    frequency_k = frequencies(x_BxLxHxK.shape[-1] // 2, cfg or ModelConfig())
    angle_BxLx1xk = positions_BxL[:, :, None, None].astype(jnp.float32) * frequency_k
    sin, cos = jnp.sin(angle_BxLx1xk), jnp.cos(angle_BxLx1xk)
    a, b = jnp.split(x_BxLxHxK.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x_BxLxHxK.dtype)


def attend(
    q_BxLxHxK: jax.Array, k_BxLxGxK: jax.Array, v_BxLxGxK: jax.Array, mask: jax.Array, cfg: Config
) -> jax.Array:
    """Scaled dot-product attention [B, L, H, K]; groups of H / G query heads share keys and values.

    The softmax is computed in float32, whatever the compute dtype. `mask` is bool[B, L, L].
    """
    how: Any = cfg.model.attention
    if how == "plain":
        return plain_attention(q_BxLxHxK, k_BxLxGxK, v_BxLxGxK, mask)
    if how == "tokamax":
        return _tokamax(q_BxLxHxK, k_BxLxGxK, v_BxLxGxK, mask)
    if how == "fused":  # cuDNN only computes in half precision
        half = cfg.dtype == "bfloat16"
        how = "cudnn" if half and jax.default_backend() == "gpu" else "xla"
    return jax.nn.dot_product_attention(
        q_BxLxHxK,
        k_BxLxGxK,
        v_BxLxGxK,
        mask=mask[:, None],
        implementation=how,
    )


def plain_attention(
    q_BxLxHxK: jax.Array, k_BxLxGxK: jax.Array, v_BxLxGxK: jax.Array, mask: jax.Array
) -> jax.Array:
    """Attention written out. The other implementations are tested against it; old runs use it."""
    shared = q_BxLxHxK.shape[2] // k_BxLxGxK.shape[2]
    k, v = (jnp.repeat(x, shared, axis=2) if shared > 1 else x for x in (k_BxLxGxK, v_BxLxGxK))
    score = jnp.einsum("blhk,bmhk->bhlm", q_BxLxHxK, k, preferred_element_type=jnp.float32)
    score = jnp.where(mask[:, None], score * q_BxLxHxK.shape[-1] ** -0.5, -1e30)
    weight_BxHxLxL = jax.nn.softmax(score, axis=-1).astype(v.dtype)
    return jnp.einsum("bhlm,bmhk->blhk", weight_BxHxLxL, v)


def _tokamax(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    try:
        import tokamax  # pyright: ignore[reportMissingImports]
    except ImportError as e:
        raise ConfigError(
            "model.attention='tokamax' needs the package tokamax: pip install tokamax. "
            "Or use model.attention=fused."
        ) from e
    return tokamax.dot_product_attention(q, k, v, mask=mask[:, None])
