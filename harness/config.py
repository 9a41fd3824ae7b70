"""The settings that determine a run's bits: checking and comparing them."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

from harness.errors import ConfigError
from harness.settings import (
    flatten,
    help_text,
    known_settings,
    nest,
    read_file,
    setting,
    split_words,
    typed,
)


def _choose(name: str, value: str, *known: str) -> None:
    if value not in known:
        raise ConfigError(f"{name}={value!r} must be one of {', '.join(map(repr, known))}.")


def _within(name: str, value: float, low: float, high: float = math.inf) -> None:
    if not low <= value < high:  # NaN fails too
        bound = "finite" if high == math.inf else f"below {high}"
        raise ConfigError(f"{name}={value} must be {bound}, from {low} on.")


def _above_zero(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ConfigError(f"{name}={value} must be above 0 and finite.")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """[data]: the training data. `data = "…"` is short for `data.source`."""

    source: str = setting(
        "../data",
        "module:name of a Dataset or of a function of the config; else the folder of the "
        "embedded corpus, relative to the run's",
        free=True,
    )
    train: str | dict[str, str] = setting("", "path, glob or URL; a table of several", free=True)
    weights: dict[str, int] | None = setting(None, "rows of each part of data.train in the mix")
    evaluation: str | dict[str, str] = setting(
        "", "held-out files; else the end of data.train", free=True
    )
    held_out: float = setting(0.01, "share of data.train that is held out at its end")
    text: str = setting("text", "field of the text, or of its tokens")
    prompt: str = setting("", "field of text that comes before it and is not learned")
    tokenizer: str = setting(
        "bytes", "bytes, or a tokenizer.json of Hugging Face tokenizers", free=True
    )

    def __post_init__(self) -> None:
        _within("data.held_out", self.held_out, 0, 1)
        for name in ("train", "evaluation"):
            value = getattr(self, name)
            for part, path in value.items() if isinstance(value, dict) else ():
                if not isinstance(path, str) or not path:
                    raise ConfigError(f"data.{name}.{part}={path!r} must be a path, glob or URL.")
        parts = self.train if isinstance(self.train, dict) else {}
        weights = self.weights or {}
        if not isinstance(weights, dict):
            raise ConfigError(f"data.weights={weights!r} must be a table: a number for each part.")
        if weights and set(weights) != set(parts):
            raise ConfigError(
                f"data.weights names {sorted(weights)}, data.train {sorted(parts)}: "
                "give each part its weight."
            )
        for name, weight in weights.items():
            if type(weight) is not int or weight < 1:
                raise ConfigError(f"data.weights.{name}={weight!r} must be a whole number above 0.")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """[model]: the transformer's options other than its sizes."""

    vocab: int = setting(0, "tokens that the model knows; 0: as many as the tokenizer")
    kv_heads: int = setting(0, "heads of keys and values, a divisor of heads; 0: heads")
    head_width: int = setting(0, "width of a head; 0: width / heads")
    qk_norm: bool = setting(False, "RMS norm of queries and keys")
    rope_theta: float = setting(10_000.0, "base of the rotary frequencies")
    rope_scaling: str = setting("none", "none, linear, llama3")
    rope_factor: float = setting(8.0, "by which scaling stretches positions")
    rope_low: float = setting(1.0, "llama3: low_freq_factor")
    rope_high: float = setting(4.0, "llama3: high_freq_factor")
    rope_original: int = setting(8192, "llama3: original_max_position_embeddings")
    norm_eps: float = setting(1e-6, "epsilon of RMS norms")
    tied: bool = setting(False, "the head is the embedding, transposed")
    dropout: float = setting(0.0, "share of each block's output that a step drops")
    attention: str = setting(
        "fused",
        "fused (jax.nn.dot_product_attention, cuDNN on GPUs in bfloat16), xla, cudnn, tokamax, "
        "plain",
        before="plain",
    )
    scan: bool = setting(False, "one compiled layer, scanned over stacked parameters")
    remat: str = setting("none", "none, dots (keep products of matrices), full")
    quantize: str = setting(
        "none", "none; int8, int4, float8: products in blocks see rounded numbers (extra: qwix)"
    )
    z_loss: float = setting(0.0, "weight of log(sum(exp(logits)))^2 in training")
    loss_chunk: int = setting(0, "tokens of a row whose logits exist at once; 0: all")

    def __post_init__(self) -> None:
        _choose("model.rope_scaling", self.rope_scaling, "none", "linear", "llama3")
        _choose("model.remat", self.remat, "none", "dots", "full")
        _choose("model.attention", self.attention, "fused", "xla", "cudnn", "tokamax", "plain")
        _choose("model.quantize", self.quantize, "none", "int8", "int4", "float8")
        _within("model.dropout", self.dropout, 0, 1)
        _within("model.z_loss", self.z_loss, 0)
        for name in ("vocab", "kv_heads", "head_width", "loss_chunk"):
            _within(f"model.{name}", getattr(self, name), 0)
        for name in ("rope_theta", "rope_factor", "norm_eps", "rope_low", "rope_original"):
            _above_zero(f"model.{name}", getattr(self, name))
        if not self.rope_low < self.rope_high < math.inf:
            raise ConfigError(
                f"model.rope_high={self.rope_high} must be above model.rope_low={self.rope_low}."
            )


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """[optim]: the optimizer and its schedule."""

    name: str = setting(
        "adamw",
        "adamw, muon (matrices by Muon; embedding, head and gains by AdamW, whose weights do not "
        "decay)",
    )
    schedule: str = setting("cosine", "cosine, wsd, linear, constant")
    final: float = setting(0.05, "rate after the last step, as a share of learning_rate")
    decay: float = setting(0.2, "wsd: share of the steps in which the rate falls")
    from_zero: bool = setting(False, "warmup begins at rate 0: step 0 learns nothing", before=True)
    b1: float = setting(0.9, "decay of the first moment")
    b2: float = setting(0.95, "decay of the second moment")
    eps: float = setting(1e-8, "AdamW's epsilon")
    accumulate: int = setting(1, "parts of a batch whose gradients are summed one after another")
    every: int = setting(1, "steps whose gradients are averaged for an update (MultiSteps)")
    ema: float = setting(0.0, "decay of a moving average of parameters, evaluated; 0: none")

    def __post_init__(self) -> None:
        _choose("optim.name", self.name, "adamw", "muon")
        _choose("optim.schedule", self.schedule, "cosine", "wsd", "linear", "constant")
        for name in ("final", "decay"):
            _within(f"optim.{name}", getattr(self, name), 0, 1 + 1e-9)
        for name in ("b1", "b2", "ema"):
            _within(f"optim.{name}", getattr(self, name), 0, 1)
        _above_zero("optim.eps", self.eps)
        for name in ("accumulate", "every"):
            _within(f"optim.{name}", getattr(self, name), 1)


@dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """[mesh]: device axes other than fsdp. The remaining devices form the data axis."""

    tensor: int = setting(1, "devices over which each matrix product is split", free=True)
    shards: int = setting(0, "parts of a batch, for bits that no number of devices changes; 0: off")

    def __post_init__(self) -> None:
        _within("mesh.tensor", self.tensor, 1)
        _within("mesh.shards", self.shards, 0)


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """[lora]: train small matrices beside those of `init`, which are not changed."""

    rank: int = setting(0, "rank of each update (Hu et al. 2021); 0: all parameters are trained")
    targets: str = setting("qkv out gate up down", "matrices that are adapted")

    def __post_init__(self) -> None:
        _within("lora.rank", self.rank, 0)
        for name in self.targets.split():
            _choose("lora.targets", name, "qkv", "out", "gate", "up", "down")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """[evaluate]: when to evaluate the held-out part, besides after the last step."""

    every: int = setting(0, "steps between evaluations; the best state is kept; 0: none", free=True)
    batches: int = setting(0, "batches of an evaluation; 0: all", free=True)

    def __post_init__(self) -> None:
        for name in ("every", "batches"):
            _within(f"evaluate.{name}", getattr(self, name), 0)


@dataclass(frozen=True, kw_only=True)
class LogConfig:
    """[log]: where metrics go besides metrics.jsonl."""

    every: int = setting(10, "steps between lines of metrics", free=True)
    tensorboard: bool = setting(False, "event files in the run's tensorboard/", free=True)
    wandb: str = setting("", "project at Weights & Biases", free=True)

    def __post_init__(self) -> None:
        _within("log.every", self.every, 1)


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """[image]: what the image classifier sees; its transformer has the top-level sizes."""

    side: int = setting(28, "height and width in pixels, a multiple of patch")
    channels: int = setting(1, "values a pixel")
    patch: int = setting(4, "side of a patch")
    classes: int = setting(10, "labels are below")

    def __post_init__(self) -> None:
        for name in ("side", "channels", "patch", "classes"):
            _within(f"image.{name}", getattr(self, name), 1)
        if self.side % self.patch:
            raise ConfigError(
                f"image.side={self.side} must be a multiple of image.patch={self.patch}."
            )


@dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of a run. With the defaults it trains in about two minutes on two CPU cores.

    Raises:
        ConfigError: settings that do not work together.

    >>> Config(width=100, heads=3)
    Traceback (most recent call last):
    harness.errors.ConfigError: width=100 must be an even multiple of heads=3.
    """

    seed: int = setting(0, "of the parameters and of the data's order")
    steps: int = setting(300, "length of the schedule, and where training stops by default")
    batch_size: int = setting(8, "the global batch, in rows")
    length: int = setting(256, "tokens a row")
    lanes: int = setting(
        0,
        "the most processes that may share the rows, a divisor of batch_size; 0: its greatest up "
        "to 4",
        before=1,
    )
    width: int = setting(128, "of the transformer")
    layers: int = setting(3, "of the transformer")
    heads: int = setting(4, "of queries")
    hidden: int = setting(384, "of each layer's SwiGLU")
    dtype: str = setting("float32", "computed in: float32, bfloat16; parameters are float32")
    learning_rate: float = setting(4e-3, "at the end of warmup")
    warmup: int = setting(30, "steps in which the rate rises")
    weight_decay: float = setting(0.1, "AdamW's, of matrices")
    clip: float = setting(1.0, "global norm to which gradients are clipped")
    on_nonfinite: str = setting(
        "stop", "a loss or gradient that is not finite: stop, or skip the update", free=True
    )
    fsdp: int = setting(
        0, "devices over which parameters are split; 0: all that tensor leaves", free=True
    )
    save_every: int = setting(50, "steps between checkpoints", free=True)
    keep: int = setting(3, "newest checkpoints kept", free=True)
    keep_every: int = setting(100, "steps between checkpoints kept for good", free=True)
    task: str = setting("language", "language, or module:name of a task (see harness/task.py)")
    init: str = setting("", "folder of safetensors in Llama's names to begin from", free=True)
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    optim: OptimConfig = OptimConfig()
    mesh: MeshConfig = MeshConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    log: LogConfig = LogConfig()
    image: ImageConfig = ImageConfig()
    lora: LoraConfig = LoraConfig()

    def __post_init__(self) -> None:
        if not self.lanes:
            lanes = next(n for n in (4, 3, 2, 1) if self.batch_size % n == 0)
            object.__setattr__(self, "lanes", lanes)  # so that config.json keeps the number
        for name in _POSITIVE:
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1.")
        if self.width % (2 * self.heads) and not self.model.head_width:
            raise ConfigError(f"width={self.width} must be an even multiple of heads={self.heads}.")
        if self.model.head_width % 2:
            raise ConfigError(f"model.head_width={self.model.head_width} must be even.")
        if self.heads % (self.model.kv_heads or self.heads):
            raise ConfigError(
                f"heads={self.heads} must be a multiple of model.kv_heads={self.model.kv_heads}."
            )
        if self.model.loss_chunk and self.length % self.model.loss_chunk:
            raise ConfigError(
                f"length={self.length} must be a multiple of "
                f"model.loss_chunk={self.model.loss_chunk}."
            )
        for name, parts in (("lanes", self.lanes), ("optim.accumulate", self.optim.accumulate)):
            if self.batch_size % parts:
                raise ConfigError(
                    f"batch_size={self.batch_size} must be a multiple of {name}={parts}."
                )
        if self.lora.rank and not self.init:
            raise ConfigError(
                f"lora.rank={self.lora.rank} needs init: the folder of the model that it adapts."
            )
        if self.mesh.shards and (
            self.batch_size % self.mesh.shards
            or (self.fsdp or 1) * self.mesh.tensor * self.optim.accumulate > 1
            or self.lora.rank
        ):
            raise ConfigError(
                f"mesh.shards={self.mesh.shards} must divide batch_size={self.batch_size}, and "
                f"goes with fsdp=0 or 1, mesh.tensor=1 optim.accumulate=1 and no lora."
            )
        _choose("dtype", self.dtype, "float32", "bfloat16")
        _choose("on_nonfinite", self.on_nonfinite, "stop", "skip")
        _above_zero("learning_rate", self.learning_rate)
        _above_zero("clip", self.clip)
        _within("weight_decay", self.weight_decay, 0)
        if self.fsdp < 0 or not 0 <= self.warmup < self.steps:
            raise ConfigError(
                f"fsdp={self.fsdp} must not be negative, and warmup={self.warmup} must lie "
                f"in [0, steps={self.steps})."
            )


_POSITIVE = ("steps", "batch_size", "length", "lanes", "width", "layers", "heads", "hidden")
_POSITIVE += ("save_every", "keep", "keep_every")
_KNOWN = known_settings(Config)
_SHORT = {"data": "data.source"}
SETTINGS_HELP = help_text(_KNOWN)


def _typed(tables: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted name, each of its type. A part of a table joins those given before."""
    named = {_SHORT.get(k, k): v for k, v in flatten(tables, _KNOWN).items()}
    found: dict[str, Any] = {}
    for name, value in named.items():
        table, _, part = name.rpartition(".")
        if name not in _KNOWN and table in _KNOWN and _KNOWN[table].kind not in _PLAIN:
            inner = int(value) if table == "data.weights" and str(value).isdigit() else value
            others = found.get(table, before.get(table))
            others = others if isinstance(others, dict) else {}
            found[table] = {**others, part: inner}  # data.train.web=…
        else:
            found[name] = typed(name, value, _KNOWN)
    return found


