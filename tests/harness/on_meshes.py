"""Ten steps on meshes of eight devices, to be compared: run in a process that has eight.

python -m tests.harness.on_meshes '{"model.scan": true}' 1,1,1 2,2,2: a line of losses a mesh.
"""

from __future__ import annotations

import json
import math
import sys
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from harness.config import Config, make
from harness.sharding import AXES
from harness.step import make_steps

SIZES: dict[str, Any] = {"width": 32, "layers": 2, "hidden": 64, "length": 32, "batch_size": 16}
SIZES |= {"warmup": 2, "steps": 20, "heads": 4}


def batch_of(cfg: Config, step: int) -> dict[str, np.ndarray]:
    """Rows of three documents and some padding; the same for every mesh."""
    rng = np.random.default_rng(step)
    shape = (cfg.batch_size, cfg.length)
    ends = np.sort(rng.integers(4, cfg.length, (cfg.batch_size, 3)), axis=1)
    place = np.arange(cfg.length)
    segments = 1 + (place >= ends[:, :1]) + (place >= ends[:, 1:2]) - 3 * (place >= ends[:, 2:])
    segments = np.maximum(segments, 0).astype(np.int32)
    return {
        "tokens": np.cumsum(rng.integers(0, 5, shape), axis=1, dtype=np.int32),
        "segment_ids": segments,
        "positions": np.broadcast_to(place, shape).astype(np.int32),
        "weights": np.ones(shape, np.float32),
    }


def losses(cfg: Config, mesh: Mesh, steps: int = 10) -> list[float]:
    """The losses of the first steps."""
    with jax.set_mesh(mesh):
        functions = make_steps(cfg, mesh)
        state, found = functions.init(), list[float]()
        for step in range(steps):
            state, told = functions.train(state, batch_of(cfg, step))
            found.append(float(told["loss"]))
    return found


def main() -> None:
    cfg = make({**SIZES, **json.loads(sys.argv[1])})
    for word in sys.argv[2:]:
        shape = tuple(int(n) for n in word.split(","))
        devices = jax.devices()[: math.prod(shape)]
        mesh = jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)
        print(json.dumps(losses(cfg, mesh)), flush=True)


if __name__ == "__main__":
    main()
