"""One training step: the state, the loss, the update."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple
from zlib import crc32

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding

from harness.config import Config
from harness.frozen import trained_kind, with_given
from harness.invariant import Invariant, Pieces
from harness.leaves import leaf_digests, map_named, named_leaves
from harness.optimizer import AverageState, make_optimizer
from harness.sharding import batch_sharding, constrain, parameter_shardings, replicated
from harness.task import Batch, Task, make_task, without_padding


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
        evaluate: (params, batch) -> (weighted sum of losses, sum of weights), float32.
        digest: TrainState -> uint32[leaves, 4], see `leaves.leaf_digests`.
        base: () -> a checksum of the parameters that are not trained; None if all are.
        finite: TrainState -> bool[], whether it has neither infinities nor NaN.
        losses: as `evaluate`, but not compiled, for differentiating and mapping.
        model: parameters -> the model, including the parameters that are not trained.
    """

    init: Callable[[], TrainState]
    abstract: TrainState
    train: Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]
    evaluate: Callable[[Any, Batch], tuple[jax.Array, jax.Array]]
    digest: Callable[[TrainState], jax.Array]
    base: Callable[[], int | None]
    finite: Callable[[TrainState], jax.Array]
    losses: Callable[[Any, Batch], tuple[jax.Array, jax.Array]]
    model: Callable[[Any], nnx.Module]


def make_steps(cfg: Config, mesh: Mesh, task: Task | None = None) -> StepFunctions:
    """Build the model, and the functions of `cfg` on `mesh`, which are compiled on first use.

    Bits depend on the configuration, the mesh's shape and the devices' instruction set, but not on
    how often the run was stopped and resumed.
    """
    task, optimizer = task or make_task(cfg), make_optimizer(cfg)
    graphs: list[Any] = []

    def parameters() -> tuple[Any, Any]:
        model = task.model(nnx.Rngs(cfg.seed))
        graph, params, rest = nnx.split(model, trained_kind(cfg), nnx.Param)
        graphs.append(graph)
        return params, rest

    def begin(params: Any) -> TrainState:
        return TrainState(params, optimizer.init(params))

    def losses(params: Any, frozen: Any, batch: Batch, key: jax.Array | None = None) -> Any:
        loss, weights = task.losses(nnx.merge(graphs[0], params, frozen), batch, key)
        weights = without_padding(batch, weights)
        # a unit of weight 0 must not count, even if its loss is not finite
        total = jnp.sum(loss * weights, where=weights > 0)
        return total, jnp.sum(weights, where=weights > 0)

    gradients = _accumulated(losses, cfg.optim.accumulate)
    seen = _Shapes()

    def train(state: TrainState, frozen: Any, batch: Batch) -> tuple[TrainState, dict[str, Any]]:
        seen.traced(batch)
        loss, grads = gradients(state.params, frozen, batch, key(state))
        return advance(state, loss, grads)

    def key(state: TrainState) -> jax.Array:
        return _step_key(cfg.seed, state.opt_state)

    def advance(state: TrainState, loss: jax.Array, grads: Any) -> Any:
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        told = {"loss": loss, "grad_norm": optax.tree.norm(grads)}
        after = TrainState(optax.apply_updates(state.params, updates), opt_state)
        if cfg.on_nonfinite == "skip":
            good = jnp.isfinite(told["loss"]) & jnp.isfinite(told["grad_norm"])
            after = jax.tree.map(lambda new, old: jnp.where(good, new, old), after, state)
        return after, told

    made = _compiled(cfg, mesh, _Parts(parameters, begin, train, losses, graphs))
    if not cfg.mesh.shards:
        return made
    fixed = Invariant(Pieces(made.losses, key, advance), mesh, cfg.mesh.shards)
    return made._replace(train=fixed.train, evaluate=fixed.evaluate)


class _Parts(NamedTuple):
    """The functions that `_compiled` compiles; `graphs` gets the model's graph when traced."""

    parameters: Callable[[], tuple[Any, Any]]
    begin: Callable[[Any], TrainState]
    train: Callable[..., Any]
    losses: Callable[..., Any]
    graphs: list[Any]


