"""Which parameters a run trains, and their initial values: from the seed, or from a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
from flax import nnx

from harness.config import Config
from harness.errors import ConfigError
from harness.leaves import map_named, named_leaves
from harness.llama import load_llama


def trained_kind(cfg: Config) -> Any:
    """The variables that a step changes and a checkpoint holds; with LoRA just its matrices."""
    return nnx.LoRAParam if cfg.lora.rank else nnx.Param


def with_given(params: Any, cfg: Config) -> Any:
    """Parameters (an nnx.State), with values from the folder cfg.init for those that it has.

    Raises:
        ConfigError: the folder's model has other shapes.
    """
    if not cfg.init:
        return params
    given = named_leaves(load_llama(Path(cfg.init), cfg))

    def placed(name: str, leaf: Any) -> Any:
        # LoRA's own matrices keep their values from the seed; what they adapt is in base_module
        name = name.replace("base_module/", "").removesuffix("/value")
        if "lora_" in name:
            return leaf
        if name not in given or given[name].shape != leaf.shape:
            found = given[name].shape if name in given else "missing"
            raise ConfigError(
                f"init={cfg.init!r}: {name} is {found}, the settings say {leaf.shape}. Set width, "
                "layers, heads, hidden, model.vocab and the like as its config.json says."
            )
        return jax.device_put(given[name], leaf.sharding)

    return map_named(placed, params)
