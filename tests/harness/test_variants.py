"""Each way to compute the same step gives the same step; each that is another says how."""

from __future__ import annotations

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from harness.attention import attend, document_mask, plain_attention
from harness.config import Config, make
from harness.model import Transformer
from harness.optimizer import make_optimizer, make_schedule
from harness.quantized import rounding
from harness.sharding import make_mesh
from harness.step import StepFunctions, TrainState, evaluated, make_steps
from pipeline.errors import MissingExtraError
from tests.harness.on_meshes import SIZES, batch_of

TINY = {**SIZES, "layers": 1, "length": 16, "batch_size": 4, "width": 16, "hidden": 24}


def compiled(**settings: Any) -> tuple[Config, StepFunctions]:
    cfg = make({**TINY, **{k.replace("__", "."): v for k, v in settings.items()}})
    return cfg, make_steps(cfg, make_mesh(cfg))


def steps(cfg: Config, functions: StepFunctions, n: int = 2) -> tuple[TrainState, list[float]]:
    state, found = functions.init(), list[float]()
    for step in range(n):
        state, told = functions.train(state, batch_of(cfg, step))
        found.append(float(told["loss"]))
    return state, found


@pytest.fixture(scope="module")
def plain() -> list[float]:
    return steps(*compiled(model__attention="plain"))[1]


@pytest.mark.long
@pytest.mark.parametrize(
    "settings",
    [
        {"model__remat": "full"},
        {"model__remat": "dots", "model__attention": "xla"},
        {"model__loss_chunk": 4},
        {"optim__accumulate": 2},
    ],
    ids=str,
)
def test_the_same_losses_another_way(plain: list[float], settings: dict[str, Any]) -> None:
    np.testing.assert_allclose(steps(*compiled(**settings))[1], plain, rtol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_fused_attention_is_plain_attention(kv_heads: int) -> None:
    rng = np.random.default_rng(kv_heads)
    q, k, v = (jnp.array(rng.normal(size=(2, 8, h, 6)), jnp.float32) for h in (4, *[kv_heads] * 2))
    mask = document_mask(jnp.array([[1, 1, 1, 2, 2, 3, 0, 0], [1] * 8]))
    fused = attend(q, k, v, mask, make({**TINY, "model.attention": "fused"}))
    np.testing.assert_allclose(fused, plain_attention(q, k, v, mask), atol=1e-6)


@pytest.mark.long
def test_a_scan_over_layers_is_the_layers_one_after_another() -> None:
    options = {"model.kv_heads": 2, "model.qk_norm": True, "model.tied": True}
    listed = Transformer(make({**TINY, **options}), rngs=nnx.Rngs(0))
    scanned = Transformer(make({**TINY, **options, "model.scan": True}), rngs=nnx.Rngs(1))
    assert not hasattr(listed, "head")
    states = [nnx.state(layer) for layer in listed.layers]
    nnx.update(scanned.layers, jax.tree.map(lambda *x: jnp.stack(x), *states))
    nnx.update(scanned.embed, nnx.state(listed.embed))
    batch = batch_of(make(TINY), 0)
    inputs = [jnp.asarray(batch[k]) for k in ("tokens", "segment_ids", "positions")]
    np.testing.assert_allclose(listed(*inputs), scanned(*inputs), atol=2e-5)


@pytest.mark.long
def test_dropout_is_the_step_s_alone() -> None:
    cfg, functions = compiled(model__dropout=0.5)
    first, losses = steps(cfg, functions)
    again, same = steps(cfg, functions)
    assert losses == same
    assert all((a == b).all() for a, b in zip(*map(jax.tree.leaves, (first, again)), strict=True))
    held_out = [float(functions.evaluate(first.params, batch_of(cfg, 9))[0]) for _ in range(2)]
    assert held_out[0] == held_out[1]  # nothing is dropped
    batch = batch_of(cfg, 0)
    state, one = functions.train(functions.init(), batch)
    _, other = functions.train(state, batch)
    still = compiled(model__dropout=0.5, optim__every=9)[1]  # parameters stay as they are
    state, one = still.train(still.init(), batch)
    _, other = still.train(state, batch)
    assert float(one["loss"]) != float(other["loss"])


@pytest.mark.long
@pytest.mark.parametrize(("kind", "error"), [("int8", 0.02), ("float8", 0.1), ("int4", 0.3)])
def test_quantization_rounds_what_blocks_multiply(kind: str, error: float) -> None:
    pytest.importorskip("qwix")

    rng = np.random.default_rng(0)
    x, w = (jnp.array(rng.normal(size=shape), jnp.float32) for shape in ((2, 3, 16), (16, 8)))
    dimensions = (((2,), (0,)), ((), ()))

    def total(multiply: Any, w: jax.Array) -> jax.Array:
        return (multiply(x, w, dimensions) ** 2).sum()

    exact, seen = jax.lax.dot_general(x, w, dimensions), rounding(kind)(x, w, dimensions)
    assert 0 < float(abs(seen - exact).max()) < error * float(abs(exact).max())
    grad = jax.grad(lambda w: total(rounding(kind), w))(w)
    np.testing.assert_allclose(
        grad, jax.grad(lambda w: total(jax.lax.dot_general, w))(w), atol=2 * error * 60
    )
    assert float(abs(grad).min()) > 0  # rounding itself would have no gradient


@pytest.mark.long
@pytest.mark.parametrize("options", [{}, {"model__scan": True, "model__remat": "dots"}], ids=str)
def test_quantized_training_learns_and_repeats(options: dict[str, Any], plain: list[float]) -> None:
    pytest.importorskip("qwix")
    cfg, functions = compiled(model__quantize="int8", **options)
    assert steps(cfg, functions)[1] == steps(cfg, functions)[1]
    if not options:
        losses = steps(cfg, functions)[1]
        assert losses != plain
        np.testing.assert_allclose(losses, plain, rtol=0.05)
    state, losses = functions.init(), list[float]()
    for _ in range(8):
        state, told = functions.train(state, batch_of(cfg, 0))
        losses.append(float(told["loss"]))
    assert losses[-1] < losses[0] - 0.1


def test_quantization_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "qwix", None)
    rounding.cache_clear()
    with pytest.raises(MissingExtraError, match=r"lockstep-data\[qwix\]"):
        compiled(model__quantize="int8")


