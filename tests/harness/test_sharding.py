"""Any mesh of eight devices computes the losses of one; one that does not fit is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import jax
import numpy as np
import pytest

from harness.config import make
from harness.errors import ConfigError
from harness.sharding import AXES, make_mesh, partition
from tests.harness.runs import LIMIT

ALL = ["8,1,1", "4,2,1", "2,4,1", "1,8,1", "4,1,2", "2,2,2", "1,4,2", "2,1,4", "1,2,4", "1,1,8"]
WHOLE: dict[str, Any] = {
    "model.scan": True,
    "model.kv_heads": 2,
    "model.qk_norm": True,
    "model.tied": True,
    "model.remat": "dots",
    "model.loss_chunk": 8,
    "model.z_loss": 1e-3,
    "model.dropout": 0.1,
    "optim.accumulate": 2,
    "optim.ema": 0.9,
}


def on_meshes(settings: dict[str, Any], *meshes: str) -> list[list[float]]:
    """The losses of ten steps on each mesh, by a process with eight devices."""
    flags = "--xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, "-m", "tests.harness.on_meshes", json.dumps(settings), *meshes],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=3 * LIMIT,  # it compiles for eleven meshes
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.long
@pytest.mark.parametrize(
    ("settings", "meshes"),
    [({"layers": 1}, ALL), ({"optim.name": "muon", "optim.every": 2, "layers": 1}, ["2,2,2"])],
    ids=["plain", "muon"],
)
def test_losses_are_those_of_one_device(settings: dict[str, Any], meshes: list[str]) -> None:
    one, *others = on_meshes(settings, "1,1,1", *meshes)
    for mesh, losses in zip(meshes, others, strict=True):
        np.testing.assert_allclose(losses, one, rtol=1e-5, err_msg=mesh)


@pytest.mark.long
def test_whatever_is_set_the_losses_are_those_of_one_device_and_the_same_run_to_run() -> None:
    one, many = on_meshes(WHOLE, "1,1,1", "2,2,2")
    np.testing.assert_allclose(many, one, rtol=1e-5)
    assert on_meshes(WHOLE, "2,2,2") == [many]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"fsdp": 3}, r"--set fsdp=0 takes all of them"),
        ({"mesh.tensor": 2}, r"mesh.tensor=2 must divide the 1 devices. It may change"),
    ],
)
def test_meshes_that_do_not_fit(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        make_mesh(make(settings))


def test_an_axis_that_does_not_divide_stays_whole() -> None:
    mesh = jax.sharding.AbstractMesh((1, 4, 2), AXES)
    found = partition(("embed", "heads"), (6, 6), mesh)  # pyright: ignore[reportArgumentType]
    assert tuple(found) == (None, "tensor")
