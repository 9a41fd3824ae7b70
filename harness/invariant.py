"""`mesh.shards`: steps whose bits do not depend on the number of devices or processes.

The batch is cut into a fixed number of logical shards. Each shard goes through one program for a
single device, without partitioning or batching over shards, wherever it runs. The gradients of all
shards are gathered, which moves bits and adds nothing; every device sums them in one fixed tree and
updates its own copy of the state. The price: every device holds the whole state and the gradients
of all shards at once, and runs its shards one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from harness.sharding import AXES, replicated


class Pieces(NamedTuple):
    """The functions that an invariant step is made of; all of them are traced.

    Attributes:
        losses: (params, batch, key | None) -> (sum of losses, sum of weights).
        key: state -> the step's random key.
        advance: (state, loss, gradients) -> (state, metrics).
    """

    losses: Callable[..., Any]
    key: Callable[[Any], jax.Array]
    advance: Callable[..., Any]


def tree_sum(parts: Any) -> Any:
    """The sum over the leading axis of each leaf, neighbours first: ((0 + 1) + (2 + 3)) + ...

    >>> tree_sum({"x": jnp.arange(5.0)})["x"].item()
    10.0
    """

    def add(x: jax.Array) -> jax.Array:
        terms = list(x)
        while len(terms) > 1:
            odd = terms[-1:] if len(terms) % 2 else []
            terms = [a + b for a, b in zip(terms[::2], terms[1::2], strict=False)] + odd
        return terms[0]

    return jax.tree.map(add, parts)


class Invariant:
    """Train and evaluate functions over `shards` logical shards, on any mesh of data parallelism.

    Args:
        pieces: the functions of the step.
        mesh: all its axes but "data" have size 1; its number of devices divides `shards`.
        shards: number of logical shards in a batch.
    """

    def __init__(self, pieces: Pieces, mesh: Mesh, shards: int) -> None:
        self._pieces, self._mesh, self._shards = pieces, mesh, shards
        self._devices = [d for d in mesh.devices.flat if d.process_index == jax.process_index()]
        self._first = {d: i * shards // mesh.size for i, d in enumerate(mesh.devices.flat)}
        self._each = shards // mesh.size
        self._alone = {
            d: Mesh(np.array([[[d]]]), AXES, axis_types=(AxisType.Auto,) * 3) for d in self._devices
        }
        self._cut = jax.jit(self._cut_rows)
        self._stack = jax.jit(lambda parts: jax.tree.map(lambda *x: jnp.stack(x), *parts))
        self._gather = jax.jit(lambda x: x, out_shardings=replicated(mesh))
        self._gradients = jax.jit(self._shard_gradients)
        self._losses = jax.jit(pieces.losses)
        self._advance = jax.jit(self._sum_and_advance, donate_argnums=0)
        self._sum = jax.jit(tree_sum)

    def train(self, state: Any, batch: Mapping[str, Any]) -> Any:
        """(state, batch) -> (state, metrics). The state's buffers are donated."""
        found = self._over_shards(self._gradients, state, batch)
        # copy all before the first is donated, which donates the whole array
        copies = {d: _local(state, d) for d in self._devices}
        return self._joined(
            {d: self._on(d, self._advance, copies[d], _local(found, d)) for d in self._devices}
        )

    def evaluate(self, params: Any, batch: Mapping[str, Any]) -> Any:
        """(params, batch) -> (sum of losses, sum of weights)."""
        found = self._over_shards(lambda p, rows, _: self._losses(p, rows, None), params, batch)
        return self._joined({d: self._on(d, self._sum, _local(found, d)) for d in self._devices})

    def _over_shards(self, f: Callable[..., Any], state: Any, batch: Mapping[str, Any]) -> Any:
        """f(state, rows, number) of all shards: leaves [shards, ...], whole on every device."""
        stacked: dict[Any, Any] = {}
        for d in self._devices:
            mine = _local(state, d)
            rows = self._on(d, self._cut, _local(dict(batch), d))
            numbers = range(self._first[d], self._first[d] + self._each)
            parts = [self._on(d, f, mine, r, i) for r, i in zip(rows, numbers, strict=True)]
            stacked[d] = self._on(d, self._stack, parts)
        one = next(iter(stacked.values()))

        def joined(first: jax.Array, *more: jax.Array) -> jax.Array:
            shape = (self._shards, *first.shape[1:])
            to = NamedSharding(self._mesh, PartitionSpec("data"))
            return jax.make_array_from_single_device_arrays(shape, to, [first, *more])

        others = [stacked[d] for d in self._devices[1:]]
        return self._gather(jax.tree.map(joined, one, *others))

    def _on(self, device: Any, f: Callable[..., Any], *args: Any) -> Any:
        with jax.set_mesh(self._alone[device]):  # a program for one device
            return f(*args)

    def _cut_rows(self, batch: Any) -> list[Any]:
        def part(x: jax.Array, i: int) -> jax.Array:
            size = x.shape[0] // self._each
            return x[i * size : (i + 1) * size]

        return [jax.tree.map(lambda x, i=i: part(x, i), batch) for i in range(self._each)]

    def _shard_gradients(self, state: Any, rows: Any, number: jax.Array) -> Any:
        key = jax.random.fold_in(self._pieces.key(state), number)
        return jax.value_and_grad(self._pieces.losses, has_aux=True)(state.params, rows, key)

    def _sum_and_advance(self, state: Any, found: Any) -> Any:
        (total, weight), grads = tree_sum(found)
        n = jnp.where(weight > 0, weight, 1)
        return self._pieces.advance(state, total / n, jax.tree.map(lambda g: g / n, grads))

    def _joined(self, by_device: Mapping[Any, Any]) -> Any:
        """Results that are equal on every device, as one replicated result."""
        to = replicated(self._mesh)
        return jax.tree.map(
            lambda *x: jax.make_array_from_single_device_arrays(x[0].shape, to, list(x)),
            *by_device.values(),
        )


def _local(tree: Any, device: Any) -> Any:
    """The part of global arrays that is on a device, as arrays of that device alone."""
    return jax.tree.map(
        lambda x: next(s.data for s in x.addressable_shards if s.device == device), tree
    )
