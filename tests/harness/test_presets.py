"""The example configs are what their first line says; the digits are read and their task learns."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from examples.mnist import datasets
from harness.config import Config, make, parse
from harness.images import Classifier
from harness.mfu import parameter_shapes, token_flops
from harness.sharding import make_mesh
from harness.step import make_steps
from pipeline import Loader

CONFIGS = sorted((Path(__file__).parents[2] / "examples" / "configs").glob("*.toml"))


def _parameters(cfg: Config) -> int:
    return sum(map(math.prod, parameter_shapes(cfg).values()))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_sizes_are_as_told(path: Path) -> None:
    cfg, told = make(parse([], [path])), path.read_text()
    found = {what: int(n.replace(",", "")) for n, what in re.findall(r"([\d,]{5,}) (\w+)", told)}
    if path.stem != "finetune":
        assert found["parameters"] == _parameters(cfg)
    if cfg.task == "language" and path.stem != "finetune":
        assert found["floating"] == token_flops(cfg).full


@pytest.mark.long
@pytest.mark.parametrize("name", ["125m", "350m", "1b", "7b"])
def test_presets_are_lowered_whole(name: str) -> None:
    cfg = make(parse([], [p for p in CONFIGS if p.stem == name]))
    functions = make_steps(cfg, make_mesh(cfg))
    rows = jax.ShapeDtypeStruct((cfg.batch_size, cfg.length), np.int32)
    batch = dict.fromkeys(("tokens", "segment_ids", "positions"), rows)
    lowered = jax.jit(functions.train).lower(functions.abstract, batch)
    state = [(x.shape, x.dtype) for x in jax.tree.leaves(functions.abstract)]
    assert [(x.shape, x.dtype) for x in jax.tree.leaves(lowered.out_info[0])] == state
    held = sum(math.prod(shape) for shape, _ in state)  # parameters and two moments; counters
    assert 0 <= held - 3 * _parameters(cfg) < 10


def test_operations_of_a_token_by_hand() -> None:
    cfg = Config(width=8, layers=1, heads=2, hidden=12, length=4)
    products = 8 * 24 + 8 * 8 + 3 * 8 * 12 + 8 * 264
    assert token_flops(cfg).full == 6 * products + 12 * 8 * 4


def test_tiny_is_the_default() -> None:
    assert make(parse([], [p for p in CONFIGS if p.stem == "tiny"])) == Config()


@pytest.mark.long
def test_an_image_classifier_learns(digits: Path) -> None:
    sizes: dict[str, Any] = {"width": 16, "layers": 1, "heads": 2, "hidden": 16, "batch_size": 16}
    given = {"task": "harness.images:Classifier", "data.train": str(digits), "image.patch": 7}
    cfg = make({**sizes, **given, "steps": 40, "warmup": 2, "learning_rate": 1e-2})
    train, test = datasets(cfg)
    functions = make_steps(cfg, make_mesh(cfg))
    state, losses = functions.init(), list[float]()
    with Loader(train.repeat(), 16) as loader:
        for _ in range(40):
            state, told = functions.train(state, next(loader))
            losses.append(float(told["loss"]))
    assert losses[-1] < losses[0] / 2
    with Loader(test, 16, remainder="pad") as loader:
        total, n = functions.evaluate(state.params, next(loader))
    assert float(n) == 16
    assert float(total) / 16 < losses[0]
    row = {k: v[0] for k, v in Loader(test, 1)[3].items()}
    assert Classifier(cfg).show(row, 0).startswith("label 3\n")
