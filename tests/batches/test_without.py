"""Lanes from which excluded rows are missing."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline import Dataset
from pipeline.batches import without
from pipeline.batches.without import Without
from pipeline.errors import StreamEndError
from pipeline.provenance.exclusions import Exclusions
from tests.nodes.checks import reader_of

BAD = ((2, 6), (11, 12))


def _without(ds: Dataset, step: int, bad: tuple[tuple[int, int], ...] = BAD) -> Without:
    part = ds.top
    return Without(reader_of(part), Exclusions(part.components, [(4, "", bad)]), step)


def _rows(reader: Without, want: int, each: int) -> list[int]:
    place, found = reader.start(), list[int]()
    while len(found) < want:
        blocks, place = reader.pull(0, place, 0, min(each, want - len(found)))
        got = [row for block in blocks for row in block.rows()]
        if not got:
            break
        found += got
    return found


@pytest.mark.parametrize("each", [1, 3, 50])
def test_whatever_comes_next_in_the_lane_follows(each: int) -> None:
    ds = Dataset(range(20)).filter(lambda x: x % 2 == 0, block=3)
    assert _rows(_without(ds, 4), 50, each) == [0, 6, 8, 10, 12, 14, 16, 18]
    assert _rows(_without(ds, 3), 50, each) == list(range(0, 20, 2))  # not in force yet


def test_has_counts_what_is_left() -> None:
    reader = _without(Dataset(range(20)).filter(lambda x: x % 2 == 0, block=3), 4)
    assert [reader.has(0, reader.start(), 0, want) for want in (1, 8, 9)] == [True, True, False]


def test_a_packed_row_is_missing_if_any_of_its_documents_is() -> None:
    docs = Dataset([np.full(2, i) for i in range(20)]).pack(4, block=4)
    reader = _without(docs, 4)
    blocks, _ = reader.pull(0, reader.start(), 0, 50)
    given = [sorted(set(row["tokens"].tolist())) for block in blocks for row in block.rows()]
    assert given == [[0, 1], [6, 7], [8, 9], [12, 13], [14, 15], [16, 17], [18, 19]]


def test_a_lane_without_any_other_row_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(without, "PATIENCE", 50)
    ds = Dataset(range(20)).filter(lambda x: True, block=3).repeat()
    with pytest.raises(StreamEndError, match="exclude fewer"):
        _rows(_without(ds, 4, ((0, 20),)), 5, 5)
