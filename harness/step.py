"""One training step: the state, the loss, the update."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from harness.config import Config
from harness.leaves import leaf_digests
from harness.model import Transformer
from harness.sharding import batch_sharding, replicated

# tokens, segment_ids, positions: int32[B, L]; weights: float32[B, L], of each token in the loss;
# maybe mask: bool[B]
Batch = Mapping[str, Any]


class TrainState(NamedTuple):
    """All that a step changes: parameters (nnx.State of float32) and the optimizer's state."""

    params: Any
    opt_state: Any


class StepFunctions(NamedTuple):
    """The compiled functions of one configuration on one mesh.

    Attributes:
        init: () -> TrainState, from the seed.
        abstract: TrainState of ShapeDtypeStructs with their shardings.
        train: (TrainState, batch) -> (TrainState, {"loss", "grad_norm"}); the state is donated.
        evaluate: (params, batch) -> (weighted sum of cross-entropies, sum of weights), float32.
        digest: TrainState -> uint32[leaves, 4], see `leaves.leaf_digests`.
        finite: TrainState -> bool[], whether it holds neither infinities nor NaN.
        losses: as `evaluate`, not compiled: to be differentiated and mapped.
    """

    init: Callable[[], TrainState]
    abstract: TrainState
    train: Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]
    evaluate: Callable[[Any, Batch], tuple[jax.Array, jax.Array]]
    digest: Callable[[TrainState], jax.Array]
    finite: Callable[[TrainState], jax.Array]
    losses: Callable[[Any, Batch], tuple[jax.Array, jax.Array]]


def make_optimizer(cfg: Config) -> optax.GradientTransformation:
    """Clipping by global norm, then AdamW under linear warmup and cosine decay to a twentieth."""
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, cfg.learning_rate, cfg.warmup, cfg.steps, cfg.learning_rate / 20
    )
    return optax.chain(
        optax.clip_by_global_norm(cfg.clip),
        optax.adamw(schedule, b2=0.95, weight_decay=cfg.weight_decay, mask=_matrices),
    )


def _matrices(params: Any) -> Any:
    return jax.tree.map(lambda p: p.ndim > 1, params)  # gains of norms do not decay


def next_token_loss(logits_BxLxV: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy of each token given those before it in its document.

    The first token of a document and padding are predicted by nobody; rows that only fill up
    the last batch of a pass (`mask` False) count for nothing. A token of weight 0 is still seen by
    those after it in its document, but it is not predicted, whatever its loss would be.

    Returns:
        Weighted sum in nats and sum of the weights of the tokens predicted, both float32.

    >>> one = jnp.ones((1, 3), jnp.int32)
    >>> total, n = next_token_loss(jnp.zeros((1, 3, 4)), {"tokens": one, "segment_ids": one})
    >>> round(float(total) / float(n), 4), float(n)
    (1.3863, 2.0)
    """
    segments = batch["segment_ids"]
    counts_BxL = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] > 0)
    if "mask" in batch:
        counts_BxL &= batch["mask"][:, None]
    weights_BxL = batch.get("weights", jnp.ones(segments.shape, jnp.float32))[:, 1:]
    counts_BxL &= weights_BxL > 0
    loss_BxL = optax.softmax_cross_entropy_with_integer_labels(
        logits_BxLxV[:, :-1], batch["tokens"][:, 1:]
    )
    total = jnp.sum(loss_BxL * weights_BxL, where=counts_BxL)
    return total, jnp.sum(weights_BxL, where=counts_BxL)


def make_steps(cfg: Config, mesh: Mesh) -> StepFunctions:
    """Build the model and compile-on-first-use functions of `cfg` on `mesh`.

    Bits depend on the configuration, the mesh's shape and the devices' instruction set; not on
    how often the run was stopped and resumed.
    """
    optimizer = make_optimizer(cfg)

    def parameters() -> Any:
        return nnx.state(Transformer(cfg, rngs=nnx.Rngs(cfg.seed)), nnx.Param)

    def init() -> TrainState:
        params = parameters()
        return TrainState(params, optimizer.init(params))

    def losses(params: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
        model = nnx.merge(graph, params)
        logits = model(batch["tokens"], batch["segment_ids"], batch["positions"])
        return next_token_loss(logits, batch)

    def mean_loss(params: Any, batch: Batch) -> jax.Array:
        total, n = losses(params, batch)
        # where every token is masked the gradient is 0, and the moments still decay
        return total / jnp.where(n > 0, n, 1)

    def train(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        loss, grads = jax.value_and_grad(mean_loss)(state.params, batch)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        told = {"loss": loss, "grad_norm": optax.tree.norm(grads)}
        after = TrainState(optax.apply_updates(state.params, updates), opt_state)
        if cfg.on_nonfinite == "skip":
            good = jnp.isfinite(told["loss"]) & jnp.isfinite(told["grad_norm"])
            after = jax.tree.map(lambda new, old: jnp.where(good, new, old), after, state)
        return after, told

    with jax.set_mesh(mesh):
        graph = nnx.graphdef(nnx.eval_shape(lambda: Transformer(cfg, rngs=nnx.Rngs(cfg.seed))))
        shapes = jax.eval_shape(init)
    shardings = _shardings(optimizer, shapes, mesh)
    rows, one = batch_sharding(mesh), replicated(mesh)
    return StepFunctions(
        init=jax.jit(init, out_shardings=shardings),
        abstract=jax.tree.map(
            lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), shapes, shardings
        ),
        train=jax.jit(
            train,
            in_shardings=(shardings, rows),
            out_shardings=(shardings, one),
            donate_argnums=0,
        ),
        evaluate=jax.jit(losses, in_shardings=(shardings.params, rows), out_shardings=one),
        digest=jax.jit(leaf_digests, in_shardings=(shardings,), out_shardings=one),
        finite=jax.jit(_finite, in_shardings=(shardings,), out_shardings=one),
        losses=losses,
    )


def _finite(state: TrainState) -> jax.Array:
    floats = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.inexact)]
    # a maximum keeps NaN, and costs a seventh of looking at each element
    return jnp.all(jnp.stack([jnp.isfinite(jnp.max(jnp.abs(x))) for x in floats]))


def _shardings(
    optimizer: optax.GradientTransformation, shapes: TrainState, mesh: Mesh
) -> TrainState:
    """The model's own annotations for parameters and their moments; the rest is replicated."""
    params = nnx.get_named_sharding(shapes.params, mesh)
    opt_state = optax.tree_utils.tree_map_params(
        optimizer,
        lambda _, sharding: sharding,
        shapes.opt_state,
        params,
        transform_non_params=lambda _: replicated(mesh),
    )
    return TrainState(params, opt_state)
