"""Rows kept by flags: every one, in order, and found by arithmetic from both sides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import Dataset, Loader, scan
from pipeline.sampling.scan_filter import CHUNK, WIDTH, ScanFilter
from pipeline.types import At, Site

SITE = Site(0, (), (), "stage 0")


def kept(flags: Any, folder: Path) -> ScanFilter:
    ds = Dataset({"keep": np.array(flags, bool)})
    number = len(list(folder.iterdir()))
    return ScanFilter(
        scan(ds, lambda row: row["keep"], path=folder / str(number), workers=0), "kept"
    )


def resolved(stage: ScanFilter, index: Any) -> Any:
    index = np.asarray(index, np.int64)
    return stage.resolve(At(index * 0 + 3, index * 0 + 2, index), 0, SITE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept")


@given(st.integers(1, 4 * WIDTH), st.integers(0, 9), st.integers(1, 9))
def test_the_kth_kept_row_is_found_from_both_sides(
    folder: Path, n: int, seed: int, share: int
) -> None:
    rng = np.random.default_rng(seed)
    flags = rng.random(n) < share / 9
    flags[: rng.integers(n)] = rng.random() < 0.5  # long runs, of either kind
    stage, expected = kept(flags, folder), np.flatnonzero(flags)
    assert stage.length(n) == stage.period(n, n) == len(expected)
    at = resolved(stage, np.arange(len(expected)))
    assert at.index.tolist() == expected.tolist()
    assert set(at.epoch) <= {3}
    assert set(at.order) <= {2}
    assert stage.above(np.arange(n), 0, n, SITE).tolist() == list(range(len(expected)))
    some = rng.permutation(np.repeat(np.arange(len(expected)), 2))
    assert resolved(stage, some).index.tolist() == expected[some].tolist()


def test_many_positions_are_looked_up_in_chunks(folder: Path) -> None:
    flags = np.random.default_rng(0).random(3 * CHUNK) < 0.7
    stage = kept(flags, folder)
    index = np.random.default_rng(1).permutation(stage.length(0))
    assert len(index) > 2 * CHUNK
    assert (resolved(stage, index).index == np.flatnonzero(flags)[index]).all()
    assert len(resolved(stage, []).index) == 0


def test_flags_decide_the_fingerprint(folder: Path) -> None:
    a, b, c = kept([1, 0, 1], folder), kept([1, 0, 1], folder), kept([1, 1, 0], folder)
    assert a.fingerprint() == b.fingerprint() != c.fingerprint()


def test_a_kept_dataset_is_indexed_on_any_hosts(folder: Path) -> None:
    ds = Dataset({"x": np.arange(50)}, seed=2)
    flags = scan(ds, lambda row: bool(row["x"] % 5), path=folder / "x", workers=0)
    data = ds.filter(flags).shuffle().repeat()
    whole = Loader(data, 6)
    parts = [Loader(data, 6, host=h, hosts=3) for h in range(3)]
    for _ in range(8):
        rows = np.concatenate([next(p)["x"] for p in parts])
        assert rows.tolist() == next(whole)["x"].tolist()
    assert len(ds.filter(flags)) == 40
    whole.seek(10**7)
    assert whole.where(10**7)[0].epoch == 6 * 10**7 // 40
    assert all(row.record % 5 for row in whole.where(10**7))


def test_nothing_kept_is_a_dataset_without_rows(folder: Path) -> None:
    ds = Dataset({"x": np.arange(5)})
    flags = scan(ds, lambda row: False, path=folder / "none", workers=0)
    none = ds.filter(flags)
    assert (len(none), list(none), list(Loader(none, 2))) == (0, [], [])
