"""Building the parts of a run from its settings: mesh, corpus, loader, compiled functions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh

from harness.config import Config, flat, make
from harness.data import Corpus, open_data, training_data
from harness.edits import Edits, edits_of
from harness.errors import ConfigError
from harness.metrics import Screen
from harness.rundir import RunDir
from harness.sharding import batch_sharding, make_mesh
from harness.step import StepFunctions, make_steps
from harness.task import Task, make_task
from pipeline import Dataset, JaxFeed, Loader


@dataclass(frozen=True)
class Assembly:
    """The parts of a run, for training and for replay."""

    cfg: Config
    mesh: Mesh
    corpus: Corpus
    data: Dataset
    loader: Loader
    functions: StepFunctions
    task: Task
    edits: Edits


@contextmanager
def assemble(
    run: RunDir, cfg: Config, screen: Screen, *, devices: Sequence[Any] | None = None
) -> Iterator[Assembly]:
    """The parts of a run, on all devices or the given ones. The mesh is set inside of the context.

    Raises:
        ConfigError: the devices do not fit the settings.
    """
    mesh = make_mesh(cfg, devices)
    _check_lanes(cfg, mesh)
    corpus, task = open_data(cfg, run.data(cfg), screen), make_task(cfg)
    data = training_data(corpus, cfg)
    with (
        jax.set_mesh(mesh),
        Loader(data, cfg.batch_size, feed=JaxFeed(batch_sharding(mesh))) as loader,
    ):
        functions, edits = make_steps(cfg, mesh, task), edits_of(run.path)
        yield Assembly(cfg, mesh, corpus, data, loader, functions, task, edits)


def assemble_on(
    run: RunDir, cfg: Config, mesh: Mapping[str, int], screen: Screen
) -> AbstractContextManager[Assembly]:
    """`assemble` on a mesh with these axes, made of the first devices."""
    sizes = {"fsdp": mesh.get("fsdp", 1), "mesh.tensor": mesh.get("tensor", 1)}
    devices = jax.devices()[: math.prod(mesh.values())]
    return assemble(run, make({**flat(cfg), **sizes}), screen, devices=devices)


def _check_lanes(cfg: Config, mesh: Mesh) -> None:
    """Check that the groups of processes that share rows divide `cfg.lanes`.

    Processes that differ only along the tensor axis have the same rows, and count as one group.
    """
    shares: dict[int, set[int]] = {}
    for device, index in batch_sharding(mesh).devices_indices_map((cfg.batch_size,)).items():
        shares.setdefault(device.process_index, set()).add(index[0].indices(cfg.batch_size)[0])
    groups = len({frozenset(rows) for rows in shares.values()})
    if cfg.lanes % groups:
        fit = [n for n in range(1, cfg.lanes + 1) if cfg.lanes % n == 0]
        raise ConfigError(
            f"{groups} processes share the rows, which does not divide lanes={cfg.lanes}. This run "
            f"goes on {' or '.join(map(str, fit))}. For a new run: --set lanes={groups}, with a "
            f"batch_size (now {cfg.batch_size}) that it divides; lanes decide the order of rows, "
            "so a run that has begun keeps them."
        )
