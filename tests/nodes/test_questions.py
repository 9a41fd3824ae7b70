"""The questions that nodes answer, and that nobody else answers for them."""

from __future__ import annotations

import ast
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pipeline
from pipeline import Dataset, Loader, MemorySource, concatenate, interleave, mix, scan, zip_datasets
from pipeline.debug.mixture import dealt
from pipeline.errors import ChainError
from pipeline.nodes.node import Node
from pipeline.types import ENDLESS
from tests.tools import trace

HOME = Path(pipeline.__file__).parent
KINDS = {"node", "below", "stage", "order", "root", "transform"}


def _asks_kind(call: ast.AST) -> bool:
    """Whether an expression asks what kind of node, order or stage it has before it."""
    if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
        asked = call.args[0] if call.args else None
        if call.func.id == "isinstance":
            return _is_kind(asked)
        return call.func.id in ("getattr", "hasattr") and _is_kind(asked)
    if isinstance(call, ast.Compare) and isinstance(call.left, ast.Attribute):
        return call.left.attr == "kind" and _is_kind(call.left.value)
    return False


def _is_kind(asked: ast.AST | None) -> bool:
    if isinstance(asked, ast.Attribute):
        return asked.attr.strip("_") in KINDS
    return isinstance(asked, ast.Name) and asked.id.strip("_") in KINDS


@pytest.mark.parametrize("path", sorted(HOME.rglob("*.py")), ids=lambda p: str(p.relative_to(HOME)))
def test_nobody_asks_what_kind_a_node_is(path: Path) -> None:
    found = [n.lineno for n in ast.walk(ast.parse(path.read_text())) if _asks_kind(n)]  # pyright: ignore[reportAttributeAccessIssue]
    assert not found, f"{path}:{found}: ask the node, order or stage a question instead"


@pytest.mark.parametrize(
    "code", ["isinstance(part.node, Leaf)", "stage.kind == 'slice'", "getattr(self._order, 'x', 0)"]
)
def test_the_test_above_can_fail(code: str) -> None:
    assert any(map(_asks_kind, ast.walk(ast.parse(code))))


def test_each_node_has_one_file() -> None:
    def classes(base: type[Any]) -> set[type[Any]]:
        return {base, *(c for below in base.__subclasses__() for c in classes(below))}

    homes: dict[str, str] = {c.__name__: c.__module__ for c in classes(Node)}
    assert {"Leaf", "Ordered", "Mapped", "Concatenated", "Interleaved", "Zipped"} <= set(homes)
    assert {"Mixed", "Cached", "Packed", "Blocks", "LaneMix", "Units"} <= set(homes)
    assert homes["Leaf"] == "pipeline.nodes.leaf"
    assert homes["Packed"] == "pipeline.nodes.packed"
    assert all(home.startswith("pipeline.nodes.") for home in homes.values())


# ---- the house


def test_at_the_top_lie_twelve_modules_at_most() -> None:
    wanted = "__init__ __main__ dataset combine loader errors types block tree seeds checks meter"
    assert {path.stem for path in HOME.glob("*.py")} <= set(wanted.split())


def test_a_batch_takes_a_short_way_through_the_house() -> None:
    indexed = trace.of_nexts(trace.indexed_map())[0]
    packed = trace.of_nexts(trace.filtered_and_packed())[0]
    assert len(indexed) <= trace.MOST["indexed map"], indexed
    assert len(packed) <= trace.MOST["filter + pack"], packed


def test_a_batch_that_is_not_evaluated_ahead_takes_no_long_way_either() -> None:
    indexed = trace.of_nexts(trace.indexed_map())[-1]
    packed = trace.of_nexts(trace.filtered_and_packed())[-1]
    assert len(indexed) <= trace.MOST_EVALUATING["indexed map"], indexed
    assert len(packed) <= trace.MOST_EVALUATING["filter + pack"], packed


def test_a_restore_takes_a_short_way_through_the_house() -> None:
    for dataset in (trace.indexed_map(), trace.filtered_and_packed()):
        found = trace.of_restoring(dataset)
        assert len(found) <= trace.MOST["load_state_dict"], found


# ---- how far a mix was drawn


