"""The model: a decoder-only transformer in Flax NNX whose parameters say how they are sharded.

Shapes stand in names: B batch, L length, D model width, H heads, K head width, F hidden width,
V vocabulary.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from harness.config import Config
from harness.tokens import VOCAB

_INIT = nnx.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
_EMBED_INIT = nnx.initializers.normal(0.02)


def _linear(
    n_in: int, n_out: int, names: tuple[str | None, str | None], cfg: Config, rngs: nnx.Rngs
) -> nnx.Linear:
    return nnx.Linear(
        n_in,
        n_out,
        use_bias=False,
        kernel_init=nnx.with_partitioning(_INIT, names),
        dtype=jnp.dtype(cfg.dtype),
        rngs=rngs,
    )


def _norm(cfg: Config, rngs: nnx.Rngs) -> nnx.RMSNorm:
    return nnx.RMSNorm(cfg.width, dtype=jnp.dtype(cfg.dtype), rngs=rngs)


def rope(x_BxLxHxK: jax.Array, positions_BxL: jax.Array) -> jax.Array:
    """Rotary position embedding (Su et al. 2021, section 3.2.2), in float32.

    Args:
        x_BxLxHxK: queries or keys, K even; the two halves of K are the rotated planes.
        positions_BxL: int32, the place of each token within its document.

    Returns:
        The rotated array, in the dtype that came in.

    >>> x = jnp.ones((1, 2, 1, 4))
    >>> bool((rope(x, jnp.zeros((1, 2), jnp.int32)) == x).all())
    True
    """
    half = x_BxLxHxK.shape[-1] // 2
    frequency_k = 10_000.0 ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle_BxLx1xk = positions_BxL[:, :, None, None].astype(jnp.float32) * frequency_k
    sin, cos = jnp.sin(angle_BxLx1xk), jnp.cos(angle_BxLx1xk)
    a, b = jnp.split(x_BxLxHxK.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x_BxLxHxK.dtype)


def document_mask(segment_ids_BxL: jax.Array) -> jax.Array:
    """Who may look at whom: earlier tokens of the same document; padding (0) sees padding.

    >>> document_mask(jnp.array([[1, 1, 2]]))[0].astype(int).tolist()
    [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    """
    same_BxLxL = segment_ids_BxL[:, :, None] == segment_ids_BxL[:, None, :]
    length = segment_ids_BxL.shape[1]
    return same_BxLxL & jnp.tril(jnp.ones((length, length), bool))


class Attention(nnx.Module):
    """Causal self-attention within documents."""

    def __init__(self, cfg: Config, *, rngs: nnx.Rngs) -> None:
        self.heads = cfg.heads
        self.qkv = _linear(cfg.width, 3 * cfg.width, ("fsdp", None), cfg, rngs)
        self.out = _linear(cfg.width, cfg.width, (None, "fsdp"), cfg, rngs)

    def __call__(
        self, x_BxLxD: jax.Array, positions_BxL: jax.Array, mask_BxLxL: jax.Array
    ) -> jax.Array:
        b, n, d = x_BxLxD.shape
        q, k, v = jnp.split(self.qkv(x_BxLxD).reshape(b, n, 3 * self.heads, -1), 3, axis=2)
        q, k = rope(q, positions_BxL), rope(k, positions_BxL)
        # the softmax stays in float32 whatever the compute dtype is
        score = jnp.einsum("blhk,bmhk->bhlm", q, k, preferred_element_type=jnp.float32)
        score = jnp.where(mask_BxLxL[:, None], score * q.shape[-1] ** -0.5, -1e30)
        weight_BxHxLxL = jax.nn.softmax(score, axis=-1).astype(v.dtype)
        return self.out(jnp.einsum("bhlm,bmhk->blhk", weight_BxHxLxL, v).reshape(b, n, d))


class Mlp(nnx.Module):
    """SwiGLU (Shazeer 2020)."""

    def __init__(self, cfg: Config, *, rngs: nnx.Rngs) -> None:
        self.gate = _linear(cfg.width, cfg.hidden, ("fsdp", None), cfg, rngs)
        self.up = _linear(cfg.width, cfg.hidden, ("fsdp", None), cfg, rngs)
        self.down = _linear(cfg.hidden, cfg.width, (None, "fsdp"), cfg, rngs)

    def __call__(self, x_BxLxD: jax.Array) -> jax.Array:
        return self.down(jax.nn.silu(self.gate(x_BxLxD)) * self.up(x_BxLxD))


class Layer(nnx.Module):
    """One pre-norm block."""

    def __init__(self, cfg: Config, *, rngs: nnx.Rngs) -> None:
        self.attention_norm = _norm(cfg, rngs)
        self.attention = Attention(cfg, rngs=rngs)
        self.mlp_norm = _norm(cfg, rngs)
        self.mlp = Mlp(cfg, rngs=rngs)

    def __call__(
        self, x_BxLxD: jax.Array, positions_BxL: jax.Array, mask_BxLxL: jax.Array
    ) -> jax.Array:
        x_BxLxD += self.attention(self.attention_norm(x_BxLxD), positions_BxL, mask_BxLxL)
        return x_BxLxD + self.mlp(self.mlp_norm(x_BxLxD))


class Transformer(nnx.Module):
    """Tokens of packed documents in, float32 logits of each next token out."""

    def __init__(self, cfg: Config, *, rngs: nnx.Rngs) -> None:
        self.embed = nnx.Embed(
            VOCAB,
            cfg.width,
            embedding_init=nnx.with_partitioning(_EMBED_INIT, (None, "fsdp")),
            dtype=jnp.dtype(cfg.dtype),
            rngs=rngs,
        )
        self.layers = nnx.List([Layer(cfg, rngs=rngs) for _ in range(cfg.layers)])
        self.norm = _norm(cfg, rngs)
        self.head = _linear(cfg.width, VOCAB, ("fsdp", None), cfg, rngs)

    def __call__(
        self, tokens_BxL: jax.Array, segment_ids_BxL: jax.Array, positions_BxL: jax.Array
    ) -> jax.Array:
        x_BxLxD = self.embed(tokens_BxL)
        mask_BxLxL = document_mask(segment_ids_BxL)
        for layer in self.layers:
            x_BxLxD = layer(x_BxLxD, positions_BxL, mask_BxLxL)
        return self.head(self.norm(x_BxLxD)).astype(jnp.float32)
