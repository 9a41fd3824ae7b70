"""check_dataset and `python -m pipeline check`: impure, unequal, slow and unpicklable stages."""

from __future__ import annotations

import doctest
import json
import runpy
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import Dataset, Loader, concatenate, mix
from pipeline.__main__ import main
from pipeline.debug.conformance import check_dataset, examine
from tests.docs.blocks import run_page

ROOT = Path(__file__).parents[2]
base = Dataset({"x": np.arange(100)}, seed=1)
calls: list[int] = []


def same(row: Any) -> Any:
    return row


def counts(row: Any) -> Any:
    calls.append(0)
    return {"n": len(calls)}


def draws(row: Any) -> Any:
    return {"n": np.random.default_rng().random()}


def order_of_a_set(row: Any) -> Any:
    return {"n": "".join({f"{i}" for i in range(50)})}  # two orders of 50 are never the same


def neighbours(rows: Any) -> Any:
    return {"n": rows["x"] - rows["x"].mean()}


def odd_fields(row: Any) -> Any:
    return row if row["x"] % 2 else {**row, "more": 1}


def odd_types(row: Any) -> Any:
    return {"x": int(row["x"]) if row["x"] % 2 else 0.5}


def some_none(row: Any) -> Any:
    return {"x": None if row["x"] % 2 else 1}


def none_of_some(row: Any) -> Any:
    return row if row["x"] % 2 else None


def generators(row: Any) -> Any:
    return {"x": threading.Lock()}


def slow(row: Any) -> Any:
    time.sleep(0.02)
    return row


@pytest.mark.parametrize(
    ("ds", "kind", "stage"),
    [
        (base.map(same).map(counts), "impure", "stage 1: map 'counts'"),
        (base.shuffle().map(draws).map(same), "impure", "stage 1: map 'draws'"),
        (base.map(order_of_a_set), "impure", "stage 0: map 'order_of_a_set'"),
        (base.map(neighbours, batched=True), "impure", "stage 0: map 'neighbours'"),
        (base.map(draws).filter(bool).map(same), "impure", "stage 0: map 'draws'"),
        (base.map(odd_fields).map(same), "unequal", "stage 0: map 'odd_fields'"),
        (base.map(odd_types), "unequal", "stage 0: map 'odd_types'"),
        (base.map(some_none), "unequal", "stage 0: map 'some_none'"),
        (base.map(none_of_some).map(same), "unequal", "stage 0: map 'none_of_some' gives None as"),
        (base.map(lambda row: None, name="none"), "unequal", "stage 0: map 'none' gives None as"),
        (base.map(generators), "unpicklable", "stage 0: map 'generators'"),
        (concatenate([base, base.map(draws)]), "impure", "1: stage 0: map 'draws'"),
        (mix({"a": base.map(counts)}, {"a": 1}), "impure", "a: stage 0: map 'counts'"),
    ],
)
def test_the_stage_at_fault_is_named(ds: Dataset, kind: str, stage: str) -> None:
    with pytest.raises(AssertionError, match=f"{kind}: ") as caught:
        check_dataset(ds)
    assert f"{kind}: {stage} " in str(caught.value)


def test_what_cannot_be_sent_is_named() -> None:
    lock = threading.Lock()
    held = base.map(same).map(lambda row: (lock.locked(), row)[1], name="lock")
    with pytest.raises(AssertionError, match=r"unpicklable: stage 1: map 'lock' cannot be sent"):
        check_dataset(held)


@pytest.mark.long
def test_slow_stages_and_ragged_rows_are_notes() -> None:
    report = check_dataset(base.map(slow), samples=4)
    assert [(note.kind, note.stage) for note in report.notes] == [("slow", "stage 0: map 'slow'")]
    ragged = base.map(lambda row: {"t": np.zeros(int(row["x"]) % 3)}, name="cut")
    report = examine(ragged)
    assert (report.ok, [note.kind for note in report.notes]) == (True, ["ragged"])


@pytest.mark.parametrize(
    "ds",
    [
        base,
        base.shuffle().random_map(lambda row, rng: {"x": rng.random()}, name="draw").repeat(),
        base.filter(lambda row: row["x"] % 3 == 0, block=8).lanes(2),
        base.map(none_of_some).filter(lambda row: row is not None),
        base.cache(),
        base[3:3],
        mix({"a": base.shuffle(), "b": base.filter(lambda row: True)}, {"a": 2, "b": 1}),
        Dataset(["to", "be"] * 9),
    ],
)
def test_what_is_pure_passes(ds: Dataset) -> None:
    assert check_dataset(ds).ok


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    me = "tests.debug.test_conformance_dataset"
    assert main(["check", f"{me}:base"]) == 0
    assert " rows, evaluated four times: ok" in capsys.readouterr().out
    globals()["impure"] = base.map(draws)
    assert main(["check", f"{me}:impure", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], found["faults"][0]["stage"]) == (False, "stage 0: map 'draws'")
    globals()["broken"] = base.map(lambda row: row["y"], name="wrong")
    assert main(["check", f"{me}:broken"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "KeyError: 'y' (in stage 0: map 'wrong'" in err


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[Dataset]:
    """Every dataset that a Loader is made of while a test runs."""
    found: list[Dataset] = []
    make = Loader.__init__

    def keep(self: Loader, dataset: Dataset, *args: Any, **options: Any) -> None:
        make(self, dataset, *args, **options)
        found.append(dataset)

    monkeypatch.setattr(Loader, "__init__", keep)
    return found


@pytest.mark.long
def test_the_library_page_s_datasets_pass(
    loaded: list[Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for extra in ("torch", "jax"):
        pytest.importorskip(extra)
    checked: list[Dataset] = []

    def check(*_: Any) -> None:
        # after each example, as files of a block are gone after it
        for ds in loaded[len(checked) :]:
            checked.append(ds)
            assert check_dataset(ds, samples=8).ok

    monkeypatch.setattr(doctest.DocTestRunner, "report_success", check)
    assert run_page(ROOT / "docs" / "library.md", tmp_path)
    assert len(checked) > 5


EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
EXAMPLES.remove(ROOT / "examples" / "mnist.py")  # which needs the digits


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_examples_datasets_pass(
    path: Path, tmp_path: Path, monkeypatch: Any, loaded: list[Dataset]
) -> None:
    if path.name.startswith("torch_"):
        pytest.importorskip("torch", reason="needs the extra: pip install 'lockstep-data[torch]'")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(path)])
    runpy.run_path(str(path), run_name="__main__")
    assert loaded
    distinct = {str(ds.fingerprint()): ds for ds in loaded}
    for ds in distinct.values():
        assert check_dataset(ds, samples=8).ok
