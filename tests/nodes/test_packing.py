"""Packing by scanned lengths: the rows that one great block would give, each by its position."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import Dataset, Loader, Scanned, Threads, concatenate, scan
from pipeline.debug.digest import digest
from pipeline.errors import ChainError, ScanError
from pipeline.nodes import plans
from tests.examples import examples


def size(row: Any) -> int:
    return len(row["t"])


def noisy(row: Any, rng: np.random.Generator) -> Any:
    return {"t": row["t"] + rng.integers(1 << 20)}


def same(row: Any) -> Any:
    return row


class Docs:
    """Documents of random lengths, some empty, and scans of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, n: int, seed: int, most: int = 12) -> tuple[Dataset, Scanned]:
        rng = np.random.default_rng([n, seed])
        lengths = rng.integers(0, most, n) * (rng.random(n) < 0.8)
        lengths[rng.integers(n)] = 5
        ds = Dataset([{"t": np.arange(k) + 100 * i} for i, k in enumerate(lengths)], seed=seed)
        path = self._folder / f"{n}-{seed}-{most}"
        return ds, scan(ds, size, path=path, workers=0)


@pytest.fixture(scope="module")
def docs(tmp_path_factory: pytest.TempPathFactory) -> Docs:
    return Docs(tmp_path_factory.mktemp("docs"))


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "CHUNK", 4)
    monkeypatch.setattr(plans, "_PASS", 16)


_BENEATH = st.lists(
    st.sampled_from(["shuffle", "window", "map", "random_map", "repeat", "pinned", "slice"]),
    max_size=3,
)


def beneath(ds: Dataset, ops: list[str]) -> Dataset:
    for i, op in enumerate(ops):
        ds = {
            "shuffle": lambda ds, i: ds.shuffle(name=f"s{i}"),
            "window": lambda ds, i: ds.shuffle(window=5, name=f"s{i}"),
            "pinned": lambda ds, i: ds.shuffle(reshuffle=False, name=f"s{i}"),
            "map": lambda ds, i: ds.map(same),
            "random_map": lambda ds, i: ds.random_map(noisy, name=f"r{i}"),
            "repeat": lambda ds, i: ds.repeat(2),
            "slice": lambda ds, i: ds[: max(1, len(ds) - 1)],
        }[op](ds, i)
    return ds


def passes(ds: Dataset, batch: int = 1) -> list[Any]:
    """Two passes: digests and provenance of every batch."""
    loader, step = Loader(ds, batch), 0
    out: list[Any] = []
    for epoch in range(2):
        for b in loader:
            out.append((epoch, digest(b), list(loader.where(step))))
            step += 1
    return out


