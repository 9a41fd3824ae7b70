"""What leaves the harness computes the same elsewhere, and comes back to the same bits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from harness.config import Config, make
from harness.errors import ConfigError
from harness.export import save_program
from harness.frozen import with_given
from harness.llama import load_llama, save_llama, to_llama
from harness.model import Transformer
from harness.sharding import make_mesh
from harness.step import make_steps
from tests.harness.on_meshes import SIZES, batch_of
from tests.harness.runs import LIMIT

TINY = {**SIZES, "length": 16, "batch_size": 2, "width": 16, "hidden": 24, "model.kv_heads": 2}
LLAMA3: dict[str, Any] = {"model.rope_scaling": "llama3", "model.rope_original": 8}
KINDS: list[dict[str, Any]] = [
    {},
    {"model.scan": True, "model.tied": True, **LLAMA3, "model.rope_factor": 4.0},
    {"model.qk_norm": True, "model.norm_eps": 1e-5, "model.rope_theta": 5e5},
]


def made(settings: dict[str, Any]) -> tuple[Config, Transformer]:
    cfg = make({**TINY, "model.vocab": 40, **settings})
    model = Transformer(cfg, rngs=nnx.Rngs(1))
    scales = iter(jax.random.split(jax.random.key(2), 99))
    nnx.update(  # gains of 1 would hide one that is forgotten
        model,
        jax.tree.map(
            lambda x: x * jax.random.uniform(next(scales), x.shape, minval=0.5, maxval=1.5),
            nnx.state(model, nnx.Param),
        ),
    )
    return cfg, model


def logits(model: Transformer, tokens: np.ndarray) -> np.ndarray:
    places = np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32), tokens.shape)
    return np.asarray(model(jnp.asarray(tokens), jnp.ones_like(tokens), jnp.asarray(places)))


@pytest.mark.long
@pytest.mark.parametrize("settings", KINDS, ids=str)
def test_safetensors_there_and_back(settings: dict[str, Any], tmp_path: Path) -> None:
    cfg, model = made(settings)
    params = nnx.state(model, nnx.Param)
    save_llama(tmp_path, cfg, params, 40)
    back = load_llama(tmp_path, cfg)
    pairs = zip(jax.tree.leaves(nnx.to_pure_dict(params)), jax.tree.leaves(back), strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)
    fresh = Transformer(cfg, rngs=nnx.Rngs(5))
    again = with_given(
        nnx.state(fresh, nnx.Param), make({**TINY, **settings, "init": str(tmp_path)})
    )
    assert all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(again), strict=True)
    )


@pytest.mark.parametrize("settings", KINDS, ids=str)
def test_the_logits_of_transformers(settings: dict[str, Any], tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    import torch

    cfg, model = made(settings)
    save_llama(tmp_path, cfg, nnx.state(model, nnx.Param), 40)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, attn_implementation="eager", dtype=torch.float32
    )
    assert theirs.config.eos_token_id is None
    tokens = np.random.default_rng(0).integers(0, 40, (2, 16), dtype=np.int32)
    with torch.no_grad():
        expected = theirs(torch.tensor(tokens, dtype=torch.long)).logits.numpy()
    assert np.abs(logits(model, tokens) - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.long
def test_another_model_s_folder_is_refused(tmp_path: Path) -> None:
    cfg, model = made({})
    save_llama(tmp_path, cfg, nnx.state(model, nnx.Param), 40)
    params = nnx.state(model, nnx.Param)
    for settings in ({"model.vocab": 48}, {"layers": 3}, {"layers": 1}):
        other = make({**TINY, "model.vocab": 40, **settings, "init": str(tmp_path)})
        fresh = nnx.state(Transformer(other, rngs=nnx.Rngs(0)), nnx.Param)
        with pytest.raises(ConfigError, match=r"init|no tensor"):
            with_given(fresh, other)
    with pytest.raises(ConfigError, match="safetensors"):
        with_given(params, make({**TINY, "init": str(tmp_path / "none")}))


@pytest.mark.long
@pytest.mark.parametrize(
    ("theirs", "told"),
    [
        ({"rope_theta": 5e5, "rope_parameters": None}, r"model\.rope_theta is 500000\.0, in"),
        ({"rms_norm_eps": 1e-5}, r"model\.norm_eps is 1e-05, in the settings 1e-06"),
        ({"num_attention_heads": 2, "head_dim": 8}, "heads is 2, in the settings 4"),
        ({"tie_word_embeddings": True}, r"model\.tied is True"),
        (
            {"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2.0}},
            r"model\.rope_scaling is 'linear', .* model\.rope_factor is 2\.0, in the settings None",
        ),
        ({"model_type": "granite"}, "describes a granite"),
        ({"hidden_act": "gelu"}, "activation is 'gelu'"),
    ],
    ids=str,
)
def test_what_no_shape_tells_is_read_in_config_json(
    theirs: dict[str, Any], told: str, tmp_path: Path
) -> None:
    cfg, model = made({})
    params = nnx.state(model, nnx.Param)
    save_llama(tmp_path, cfg, params, 40)
    file = tmp_path / "config.json"
    bare = {"vocab_size", "hidden_size", "num_attention_heads", "num_key_value_heads"}
    config = json.loads(file.read_text())
    file.write_text(json.dumps({k: v for k, v in config.items() if k in bare}))
    load_llama(tmp_path, cfg)  # what it leaves out is Llama's default, and ours
    file.write_text(json.dumps({**config, **theirs}))
    with pytest.raises(ConfigError, match=told):
        load_llama(tmp_path, cfg)


def test_tensors_without_a_place_are_refused(tmp_path: Path) -> None:
    flax = pytest.importorskip("safetensors.flax")
    cfg, model = made({})
    save_llama(tmp_path, cfg, nnx.state(model, nnx.Param), 40)
    file = tmp_path / "model.safetensors"
    tensors = flax.load_file(str(file))
    flax.save_file(tensors, str(tmp_path / "consolidated.safetensors"))  # as Mistral's folders have
    load_llama(tmp_path, cfg)
    for name in ("layers.0.self_attn.q_proj.bias", "layers.1.self_attn.q_norm.weight"):
        flax.save_file({**tensors, f"model.{name}": jnp.ones(8)}, str(file))
        with pytest.raises(ConfigError, match=f"holds model.{name}, for which"):
            load_llama(tmp_path, cfg)
    more = {"model.layers.0.self_attn.rotary_emb.inv_freq": jnp.ones(2)}
    flax.save_file({**tensors, **more}, str(file))
    load_llama(tmp_path, cfg)


@pytest.mark.long
def test_the_program_runs_without_the_harness(tmp_path: Path) -> None:
    pytest.importorskip("flatbuffers")
    cfg, model = made({"model.scan": True})
    save_program(tmp_path / "out", cfg, nnx.state(model, nnx.Param))
    script = (
        "import run, numpy as np, sys\n"
        "for b in (1, 3):\n"
        "    t = np.random.default_rng(b).integers(0, 40, (b, 16), dtype=np.int32)\n"
        "    np.save(f'{b}.npy', run.logits(t))\n"
        "assert 'harness' not in sys.modules and 'flax' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path / "out",
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stderr
    for b in (1, 3):
        tokens = np.random.default_rng(b).integers(0, 40, (b, 16), dtype=np.int32)
        found = np.load(tmp_path / "out" / f"{b}.npy")
        np.testing.assert_allclose(found, logits(model, tokens), atol=1e-5)


@pytest.mark.long
def test_lora_trains_its_matrices_alone_and_is_merged(tmp_path: Path) -> None:
    cfg, model = made({"model.vocab": 264})
    save_llama(tmp_path, cfg, nnx.state(model, nnx.Param), 264)
    lora = make({**TINY, "model.vocab": 264, "lora.rank": 2, "init": str(tmp_path), "warmup": 0})
    functions = make_steps(lora, make_mesh(lora))
    state = functions.init()
    small, whole = (sum(x.size for x in jax.tree.leaves(t)) for t in (state.params, model))
    assert small < whole / 3
    before = to_llama(lora, nnx.to_pure_dict(nnx.state(functions.model(state.params), nnx.Param)))
    base = to_llama(cfg, nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    assert all(np.array_equal(before[name], base[name]) for name in base)  # b begins at 0
    losses: list[float] = []
    for _ in range(6):
        state, told = functions.train(state, batch_of(lora, 0))
        losses.append(float(told["loss"]))
    assert losses[-1] < losses[0]
    after = to_llama(lora, nnx.to_pure_dict(nnx.state(functions.model(state.params), nnx.Param)))
    changed = {name for name in base if not np.array_equal(after[name], base[name])}
    assert changed == {name for name in base if "_proj" in name}
    merged = make({**TINY, "model.vocab": 264, "init": str(tmp_path / "merged")})
    save_llama(tmp_path / "merged", lora, nnx.state(functions.model(state.params), nnx.Param), 264)
    plain = make_steps(merged, make_mesh(merged))
    batch = batch_of(lora, 0)
    with_lora = functions.evaluate(state.params, batch)[0]
    np.testing.assert_allclose(plain.evaluate(plain.init().params, batch)[0], with_lora, rtol=1e-5)
