"""The model: a decoder-only transformer in Flax NNX whose parameters have named axes.

Names show shapes: B batch, L length, D model width, H heads, K head width, F hidden width, V
vocabulary. The logical names of parameter axes are those of `sharding.RULES`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from harness.attention import attend, document_mask, rope
from harness.config import Config
from harness.quantized import rounding
from harness.sharding import constrain
from harness.tokens import VOCAB

_INIT = nnx.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
_EMBED_INIT = nnx.initializers.normal(0.02)


def _named(init: Any, names: tuple[str | None, ...]) -> Any:
    # the sharding is chosen for the whole state at once: see sharding.parameter_shardings
    return nnx.with_partitioning(init, names, eager_sharding=False)


def linear(
    n_in: int, n_out: int, names: tuple[str | None, str | None], cfg: Config, rngs: nnx.Rngs
) -> nnx.Linear:
    """A matrix without bias, with logical names for its axes."""
    return nnx.Linear(
        n_in,
        n_out,
        use_bias=False,
        kernel_init=_named(_INIT, names),
        dtype=jnp.dtype(cfg.dtype),
        rngs=rngs,
    )


def _norm(width: int, cfg: Config, rngs: nnx.Rngs) -> nnx.RMSNorm:
    return nnx.RMSNorm(width, epsilon=cfg.model.norm_eps, dtype=jnp.dtype(cfg.dtype), rngs=rngs)


def block_matrix(
    name: str,
    n_in: int,
    n_out: int,
    axes: tuple[str | None, str | None],
    cfg: Config,
    rngs: nnx.Rngs,
) -> Any:
    """A matrix of a block, rounded for quantization and with a LoRA beside it where asked for."""
    layer = linear(n_in, n_out, axes, cfg, rngs)
    if cfg.model.quantize != "none":
        layer.dot_general = rounding(cfg.model.quantize)
    if not cfg.lora.rank or name not in cfg.lora.targets.split():
        return layer
    dtype = jnp.dtype(cfg.dtype)
    return nnx.LoRA(n_in, cfg.lora.rank, n_out, base_module=layer, dtype=dtype, rngs=rngs)


class Attention(nnx.Module):
    """Causal self-attention within documents. Groups of queries may share keys and values."""

    def __init__(self, cfg: Config, *, rngs: nnx.Rngs) -> None:
        self.cfg, self.kv_heads = cfg, cfg.model.kv_heads or cfg.heads
        self.head_width = cfg.model.head_width or cfg.width // cfg.heads
        inner = cfg.heads * self.head_width
        n_out = inner + 2 * self.kv_heads * self.head_width
        self.qkv = block_matrix("qkv", cfg.width, n_out, ("embed", "heads"), cfg, rngs)
        self.out = block_matrix("out", inner, cfg.width, ("heads", "embed"), cfg, rngs)
        if cfg.model.qk_norm:
            self.q_norm = _norm(self.head_width, cfg, rngs)
            self.k_norm = _norm(self.head_width, cfg, rngs)

    def __call__(
        self, x_BxLxD: jax.Array, positions_BxL: jax.Array, mask_BxLxL: jax.Array
    ) -> jax.Array:
        b, n, _ = x_BxLxD.shape
        h, g = self.cfg.heads, self.kv_heads
        qkv = self.qkv(x_BxLxD).reshape(b, n, h + 2 * g, self.head_width)
        q, k, v = (constrain(x, "rows", None, "heads") for x in jnp.split(qkv, (h, h + g), axis=2))
        if self.cfg.model.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = (rope(x, positions_BxL, self.cfg.model) for x in (q, k))
        return self.out(attend(q, k, v, mask_BxLxL, self.cfg).reshape(b, n, -1))


class Mlp(nnx.Module):
    """SwiGLU (Shazeer 2020)."""

    def __init__(self, cfg: Config, *, rngs: nnx.Rngs) -> None:
        n_in, n = cfg.width, cfg.hidden
        self.gate = block_matrix("gate", n_in, n, ("embed", "hidden"), cfg, rngs)
        self.up = block_matrix("up", n_in, n, ("embed", "hidden"), cfg, rngs)
        self.down = block_matrix("down", n, n_in, ("hidden", "embed"), cfg, rngs)

    def __call__(self, x_BxLxD: jax.Array) -> jax.Array:
        return self.down(jax.nn.silu(self.gate(x_BxLxD)) * self.up(x_BxLxD))


class Layer(nnx.Module):
    """One pre-norm block."""

    def __init__(self, cfg: Config, *, rngs: nnx.Rngs) -> None:
        self.attention_norm = _norm(cfg.width, cfg, rngs)
        self.attention = Attention(cfg, rngs=rngs)
        self.mlp_norm = _norm(cfg.width, cfg, rngs)
        self.mlp = Mlp(cfg, rngs=rngs)
        self.dropout = cfg.model.dropout

    def __call__(
        self,
        x_BxLxD: jax.Array,
        positions_BxL: jax.Array,
        mask_BxLxL: jax.Array,
        key: jax.Array | None = None,
    ) -> jax.Array:
        a, b = jax.random.split(key) if key is not None and self.dropout else (None, None)
        y_BxLxD = self.attention(self.attention_norm(x_BxLxD), positions_BxL, mask_BxLxL)
        x_BxLxD = constrain(x_BxLxD + _dropped(y_BxLxD, self.dropout, a), "rows")
        return constrain(
            x_BxLxD + _dropped(self.mlp(self.mlp_norm(x_BxLxD)), self.dropout, b), "rows"
        )


def _dropped(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    if key is None:
        return x
    return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)


class Transformer(nnx.Module):
    """From tokens of packed documents to float32 logits of each next token."""

    def __init__(self, cfg: Config, *, rngs: nnx.Rngs, vocab: int = VOCAB) -> None:
        self.cfg = cfg
        self.embed = nnx.Embed(
            cfg.model.vocab or vocab,
            cfg.width,
            embedding_init=_named(_EMBED_INIT, ("vocab", "embed")),
            dtype=jnp.dtype(cfg.dtype),
            rngs=rngs,
        )
        self.layers: Any = (
            _stacked(cfg, rngs)
            if cfg.model.scan
            else nnx.List([Layer(cfg, rngs=rngs) for _ in range(cfg.layers)])
        )
        self.norm = _norm(cfg.width, cfg, rngs)
        if not cfg.model.tied:
            n = cfg.model.vocab or vocab
            self.head = linear(cfg.width, n, ("embed", "vocab"), cfg, rngs)

    def __call__(
        self,
        tokens_BxL: jax.Array,
        segment_ids_BxL: jax.Array,
        positions_BxL: jax.Array,
        key: jax.Array | None = None,
    ) -> jax.Array:
        return self.logits(self.features(tokens_BxL, segment_ids_BxL, positions_BxL, key))

    def features(
        self,
        tokens_BxL: jax.Array,
        segment_ids_BxL: jax.Array,
        positions_BxL: jax.Array,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """The head's input, [B, L, D]. `key` is for dropout; None for no dropout."""
        # gather the table first and then its rows: so rows stay on the devices of their tokens
        table_VxD = constrain(self.embed.embedding[...].astype(self.cfg.dtype))
        x_BxLxD = constrain(jnp.take(table_VxD, tokens_BxL, axis=0), "rows")
        mask_BxLxL = document_mask(segment_ids_BxL)

        def run(layer: Layer, x_BxLxD: jax.Array, key: jax.Array | None) -> jax.Array:
            return layer(x_BxLxD, positions_BxL, mask_BxLxL, key)

        return self.norm(self._through_layers(x_BxLxD, run, key))

    def logits(self, x_BxLxD: jax.Array) -> jax.Array:
        """float32 logits of features."""
        out = self.embed.attend(x_BxLxD) if self.cfg.model.tied else self.head(x_BxLxD)
        return out.astype(jnp.float32)

    def _through_layers(
        self, x_BxLxD: jax.Array, run: Callable[..., jax.Array], key: jax.Array | None
    ) -> jax.Array:
        n, remat = self.cfg.layers, self.cfg.model.remat
        keys = None if key is None else jax.random.split(key, n)

        def pure(graph: Any) -> Callable[..., jax.Array]:
            def call(state: Any, x_BxLxD: jax.Array, key: jax.Array | None) -> jax.Array:
                return run(nnx.merge(graph, state), x_BxLxD, key)

            policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
            saved = policy if remat == "dots" else None
            return call if remat == "none" else jax.checkpoint(call, policy=saved)

        if self.cfg.model.scan:
            graph, stacked = nnx.split(self.layers)
            call = pure(graph)
            return jax.lax.scan(
                lambda x, at: (call(at[0], x, at[1]), None), x_BxLxD, (stacked, keys)
            )[0]
        for i, layer in enumerate(self.layers):
            graph, state = nnx.split(layer)
            x_BxLxD = pure(graph)(state, x_BxLxD, None if keys is None else keys[i])
        return x_BxLxD


def _stacked(cfg: Config, rngs: nnx.Rngs) -> Any:
    """All layers as one, whose parameters have a leading axis of layers."""

    @nnx.split_rngs(splits=cfg.layers)
    @nnx.vmap(in_axes=(0,), out_axes=0, transform_metadata={nnx.PARTITION_NAME: "layers"})
    def make(rngs: nnx.Rngs) -> Layer:
        return Layer(cfg, rngs=rngs)

    return make(rngs)
