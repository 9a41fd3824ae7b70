"""Parameters by Llama's names, in both directions: for transformers, vLLM and others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from harness.config import Config
from harness.errors import ConfigError
from harness.files import write_json
from pipeline.errors import need

_FILE = "model.safetensors"
_NORMS = {"input_layernorm": "attention_norm", "post_attention_layernorm": "mlp_norm"}
_QK_NORMS = {"self_attn.q_norm": "q_norm", "self_attn.k_norm": "k_norm"}
_MLP = {"mlp.gate_proj": "gate", "mlp.up_proj": "up", "mlp.down_proj": "down"}


def save_llama(folder: Path, cfg: Config, params: Any, vocab: int) -> None:
    """Write model.safetensors and config.json; LoRA matrices are merged into those they adapt."""
    safetensors = _safetensors()
    folder.mkdir(parents=True, exist_ok=True)
    tensors = to_llama(cfg, nnx.to_pure_dict(params))
    safetensors.save_file(tensors, str(folder / _FILE), metadata={"format": "pt"})
    write_json(folder / "config.json", llama_config(cfg, vocab))


def load_llama(folder: Path, cfg: Config) -> dict[str, Any]:
    """Parameters from a folder's *.safetensors as nested dicts, float32.

    Raises:
        ConfigError: there are no such files, tensors are missing, or their shapes differ from
            cfg's.
    """
    safetensors = _safetensors()
    files = [folder] if folder.is_file() else sorted(folder.glob("*.safetensors"))
    if not files:
        raise ConfigError(f"init={str(folder)!r} holds no *.safetensors.")
    tensors: dict[str, Any] = {}
    for file in files:
        tensors |= safetensors.load_file(str(file))
    if any(name.startswith(f"model.layers.{cfg.layers}.") for name in tensors):
        raise ConfigError(f"init={str(folder)!r} has more layers than layers={cfg.layers}.")
    try:
        return from_llama(cfg, {k: np.asarray(v, np.float32) for k, v in tensors.items()})
    except (KeyError, IndexError) as e:
        raise ConfigError(f"{folder} has no tensor {e}: is the model another than cfg's?") from e


def _safetensors() -> Any:
    try:
        import safetensors.flax
    except ImportError as e:
        raise need("export", "safetensors") from e
    return safetensors.flax


def to_llama(cfg: Config, params: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors by Llama's names, float32; matrices are [out, in] as in Llama."""
    host = _merged(params)
    found = {"model.embed_tokens.weight": host["embed"]["embedding"]}
    for i in range(cfg.layers):
        layer, name = _layer(host["layers"], i, cfg.model.scan), f"model.layers.{i}."
        h, g, k = _heads(cfg)
        qkv = np.split(layer["attention"]["qkv"]["kernel"], [h * k, (h + g) * k], axis=1)
        for part, kernel in zip("qkv", qkv, strict=True):
            found[f"{name}self_attn.{part}_proj.weight"] = kernel.T
        found[f"{name}self_attn.o_proj.weight"] = layer["attention"]["out"]["kernel"].T
        for theirs, ours in _MLP.items():
            found[f"{name}{theirs}.weight"] = layer["mlp"][ours]["kernel"].T
        for theirs, ours in _NORMS.items():
            found[f"{name}{theirs}.weight"] = layer[ours]["scale"]
        for theirs, ours in _QK_NORMS.items() if cfg.model.qk_norm else ():
            found[f"{name}{theirs}.weight"] = layer["attention"][ours]["scale"]
    found["model.norm.weight"] = host["norm"]["scale"]
    if not cfg.model.tied:
        found["lm_head.weight"] = host["head"]["kernel"].T
    return {k: np.ascontiguousarray(v) for k, v in found.items()}


