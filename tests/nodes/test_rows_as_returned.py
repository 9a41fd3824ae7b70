"""Rows come as functions returned them, by every way: no constructor changes them, nobody else."""

from __future__ import annotations

import array
import collections
import dataclasses
import enum
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import Dataset, Loader, Processes, Threads
from pipeline.errors import ChainError, CollateError
from pipeline.tree import attributes, children, fresh, rebuild

# ---- constructors


@dataclasses.dataclass
class Halved:
    x: Any

    def __post_init__(self) -> None:
        self.x = self.x / 2


@dataclasses.dataclass(frozen=True, slots=True)
class Checked:
    x: Any

    def __post_init__(self) -> None:
        if type(self.x) is not float:
            raise TypeError(f"{type(self.x)} is no float")


@dataclasses.dataclass
class Inits:
    x: Any
    scale: dataclasses.InitVar[int]
    y: Any = dataclasses.field(init=False, default=0.0)
    never: Any = dataclasses.field(init=False)

    def __post_init__(self, scale: int) -> None:
        self.x = self.x * scale


class Raised(collections.namedtuple("Raised", "x")):
    def __new__(cls, x: Any) -> Any:
        return super().__new__(cls, x + 1)

    def __reduce__(self) -> Any:  # pickle would call the constructor
        return tuple.__new__, (Raised, tuple(self))


class Items(dict[str, Any]):
    """Its items are its attributes."""

    def __init__(self, **items: Any) -> None:
        super().__init__(items)
        self.__dict__ = self


class Fussy(dict[str, Any]):
    """Gives its items as attributes, too, and refuses to be changed by others."""

    def __init__(self, *, x: Any) -> None:
        dict.__setitem__(self, "x", x)
        self.x = x

    def __setitem__(self, key: str, value: Any) -> None:
        raise TypeError

    def update(self, *_: Any, **__: Any) -> None:
        raise TypeError

    def __reduce__(self) -> Any:
        return Fussy._made, (self["x"],)

    @staticmethod
    def _made(x: Any) -> Fussy:
        return Fussy(x=x)


def value_of(batch: Any) -> list[float]:
    x = batch["x"] if isinstance(batch, dict) else batch.x
    assert getattr(batch, "x", x) is x
    return np.asarray(x).reshape(2, -1)[:, 0].tolist()


def wide(value: float) -> Any:
    return np.full(1200, value)


WAYS: dict[str, Callable[[Any], Loader[Any]]] = {
    "serial": lambda ds: Loader(ds, 2),
    "threads": lambda ds: Loader(ds, 2, workers=Threads(2)),
    "cache": lambda ds: Loader(ds.cache().repeat(), 2),
    "filter": lambda ds: Loader(ds.filter(bool), 2),
    "identity": lambda ds: Loader(ds.map(lambda row: row, name="again"), 2),
    "outputs": lambda ds: Loader(ds.flat_map(lambda row: [row]), 2),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("make", "wanted"),
    [
        (Halved, [2, 4]),
        (lambda x: Halved(wide(x)), [2, 4]),
        (Checked, [4, 8]),
        (lambda x: Inits(x, 10), [40, 80]),
        (lambda x: Inits(wide(x), 10), [40, 80]),
        (Raised, [5, 9]),
        (lambda x: Raised(wide(x)), [5, 9]),
        (lambda x: Items(x=x), [4, 8]),
        (lambda x: Items(x=wide(x)), [4, 8]),
        (lambda x: Fussy(x=x), [4, 8]),
    ],
)
def test_no_way_calls_a_constructor_again(way: str, make: Any, wanted: list[float]) -> None:
    made = [make(4.0), make(8.0)]
    for ds in (Dataset([4.0, 8.0]).map(make), Dataset(made)):
        with WAYS[way](ds) as loader:
            batch = next(loader)
        assert value_of(batch) == wanted
        assert type(batch) is type(made[0])


