"""The user's own data: rows from a function, or text in files, tokenized and packed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from harness.config import Config
from harness.errors import ConfigError
from harness.named import called, is_named, load_named
from harness.own_rows import TokenRow, check_tokens
from harness.tokens import VOCAB, Tokenizer, make_tokenizer
from pipeline import Dataset, ParquetSource, concatenate, mix

_CHUNKS = 16  # row groups whose rows are shuffled together


def own_data(cfg: Config) -> tuple[Dataset, Dataset | None] | None:
    """(endless training rows, one pass over held-out rows or None); None for the embedded corpus.

    Raises:
        ConfigError: the files or the function do not give rows that can be trained on.
    """
    if is_named(cfg.data.source):
        return _of_function(cfg)  # it may use data.train in its own way
    return _of_files(cfg) if cfg.data.train else None


def _of_function(cfg: Config) -> tuple[Dataset, Dataset | None]:
    found: Any = load_named("data", cfg.data.source)
    if callable(found) and not isinstance(found, Dataset):
        found = called("data", cfg.data.source, found, cfg)
    train, held_out = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
    if not isinstance(train, Dataset) or not isinstance(held_out, Dataset | None):
        raise ConfigError(
            f"data={cfg.data.source!r} gives {type(train).__name__}: give a pipeline.Dataset, or a "
            "function of the config that returns one or two, for training and held out."
        )
    if held_out is not None and held_out.endless and not cfg.evaluate.batches:
        raise ConfigError(
            f"data={cfg.data.source!r} gives held-out rows without end: leave .repeat() out, or "
            "set evaluate.batches."
        )
    parts = [part if part is None else _rows(part, cfg) for part in (train, held_out)]
    assert parts[0] is not None
    return parts[0] if parts[0].endless else parts[0].repeat(), parts[1]


def _rows(part: Dataset, cfg: Config) -> Dataset:
    rows = _token_rows(part, cfg) if cfg.task == "language" else part
    return rows.lanes(cfg.lanes) if rows.counted and cfg.lanes > 1 else rows


def _token_rows(rows: Dataset, cfg: Config) -> Dataset:
    checked = rows.map(TokenRow(cfg.length, _vocab(cfg)))
    if not checked.head(1):  # looks at the first row
        raise ConfigError(f"data={cfg.data.source!r} gives a Dataset that has no rows.")
    return checked


def _vocab(cfg: Config) -> int:
    return cfg.model.vocab or _tokenizer(cfg.data.tokenizer).vocab


def _of_files(cfg: Config) -> tuple[Dataset, Dataset | None]:
    parts = {name: _records(path, cfg) for name, path in _named(cfg.data.train).items()}
    tails: list[Dataset] = []
    if cfg.data.evaluation:
        tails = [_records(path, cfg) for path in _named(cfg.data.evaluation).values()]
    elif cfg.data.held_out:
        for name, records in parts.items():
            kept = len(records) - max(1, round(len(records) * cfg.data.held_out))
            if not kept:
                raise ConfigError(
                    f"data.train has {len(records)} records: too few to hold one out. Give "
                    "data.evaluation, or data.held_out=0."
                )
            tails.append(records[kept:])
            parts[name] = records[:kept]
    weights = cfg.data.weights or {name: len(records) for name, records in parts.items()}
    rows = {name: _packed(_shuffled(records), cfg) for name, records in parts.items()}
    train = mix(rows, weights, "never") if len(rows) > 1 else next(iter(rows.values())).repeat()
    held_out = concatenate(tails) if len(tails) > 1 else tails[0] if tails else None
    return (
        train.lanes(cfg.lanes),
        None if held_out is None else _packed(held_out, cfg).lanes(cfg.lanes),
    )


def _named(paths: str | Mapping[str, str]) -> Mapping[str, str]:
    return {"train": paths} if isinstance(paths, str) else paths


def _records(path: str, cfg: Config) -> Dataset:
    fields = [name for name in (cfg.data.text, cfg.data.prompt) if name]
    source = ParquetSource(path, columns=fields) if path.endswith(".parquet") else path
    records = Dataset(source, seed=cfg.seed)
    first = records.head(1)
    if not first:
        raise ConfigError(f"{path} has no records: give files that have.")
    if not isinstance(first[0], dict):
        if cfg.data.prompt:
            raise ConfigError(
                f"data.prompt={cfg.data.prompt!r} is a field, and the records of {path} have none: "
                "give files that have, such as JSON lines."
            )
    elif missing := [f for f in fields if f not in first[0]]:
        raise ConfigError(
            f"the records of {path} have no field {missing[0]!r}; they have {sorted(first[0])}. "
            "Set data.text, and data.prompt if there is one."
        )
    return records


def _shuffled(records: Dataset) -> Dataset:
    source = records.components[0].source
    by_chunks = getattr(source, "chunk_bounds", None) is not None
    return records.shuffle(chunks=_CHUNKS) if by_chunks else records.shuffle()


def _packed(records: Dataset, cfg: Config) -> Dataset:
    name, prompt = cfg.data.tokenizer, cfg.data.prompt
    _tokenizer(name)  # reports a missing file here
    content = name if name == "bytes" else hashlib.sha256(Path(name).read_bytes()).hexdigest()
    documents = records.map(Encode(cfg.data.text, prompt, Named(name, content), _vocab(cfg)))
    if not prompt:
        return documents.pack({"tokens": cfg.length}, how="split")
    fields = {"tokens": cfg.length, "weights": cfg.length}
    return documents.pack(fields, how="first_fit").map(one_segmentation)


def one_segmentation(row: dict[str, Any]) -> dict[str, Any]:
    """A row with one set of segments: those of tokens and weights are the same."""
    segments = {k: row[f"tokens_{k}"] for k in ("segment_ids", "positions")}
    return {"tokens": row["tokens"], "weights": row["weights"], **segments}


@dataclass(frozen=True)
class Named:
    """A tokenizer by name. Its content alone tells datasets apart, wherever its file lies.

    Attributes:
        name: "bytes", or a tokenizer.json.
        content: digest of its file.
    """

    name: str
    content: str

    def fingerprint(self) -> str:
        return self.content


@dataclass(frozen=True)
class Encode:
    """Maps a record to tokens: its prompt, whose tokens have weight 0, then its text.

    Attributes:
        text, prompt: names of fields; not used if the record is text or bytes itself.
        tokenizer: which one, and a digest of its file, so that a change is noticed.
        vocab: tokens that the model knows.

    Raises:
        ConfigError: the record has no text, or tokens that the model does not know.

    >>> row = Encode("answer", "question")({"question": "Hi?", "answer": "Yes"})
    >>> row["tokens"].tolist(), row["weights"].tolist()
    ([256, 72, 105, 63, 89, 101, 115], [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0])
    """

    text: str
    prompt: str = ""
    tokenizer: Named = Named("bytes", "bytes")
    vocab: int = VOCAB

    def __call__(self, record: Any) -> dict[str, Any]:
        row = self._encoded(record)
        check_tokens(row["tokens"], self.vocab)
        return {**row, "tokens": row["tokens"].astype(np.int32)}

    def _encoded(self, record: Any) -> dict[str, Any]:
        encode = _tokenizer(self.tokenizer.name).encode
        text = record.get(self.text) if isinstance(record, dict) else record
        if not self.prompt:
            return {"tokens": _tokens(text, encode, begins=True)}
        prompt = _tokens(record.get(self.prompt), encode, begins=True)
        tokens = np.concatenate([prompt, _tokens(text, encode, begins=False)])
        return {"tokens": tokens, "weights": (np.arange(len(tokens)) >= len(prompt)).astype("f4")}


@cache
def _tokenizer(name: str) -> Tokenizer:
    return make_tokenizer(name)


def _tokens(value: Any, encode: Callable[..., Any], *, begins: bool) -> Any:
    if isinstance(value, str | bytes):
        return encode(value.encode() if isinstance(value, str) else value, begins=begins)
    tokens = np.asarray(value)
    if tokens.ndim != 1 or (tokens.size and tokens.dtype.kind not in "iu"):
        raise ConfigError(
            f"{value!r:.60} is neither text nor a list of tokens. Set data.text (and data.prompt) "
            "to fields that are, and leave out records that have none."
        )
    return tokens.astype(np.int64)
