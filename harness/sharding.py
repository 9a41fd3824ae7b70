"""Sharding: the mesh of devices, and how parameters, state and batches are placed on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from harness.config import Config
from harness.errors import ConfigError

AXES = ("data", "fsdp", "tensor")
ROWS = ("data", "fsdp")  # axes that split a batch's rows; a tensor group has the same rows
# which mesh axis splits which logical axis; an axis that is not named here is not split
RULES = {"embed": "fsdp", "heads": "tensor", "hidden": "tensor", "vocab": "tensor", "rows": ROWS}


def make_mesh(cfg: Config, devices: Sequence[Any] | None = None) -> Mesh:
    """All devices, or the given ones, as a mesh [data, fsdp, tensor].

    Raises:
        ConfigError: fsdp and tensor do not divide the devices, or the rows cannot be divided among
            them.
    """
    n, tensor = len(devices or jax.devices()), cfg.mesh.tensor
    if n % tensor:
        raise ConfigError(f"mesh.{tensor=} must divide the {n} devices. It may change on resume.")
    if cfg.mesh.shards % n:
        raise ConfigError(f"the {n} devices must divide mesh.shards={cfg.mesh.shards}. Use fewer.")
    fsdp = cfg.fsdp or (1 if cfg.mesh.shards else n // tensor)
    if n // tensor % fsdp:
        raise ConfigError(
            f"{fsdp=} must divide the {n // tensor} devices that mesh.{tensor=} leaves of {n}. "
            "--set fsdp=0 takes all of them; a run that has begun may change it."
        )
    rows = n // tensor
    if cfg.batch_size % (rows * cfg.optim.accumulate):
        raise ConfigError(
            f"batch_size={cfg.batch_size} must be a multiple of the {rows} devices that share its "
            f"rows (with {fsdp=}, mesh.{tensor=}) times optim.accumulate="
            f"{cfg.optim.accumulate}. Use fewer devices or a larger mesh.tensor; or begin a run "
            "with another batch_size."
        )
    shape, kinds = (rows // fsdp, fsdp, tensor), (AxisType.Auto,) * 3
    return jax.make_mesh(shape, AXES, axis_types=kinds, devices=devices)


def parameter_mesh() -> Mesh:
    """All devices, parameters split over them: for a model without batches, whatever its run's."""
    shape, kinds = (1, len(jax.devices()), 1), (AxisType.Auto,) * 3
    return jax.make_mesh(shape, AXES, axis_types=kinds)


def partition(names: Sequence[Any], shape: Sequence[int], mesh: Mesh) -> PartitionSpec:
    """The mesh axes of an array, by its axes' logical names; one that does not divide is not split.

    >>> mesh = jax.make_mesh((1, 1, 1), AXES)
    >>> tuple(partition(("embed", None), (4, 4), mesh))
    ('fsdp', None)
    """
    axes = [RULES.get(name, name if name in mesh.shape else None) for name in names]
    sizes = [
        np.prod([mesh.shape[a] for a in ((x,) if isinstance(x, str) else x or ())]) for x in axes
    ]
    fits = [size % int(parts) == 0 for size, parts in zip(shape, sizes, strict=False)]
    return PartitionSpec(*(axis if ok else None for axis, ok in zip(axes, fits, strict=False)))


def parameter_shardings(params: Any, mesh: Mesh) -> Any:
    """Shardings by the model's annotations, for an nnx.State of parameters or of their shapes."""
    specs = nnx.get_partition_spec(params)
    return jax.tree.map(
        lambda spec, x: NamedSharding(mesh, partition(tuple(spec), x.shape, mesh)),
        specs,
        params,
        is_leaf=lambda x: isinstance(x, PartitionSpec),
    )


def constrain(x: jax.Array, *names: str | None) -> jax.Array:
    """Constrain the sharding of an activation on the current mesh; without a mesh, do nothing."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or not set(AXES) <= set(mesh.axis_names):
        return x
    axes = (*names, *(None,) * (x.ndim - len(names)))
    return jax.lax.with_sharding_constraint(x, partition(axes, x.shape, mesh))  # pyright: ignore


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: rows over the axes data and fsdp."""
    return NamedSharding(mesh, PartitionSpec(ROWS))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding that puts the whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def host_arrays(tree: Any) -> Any:
    """Global arrays as NumPy arrays, whole on every process.

    >>> host_arrays({"x": jax.numpy.arange(2)})
    {'x': array([0, 1], dtype=int32)}
    """
    if jax.process_count() == 1:
        return jax.tree.map(np.asarray, tree)
    return jax.tree.map(lambda x: multihost_utils.process_allgather(x, tiled=True), tree)
