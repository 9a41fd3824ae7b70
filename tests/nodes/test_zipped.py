"""Datasets side by side."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline import Dataset, concatenate, scan, zip_datasets
from pipeline.errors import ChainError
from tests.nodes.checks import check_indexed


def _both(n: int) -> Dataset:
    one = Dataset({"x": np.arange(n)}, seed=1).shuffle()
    return zip_datasets({"one": one, "other": Dataset([f"t{i}" for i in range(n)], seed=2)})


@pytest.mark.parametrize("n", [1, 2, 7, 16])
def test_a_zip_is_a_node(n: int) -> None:
    check_indexed(_both(n))
    check_indexed(_both(n).shuffle()[: max(1, n // 2)].repeat(3))


def test_of_columns_alone_it_stays_in_columns() -> None:
    columns = [Dataset({"x": np.arange(8) * k}, seed=k).shuffle() for k in (1, 2)]
    ds = zip_datasets({"a": columns[0], "b": columns[1]})
    check_indexed(ds)
    rows = ds.read(np.arange(8)).rows()
    assert sorted(int(row["a"]["x"]) for row in rows) == list(range(8))
    assert sorted(int(row["b"]["x"]) for row in rows) == list(range(0, 16, 2))


def test_zips_of_zips_and_in_other_joins() -> None:
    inner = _both(6)
    check_indexed(zip_datasets({"inner": inner, "third": Dataset(range(6))}))
    check_indexed(concatenate([inner, _both(3)]))
    check_indexed(zip_datasets({"only": Dataset(range(5), seed=9).shuffle()}))


def test_a_packed_dataset_beside_others(tmp_path) -> None:
    docs = Dataset([np.arange(1 + i % 4) for i in range(12)])
    lengths = scan(docs, len, path=tmp_path, workers=0, progress=False)
    packed = docs.pack(5, lengths=lengths)
    check_indexed(zip_datasets({"p": packed, "q": Dataset(range(len(packed))).shuffle()}))
    check_indexed(zip_datasets({"q": Dataset(range(len(packed))).shuffle(), "p": packed}))


def test_unequal_lengths_streams_and_rows_that_are_skipped_are_refused() -> None:
    three, four = Dataset(range(3)), Dataset(range(4))
    with pytest.raises(ChainError, match="equal lengths"):
        zip_datasets({"a": three, "b": four})
    with pytest.raises(ChainError, match="rows by position"):
        zip_datasets({"a": three, "b": three.filter(bool)})
    with pytest.raises(ChainError, match="after the zip"):
        zip_datasets({"a": three, "b": three.on_error("skip")})