def test_no_process_calls_a_constructor_again() -> None:
    def row(x: float) -> Any:
        return {
            "values": (Halved(x), Checked(x), Inits(x, 1), Raised(x), Items(x=x)),
            "wide": (Halved(wide(x)), Raised(wide(x))),
        }

    ds = Dataset([4.0, 8.0]).map(row)
    with Loader(ds, 2, workers=Processes(1, parent=False)) as loader:
        batch = next(loader)
    values = [value_of(part) for part in batch["values"]]
    assert values == [[2, 4], [4, 8], [4, 8], [5, 9], [4, 8]]
    assert [value_of(part) for part in batch["wide"]] == [[2, 4], [5, 9]]


def test_attributes_that_are_no_fields_stay_with_their_row() -> None:
    def named(i: int) -> Halved:
        row = Halved(float(i))
        row.name = f"row {i}"  # pyright: ignore[reportAttributeAccessIssue]
        return row

    def names(rows: list[Any]) -> Any:
        return {"name": [row.name for row in rows]}

    wanted = [f"row {i}" for i in range(4)]
    for ds in (Dataset(range(4)).map(named), Dataset([named(i) for i in range(4)])):
        for workers in (0, Threads(1), Processes(1, parent=False)):
            with Loader(ds, 4, workers=workers, collate=names) as loader:
                assert next(loader)["name"] == wanted
        # a batch has fields alone: what else the first row holds is not true of all
        assert attributes(next(Loader(ds, 4))) == {}
        assert [ds.map(lambda row: row.name)[i] for i in range(4)] == wanted


def test_a_field_never_set_is_no_field_of_the_row() -> None:
    row = Inits(1.0, 2)
    assert [name for name, _ in children(row) or ()] == ["x", "y"]
    assert not hasattr(fresh(row), "never")


def test_structs_of_c_are_rebuilt() -> None:
    import time

    now = time.gmtime(0)
    assert rebuild(now, [part for _, part in children(now) or ()]) == now == fresh(now)


# ---- what is shared with nobody


class Box:
    def __init__(self, x: Any) -> None:
        self.x = x


class Row(list[Any]): ...


def _grow(value: Any) -> float:
    """Change a value in place, so that each time gives another number."""
    if isinstance(value, Box):
        value.x += 1
        return value.x
    if isinstance(value, collections.deque | Row | array.array):
        value.append(1)
        return len(value)
    if isinstance(value, bytearray):
        value += b"1"
        return len(value)
    if isinstance(value, set):
        value.add(len(value))
        return len(value)
    if isinstance(value, np.void):
        value["a"] += 1
        return int(value["a"])
    if isinstance(value, np.ndarray):
        return _grow(value.reshape(-1)[0]["o"] if value.dtype.names else value[()])
    value.mul_(10)
    return float(value.sum())


def _tensor(**options: Any) -> Any:
    torch = pytest.importorskip("torch")
    return torch.ones(3, **options)


CHANGING: dict[str, Callable[[], Any]] = {
    "tensor": _tensor,
    "object": lambda: Box(0),
    "set": set,
    "bytearray": bytearray,
    "deque": collections.deque,
    "array.array": lambda: array.array("i", [1]),
    "list subclass": Row,
    "structured scalar": lambda: np.zeros(1, [("a", "i4")])[0],
    "array of no axes": lambda: _in_array(Box(0)),
    "fields that are objects": lambda: _in_fields(Row()),
}


def _in_array(value: Any) -> Any:
    held = np.empty((), object)
    held[()] = value
    return held


def _in_fields(value: Any) -> Any:
    held = np.empty(1, [("o", object)])
    held["o"][0] = value
    return held


def three(ds: Dataset, **options: Any) -> list[Any]:
    with Loader(ds.repeat(), 2, **options) as loader:
        return [next(loader)["n"].tolist() for _ in range(3)]


def grown(row: Any) -> Any:
    return {"n": _grow(row["x"])}