@examples(10)
@given(st.integers(1, 40), st.integers(0, 3), _BENEATH, st.integers(1, 30), st.booleans())
def test_split_rows_are_those_of_one_block(
    docs: Docs, n: int, seed: int, ops: list[str], length: int, marks: bool
) -> None:
    ds, lengths = docs(n, seed)
    ds = beneath(ds, ops)
    options: dict[str, Any] = {"bos": 1, "eos": {"t": 2}} if marks else {}
    packed = ds.pack({"t": length}, lengths=lengths, **options)
    # a pass of a counted dataset that repeats has a block for each of its epochs
    if "repeat" not in ops:
        assert passes(packed) == passes(ds.pack({"t": length}, block=1 << 20, **options))
    rows = packed.read(np.arange(len(packed)), epoch=1).rows()
    total = sum(
        size(row) + 2 * marks * (size(row) > 0) for row in ds.read(np.arange(len(ds))).rows()
    )
    assert len(packed) == -(-total // length)
    assert all((row["segment_ids"] > 0).all() for row in rows[:-1])


@examples(16)
@given(
    st.integers(1, 40),
    st.integers(0, 3),
    st.lists(st.sampled_from(["map", "random_map", "pinned", "slice"]), max_size=2),
    st.sampled_from(
        [
            {"how": "first_fit"},
            {"how": "best_fit", "max_segments": 3},
            {"how": "split", "cross": False},
            {"how": "split", "max_segments": 2},
            {"how": "first_fit", "longer": "truncate"},
        ]
    ),
    st.sampled_from([1, 3, 8, 64]),
)
def test_rows_in_blocks_are_those_without_a_scan(
    docs: Docs, n: int, seed: int, ops: list[str], options: dict[str, Any], block: int
) -> None:
    ds, lengths = docs(n, seed)
    ds = beneath(ds, ops)
    packed = ds.pack({"t": 8}, lengths=lengths, block=block, **options)
    plain = passes(ds.pack({"t": 8}, block=block, **options))
    assert passes(packed) == plain
    assert len(packed) == sum(epoch == 0 for epoch, _, _ in plain)
    again = pickle.loads(pickle.dumps(packed.top))
    assert again.length == len(packed)


@given(st.integers(2, 40), st.integers(0, 3), st.booleans(), st.randoms(use_true_random=False))
@examples(12)
def test_rows_do_not_depend_on_what_is_read_beside_them(
    docs: Docs, n: int, seed: int, fits: bool, rng: Any
) -> None:
    ds, lengths = docs(n, seed)
    ds = ds if fits else ds.shuffle()
    packed = ds.pack({"t": 6}, how="first_fit" if fits else "split", block=5, lengths=lengths)
    order = [rng.randrange(len(packed)) for _ in range(12)]
    for epoch in (0, 3):
        together = packed.read(order, epoch=epoch)
        alone = [packed.read([i], epoch=epoch) for i in order]
        assert [digest(r) for r in together.rows()] == [digest(b.rows()[0]) for b in alone]


def test_packed_rows_are_shuffled_shared_and_sought(docs: Docs) -> None:
    ds, lengths = docs(40, 1)
    packed = ds.shuffle().pack({"t": 8}, lengths=lengths).shuffle(name="rows").repeat()
    whole = Loader(packed, 6)
    batches = [next(whole) for _ in range(20)]
    hosts = [Loader(packed, 6, host=h, hosts=3, workers=Threads(2)) for h in range(3)]
    for k in range(20):
        rows = np.concatenate([next(loader)["t"] for loader in hosts])
        assert (rows == batches[k]["t"]).all()
    for loader in hosts:
        loader.close()
    whole.seek(10**7)
    assert next(whole)["t"].shape == (6, 8)
    whole.seek(13)
    assert digest(next(whole)) == digest(batches[13])


def test_an_epoch_holds_each_token_once(docs: Docs) -> None:
    ds, lengths = docs(40, 2)
    packed = ds.shuffle().pack({"t": 7}, lengths=lengths)
    every = sorted(t for row in ds for t in row["t"].tolist())
    for epoch in range(3):
        rows = packed.read(np.arange(len(packed)), epoch=epoch).rows()
        found = sorted(t for row in rows for t in row["t"][row["segment_ids"] > 0].tolist())
        assert found == every


def test_several_fields_have_a_column_each(tmp_path: Path) -> None:
    rows = [{"a": np.arange(i % 4), "b": np.arange(i % 3)} for i in range(30)]
    ds = Dataset(rows)
    lengths = scan(ds, lambda r: {k: len(v) for k, v in r.items()}, path=tmp_path / "s", workers=0)
    limits = {"a": 6, "b": 4}
    packed = ds.pack(limits, how="best_fit", block=7, lengths=lengths)
    assert passes(packed) == passes(ds.pack(limits, how="best_fit", block=7))
    one = scan(ds, lambda r: len(r["a"]), path=tmp_path / "one", workers=0)
    with pytest.raises(ScanError, match="wants a column of lengths for each"):
        ds.pack(limits, how="best_fit", lengths=one)
    with pytest.raises(ScanError, match="no column 'c'"):
        ds.pack({"c": 4}, lengths=lengths)


def test_scans_beneath_maps_and_orders_serve(tmp_path: Path) -> None:
    texts = Dataset(["to be", "or", "not to be", ""] * 5, seed=1)
    lengths = scan(texts, lambda text: len(text.split()), path=tmp_path, workers=0)
    docs = texts.shuffle().map(lambda text: np.arange(len(text.split())))
    assert len(docs.pack(4, lengths=lengths)) == 8
    assert len(list(docs.pack(4, lengths=lengths))) == 8
    wrong = texts.shuffle().map(lambda text: np.arange(len(text.split()) + 1))
    with pytest.raises(
        ScanError, match=r"record \d+ of .* has \[\d\] tokens, but \[\d\] by Scanned"
    ):
        wrong.pack(4, lengths=lengths)[0]


def test_bad_documents_are_left_out_or_stood_in_for(tmp_path: Path) -> None:
    def torn(i: int) -> Any:
        if i == 5:
            raise ValueError("torn")
        return np.full(3, i)

    ds = Dataset(range(12)).map(torn)
    skipping = ds.on_error("skip")
    known = scan(skipping, len, path=tmp_path / "known", workers=0)
    rows = list(skipping.pack(6, lengths=known))
    assert [r["tokens"].tolist()[::3] for r in rows] == [
        [0, 1],
        [2, 3],
        [4, 6],
        [7, 8],
        [9, 10],
        [11, 0],
    ]
    blind = scan(Dataset(range(12)), lambda i: 3, path=tmp_path / "blind", workers=0)
    rows = list(skipping.pack(6, lengths=blind))
    assert [r["tokens"].tolist()[::3] for r in rows][2:4] == [[6, 7], [6, 7]]
    with pytest.raises(ValueError, match="torn"):
        list(ds.pack(6, lengths=blind))


def test_what_cannot_be_packed_by_position_is_refused(docs: Docs, tmp_path: Path) -> None:
    ds, lengths = docs(20, 0)
    other, _ = docs(20, 1)
    flags = scan(ds, lambda row: True, path=tmp_path / "f", workers=0)
    fit: Any = {"how": "first_fit", "lengths": lengths}
    for make, error, why in [
        (lambda: other.pack({"t": 4}, lengths=lengths), ScanError, "is of another dataset"),
        (lambda: ds.pack({"t": 4}, lengths=flags), ScanError, "holds bool: scan whole numbers"),
        (lambda: ds.repeat().pack({"t": 4}, lengths=lengths), ChainError, "repeat.. after pack"),
        (lambda: ds.shuffle().pack({"t": 4}, **fit), ChainError, "another number of rows in each"),
        (lambda: ds.filter(bool).pack({"t": 4}, lengths=lengths), ChainError, "counts rows"),
        (lambda: ds.pack({"t": 4}, lengths=5), ChainError, r"give what scan\(dataset"),  # pyright: ignore
    ]:
        with pytest.raises(error, match=why):
            make()
    ds.random_map(noisy, name="n").pack({"t": 4}, **fit)


def test_scans_of_shuffled_rows_hold_inside_joins(docs: Docs, tmp_path: Path) -> None:
    ds, lengths = docs(20, 0)
    part = ds.shuffle()[:10]
    flags = scan(part, lambda row: len(row["t"]) > 2, path=tmp_path / "f", workers=0)
    for one in (
        part.filter(flags),
        part.pack({"t": 4}, lengths=lengths),
        concatenate([part]).filter(
            scan(concatenate([part]), lambda row: True, path=tmp_path / "g", workers=0)
        ),
        ds.shuffle(reshuffle=False).pack({"t": 4}, how="first_fit", lengths=lengths),
    ):
        assert [digest(row) for row in concatenate([one])] == [digest(row) for row in one]
    whole = concatenate([ds.shuffle().pack({"t": 4}, lengths=lengths)])
    assert len(list(whole)) == len(whole)


def test_sums_are_kept_for_some_epochs(docs: Docs, monkeypatch: pytest.MonkeyPatch) -> None:
    ds, lengths = docs(40, 1)
    packed = ds.shuffle().pack({"t": 8}, lengths=lengths)
    summed: list[Any] = []
    plain = plans.EndToEnd._summed
    monkeypatch.setattr(
        plans.EndToEnd, "_summed", lambda self, sizes: summed.append(1) or plain(self, sizes)
    )
    for epoch in [0, 1, 0, 1, 2, 3, 0, 4, 1]:
        packed.read([0, 3], epoch=epoch)
    assert len(summed) == 6


def test_lengths_below_zero_are_refused(tmp_path):
    ds = Dataset([[1], [2, 3]])
    lengths = scan(ds, lambda row: len(row) - 2, path=tmp_path / "scan", workers=0)
    for options in ({}, {"how": "best_fit", "block": 2}):
        with pytest.raises(ScanError, match=r"record 0 has \[-1\] by"):
            list(ds.pack(4, lengths=lengths, **options))
