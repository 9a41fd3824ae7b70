"""The settings that determine a run's bits: checking and comparing them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Annotated, Any, Literal

from harness.errors import ConfigError
from harness.settings import (
    check_value,
    flatten,
    help_text,
    known_settings,
    nest,
    read_file,
    setting,
    split_words,
    typed,
)

Count = Annotated[int, "[1, inf)"]
Whole = Annotated[int, "[0, inf)"]
Share = Annotated[float, "[0, 1)"]
Weight = Annotated[float, "[0, inf)"]
Positive = Annotated[float, "(0, inf)"]
Seed = Annotated[int, "[-9223372036854775808, 9223372036854775808)"]  # int64


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
    held_out: Share = setting(0.01, "share of data.train that is held out at its end")
    text: str = setting("text", "field of the text, or of its tokens")
    prompt: str = setting("", "field of text that comes before it and is not learned")
    tokenizer: str = setting(
        "bytes", "bytes, or a tokenizer.json of Hugging Face tokenizers", free=True
    )

    def __post_init__(self) -> None:
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

    vocab: Whole = setting(0, "tokens that the model knows; 0: as many as the tokenizer")
    kv_heads: Whole = setting(0, "heads of keys and values, a divisor of heads; 0: heads")
    head_width: Whole = setting(0, "width of a head; 0: width / heads")
    qk_norm: bool = setting(False, "RMS norm of queries and keys")
    rope_theta: Positive = setting(10_000.0, "base of the rotary frequencies")
    rope_scaling: Literal["none", "linear", "llama3"] = setting("none", "none, linear, llama3")
    rope_factor: Positive = setting(8.0, "by which scaling stretches positions")
    rope_low: Positive = setting(1.0, "llama3: low_freq_factor")
    rope_high: Positive = setting(4.0, "llama3: high_freq_factor")
    rope_original: Count = setting(8192, "llama3: original_max_position_embeddings")
    norm_eps: Positive = setting(1e-6, "epsilon of RMS norms")
    tied: bool = setting(False, "the head is the embedding, transposed")
    dropout: Share = setting(0.0, "share of each block's output that a step drops")
    attention: Literal["fused", "xla", "cudnn", "tokamax", "plain"] = setting(
        "fused",
        "fused (jax.nn.dot_product_attention, cuDNN on GPUs in bfloat16), xla, cudnn, tokamax, "
        "plain",
        before="plain",
    )
    scan: bool = setting(False, "one compiled layer, scanned over stacked parameters")
    remat: Literal["none", "dots", "full"] = setting(
        "none", "none, dots (keep products of matrices), full"
    )
    quantize: Literal["none", "int8", "int4", "float8"] = setting(
        "none", "none; int8, int4, float8: products in blocks see rounded numbers (extra: qwix)"
    )
    z_loss: Weight = setting(0.0, "weight of log(sum(exp(logits)))^2 in training")
    loss_chunk: Whole = setting(0, "tokens of a row whose logits exist at once; 0: all")


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """[optim]: the optimizer and its schedule."""

    name: Literal["adamw", "muon"] = setting(
        "adamw",
        "adamw, muon (matrices by Muon; embedding, head and gains by AdamW, whose weights do not "
        "decay)",
    )
    schedule: Literal["cosine", "wsd", "linear", "constant"] = setting(
        "cosine", "cosine, wsd, linear, constant"
    )
    final: Annotated[float, "[0, 1]"] = setting(
        0.05, "rate after the last step, as a share of learning_rate"
    )
    decay: Annotated[float, "[0, 1]"] = setting(
        0.2, "wsd: share of the steps in which the rate falls"
    )
    from_zero: bool = setting(False, "warmup begins at rate 0: step 0 learns nothing", before=True)
    b1: Share = setting(0.9, "decay of the first moment")
    b2: Share = setting(0.95, "decay of the second moment")
    eps: Positive = setting(1e-8, "AdamW's epsilon")
    accumulate: Count = setting(1, "parts of a batch whose gradients are summed one after another")
    every: Count = setting(1, "steps whose gradients are averaged for an update (MultiSteps)")
    ema: Share = setting(0.0, "decay of a moving average of parameters, evaluated; 0: none")


@dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """[mesh]: device axes other than fsdp. The remaining devices form the data axis."""

    tensor: Count = setting(1, "devices over which each matrix product is split", free=True)
    shards: Whole = setting(
        0, "parts of a batch, for bits that no number of devices changes; 0: off"
    )


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """[lora]: train small matrices beside those of `init`, which are not changed."""

    rank: Whole = setting(0, "rank of each update (Hu et al. 2021); 0: all parameters are trained")
    targets: str = setting("qkv out gate up down", "matrices that are adapted")

    def __post_init__(self) -> None:
        for name in self.targets.split():
            if name not in (known := ("qkv", "out", "gate", "up", "down")):
                raise ConfigError(f"lora.targets: {name!r} is none of {', '.join(known)}.")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """[evaluate]: when to evaluate the held-out part, besides after the last step."""

    every: Whole = setting(
        0, "steps between evaluations; the best state is kept; 0: none", free=True
    )
    batches: Whole = setting(0, "batches of an evaluation; 0: all", free=True)


@dataclass(frozen=True, kw_only=True)
class LogConfig:
    """[log]: where metrics go besides metrics.jsonl."""

    every: Count = setting(10, "steps between lines of metrics", free=True)
    tensorboard: bool = setting(False, "event files in the run's tensorboard/", free=True)
    wandb: str = setting("", "project at Weights & Biases", free=True)


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """[image]: what the image classifier sees; its transformer has the top-level sizes."""

    side: Count = setting(28, "height and width in pixels, a multiple of patch")
    channels: Count = setting(1, "values a pixel")
    patch: Count = setting(4, "side of a patch")
    classes: Count = setting(10, "labels are below")


@dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of a run. With the defaults it trains in about two minutes on two CPU cores.

    Raises:
        ConfigError: settings that do not work together.

    >>> Config(width=100, heads=3)
    Traceback (most recent call last):
    harness.errors.ConfigError: width=100 must be an even multiple of heads=3.
    """

    seed: Seed = setting(0, "of the parameters and of the data's order")
    steps: Count = setting(300, "length of the schedule, and where training stops by default")
    batch_size: Count = setting(8, "the global batch, in rows")
    length: Count = setting(256, "tokens a row")
    lanes: Whole = setting(
        0,
        "the most processes that may share the rows, a divisor of batch_size; 0: its greatest up "
        "to 4",
        before=1,
    )
    width: Count = setting(128, "of the transformer")
    layers: Count = setting(3, "of the transformer")
    heads: Count = setting(4, "of queries")
    hidden: Count = setting(384, "of each layer's SwiGLU")
    dtype: Literal["float32", "bfloat16"] = setting(
        "float32", "computed in: float32, bfloat16; parameters are float32"
    )
    learning_rate: Positive = setting(4e-3, "at the end of warmup")
    warmup: Whole = setting(30, "steps in which the rate rises")
    weight_decay: Weight = setting(0.1, "AdamW's, of matrices")
    clip: Positive = setting(1.0, "global norm to which gradients are clipped")
    on_nonfinite: Literal["stop", "skip"] = setting(
        "stop", "a loss or gradient that is not finite: stop, or skip the update", free=True
    )
    fsdp: Whole = setting(
        0, "devices over which parameters are split; 0: all that tensor leaves", free=True
    )
    save_every: Count = setting(50, "steps between checkpoints", free=True)
    keep: Count = setting(3, "newest checkpoints kept", free=True)
    keep_every: Count = setting(100, "steps between checkpoints kept for good", free=True)
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
        for name, value in flat(self).items():
            check_value(name, value, _KNOWN[name].allowed)
        if not self.lanes:
            lanes = next(n for n in (4, 3, 2, 1) if self.batch_size % n == 0)
            object.__setattr__(self, "lanes", lanes)  # so that config.json keeps the number
        _check_together(self)


