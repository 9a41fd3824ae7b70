"""What was chosen of a dataset stays chosen: the same members alone and inside any join."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import Dataset, Loader, concatenate, interleave, mix, scan, zip_datasets
from pipeline.errors import MismatchError, ScanError
from tests.examples import examples

pytestmark = pytest.mark.filterwarnings("ignore:(mix|interleave|zip_datasets). datasets")


def _mixed(parts: Sequence[Dataset]) -> Dataset:
    named = {f"m{i}": part for i, part in enumerate(parts)}
    return mix(named, dict.fromkeys(named, 1), stop="all")


def _zipped(parts: Sequence[Dataset]) -> Dataset:
    n = min(map(len, parts))
    rows = zip_datasets({str(i): part.repeat().limit(n) for i, part in enumerate(parts)})
    return rows.map(lambda row: tuple(row.values()), name="values")


def _nested(parts: Sequence[Dataset]) -> Dataset:
    return _mixed([interleave([concatenate([part]) for part in parts])])


def _streamed(parts: Sequence[Dataset]) -> Dataset:
    return _mixed([part.filter(lambda x: x >= 0, name="all") for part in parts])


JOINS: tuple[Callable[[Sequence[Dataset]], Dataset], ...] = (
    concatenate,
    interleave,
    _mixed,
    _nested,
    _streamed,
)


def _records(rows: Any) -> set[int]:
    return {int(x) for x in rows}


@st.composite
def wholes(draw: st.DrawFn, first: int, flags: Callable[[Dataset], Dataset]) -> Dataset:
    """A dataset in one order that epochs may change, of records from `first` on."""
    n, seed = draw(st.integers(4, 30)), draw(st.integers(0, 1))
    ds = Dataset(range(first, first + n), seed=seed)
    if draw(st.booleans()):
        ds = concatenate([ds.shuffle(name="in"), Dataset(range(first + 100, first + 104))])
    for i in range(draw(st.integers(1, 3))):
        op = draw(st.sampled_from(["shuffle", "window", "pinned", "slice", "map", "flags"]))
        if op == "shuffle":
            ds = ds.shuffle(name=f"s{i}", seed=draw(st.sampled_from([None, 5])))
        elif op == "window":
            ds = ds.shuffle(name=f"s{i}", window=3)
        elif op == "pinned":
            ds = ds.shuffle(name=f"s{i}", reshuffle=False)
        elif op == "slice":
            ds = ds[1:] if len(ds) > 2 else ds
        elif op == "flags":
            ds = flags(ds[: len(ds) - 1]) if len(ds) > 2 else ds
        else:
            ds = ds.map(lambda x: x)
    return ds


@st.composite
def choices(draw: st.DrawFn, ds: Dataset) -> tuple[Dataset, Dataset]:
    """Two disjoint parts of a dataset."""
    k = draw(st.integers(1, len(ds) - 1))
    how = draw(st.sampled_from(["slice", "list", "mask"]))
    if how == "slice":
        one, other = ds[:k], ds[k:]
    elif how == "list":
        one, other = ds[list(range(k))], ds[list(range(k, len(ds)))]
    else:
        one, other = ds[np.arange(len(ds)) < k], ds[np.arange(len(ds)) >= k]
    return (one.shuffle(name="after"), other) if draw(st.booleans()) else (one, other)


@given(st.data())
@examples(16)
def test_members_stay_inside_any_join(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:

        def flags(ds: Dataset) -> Dataset:
            path = Path(folder) / str(len(list(Path(folder).iterdir())))
            found = scan(ds, lambda x: x % 4 != 1, path=path, workers=0, progress=False)
            return ds.filter(found, name=f"kept{path.name}") if found.values.any() else ds

        ds = data.draw(wholes(0, flags))
        if len(ds) < 2:
            return
        one, other = data.draw(choices(ds))
        third = data.draw(wholes(1000, flags))
        chosen, rest = _records(one), _records(other)
        assert not chosen & rest
        for i, join in enumerate(JOINS):
            parts = [one, third] if i % 2 else [third, one]
            assert {x for x in _records(join(parts)) if x < 1000} == chosen
            assert _records(join([one, other])) == chosen | rest
            assert len(list(concatenate([one, other]))) == len(one) + len(other)
        pairs = list(_zipped([one, one]))
        assert {x for pair in pairs for x in pair} == chosen


def _train() -> tuple[Dataset, Dataset, Dataset]:
    ds = Dataset(range(20), seed=1).shuffle()
    return ds[:5], ds[5:], Dataset(range(1000, 1020), seed=1).shuffle()[5:]


@pytest.mark.parametrize("join", JOINS)
def test_train_rows_stay_out_of_validation(join: Callable[..., Dataset]) -> None:
    val, train, other = _train()
    assert not _records(join([train, other])) & set(val)
    assert len(_records(join([val, train]))) == 20


def test_a_part_packed_by_a_scan_may_be_joined(tmp_path: Path) -> None:
    docs = Dataset([np.full(1 + i % 3, i) for i in range(20)]).shuffle()[:12]
    lengths = scan(docs, len, path=tmp_path, workers=0, progress=False)
    for how in ("split", "first_fit"):
        packed = docs.pack(4, how=how, lengths=lengths)
        rows = [row["tokens"].tolist() for row in packed]
        joined = concatenate([packed, packed])
        assert [row["tokens"].tolist() for row in joined] == rows + rows


def test_a_cache_holds_the_rows_of_its_place(tmp_path: Path) -> None:
    base = Dataset(range(20)).shuffle(reshuffle=False)
    for kept in (base.cache(tmp_path), base[:9].cache(tmp_path)):
        alone, joined = list(kept), list(concatenate([kept]))
        uncached = base if len(kept) == 20 else base[:9]
        assert alone == list(uncached)
        assert joined == list(concatenate([uncached]))


def test_joins_whose_data_changed_refuse_older_states_and_scans(tmp_path: Path) -> None:
    _, train, other = _train()
    joined = concatenate([train, other])
    assert joined.fingerprint()["orders"] == "pinned"
    state = Loader(joined, 4).state_dict()
    del state["dataset"]["orders"], state["keys"]
    with pytest.raises(MismatchError, match="orders: added"):
        Loader(joined, 4).load_state_dict(state)
    older = scan(joined, lambda x: x > 3, path=tmp_path / "a", workers=0, progress=False)
    header = tmp_path / "a" / "scan.json"
    header.write_text(header.read_text().replace('"orders"', '"order"'))
    with pytest.raises(ScanError, match="orders"):
        joined.filter(type(older)(str(tmp_path / "a")))


@pytest.mark.parametrize(
    "parts",
    [
        lambda ds: [ds, ds.shuffle()],
        lambda ds: [ds[:5], ds[5:].shuffle()],
        lambda ds: [ds.shuffle(), ds.repeat(2)],
    ],
)
def test_joins_whose_data_did_not_change_keep_their_fingerprint(parts: Any) -> None:
    assert "orders" not in concatenate(parts(Dataset(range(20)))).fingerprint()


@pytest.mark.filterwarnings("error")
def test_equal_orders_are_warned_of_where_rows_take_turns() -> None:
    _, train, other = _train()
    for join in (interleave, _mixed):
        with pytest.warns(UserWarning, match=r"same random order.*seed=") as told:
            join([train, other])
        assert told[0].filename == __file__
        with pytest.warns(UserWarning, match="same random order"):
            join([concatenate([train]), other])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        apart = Dataset(range(1000, 1020), seed=2).shuffle()[5:]
        for parts in ([train, apart], [train[:3], train[3:]], [train, train.shuffle(name="b")]):
            interleave(parts)
        interleave([Dataset(range(20)).shuffle(), Dataset(range(20)).shuffle()])


@pytest.mark.filterwarnings("error")
def test_a_zip_of_datasets_shuffled_apart_is_warned_of() -> None:
    one, other = Dataset(range(20)), Dataset(range(100, 120))
    with pytest.warns(UserWarning, match=r"\['x', 'y'\] are each shuffled on their own"):
        zip_datasets({"x": one.shuffle(), "y": other.shuffle()})
    with pytest.warns(UserWarning, match="shuffled on their own"):
        zip_datasets({"x": one.shuffle(seed=1)[:9], "y": other.shuffle(seed=2)[:9]})
    aligned = zip_datasets({"x": one.shuffle()[:9], "y": other.shuffle()[:9]})
    assert all(row["y"] == row["x"] + 100 for row in aligned)
    zip_datasets({"x": one, "y": other}).shuffle()
    zip_datasets({"x": one.shuffle(), "y": other})
