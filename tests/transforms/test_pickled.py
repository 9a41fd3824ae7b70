"""Fingerprints see what pickle sees: content in C, tensors, tokenizers; the rest is told."""

from __future__ import annotations

import collections
import functools
import ipaddress
import random
import sqlite3
import struct
import threading
import zoneinfo
from contextlib import closing
from typing import Any

import cloudpickle
import numpy as np
import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from pipeline import Dataset, scan
from pipeline.errors import ChainError
from pipeline.transforms import Code, code_digest, refuse_unseen


def holding(held: Any) -> Any:
    return lambda row: (held, row)


def word_level(*words: str) -> Any:
    numbers = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token=words[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    return tokenizer


def linear(seed: int) -> torch.nn.Linear:
    torch.manual_seed(seed)
    return torch.nn.Linear(2, 2)


class Wrapper:
    """As sentencepiece: attributes nobody can see, and a way to be pickled."""

    def __init__(self, model: bytes) -> None:
        self.model, self.engine = model, iter(model)

    def __reduce__(self) -> Any:
        return Wrapper, (self.model,)


class Vocabulary(dict[str, int]):
    """A dict with an attribute."""

    def __init__(self, unknown: int) -> None:
        super().__init__(a=1)
        self.unknown = unknown


class Adds(int):
    def __call__(self, x: int) -> int:
        return x + self


MAKERS = [
    lambda i: word_level("a", "b" * i),
    linear,
    lambda i: torch.nn.Sequential(torch.nn.Identity(), linear(i)),
    lambda i: torch.full((2,), i, dtype=torch.bfloat16),
    lambda i: torch.full((2,), float(i), requires_grad=True),
    lambda i: torch.full((2, 2), i).to_sparse(),
    lambda i: ValueError("x" * i),
    lambda i: Wrapper(b"x" * i),
    Vocabulary,
    lambda i: zoneinfo.ZoneInfo(["Europe/Berlin", "Asia/Tokyo"][i - 1]),
    lambda i: struct.Struct(["<I", "<Q"][i - 1]),
    lambda i: collections.ChainMap({"a": i}),
    lambda i: functools.partialmethod(holding, i),
    lambda i: ipaddress.ip_address(i),
    lambda i: pd.DataFrame({"ab"[i - 1]: [1]}),
    lambda i: np.ma.array([1, 2], mask=[i == 1, False]),
]


@pytest.mark.parametrize("make", MAKERS)
def test_content_counts_wherever_it_lies(make):
    assert Code.of(holding(make(1))).unseen == ()
    assert code_digest(holding(make(1))) == code_digest(holding(make(1)))
    assert code_digest(holding(make(1))) != code_digest(holding(make(2)))


@pytest.mark.parametrize("make", MAKERS[:6])
def test_content_counts_in_globals_too(make, monkeypatch):
    digests = []
    for i in (1, 1, 2):
        monkeypatch.setitem(globals(), "GLOBAL", make(i))
        digests.append(code_digest(uses_a_global))
    assert digests[0] == digests[1] != digests[2]


GLOBAL: Any = None


def uses_a_global(row: Any) -> Any:
    return GLOBAL, row


@pytest.mark.parametrize("make", MAKERS)
def test_a_pickled_copy_agrees(make):
    if isinstance(make(1), functools.partialmethod | struct.Struct):
        pytest.skip("these are not pickled")
    f = holding(make(1))
    assert code_digest(cloudpickle.loads(cloudpickle.dumps(f))) == code_digest(f)


@pytest.mark.parametrize(
    "of",
    [holding, lambda t: t.encode, lambda t: functools.partial(t.encode_batch, is_pretokenized=0)],
)
def test_use_of_a_tokenizer_is_no_change(of):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.train_from_iterator(["to be or not"] * 9, trainers.BpeTrainer(vocab_size=20))  # pyright: ignore[reportCallIssue]
    before = code_digest(of(tokenizer))
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=8)
    for i in range(50):
        tokenizer.encode(f"to be or not {i}")
    assert code_digest(of(tokenizer)) == before
    assert code_digest(of(word_level("a", "b"))) != code_digest(of(word_level("a", "c")))