@pytest.mark.parametrize("kind", CHANGING)
def test_a_stage_that_changes_its_rows_in_place_is_pure(kind: str) -> None:
    make = CHANGING[kind]
    new = Dataset(range(2)).map(lambda i: {"x": make()})
    wanted = three(new.map(grown))
    assert wanted[0] == wanted[1] == wanted[2]
    kept = Dataset([{"x": make()}, {"x": make()}])
    chains = {
        "a list": kept.map(grown),
        "memory": new.cache().map(grown),
        "a position twice": new.cache()[[0, 0]].map(grown),
        "a row given twice": kept[:1].flat_map(lambda row: [row, row]).map(grown),
        "a stack": Dataset([make(), make()]).map(lambda x: {"n": _grow(x)}),
        "own records": Dataset(Records([make(), make()])).map(lambda x: {"n": _grow(x)}),
    }
    assert {name: three(ds) for name, ds in chains.items()} == dict.fromkeys(chains, wanted)
    assert three(kept, collate=_by_hand) == wanted
    assert three(kept.filter(lambda row: True), collate=_by_hand) == wanted


class Records:
    def __init__(self, values: list[Any]) -> None:
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, i: int) -> Any:
        return self._values[i]


def _by_hand(rows: list[Any]) -> Any:
    return {"n": np.array([_grow(row["x"]) for row in rows])}


def test_a_state_of_rows_changed_in_place_is_taken_by_a_fresh_loader() -> None:
    def loader() -> Loader[Any]:
        return Loader(Dataset([{"x": Box(1)}, {"x": Box(2)}]).map(grown).repeat(), 2)

    first = loader()
    next(first)
    state, again = first.state_dict(), loader()
    again.load_state_dict(state)
    assert next(again)["n"].tolist() == next(first)["n"].tolist() == [2, 3]


@pytest.mark.parametrize("kind", ["set", "bytearray", "object", "deque"])
def test_what_the_loop_changes_in_a_batch_is_its_own(kind: str) -> None:
    make = CHANGING[kind]
    for ds in (
        Dataset([{"x": make()}, {"x": make()}]),
        Dataset(range(2)).map(lambda i: {"x": make()}).cache(),
        Dataset([{"x": make()}, {"x": make()}]).filter(lambda row: True),
    ):
        loader = Loader(ds.repeat(), 2)
        assert len({tuple(_grow(x) for x in next(loader)["x"]) for _ in range(3)}) == 1


def test_copies_of_tensors_are_as_they_were() -> None:
    torch = pytest.importorskip("torch")
    for tensor in (
        torch.ones(2),
        torch.ones(2, requires_grad=True),
        torch.ones(2, requires_grad=True) * 2,  # deepcopy refuses it
        torch.nn.Parameter(torch.ones(2)),
        torch.eye(2).to_sparse(),
        torch.ones(2, dtype=torch.bfloat16),
        torch.ones(1).expand(3),
    ):
        same = fresh(tensor)
        assert same is not tensor
        assert type(same) is type(tensor)
        assert (same.dtype, same.requires_grad) == (tensor.dtype, tensor.requires_grad)
        assert torch.equal(same.detach().to_dense(), tensor.detach().to_dense())
    named = torch.ones(1)
    named.label = "one"
    assert fresh(named).label == "one"


def test_constants_are_not_copied_and_what_cannot_be_copied_is_shared() -> None:
    class Kind(enum.Enum):
        A = 1

    for value in (np.float32(1), np.str_("a"), Kind.A, int, len, Path("a"), sys, iter([1])):
        assert fresh(value) is value
    lock, row = threading.Lock(), {"x": np.zeros(2)}
    held = fresh({"lock": lock, "row": row})
    assert held["lock"] is lock
    assert held["row"]["x"] is not row["x"]


def test_memory_that_runs_out_is_no_reason_to_share() -> None:
    class Large:
        def __deepcopy__(self, memo: Any) -> Any:
            raise MemoryError

    with pytest.raises(MemoryError):
        fresh(Large())


# ---- what is filled again


