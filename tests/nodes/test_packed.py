"""Rows packed from documents whose lengths a scan found, by position."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import Dataset, scan
from tests.nodes.checks import check_indexed

HOWS = ["split", "first_fit", "best_fit"]


def _docs(n: int, most: int = 7) -> Dataset:
    values = [np.arange(10 * i, 10 * i + 1 + (5 * i) % most) for i in range(n)]
    return Dataset(values, seed=6)


def _scanned(ds: Dataset, folder: Path) -> Any:
    return scan(ds, len, path=folder, workers=0, progress=False)


@pytest.mark.parametrize(("how", "n"), list(product(HOWS, [1, 2, 9, 40])))
def test_a_pack_is_a_node(how: Any, n: int, tmp_path: Path) -> None:
    docs = _docs(n)
    check_indexed(docs.pack(8, lengths=_scanned(docs, tmp_path), how=how))


@pytest.mark.parametrize("how", HOWS)
def test_on_shuffled_documents_and_under_orders(how: Any, tmp_path: Path) -> None:
    docs = _docs(30)
    lengths = _scanned(docs, tmp_path)
    shuffled = docs.shuffle(reshuffle=how == "split")
    check_indexed(shuffled.pack(9, lengths=lengths, how=how))
    check_indexed(shuffled.pack(9, lengths=lengths, how=how).shuffle(name="rows")[1:7])


@pytest.mark.parametrize(
    "options",
    [
        {"block": 4, "how": "first_fit"},
        {"max_segments": 2, "how": "first_fit"},
        {"bos": -1, "eos": -2},
        {"how": "best_fit", "longest_first": False},
        {"cross": False},
    ],
    ids=str,
)
def test_with_its_options(options: dict[str, Any], tmp_path: Path) -> None:
    docs = _docs(25)
    check_indexed(docs.pack(10, lengths=_scanned(docs, tmp_path), **options))


@pytest.mark.parametrize("how", HOWS)
def test_every_token_stands_once(how: Any, tmp_path: Path) -> None:
    docs = _docs(33)
    packed = docs.shuffle(reshuffle=False).pack(8, lengths=_scanned(docs, tmp_path), how=how)
    block = packed.read(np.arange(len(packed)))
    given = [
        int(token)
        for row in block.rows()
        for token, segment in zip(row["tokens"], row["segment_ids"], strict=True)
        if segment > 0
    ]
    assert sorted(given) == sorted(int(t) for i in range(33) for t in docs[i])
