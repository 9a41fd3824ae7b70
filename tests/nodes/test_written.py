"""What a dataset prints, and what it answers to names and numbers that it does not have."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

from pipeline import Columns, Dataset, Loader, concatenate, interleave, mix, scan, zip_datasets
from pipeline.errors import ChainError, LengthError, OptionError, SourceError, UnknownNameError

DS: Any = Dataset(range(50), seed=3)


@pytest.mark.parametrize(
    ("ds", "lines"),
    [
        (DS[10:50], ["[10:50]"]),
        (DS[::2], ["[0:50:2]"]),
        (DS[::-1], ["[49::-1]"]),
        (DS[[1, 2, 3]], ["[[1, 2, 3]]"]),
        (DS[list(range(9))], ["[[0, 1, 2, 3, 4, …]]"]),
        (DS.shuffle(), [".shuffle()"]),
        (
            DS.shuffle(seed=1, window=4, name="w", reshuffle=False),
            [".shuffle(seed=1, window=4, reshuffle=False, name='w')"],
        ),
        (DS.repeat().map(str).limit(4), [".repeat()", ".map('str')", "[0:4]"]),
        (DS.cache().repeat(2), [".cache()", ".repeat(2)"]),
        (
            DS.filter(bool).lanes(4).on_error("skip"),
            [".filter('bool')", ".on_error('skip')", ".lanes(4)"],
        ),
        (
            DS.map(abs, batched=True, fingerprint="v1"),
            [".map('abs', batched=True, fingerprint='v1')"],
        ),
        (DS.random_map(max, name="m", seed_globals=True), [".random_map('m', seed_globals=True)"]),
        (DS.filter(bool, block=8), [".filter('bool', block=8)"]),
        (DS.bucket(abs, [2, 5], block=9), [".bucket('abs', [2, 5], block=9)"]),
        (DS.pack(16), [".pack(16)"]),
        (DS.pack({"a": 9}, how="best_fit", eos=2), [".pack({'a': 9}, how='best_fit', eos=2)"]),
    ],
)
def test_a_dataset_prints_what_was_written(ds: Dataset, lines: list[str]) -> None:
    assert repr(ds).splitlines() == ["Dataset(MemorySource, seed=3)", *(f"  {x}" for x in lines)]


def test_a_join_prints_its_datasets() -> None:
    mixed = mix({"a": DS.shuffle(), "b": DS.filter(bool)}, {"a": 3, "b": 1}, "all").lanes(2)
    assert repr(mixed).splitlines() == [
        "mix({'a': 0.75, 'b': 0.25}, stop='all', seed=0)",
        "  'a': Dataset(MemorySource, seed=3)",
        "    .shuffle()",
        "  'b': Dataset(MemorySource, seed=3)",
        "    .filter('bool')",
        "  .lanes(2)",
    ]
    many = repr(mix({f"d{i}": DS for i in range(200)}, {f"d{i}": 1 for i in range(200)}))
    assert len(many) < 1500
    assert "and 192 more" in many
    assert "cycle=2, run=3" in repr(interleave([DS, DS], run=3))
    assert repr(zip_datasets({"x": DS})).startswith("zip_datasets(seed=0)\n  'x': Dataset")


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("batch", "Loader(ds, batch_size)"),
        ("prefetch", "Loader(ds, n, workers=, ahead=)"),
        ("take", "ds.limit(n)"),
        ("skip", "ds[n:]"),
        ("set_epoch", "not needed"),
        ("split", "slices of one order"),
        ("from_generator", "Dataset(list(records))"),
        ("with_format", "Loader(ds, n, feed=TorchFeed())"),
    ],
)
def test_names_of_other_libraries_get_an_answer(name: str, ours: str) -> None:
    with pytest.raises(UnknownNameError) as error:
        getattr(DS, name)
    assert f".{name}: here it is {ours}" in str(error.value)
    assert not hasattr(DS, name)


def test_other_unknown_names_are_what_python_makes_of_them() -> None:
    with pytest.raises(AttributeError, match=r"no \.nonsense"):
        _ = DS.nonsense
    assert list(copy.copy(DS)) == list(pickle.loads(pickle.dumps(DS))) == list(range(50))


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: DS.shuffle(1000), OptionError, r"shuffle\(1000\).*window=1000"),
        (lambda: DS.shuffle(True), OptionError, "window=n"),
        (lambda: DS.shuffle(buffer_size=9), OptionError, r"buffer_size=9\): here .*window=n"),
        (lambda: DS.map(abs, num_proc=4), OptionError, r"num_proc=4\): here it is .*workers="),
        (lambda: DS.filter(abs, num_proc=4), OptionError, r"filter\(num_proc=4\): .*workers="),
        (lambda: DS.repeat(count=4), OptionError, r"count=4\): here it is repeat\(epochs\)"),
        (lambda: DS.map(abs, nonsense=4), OptionError, "there is no such option"),
        (lambda: Dataset([1], shuffle=True), OptionError, r"ds\.shuffle\(\)"),
        (lambda: Dataset([1], nonsense=True), OptionError, "no such option"),
        (lambda: concatenate(DS, DS), ChainError, r"concatenate\(\[a, b\]\)"),
        (lambda: interleave(DS, DS), ChainError, r"interleave\(\[a, b\]\)"),
        (lambda: zip_datasets(DS, DS), ChainError, "zip_datasets wants names"),
        (lambda: mix(DS, DS), ChainError, r"mix\(\{'a': a, 'b': b\}, weights=\{"),
        (lambda: mix({}, {}), ChainError, "mix of no datasets"),
        (lambda: len(DS.filter(bool)), LengthError, r"filter 'bool' .*scan\(ds, f\)"),
        (lambda: DS.map(lambda x: np.ones(3)).pack(2).shuffle(), ChainError, r"lengths=scan\("),
    ],
)
def test_a_call_as_in_other_libraries_names_ours(make: Any, error: Any, says: str) -> None:
    with pytest.raises(error, match=says):
        make()


def test_the_scan_that_is_named_as_the_remedy_is_one(tmp_path: Any) -> None:
    kept = DS.filter(scan(DS, lambda x: x > 9, path=tmp_path, workers=0, progress=False))
    assert len(kept.shuffle()) == 40


def test_spec_names_what_objects_hold() -> None:
    ragged = np.empty(2, object)
    ragged[:] = [np.arange(2, dtype=np.int32), np.arange(3, dtype=np.int32)]
    columns = Columns({"text": ["a", "b"], "ids": ragged, "n": np.arange(2)})
    assert repr(Dataset(columns).spec) == "{'text': str, 'ids': int32[?], 'n': int64[]}"
    assert repr(Dataset([b"a"]).spec) == "bytes"


# ---- extremes


class _Odd:
    """A source of a length, whose reads give one thing."""

    def __init__(self, length: Any, gives: Any = None) -> None:
        self._length, self._gives = length, gives

    def __len__(self) -> int:
        return self._length

    def read(self, indices: Any) -> Any:
        return self._gives


@pytest.mark.parametrize("length", [2**63, -1, 1.5, None, 2**49])
def test_lengths_that_are_none_are_refused(length: Any) -> None:
    with pytest.raises(SourceError, match=r"_Odd.*2\*\*48"):
        Dataset(_Odd(length))


@pytest.mark.parametrize("gives", [None, 5])
def test_reads_that_give_no_records_are_refused(gives: Any) -> None:
    with pytest.raises(SourceError, match=r"_Odd\.read gave an? (NoneType|int) for 2 indices"):
        next(Loader(Dataset(_Odd(4, gives)), 2))


def test_a_note_about_many_epochs_is_short() -> None:
    def fails(indices: Any) -> Any:
        raise ValueError("no")

    source = _Odd(3)
    source.read = fails
    with pytest.raises(ValueError, match="no") as error:
        next(Loader(Dataset(source).repeat(), 30_000))
    assert max(map(len, error.value.__notes__)) < 300