def _check_together(cfg: Config) -> None:
    """Check settings that are each right for themselves.

    Raises:
        ConfigError: two of them do not go together.
    """
    model, mesh, image = cfg.model, cfg.mesh, cfg.image
    if cfg.width % (2 * cfg.heads) and not model.head_width:
        raise ConfigError(f"width={cfg.width} must be an even multiple of heads={cfg.heads}.")
    if model.head_width % 2:
        raise ConfigError(f"model.head_width={model.head_width} must be even.")
    if cfg.heads % (model.kv_heads or cfg.heads):
        raise ConfigError(
            f"heads={cfg.heads} must be a multiple of model.kv_heads={model.kv_heads}."
        )
    if not model.rope_low < model.rope_high:
        raise ConfigError(
            f"model.rope_high={model.rope_high} must be above model.rope_low={model.rope_low}."
        )
    if model.loss_chunk and cfg.length % model.loss_chunk:
        raise ConfigError(
            f"length={cfg.length} must be a multiple of model.loss_chunk={model.loss_chunk}."
        )
    for name, parts in (("lanes", cfg.lanes), ("optim.accumulate", cfg.optim.accumulate)):
        if cfg.batch_size % parts:
            raise ConfigError(f"batch_size={cfg.batch_size} must be a multiple of {name}={parts}.")
    if image.side % image.patch:
        raise ConfigError(
            f"image.side={image.side} must be a multiple of image.patch={image.patch}."
        )
    if cfg.lora.rank and not cfg.init:
        raise ConfigError(
            f"lora.rank={cfg.lora.rank} needs init: the folder of the model that it adapts."
        )
    if mesh.shards and (
        cfg.batch_size % mesh.shards
        or (cfg.fsdp or 1) * mesh.tensor * cfg.optim.accumulate > 1
        or cfg.lora.rank
    ):
        raise ConfigError(
            f"mesh.shards={mesh.shards} must divide batch_size={cfg.batch_size}, and "
            "goes with fsdp=0 or 1, mesh.tensor=1, optim.accumulate=1 and no lora."
        )
    if cfg.warmup >= cfg.steps:
        raise ConfigError(f"warmup={cfg.warmup} must be below steps={cfg.steps}: set both.")


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


PLACES = ("data.train", "data.evaluation", "data.tokenizer", "init")


def _placed(value: Any) -> Any:
    """Paths of files that are there as absolute ones: a run may go on from another directory."""
    if isinstance(value, dict):
        return {name: _placed(path) for name, path in value.items()}
    if not isinstance(value, str) or value == "bytes":
        return value
    path = os.path.expanduser(value)
    return os.path.abspath(path) if os.path.exists(path) or glob(path, recursive=True) else value


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
    return found | {name: _placed(found[name]) for name in PLACES if name in found}


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
    after = joined(_completed(stored), given)
    if changed := changes(stored, {name: after[name] for name in given}):
        raise ConfigError(
            f"this run was begun with other settings. {'; '.join(changed)}. Leave them out to "
            "resume it, or give --run another directory. (To train longer, use --steps.)"
        )
    return make(after)


def joined(was: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted name, changed by those given; parts of a table join those that it has.

    >>> joined({"data.train": {"web": "w", "code": "c"}}, {"data.train": {"web": "x"}})
    {'data.train': {'web': 'x', 'code': 'c'}}
    """
    tables = {
        name: {**was[name], **parts}
        for name, parts in given.items()
        if isinstance(parts, dict) and isinstance(was.get(name), dict)
    }
    return {**was, **given, **tables}


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