def from_llama(cfg: Config, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `to_llama`: parameters as nested dicts, layers stacked if cfg scans them."""
    layers: list[dict[str, Any]] = []
    for i in range(cfg.layers):
        at = {k.removeprefix(f"model.layers.{i}."): v for k, v in tensors.items() if f".{i}." in k}
        qkv = [at[f"self_attn.{part}_proj.weight"] for part in "qkv"]
        attention = {
            "qkv": {"kernel": np.concatenate(qkv).T},
            "out": {"kernel": at["self_attn.o_proj.weight"].T},
        }
        for theirs, ours in _QK_NORMS.items() if cfg.model.qk_norm else ():
            attention[ours] = {"scale": at[f"{theirs}.weight"]}
        mlp = {ours: {"kernel": at[f"{theirs}.weight"].T} for theirs, ours in _MLP.items()}
        norms = {ours: {"scale": at[f"{theirs}.weight"]} for theirs, ours in _NORMS.items()}
        layers.append({"attention": attention, "mlp": mlp, **norms})
    found: dict[str, Any] = {
        "embed": {"embedding": tensors["model.embed_tokens.weight"]},
        "layers": _stack(layers) if cfg.model.scan else dict(enumerate(layers)),
        "norm": {"scale": tensors["model.norm.weight"]},
    }
    if not cfg.model.tied:
        found["head"] = {"kernel": tensors["lm_head.weight"].T}
    return found


def llama_config(cfg: Config, vocab: int) -> dict[str, Any]:
    """The config.json for Hugging Face transformers; with QK-norm, the model is a Qwen 3."""
    h, g, k = _heads(cfg)
    kind = "Qwen3" if cfg.model.qk_norm else "Llama"
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": cfg.model.rope_theta}
    if cfg.model.rope_scaling != "none":
        rope |= {"rope_type": cfg.model.rope_scaling, "factor": cfg.model.rope_factor}
    if cfg.model.rope_scaling == "llama3":
        rope |= {
            "low_freq_factor": cfg.model.rope_low,
            "high_freq_factor": cfg.model.rope_high,
            "original_max_position_embeddings": cfg.model.rope_original,
        }
    return {
        "architectures": [f"{kind}ForCausalLM"],
        "model_type": kind.lower(),
        "vocab_size": cfg.model.vocab or vocab,
        "hidden_size": cfg.width,
        "intermediate_size": cfg.hidden,
        "num_hidden_layers": cfg.layers,
        "num_attention_heads": h,
        "num_key_value_heads": g,
        "head_dim": k,
        "hidden_act": "silu",
        "max_position_embeddings": cfg.length,
        "rms_norm_eps": cfg.model.norm_eps,
        "rope_theta": cfg.model.rope_theta,
        "rope_scaling": None if cfg.model.rope_scaling == "none" else rope,
        "rope_parameters": rope,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": cfg.model.tied,
        "torch_dtype": "float32",
    }


def _heads(cfg: Config) -> tuple[int, int, int]:
    width = cfg.model.head_width or cfg.width // cfg.heads
    return cfg.heads, cfg.model.kv_heads or cfg.heads, width


def _merged(node: Any) -> Any:
    # nnx.LoRA adds x @ a @ b to the output of its base
    if not isinstance(node, Mapping):
        return np.asarray(node, np.float32)
    if "lora_a" in node:
        a, b = (np.asarray(node[k], np.float32) for k in ("lora_a", "lora_b"))
        return {"kernel": np.asarray(node["base_module"]["kernel"], np.float32) + a @ b}
    return {key: _merged(value) for key, value in node.items()}


def _layer(layers: Any, i: int, stacked: bool) -> Any:
    def pick(node: Any) -> Any:
        return {k: pick(v) for k, v in node.items()} if isinstance(node, Mapping) else node[i]

    return pick(layers) if stacked else layers[i]


def _stack(layers: list[Any]) -> Any:
    if isinstance(layers[0], Mapping):
        return {key: _stack([layer[key] for layer in layers]) for key in layers[0]}
    return np.stack(layers)