_PLAIN = (int, float, str, bool)


_PLACES = ("data.train", "data.evaluation", "data.tokenizer")


def _placed(value: Any) -> Any:
    """Paths of files that are there as absolute ones: a run may go on from another directory."""
    if isinstance(value, dict):
        return {name: _placed(path) for name, path in value.items()}
    if not isinstance(value, str) or value == "bytes":
        return value
    return os.path.abspath(value) if os.path.exists(value) or glob(value) else value


def parse(pairs: Sequence[str], files: Sequence[Path] = ()) -> dict[str, Any]:
    """Settings of TOML files and of `key=value` words, by dotted name; the later one holds.

    Raises:
        ConfigError: an unknown key (the nearest is named) or a value of another type.

    >>> parse(["steps=20", "model.kv_heads=2"])
    {'steps': 20, 'model.kv_heads': 2}
    >>> parse(["step=20"])
    Traceback (most recent call last):
    harness.errors.ConfigError: no setting is called 'step'. Did you mean 'steps'?
    """
    found: dict[str, Any] = {}
    for file in files:
        found |= _typed(read_file(file), found)
    found |= _typed(dict(split_words(pairs)), found)
    return found | {name: _placed(found[name]) for name in _PLACES if name in found}


def make(settings: Mapping[str, Any]) -> Config:
    """A Config of settings by dotted name.

    >>> make({"seed": 1, "model.kv_heads": 2}).model.kv_heads
    2
    """
    tables = nest(settings)
    for field in dataclasses.fields(Config):
        if dataclasses.is_dataclass(field.default) and field.name in tables:
            tables[field.name] = type(field.default)(**tables[field.name])
    return Config(**tables)


def flat(cfg: Config) -> dict[str, Any]:
    """All settings by dotted name."""
    return flatten(dataclasses.asdict(cfg), _KNOWN)


def settle(stored: Mapping[str, Any] | None, given: Mapping[str, Any]) -> Config:
    """The settings of a launch: the run's own where it has begun, else the defaults; then `given`.

    Args:
        stored: what the run's first launch wrote, or None.
        given: settings that this launch asks for, by dotted name.

    Raises:
        ConfigError: `given` would change the bits of a run that has begun, or the run has settings
            that this version does not know.

    >>> settle({**dataclasses.asdict(Config()), "seed": 1}, {}).seed
    1
    """
    if stored is None:
        return make(given)
    if isinstance(parts := given.get("data.train"), dict):  # a begun run keeps its parts
        was = _completed(stored)["data.train"]
        given = {**given, "data.train": {**(was if isinstance(was, dict) else {}), **parts}}
    if changed := changes(stored, given):
        raise ConfigError(
            f"this run was begun with other settings. {'; '.join(changed)}. Leave them out to "
            "resume it, or give --run another directory. (To train longer, use --steps.)"
        )
    return make({**_completed(stored), **given})


def changes(stored: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """The given settings that would change the bits of a run with the stored ones, in words."""
    was = _completed(stored)
    return [
        f"{key}: {was[key]!r} -> {value!r}"
        for key, value in given.items()
        if not _KNOWN[key].free and value != was[key]
    ]


def _completed(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Stored settings by dotted name; one that is younger has what the older version did."""
    named = {_SHORT.get(k, k): v for k, v in flatten(stored, _KNOWN).items()}
    unknown = sorted(set(named) - set(_KNOWN))
    if unknown:
        raise ConfigError(
            f"the run's config.json has settings that this version does not know: {unknown}. "
            "Resume it with the version that began it."
        )
    before = {name: known.before for name, known in _KNOWN.items()}
    return before | {name: typed(name, value, _KNOWN) for name, value in named.items()}
