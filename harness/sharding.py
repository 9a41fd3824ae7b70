"""Where arrays live: the mesh of devices, and how parameters, state and batches lie on it."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from harness.config import Config
from harness.errors import ConfigError

AXES = ("data", "fsdp")


def make_mesh(cfg: Config) -> Mesh:
    """All devices as a mesh [data, fsdp].

    Raises:
        ConfigError: fsdp does not divide the devices, or the devices not the batch or the width.
    """
    n = jax.device_count()
    fsdp = cfg.fsdp or n
    if n % fsdp:
        raise ConfigError(f"{fsdp=} must divide the {n} devices. Use fsdp=0 for all of them.")
    if cfg.batch_size % n or cfg.width % fsdp:
        raise ConfigError(
            f"batch_size={cfg.batch_size} must be a multiple of the {n} devices, and "
            f"width={cfg.width} of {fsdp=}. Begin a run with other sizes, or use fewer devices."
        )
    return jax.make_mesh((n // fsdp, fsdp), AXES, axis_types=(AxisType.Auto,) * 2)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows of a batch over all devices."""
    return NamedSharding(mesh, PartitionSpec(AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def host_arrays(tree: Any) -> Any:
    """Global arrays as NumPy arrays, whole on every process.

    >>> host_arrays({"x": jax.numpy.arange(2)})
    {'x': array([0, 1], dtype=int32)}
    """
    if jax.process_count() == 1:
        return jax.tree.map(np.asarray, tree)
    return jax.tree.map(lambda x: multihost_utils.process_allgather(x, tiled=True), tree)