@pytest.mark.parametrize("make", [random.Random, np.random.default_rng, np.random.RandomState])
def test_draws_are_no_change(make):
    generator = make(1)
    before = Code.of(holding(generator))
    generator.random() if hasattr(generator, "random") else generator.rand()
    assert Code.of(holding(generator)) == before
    assert before.unseen == ()


@pytest.mark.parametrize("make", [threading.Lock, threading.RLock, threading.Event, object])
def test_machinery_holds_nothing_to_see(make):
    assert Code.of(holding(make())).unseen == ()


def ignoring(held: Any) -> Any:
    return lambda row: row if held is not None else None


@pytest.mark.parametrize("kind", ["connection", "generator", "iterator", "file"])
def test_what_cannot_be_seen_is_refused_where_rows_are_kept(kind, tmp_path):
    with closing(sqlite3.connect(":memory:")) as connection, open(__file__) as file:
        some = {"connection": connection, "generator": (i for i in ""), "iterator": iter([1])}
        f = ignoring({**some, "file": file}[kind])
        ds = Dataset(range(4)).map(f, name="held")
        (said,) = Code.of(f).unseen
        assert said.startswith("held: a ")
        with pytest.raises(ChainError, match=r"stages.0: map held .*held: a .*fingerprint="):
            ds.cache(tmp_path)
        with pytest.raises(ChainError, match=r"stages.0: map held .*fingerprint="):
            scan(ds, lambda row: True, path=tmp_path / "scan")
        with pytest.raises(ChainError, match=r"the function: scan .*fingerprint="):
            scan(Dataset(range(4)), f, path=tmp_path / "scan")
        ds.cache()  # in memory nothing outlives the object
        for said in ("1", "2"):
            again = Dataset(range(4)).map(f, name="held", fingerprint=said).cache(tmp_path)
            assert list(again) == [0, 1, 2, 3]
        scan(Dataset(range(4)), f, path=tmp_path / "s", fingerprint="1", workers=0)


@pytest.mark.parametrize("stage", ["map", "random_map", "filter", "flat_map"])
def test_what_is_said_counts_instead_of_the_function(stage):
    def of(f: Any, said: Any) -> str:
        return getattr(Dataset(range(3)), stage)(f, name="n", fingerprint=said).fingerprint()[
            "stages.0"
        ]

    assert of(len, "1") == of(max, "1") != of(len, "2")
    assert of(len, None) != of(max, None)
    for bad in ("", 3):
        with pytest.raises(ChainError, match="give a text"):
            of(len, bad)


def test_an_object_may_say_it_itself():
    class Client:
        def __init__(self, version: str) -> None:
            self.version, self.link = version, iter(version)

        def fingerprint(self) -> str:
            return self.version

    one, other = Code.of(holding(Client("1"))), Code.of(holding(Client("2")))
    assert one.unseen == other.unseen == ()
    assert one.digest != other.digest
    refuse_unseen(Dataset(range(2)).map(holding(Client("1"))).fingerprint(), "cache")


def test_nesting_beyond_all_sight_is_told():
    deep: Any = 1
    for _ in range(200):
        deep = [deep]
    assert Code.of(holding(deep)).unseen


def test_a_large_array_is_hashed_as_its_bytes_are(monkeypatch):
    arrays = [np.arange(600).reshape(2, 1, 300)[:, :, ::3], np.arange(60.0), np.zeros((0, 3))]
    whole = [code_digest(holding(a)) for a in arrays]
    monkeypatch.setattr("pipeline.transforms.code._PIECE", 64)
    assert [code_digest(holding(a)) for a in arrays] == whole


def test_packages_are_recorded_by_name():
    assert Code.of(holding(linear(1))).packages == ("torch",)
    assert Code.of(lambda x: np.sqrt(x)).packages == ("numpy",)
    assert Code.of(lambda x: x).packages == ()
