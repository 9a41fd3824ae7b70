"""The model sees its own document's past and nothing else; its step is the same on any shape."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from harness.config import Config
from harness.errors import ConfigError
from harness.model import Transformer
from harness.sharding import make_mesh
from harness.step import StepFunctions, make_steps

CFG = Config(width=32, layers=1, hidden=48, length=12, batch_size=2, steps=8, warmup=2)


@pytest.fixture(scope="module")
def model() -> Transformer:
    with jax.set_mesh(make_mesh(CFG)):
        return Transformer(CFG, rngs=nnx.Rngs(0))


def packed(*documents: list[int], length: int = 12) -> dict[str, np.ndarray]:
    tokens, segments, positions = (np.zeros((1, length), np.int32) for _ in range(3))
    at = 0
    for i, document in enumerate(documents, 1):
        end = at + len(document)
        tokens[0, at:end], segments[0, at:end] = document, i
        positions[0, at:end] = np.arange(len(document))
        at = end
    return {"tokens": tokens, "segment_ids": segments, "positions": positions}


def logits(model: Transformer, batch: dict[str, Any]) -> np.ndarray:
    return np.asarray(model(batch["tokens"], batch["segment_ids"], batch["positions"]))[0]


def test_a_document_is_blind_to_its_neighbours(model: Transformer) -> None:
    alone = logits(model, packed([7, 8, 9]))[:3]
    second = logits(model, packed([1, 2, 3, 4], [7, 8, 9]))[4:7]
    np.testing.assert_allclose(alone, second, atol=1e-5)


def test_a_token_is_blind_to_its_future(model: Transformer) -> None:
    one, other = (logits(model, packed([7, 8, 9, last])) for last in (1, 2))
    np.testing.assert_array_equal(one[:3], other[:3])
    assert not np.allclose(one[3], other[3])


def test_positions_matter(model: Transformer) -> None:
    one, other = (logits(model, packed(d)) for d in ([7, 8, 9], [8, 7, 9]))
    assert not np.allclose(one[2], other[2])


@pytest.mark.long
def test_padding_and_masked_rows_do_not_count() -> None:
    mesh = make_mesh(CFG)
    with jax.set_mesh(mesh):
        functions = make_steps(CFG, mesh)
        params = functions.init().params
        row = packed([7, 8, 9], [5, 6])
        both = {k: np.concatenate([v, v]) for k, v in row.items()}
        total, n = functions.evaluate(params, both)
        half, m = functions.evaluate(params, {**both, "mask": np.array([True, False])})
    assert (int(n), int(m)) == (6, 3)  # 2 + 1 predictions a row
    np.testing.assert_allclose(float(total), 2 * float(half), rtol=1e-6)


@pytest.mark.long
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_steps_learn_and_keep_parameters_in_float32(dtype: str) -> None:
    cfg = Config(**{**vars(CFG), "dtype": dtype})
    mesh = make_mesh(cfg)
    row = packed([7, 8, 9, 10, 7, 8, 9, 10, 7, 8, 9, 10])
    batch = {k: np.concatenate([v, v]) for k, v in row.items()}
    with jax.set_mesh(mesh):
        functions = make_steps(cfg, mesh)
        state, losses = functions.init(), []
        for _ in range(8):
            state, told = functions.train(state, batch)
            losses.append(float(told["loss"]))
    assert losses[-1] < losses[0] - 0.5
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("given", [{"fsdp": 3}, {"batch_size": 2, "fsdp": 2}])
def test_meshes_that_do_not_fit(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="fsdp"):
        make_mesh(Config(**given))


@pytest.fixture(scope="module")
def functions() -> Iterator[StepFunctions]:
    mesh = make_mesh(CFG)
    with jax.set_mesh(mesh):
        yield make_steps(CFG, mesh)


def weighed(row: dict[str, np.ndarray], zeros: slice) -> dict[str, np.ndarray]:
    weights = np.ones((2, 12), np.float32)
    weights[:, zeros] = 0
    return {**{k: np.concatenate([v, v]) for k, v in row.items()}, "weights": weights}


@pytest.mark.long
def test_weights_count_in_sum_and_in_number(functions: StepFunctions) -> None:
    params, row = functions.init().params, packed([7, 8, 9], [5, 6, 4, 2])
    alone = functions.evaluate(params, weighed(packed([7, 8, 9]), slice(0, 0)))
    masked = functions.evaluate(params, weighed(row, slice(3, 7)))
    assert float(masked[1]) == float(alone[1]) == 4
    np.testing.assert_allclose(masked[0], alone[0], rtol=1e-5)
    plain = {k: v for k, v in weighed(row, slice(0, 0)).items() if k != "weights"}
    ones, none = (functions.evaluate(params, b) for b in (weighed(row, slice(0, 0)), plain))
    assert [float(x) for x in ones] == [float(x) for x in none]


@pytest.mark.long
def test_a_masked_batch_decays_moments_and_nothing_else(functions: StepFunctions) -> None:
    row = packed([7, 8, 9, 10, 7, 8, 9, 10])
    state, _ = functions.train(functions.init(), weighed(row, slice(0, 0)))
    before = jax.tree.map(np.array, optax.tree_utils.tree_get(state.opt_state, "mu"))
    state, told = functions.train(state, weighed(row, slice(None)))
    assert (float(told["loss"]), float(told["grad_norm"])) == (0, 0)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state))
    after = optax.tree_utils.tree_get(state.opt_state, "mu")
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        np.testing.assert_allclose(b, 0.9 * a, rtol=1e-6)