def _compiled(cfg: Config, mesh: Mesh, parts: _Parts) -> StepFunctions:
    with jax.set_mesh(mesh):
        trained, rest = jax.eval_shape(parts.parameters)
        shapes = jax.eval_shape(parts.begin, trained)
    shardings, rows, one = _shardings(shapes, mesh), batch_sharding(mesh), replicated(mesh)
    places = (shardings.params, parameter_shardings(rest, mesh))
    made = jax.jit(parts.parameters, out_shardings=places)
    started = jax.jit(parts.begin, in_shardings=places[:1], out_shardings=shardings)
    # what is not trained is not part of the state; it is made once, on first use
    frozen = cache(lambda: with_given(made()[1], cfg) if jax.tree.leaves(rest) else rest)
    train = jax.jit(
        parts.train,
        in_shardings=(shardings, places[1], rows),
        out_shardings=(shardings, one),
        donate_argnums=0,
    )
    evaluate = jax.jit(parts.losses, in_shardings=(*places, rows), out_shardings=one)
    beside = jax.jit(leaf_digests, in_shardings=(places[1],), out_shardings=one)
    return StepFunctions(
        init=lambda: started(with_given(made()[0], cfg)),
        abstract=jax.tree.map(
            lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), shapes, shardings
        ),
        train=lambda state, batch: train(state, frozen(), batch),
        evaluate=lambda params, batch: evaluate(params, frozen(), batch),
        digest=jax.jit(leaf_digests, in_shardings=(shardings,), out_shardings=one),
        base=lambda: (
            crc32(np.asarray(beside(frozen())).tobytes()) if jax.tree.leaves(rest) else None
        ),
        finite=jax.jit(_finite, in_shardings=(shardings,), out_shardings=one),
        losses=lambda params, batch, key=None: parts.losses(params, frozen(), batch, key),
        model=lambda params: nnx.merge(parts.graphs[0], params, frozen()),
    )


def evaluated(state: TrainState) -> Any:
    """The parameters to evaluate: their moving average if the optimizer keeps one.

    >>> evaluated(TrainState({"w": 1}, (AverageState({"w": 2}),)))
    {'w': 2}
    """
    states = jax.tree.leaves(state.opt_state, is_leaf=lambda x: isinstance(x, AverageState))
    return next((x.average for x in states if isinstance(x, AverageState)), state.params)


def _accumulated(losses: Callable[..., Any], parts: int) -> Callable[..., Any]:
    """(params, frozen, batch, key) -> (mean loss, its gradients), from so many parts of the rows.

    Part i has rows i, i + parts, ..., so that each device keeps its own rows.
    """

    def mean(params: Any, frozen: Any, batch: Batch, key: jax.Array) -> jax.Array:
        total, n = losses(params, frozen, batch, key)
        # if every token is masked, the gradient is 0, and the moments still decay
        return total / jnp.where(n > 0, n, 1)

    def split(x: jax.Array) -> jax.Array:
        x = x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)
        return constrain(x, None, "rows")

    def scanned(params: Any, frozen: Any, batch: Batch, key: jax.Array) -> tuple[jax.Array, Any]:
        def add(sums: Any, at: Any) -> tuple[Any, None]:
            more = jax.value_and_grad(losses, has_aux=True)(params, frozen, *at)
            return jax.tree.map(jnp.add, sums, more), None

        zero = jnp.zeros((), jnp.float32)
        start = ((zero, zero), jax.tree.map(jnp.zeros_like, params))
        batches = jax.tree.map(split, dict(batch))
        (sums, grads), _ = jax.lax.scan(add, start, (batches, jax.random.split(key, parts)))
        n = jnp.where(sums[1] > 0, sums[1], 1)
        return sums[0] / n, jax.tree.map(lambda g: g / n, grads)

    return jax.value_and_grad(mean) if parts == 1 else scanned


def _step_key(seed: int, opt_state: Any) -> jax.Array:
    """A random key for this step, from the optimizer's counters: a resumed step gets the same."""
    key = jax.random.key(seed)
    for leaf in jax.tree.leaves(opt_state):
        if jnp.issubdtype(leaf.dtype, jnp.integer) and leaf.ndim == 0:
            key = jax.random.fold_in(key, leaf)
    return key


class _Shapes:
    """Warns if the step is traced for a batch of other shapes, since it is then compiled again."""

    def __init__(self) -> None:
        self._before: dict[str, str] | None = None

    def traced(self, batch: Batch) -> None:
        now = {k: f"{x.dtype}{list(x.shape)}" for k, x in batch.items()}
        before, self._before = self._before, now
        changed = [
            f"{k}: {before.get(k, 'none')} -> {now.get(k, 'none')}"
            for k in sorted({*before, *now} if before else ())
            if before and before.get(k) != now.get(k)
        ]
        if changed:
            warnings.warn(
                f"the step is compiled again, as its batch changed: {'; '.join(changed)}. Give all "
                "batches one shape.",
                stacklevel=2,
            )


def _finite(state: TrainState) -> jax.Array:
    floats = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.inexact)]
    # a maximum keeps NaN, and takes a seventh of the time of checking each element
    return jnp.all(jnp.stack([jnp.isfinite(jnp.max(jnp.abs(x))) for x in floats]))


def _shardings(shapes: TrainState, mesh: Mesh) -> TrainState:
    """The model's own annotations for parameters and their moments; the rest is replicated.

    The name of a moment ends with the name of its parameter, in every transformation of Optax.
    """
    params = parameter_shardings(shapes.params, mesh)
    known = named_leaves(params)

    def of(name: str, leaf: Any) -> NamedSharding:
        parts = name.split("/")
        ends = ("/".join(parts[i:]) for i in range(len(parts)))
        found = next((known[end] for end in ends if end in known), None)
        return found if found and len(found.spec) <= leaf.ndim else replicated(mesh)

    return TrainState(params, map_named(of, shapes.opt_state))
