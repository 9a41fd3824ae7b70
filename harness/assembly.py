"""How a run's settings become its parts: mesh, corpus, loader, compiled functions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import jax
from jax.sharding import Mesh

from harness.config import Config
from harness.data import Corpus, open_data, training_data
from harness.edits import Edits, edits_of
from harness.metrics import Screen
from harness.rundir import RunDir
from harness.sharding import batch_sharding, make_mesh
from harness.step import StepFunctions, make_steps
from harness.task import Task, make_task
from pipeline import Dataset, JaxFeed, Loader


@dataclass(frozen=True)
class Assembly:
    """What training and replay both work with."""

    cfg: Config
    mesh: Mesh
    corpus: Corpus
    data: Dataset
    loader: Loader
    functions: StepFunctions
    task: Task
    edits: Edits


@contextmanager
def assemble(run: RunDir, cfg: Config, screen: Screen) -> Iterator[Assembly]:
    """The parts of a run on this process's devices; the mesh is set while it is entered.

    Raises:
        ConfigError: the devices do not fit the settings.
    """
    mesh = make_mesh(cfg)
    corpus, task = open_data(cfg, run.data(cfg), screen), make_task(cfg)
    data = training_data(corpus, cfg)
    with (
        jax.set_mesh(mesh),
        Loader(data, cfg.batch_size, feed=JaxFeed(batch_sharding(mesh))) as loader,
    ):
        functions, edits = make_steps(cfg, mesh, task), edits_of(run.path)
        yield Assembly(cfg, mesh, corpus, data, loader, functions, task, edits)