@pytest.mark.long
def test_z_loss_is_of_training_alone(plain: list[float]) -> None:
    cfg, functions = compiled(model__z_loss=0.1)
    _, losses = steps(cfg, functions, 1)
    assert losses[0] > plain[0] + 0.1
    total, n = functions.evaluate(functions.init().params, batch_of(cfg, 0))
    np.testing.assert_allclose(float(total) / float(n), plain[0], rtol=1e-5)


@pytest.mark.long
def test_several_steps_an_update_and_an_average() -> None:
    cfg, functions = compiled(optim__every=2, optim__ema=0.5)
    one, two = (steps(cfg, functions, n)[0] for n in (1, 2))
    start = functions.init()
    kernels = [jax.tree.leaves(s.params)[0] for s in (start, one, two)]
    assert (kernels[0] == kernels[1]).all()
    assert (kernels[1] != kernels[2]).any()
    average = jax.tree.leaves(evaluated(two))[0]
    np.testing.assert_allclose(average, (kernels[1] + kernels[2]) / 2, atol=1e-6)


@pytest.mark.parametrize("every", [1, 3])
def test_an_update_has_the_rate_of_its_step(every: int) -> None:
    given = {"steps": 12, "warmup": 4, "weight_decay": 0.0, "optim.every": every}
    cfg = make({**given, "optim.schedule": "linear"})
    optimizer, rate = make_optimizer(cfg), make_schedule(cfg)
    params, grads = {"w": jnp.zeros(1)}, {"w": jnp.ones(1)}  # AdamW's updates are the rate then
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    for step in range(cfg.steps):
        updates, state = update(grads, state, params)
        due = float(jnp.asarray(rate(step))) if step % every == every - 1 else 0
        [moved] = jax.tree.leaves(updates)
        np.testing.assert_allclose(moved, -due, atol=1e-6, err_msg=f"{step=}")


@pytest.mark.long
def test_muon_learns_and_decays_matrices() -> None:
    cfg, functions = compiled(optim__name="muon", model__scan=True)
    state, losses = functions.init(), list[float]()
    for _ in range(8):
        state, told = functions.train(state, batch_of(cfg, 0))
        losses.append(float(told["loss"]))
    assert losses[-1] < losses[0] - 0.3


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("cosine", [0.5, 1, 0.525, 0.05]),
        ("linear", [0.5, 1, 0.525, 0.05]),
        ("constant", [0.5, 1, 1, 1]),
        ("wsd", [0.5, 1, 1, 0.05]),
    ],
)
def test_schedules(name: str, rates: list[float]) -> None:
    given = {"steps": 10, "warmup": 2, "learning_rate": 1.0, "optim.schedule": name}
    rate = make_schedule(make(given))
    np.testing.assert_allclose(
        np.array([jnp.asarray(rate(s)) for s in (0, 2, 6, 10)]), rates, atol=1e-6
    )
    assert make_schedule(make({**given, "optim.from_zero": True}))(0) == 0
    assert make_schedule(make({**given, "warmup": 0}))(0) == 1


@pytest.mark.long
def test_a_step_that_is_compiled_again_is_told() -> None:
    cfg, functions = compiled()
    state, _ = functions.train(functions.init(), batch_of(cfg, 0))
    shorter = {k: v[:, :8] for k, v in batch_of(cfg, 1).items()}
    with pytest.warns(UserWarning, match=r"tokens: int32\[4, 16\] -> int32\[4, 8\]"):
        functions.train(state, shorter)