def _mixed() -> Dataset:
    parts = {name: Dataset([np.arange(2)] * 20) for name in "ab"}
    return mix(parts, {"a": 1, "b": 1})


@pytest.mark.parametrize("how", ["split", "first_fit"])
def test_a_mix_packed_by_a_scan_has_the_frontier_of_one_packed_as_it_comes(
    how: Any, tmp_path: Path
) -> None:
    both = _mixed()[:10]
    lengths = scan(both, len, path=tmp_path, workers=0, progress=False)
    streamed, indexed = Loader(both.pack(4, how=how), 2), Loader(both.pack(4, lengths=lengths), 2)
    for loader in (streamed, indexed):
        next(loader)
    assert indexed.frontier == streamed.frontier == 10
    # the number of packed rows follows from all documents, before any is drawn
    assert Loader(both.pack(4, lengths=lengths), 2).frontier == 10
    assert dealt(both.pack(4, lengths=lengths), 10) == {"a": 5, "b": 5}
    again = Loader(both.pack(4, lengths=lengths).repeat(), 2)
    list(zip(range(9), again, strict=False))
    assert again.frontier == ENDLESS
    state = indexed.state_dict()
    assert dict(state["frontiers"]) == {"packed.schedule": 10}
    Loader(both.pack(4, lengths=lengths), 2).load_state_dict(state)


def test_what_is_no_mix_has_no_frontier() -> None:
    with pytest.raises(ChainError, match="no frontier"):
        _ = Loader(zip_datasets({"packed": _mixed()}), 4).frontier


# ---- whether rows stay


def _whether(make: Any) -> bool:
    try:
        make()
    except ChainError:
        return False
    return True


@pytest.mark.parametrize(
    "chain",
    [
        lambda ds: ds,
        lambda ds: ds.shuffle(),
        lambda ds: ds.shuffle()[:4],
        lambda ds: ds.shuffle(reshuffle=False),
        lambda ds: ds.random_map(lambda x, rng: x, name="r"),
        lambda ds: ds.random_map(lambda x, rng: x, name="r")[:4],
        lambda ds: mix({"a": ds, "b": ds}, {"a": 1, "b": 1}),
        lambda ds: mix({"a": ds, "b": ds}, {"a": 1, "b": 1})[:10],
        lambda ds: mix({"a": ds.shuffle(), "b": ds}, {"a": 1, "b": 1}, "never")[:10].map(str),
        lambda ds: concatenate([mix({"a": ds}, {"a": 1})[:3], ds]),
        lambda ds: interleave([ds, ds.shuffle()]),
        lambda ds: ds.filter(bool),
        lambda ds: mix({"a": ds.filter(bool)}, {"a": 1}),
    ],
)
def test_cache_and_scan_give_one_answer(chain: Any, tmp_path: Path) -> None:
    ds = chain(Dataset(range(1, 13), seed=3))
    scanned = _whether(
        lambda: scan(ds, lambda x: True, path=tmp_path / "s", workers=0, progress=False)
    )
    for folder in (None, tmp_path / "c"):
        assert _whether(lambda folder=folder: ds.cache(folder)) == scanned
    if scanned:
        kept, again = ds.cache(), ds.cache(tmp_path / "c")
        for epoch in (0, 3):
            rows = ds.read(np.arange(len(ds)), epoch=epoch).rows()
            assert kept.read(np.arange(len(ds)), epoch=epoch).rows() == rows
            assert again.read(np.arange(len(ds)), epoch=epoch).rows() == rows
        assert kept.fingerprint() == ds.fingerprint()


# ---- frozen


def test_nodes_are_frozen_and_travel_without_what_was_found_out() -> None:
    ds = mix({"a": Dataset(range(9)).shuffle().map(str), "b": Dataset(range(9))}, {"a": 1, "b": 1})

    source = MemorySource(range(9))
    used = Dataset(source).shuffle()
    _ = list(used), used.fingerprint()
    assert len(pickle.dumps(used.top)) == len(pickle.dumps(Dataset(source).shuffle().top))
    with pytest.raises(AttributeError):
        ds.top.lanes = 3  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(AttributeError):
        ds.top.node.schedule = None  # pyright: ignore[reportAttributeAccessIssue]
