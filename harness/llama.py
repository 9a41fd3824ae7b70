"""Parameters by Llama's names, in both directions: for transformers, vLLM and others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from harness.config import Config
from harness.errors import ConfigError
from harness.files import read_json, write_json
from pipeline.errors import need

_FILE = "model.safetensors"
_KINDS = ("llama", "mistral", "qwen3")  # of a config.json's model_type: computed as our model is
_NORMS = {"input_layernorm": "attention_norm", "post_attention_layernorm": "mlp_norm"}
_QK_NORMS = {"self_attn.q_norm": "q_norm", "self_attn.k_norm": "k_norm"}
_MLP = {"mlp.gate_proj": "gate", "mlp.up_proj": "up", "mlp.down_proj": "down"}
_ROPE = {
    "model.rope_factor": "factor",
    "model.rope_low": "low_freq_factor",
    "model.rope_high": "high_freq_factor",
    "model.rope_original": "original_max_position_embeddings",
}


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
        ConfigError: there are no such files, or they or the config.json beside them are of another
            model than cfg's.
    """
    safetensors = _safetensors()
    inside = sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("*.safetensors"))
    files = [folder] if folder.is_file() else inside
    if not files:
        raise ConfigError(f"init={str(folder)!r} holds no *.safetensors.")
    _check_same_model(files[0].parent / "config.json", cfg)
    tensors: dict[str, Any] = {}
    for file in files:
        tensors |= safetensors.load_file(str(file))
    tensors = {k: np.asarray(v, np.float32) for k, v in tensors.items()}
    try:
        found = from_llama(cfg, tensors)
    except (KeyError, IndexError) as e:
        raise ConfigError(f"{folder} has no tensor {e}: is the model another than cfg's?") from e
    _check_none_left(folder, tensors, found)
    return found


def _check_none_left(folder: Path, left: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    # older files also hold the rotary frequencies, and those of tied models the head
    unknown = [
        name
        for name, tensor in left.items()
        if not name.endswith("rotary_emb.inv_freq")
        and not (name == "lm_head.weight" and np.array_equal(tensor, found["embed"]["embedding"]))
    ]
    if unknown:
        raise ConfigError(
            f"init={str(folder)!r} holds {unknown[0]}"
            + (f" and {len(unknown) - 1} other tensors" if len(unknown) > 1 else "")
            + ", for which the settings have no place. Set layers, model.qk_norm and model.tied as "
            "its config.json says; models with biases are not trained here."
        )


def _check_same_model(file: Path, cfg: Config) -> None:
    """Check what no shape tells, if a config.json of Hugging Face stands beside the weights."""
    theirs = read_json(file)
    if theirs is None or "num_attention_heads" not in theirs:
        return
    if (kind := theirs.get("model_type", "llama")) not in _KINDS:
        raise ConfigError(f"{file} describes a {kind}; init takes a {' or '.join(_KINDS)}.")
    there, here = _meaning(theirs), _meaning(llama_config(cfg, 0))
    differs = [
        f"{name} is {there.get(name)!r}, in the settings {here.get(name)!r}"
        for name in dict.fromkeys([*there, *here])
        if there.get(name) != here.get(name)
    ]
    if differs:
        raise ConfigError(
            f"{file} describes another model: {'; '.join(differs)}. Set these as it says; or, if "
            "the weights are to be used otherwise than they were trained, change the file."
        )


def _meaning(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the outputs depend on besides the weights, by the names of settings."""
    heads, rope = config["num_attention_heads"], config.get("rope_parameters")
    rope = rope or config.get("rope_scaling") or {}
    scaling = rope.get("rope_type") or rope.get("type") or "default"
    found = {
        "heads": heads,
        "model.kv_heads": config.get("num_key_value_heads") or heads,
        "model.head_width": config.get("head_dim") or config.get("hidden_size", 0) // heads,
        "model.norm_eps": config.get("rms_norm_eps", 1e-6),
        "model.tied": config.get("tie_word_embeddings", False),
        "model.rope_theta": rope.get("rope_theta") or config.get("rope_theta") or 10_000.0,
        "model.rope_scaling": "none" if scaling == "default" else scaling,
        "the activation": config.get("hidden_act", "silu"),
    }
    if scaling != "default":
        found |= {ours: rope[name] for ours, name in _ROPE.items() if name in rope}
    return found


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


def from_llama(cfg: Config, tensors: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `to_llama`: parameters as nested dicts, layers stacked if cfg scans them.

    The tensors that it uses are taken out of `tensors`.
    """

    def take(name: str) -> Any:
        return tensors.pop(f"{name}.weight")

    layers: list[dict[str, Any]] = []
    for at in (f"model.layers.{i}." for i in range(cfg.layers)):
        attention = {
            "qkv": {"kernel": np.concatenate([take(f"{at}self_attn.{p}_proj") for p in "qkv"]).T},
            "out": {"kernel": take(f"{at}self_attn.o_proj").T},
        }
        for theirs, ours in _QK_NORMS.items() if cfg.model.qk_norm else ():
            attention[ours] = {"scale": take(at + theirs)}
        mlp = {ours: {"kernel": take(at + theirs).T} for theirs, ours in _MLP.items()}
        norms = {ours: {"scale": take(at + theirs)} for theirs, ours in _NORMS.items()}
        layers.append({"attention": attention, "mlp": mlp, **norms})
    found: dict[str, Any] = {
        "embed": {"embedding": take("model.embed_tokens")},
        "layers": _stack(layers) if cfg.model.scan else dict(enumerate(layers)),
        "norm": {"scale": take("model.norm")},
    }
    if not cfg.model.tied:
        found["head"] = {"kernel": take("lm_head").T}
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
        "bos_token_id": None,  # else those of Llama's tokenizer, at which generation would stop
        "eos_token_id": None,
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
