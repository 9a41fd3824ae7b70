"""With mesh.shards every bit is the same on any number of devices and processes."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from harness.config import make
from harness.invariant import tree_sum
from harness.ledger import read
from harness.sharding import make_mesh
from harness.step import make_steps
from harness.update import weighted
from tests.harness.runs import Workplace, outcomes


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
def test_the_tree_of_sums_is_fixed_and_whole(n: int) -> None:
    x = jnp.asarray(np.random.default_rng(n).normal(size=(n, 4)), jnp.float32)
    assert np.allclose(tree_sum(x), x.sum(0), atol=1e-5)
    if n == 5:
        assert np.array_equal(tree_sum(x), ((x[0] + x[1]) + (x[2] + x[3])) + x[4])


@pytest.mark.long
def test_it_learns_what_the_usual_step_learns() -> None:
    tiny = {"width": 32, "layers": 1, "hidden": 64, "length": 16, "warmup": 1, "steps": 9}
    rows = np.random.default_rng(0).integers(0, 256, (8, 16)).astype(np.int32)
    found: list[float] = []
    for shards in (0, 4):
        cfg = make({**tiny, "mesh.shards": shards})
        mesh = make_mesh(cfg, jax.devices()[:1])
        place = np.broadcast_to(np.arange(16, dtype=np.int32), rows.shape)
        batch = {"tokens": rows, "segment_ids": np.ones_like(rows), "positions": place}
        with jax.set_mesh(mesh):
            functions = make_steps(cfg, mesh)
            state, told = functions.init(), {}
            for _ in range(3):
                state, told = functions.train(state, weighted(jax.device_put(batch)))
            found += [float(told["loss"]), float(told["grad_norm"])]
            total, n = functions.evaluate(state.params, weighted(jax.device_put(batch)))
            found.append(float(total) / float(n))
    assert np.allclose(found[:3], found[3:], rtol=1e-5)


@pytest.mark.long
def test_one_device_and_two_processes_of_two_and_eight_devices(workplace: Workplace) -> None:
    told: list[tuple[list[str | None], object]] = []
    for processes, devices in ((1, 1), (2, 2), (1, 8)):
        name = f"shards-{processes}x{devices}"
        more = ("mesh.shards=8", "model.dropout=0.1")
        found = outcomes(workplace.start_several(name, processes, *more, devices=devices))
        assert all(status == 0 for status, _ in found), found
        run: Path = workplace.path / name
        digests = json.loads((run / "checkpoints/40/digests/digests.json").read_text())
        told.append(([entry.loss_bits for entry in read(run / "ledger.jsonl")], digests))
    assert len(told[0][0]) == 40
    assert told[0] == told[1] == told[2]
