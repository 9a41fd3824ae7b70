"""What a run is: the settings that decide its bits, and how they are read and compared."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of a run; the defaults train in about two minutes on two CPU cores.

    Attributes:
        seed: of the parameters and of the data's order.
        steps: length of the learning-rate schedule, and where training stops by default.
        batch_size: the global batch, in packed rows.
        length: tokens a row.
        lanes: the most processes that may ever share the stream of rows, a divisor of batch_size.
        width, layers, heads, hidden: of the transformer.
        dtype: what is computed in, "float32" or "bfloat16"; parameters are float32.
        learning_rate, warmup, weight_decay, clip: AdamW's, under warmup-cosine and clipping.
        on_nonfinite: what a step does whose loss or gradient norm is not finite: "stop" ends the
            run, the checkpoint before it kept; "skip" leaves the state as it was and goes on.
        fsdp: devices over which parameters are split, a divisor of their number; 0 means all.
        data: directory of the converted corpus, relative to the run's directory.
        save_every: steps between checkpoints.
        keep: how many of the newest checkpoints are kept.
        keep_every: steps between checkpoints that are kept for good, step 0 among them.

    Raises:
        ConfigError: settings that cannot work together.

    >>> Config(width=100, heads=3)
    Traceback (most recent call last):
    harness.errors.ConfigError: width=100 must be an even multiple of heads=3.
    """

    seed: int = 0
    steps: int = 300
    batch_size: int = 8
    length: int = 256
    lanes: int = 1
    width: int = 128
    layers: int = 3
    heads: int = 4
    hidden: int = 384
    dtype: str = "float32"
    learning_rate: float = 4e-3
    warmup: int = 30
    weight_decay: float = 0.1
    clip: float = 1.0
    on_nonfinite: str = "stop"
    fsdp: int = 0
    data: str = "../data"
    save_every: int = 50
    keep: int = 3
    keep_every: int = 100

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1.")
        if self.width % (2 * self.heads):
            raise ConfigError(f"width={self.width} must be an even multiple of heads={self.heads}.")
        if self.batch_size % self.lanes:
            raise ConfigError(
                f"batch_size={self.batch_size} must be a multiple of lanes={self.lanes}."
            )
        if self.dtype not in ("float32", "bfloat16"):
            raise ConfigError(f"dtype={self.dtype!r} must be 'float32' or 'bfloat16'.")
        if self.on_nonfinite not in ("stop", "skip"):
            raise ConfigError(f"on_nonfinite={self.on_nonfinite!r} must be 'stop' or 'skip'.")
        for name in ("learning_rate", "clip"):
            if not 0 < getattr(self, name) < math.inf:  # NaN fails too
                raise ConfigError(f"{name}={getattr(self, name)} must be above 0 and finite.")
        if not 0 <= self.weight_decay < math.inf:
            raise ConfigError(f"weight_decay={self.weight_decay} must be finite, from 0 on.")
        if self.fsdp < 0 or not 0 <= self.warmup < self.steps:
            raise ConfigError(
                f"fsdp={self.fsdp} must not be negative, and warmup={self.warmup} must lie "
                f"in [0, steps={self.steps})."
            )


_POSITIVE = ("steps", "batch_size", "length", "lanes", "width", "layers", "heads", "hidden")
_POSITIVE += ("save_every", "keep", "keep_every")
# where data lies and which checkpoints are kept changes no bits, nor what becomes of a step without
# a loss; on another mesh its last bits differ, so each launch tells its mesh
_FREE = frozenset({"data", "save_every", "keep", "keep_every", "fsdp", "on_nonfinite"})
_FIELDS = {field.name: field for field in dataclasses.fields(Config)}


def parse(pairs: Sequence[str]) -> dict[str, Any]:
    """Settings from a command line's `key=value` words.

    Raises:
        ConfigError: an unknown key (the nearest is named) or a value of another type.

    >>> parse(["steps=20", "dtype=bfloat16"])
    {'steps': 20, 'dtype': 'bfloat16'}
    >>> parse(["step=20"])
    Traceback (most recent call last):
    harness.errors.ConfigError: no setting is called 'step'. Did you mean 'steps'?
    """
    return dict(_parse_one(*pair.partition("=")[::2]) for pair in pairs)


def _parse_one(key: str, text: str) -> tuple[str, Any]:
    if key not in _FIELDS:
        near = difflib.get_close_matches(key, _FIELDS, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(_FIELDS)}."
        raise ConfigError(f"no setting is called {key!r}. {hint}")
    kind = type(_FIELDS[key].default)
    try:
        return key, kind(text)
    except ValueError as e:
        raise ConfigError(f"{key}={text!r} is not of type {kind.__name__}.") from e


def settle(stored: Mapping[str, Any] | None, given: Mapping[str, Any]) -> Config:
    """The settings of a launch: the run's own where it has begun, else the defaults; then `given`.

    Args:
        stored: what the run's first launch wrote, or None.
        given: settings that this launch asks for.

    Raises:
        ConfigError: `given` would change the bits of a run that has begun, or the run has settings
            that this version does not know.

    >>> settle({**dataclasses.asdict(Config()), "seed": 1}, {}).seed
    1
    """
    if stored is None:
        return Config(**given)
    unknown = sorted(set(stored) - set(_FIELDS))
    if unknown:
        raise ConfigError(
            f"the run's config.json has settings that this version does not know: {unknown}. "
            "Resume it with the version that began it."
        )
    # a setting that is younger than the run has the default, which keeps the older behaviour
    stored = {**dataclasses.asdict(Config()), **stored}
    changed = [
        f"{key}: {stored[key]!r} -> {value!r}"
        for key, value in given.items()
        if key not in _FREE and value != stored[key]
    ]
    if changed:
        raise ConfigError(
            f"this run was begun with other settings. {'; '.join(changed)}. Leave them out to "
            "resume it, or give --run another directory. (To train longer, use --steps.)"
        )
    return Config(**{**stored, **given})
