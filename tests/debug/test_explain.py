"""The search for what made a value spike: right, and within its evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import Dataset, Loader
from pipeline.debug.documents import Document, documents_of, repetition, weights_without
from pipeline.debug.explain import Explanation, explain, most_evaluations, search


def searched(
    shares: Mapping[int, Mapping[int, float]], order: Sequence[int], rows: int
) -> Explanation[int]:
    """Search where unit u of step s adds `shares[s][u]` to a usual value of 1."""
    total = sum(sum(units.values()) for units in shares.values())

    def measure(step: int, without: Sequence[int] | None) -> float:
        units = shares.get(step, {})
        gone = units.values() if without is None else [units.get(u, 0.0) for u in without]
        return 1 + total - sum(gone)

    return search(
        measure, lambda _: order, steps=range(9, 4, -1), value=1 + total, before=1.0, rows=rows
    )


@given(st.integers(0, 6), st.integers(5, 9), st.data())
def test_one_bad_unit_is_found_within_the_bound(log: int, step: int, data: st.DataObject) -> None:
    rows = 1 << log
    order = data.draw(st.permutations(range(rows)))
    bad = data.draw(st.sampled_from(range(rows)))
    found = searched({step: {bad: 5.0}}, order, rows)
    assert (found.step, found.units) == (step, (bad,))
    assert found.share == pytest.approx(1)
    assert found.evaluations <= most_evaluations(rows) == 5 + 2 * log


def test_two_bad_units_far_apart_are_reported_as_a_set() -> None:
    found = searched({9: {0: 2.0, 7: 2.0, 3: 2.0, 5: 2.0}}, range(8), 8)
    assert found.step == 9
    assert set(found.units) >= {0, 7, 3, 5}


def test_nothing_in_the_data_explains_it() -> None:
    found = searched({8: {0: 0.2}, 3: {0: 5.0}}, range(8), 8)
    assert (found.units, found.evaluations) == ((), 5)


def test_an_update_that_mattered_as_a_whole_blames_no_unit() -> None:
    def measure(step: int, without: Sequence[int] | None) -> float:
        return 1.0 if step == 8 else 3.0  # whatever part of step 8 is left out

    found = search(
        measure, lambda _: range(8), steps=range(9, 4, -1), value=3.0, before=1.0, rows=8
    )
    assert found.units == ()


@pytest.mark.parametrize("at", [4, 1])
def test_a_loop_of_one_s_own(at: int) -> None:
    # a bad row of one step makes the next step's loss spike; early steps have fewer before them
    data = np.ones((8, 4))
    data[at - 1, 3] = 1e4

    def batches(k: int) -> dict[str, Any]:
        return {"x": data[k], "keep": np.ones(4, bool)}

    def step(state: list[float], batch: Mapping[str, Any]) -> tuple[list[float], Any]:
        off = batch["x"] - state[0]
        state[0] += 0.1 * float(np.sum(off * batch["keep"]) / max(1, batch["keep"].sum()))
        return state, np.abs(off)  # it uses up the state that it gets

    def mask(batch: Mapping[str, Any], rows: Sequence[int]) -> Mapping[str, Any]:
        keep = batch["keep"].copy()
        keep[list(rows)] = False
        return {**batch, "keep": keep}

    state = [1.0]
    found = explain(step, state, batches, at, before=0.0, mask=mask)
    assert (found.step, found.units, state) == (at - 1, (3,), [1.0])
    assert found.evaluations <= most_evaluations(4)
    with pytest.raises(KeyError, match="mask="):
        explain(step, state, batches, at, before=0.0)


def test_weights_of_documents_cut_over_rows() -> None:
    data = Dataset([np.arange(n) + 1 for n in (5, 2, 6, 1)]).pack(4)
    loader = Loader(data, 4)
    batch, documents = loader[0], documents_of(loader.where(0))
    assert [d.record for d in documents] == [0, 1, 2, 3]
    for document in documents:
        weights = weights_without(batch["tokens"].shape, [document], batch["segment_ids"])
        masked = batch["tokens"][weights == 0]
        assert masked.tolist() == (np.arange([5, 2, 6, 1][document.record]) + 1).tolist()


@pytest.mark.parametrize("period", range(1, 14))
def test_repetition_names_the_period(period: int) -> None:
    gram = bytes(range(65, 65 + period))
    text = b"some words before " + gram * 12 + b" and after"
    assert repetition(np.frombuffer(text, np.uint8)) == f"{list(gram)} 12 times"
    assert repetition(np.frombuffer(b"no such thing in here at all", np.uint8)) == ""


def test_a_document_s_name_is_its_file_and_number() -> None:
    assert Document("", 700, 0, "/data/train-1.arrayrecord", 7, ()).name == "train-1.arrayrecord:7"
    assert Document("", 700, 0, "MemorySource", 700, ()).name == "700"
    assert Document("web", 700, 0, "MemorySource", 700, ()).name == "web:700"