def fill(held: Any, n: Any) -> Any:
    if isinstance(held, dict):
        held["n"] = n
    elif isinstance(held, Halved):
        held.x = n
    elif isinstance(held, set):
        held.clear()
        held.add(n)
    elif isinstance(held, collections.deque):
        held[0] = n
    else:
        held[:] = [n] if isinstance(held, list) else n
    return held


FILLED: dict[str, Callable[[], Any]] = {
    "dict": dict,
    "list": lambda: [0],
    "array": lambda: np.zeros(3),
    "large array": lambda: np.zeros(5000),
    "dataclass": lambda: Halved(0.0),
    "deque": lambda: collections.deque([0]),
    "set": set,
    "tensor": _tensor,
    "tensor of bfloat16": lambda: _tensor(dtype=pytest.importorskip("torch").bfloat16),
}


@pytest.mark.parametrize("kind", FILLED)
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"x": (x, 1)}, lambda x: Halved(x)])
def test_what_a_function_fills_again_is_refused(
    kind: str, wrap: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Halved, "__post_init__", lambda self: None)
    held, other = FILLED[kind](), FILLED[kind]()
    numbers = Dataset(range(8))

    def alternating(n: int) -> Any:
        return wrap(fill(held if n % 2 else other, n))

    def several(n: int) -> Any:
        for i in range(3):
            yield wrap(fill(held, n * 3 + i))

    for ds in (
        numbers.map(lambda n: wrap(fill(held, n))),
        numbers.map(alternating),
        numbers.random_map(lambda n, rng: wrap(fill(held, n))),
        numbers.flat_map(several),
        numbers[:1].flat_map(several),
    ):
        for part in (ds, ds.on_error("skip")):
            with pytest.raises(ChainError, match="changed what it had returned for an earlier row"):
                list(Loader(part, 4))


@pytest.mark.parametrize("kind", FILLED)
def test_one_object_that_is_not_changed_may_be_returned_for_many_rows(kind: str) -> None:
    constant = fill(FILLED[kind](), 7)
    table = [fill(FILLED[kind](), n % 2) for n in range(2)]
    numbers = Dataset(range(8))
    for ds in (
        numbers.map(lambda n: constant),
        numbers.map(lambda n: table[n % 2]),
        numbers.flat_map(lambda n: iter([constant, constant])),
        numbers.flat_map(lambda n: (row for row in table)),
        numbers.map(lambda n: (constant, np.nan, np.float64("nan"), object())),
    ):
        assert sum(len(rows) for rows in Loader(ds, 4, collate=list)) == len(list(ds))


def test_a_container_set_to_what_it_held_is_not_changed() -> None:
    held: dict[str, Any] = {}

    def same(n: int) -> Any:
        held.update(n=1000 + len(str(held)) * 0, a=np.zeros(3), s=str(12345))
        return held

    (batch,) = Loader(Dataset(range(4)).map(same), 4)
    assert batch["n"].tolist() == [1000] * 4


def test_rows_too_deep_are_still_refused_by_name() -> None:
    row: Any = [1]
    for _ in range(200):
        row = [row]
    with pytest.raises(CollateError, match="levels deep"):
        next(Loader(Dataset(range(4)).map(lambda n: row), 2))


@pytest.mark.parametrize("width", [1, 2000])
def test_fields_stand_in_the_order_of_the_first_row_of_their_batch(width: int):
    def turned(i: int) -> dict[str, Any]:
        row = {"a": np.full(width, i), "b": {"c": i, "d": i}}
        return row if i % 3 else {"b": dict(reversed(row["b"].items())), "a": row["a"]}

    def orders(batch: Any) -> list[str]:
        return [*batch, *batch["b"]]

    ds = Dataset(range(24), seed=1).shuffle().map(turned)
    loader = Loader(ds, 4)
    alone = [orders(loader[k]) for k in range(6)]
    assert len(set(map(tuple, alone))) == 2
    assert [orders(batch) for batch in loader] == alone
    with Loader(ds, 4, workers=Threads(2)) as threads:
        assert [orders(batch) for batch in threads] == alone
