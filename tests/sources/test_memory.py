"""MemorySource: sequences and columns, copied out, fingerprinted by content."""

from __future__ import annotations

import datetime as dt
import os
import pickle
import subprocess
import sys
import tracemalloc
from collections import namedtuple
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from PIL import Image

from pipeline import Dataset, Loader
from pipeline.block import Columns
from pipeline.debug.conformance import check_source, same
from pipeline.errors import ChainError, MismatchError, PositionError
from pipeline.sources import memory
from pipeline.sources.memory import MemorySource

Pair = namedtuple("Pair", "x y")


@dataclass
class Fields:
    x: np.ndarray
    y: np.ndarray


class Form(Enum):
    LONG, SHORT = 1, 2


@dataclass
class Squares:
    n: int

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return i * i


class Opaque:
    def __init__(self, value):
        self.value = value


def shapes(n):
    a, b = np.arange(n), np.arange(3.0 * n).reshape(n, 3)
    text = [f"t{i}\0" for i in range(n)]
    return {
        "list": [{"id": i, "tokens": [i, i + 1], "a": np.array([i])} for i in range(n)],
        "list of bytes": [b"%d\0" % i for i in range(n)],
        "array": b,
        "dict": {"a": a, "deep": {"b": b, "text": np.array([*text, None], object)[:n]}},
        "dict of lists": {"a": a.tolist(), "text": text, "bytes": [b"\0"] * n},
        "ragged": {"a": [list(range(i)) for i in range(n)], "b": b},
        "tuple": (a, b),
        "namedtuple": Pair(a, b),
        "dataclass": Fields(a, b),
        "object with len and getitem": Squares(n),
        "Columns": Columns({"a": a}),
    }


@pytest.mark.parametrize("n", [0, 1, 2, 1000])
@pytest.mark.parametrize("shape", list(shapes(1)))
def test_keeps_what_a_source_promises(shape, n):
    source = MemorySource(shapes(n)[shape])
    assert len(source) == n
    check_source(source, samples=16, most_pickled=None)


def test_a_tuple_of_records_is_a_sequence():
    assert MemorySource((1, "b", None)).read(np.array([2, 1])) == [None, "b"]


def test_strings_and_bytes_keep_zero_bytes_and_mixed_lists_their_types():
    got = MemorySource({"b": [b"a\0", b""], "s": ["x\0", ""], "m": [1, "a"], "o": [1, None]})
    rows = got.read(np.array([0, 1]))
    assert isinstance(rows, Columns)
    tree = rows.tree
    assert tree["b"].tolist() == [b"a\0", b""]
    assert tree["s"].tolist() == ["x\0", ""]
    assert tree["m"].tolist() == [1, "a"]
    assert tree["o"].tolist() == [1, None]


@pytest.mark.parametrize("bad", ["path", b"path", 3, iter([1]), {1, 2}, np.array(3), {}])
def test_what_is_neither_is_refused(bad):
    with pytest.raises(ChainError):
        MemorySource(bad)


def test_unequal_columns_are_refused():
    with pytest.raises(ChainError, match=r"'a': 1, 'b': 2"):
        MemorySource({"a": [1], "b": [1, 2]})


def test_a_position_outside_shows_the_values_and_the_length():
    with pytest.raises(PositionError, match=r"\[-1, 7\]: the source has 3, numbered 0 to 2"):
        MemorySource([1, 2, 3]).read(np.array([0, -1, 7]))


def test_fingerprints_differ_where_contents_do():
    different = [
        [1, 2],
        [2, 1],
        [1.0, 2.0],
        ["1", "2"],
        [b"1", b"2"],
        [[1], [2]],
        [[1, 2]],
        ["ab", "c"],
        ["a", "bc"],
        [True, 2],
        [None, 2],
        [{"a": 1}, {"a": 2}],
        [{"b": 1}, {"b": 2}],
        np.array([1, 2]),
        np.array([1, 2], np.int32),
        np.array([[1, 2]]),
        {"x": [1, 2]},
        {"y": [1, 2]},
        {"x": ["1", "2"]},
        [(1, 2)],
        [Opaque(1)],
        [frozenset({1, 2})],
        [Path("a")],
        [Path("b")],
        [dt.date(2020, 1, 1)],
        [dt.date(2020, 1, 2)],
        [dt.datetime(2020, 1, 1)],
        [dt.datetime(2020, 1, 1, tzinfo=dt.UTC)],
        [dt.time(1)],
        [dt.time(2)],
        [dt.timedelta(1)],
        [dt.timedelta(2)],
        [Decimal("1.0")],
        [Decimal("1.00")],
        [UUID(int=1)],
        [UUID(int=2)],
        [Form.LONG],
        [Form.SHORT],
        [Image.new("L", (2, 2), 1)],
        [Image.new("L", (2, 2), 2)],
    ]
    sources = [MemorySource(v) for v in different]
    assert len({source.fingerprint() for source in sources}) == len(different)
    unseen = [v for v, source in zip(different, sources, strict=True) if source.unseen]
    assert [type(v[0]) for v in unseen] == [Opaque]


def test_what_a_fingerprint_does_not_look_into_is_told():
    torch = pytest.importorskip("torch")
    odd = torch.zeros(2, dtype=torch.bfloat16)  # NumPy has no such type
    for values in ([{"x": (Opaque(1),)}], {"x": [Opaque(1)]}, [{Opaque(1)}], [{"x": odd}]):
        assert len(MemorySource(values).unseen) == 1
    assert MemorySource([Opaque(1), odd, Opaque(2)]).unseen == (
        f"objects of type {__name__}.Opaque",
        "objects of type torch.Tensor",
    )


def test_a_fingerprint_looks_at_what_equal_contents_share():
    assert MemorySource([Opaque(1)]).fingerprint() == MemorySource([Opaque(2)]).fingerprint()
    a, b = np.arange(6).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3))
    assert MemorySource(a).fingerprint() == MemorySource(b).fingerprint()
    one, two = {"a": a, "b": b}, {"b": b, "a": a}
    assert MemorySource(one).fingerprint() == MemorySource(two).fingerprint()


def test_a_fingerprint_holds_in_another_process_with_another_hash_seed():
    code = (
        "from pipeline.sources.memory import MemorySource;"
        "print(MemorySource([{'a', 'b', 'c'}, {'x': 1.5, 'y': 'z'}]).fingerprint())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1")
    }
    assert digests == {MemorySource([{"a", "b", "c"}, {"x": 1.5, "y": "z"}]).fingerprint() + "\n"}


class Filling:
    """A sequence that fills one record again and again."""

    def __init__(self):
        self.row = {"x": np.zeros(2), "seen": [0]}

    def __len__(self):
        return 20

    def __getitem__(self, i):
        self.row["x"][:] = self.row["seen"][0] = i
        return self.row


def test_records_that_a_sequence_fills_again_are_copied_one_by_one():
    for batch in (1, 7, 20):
        rows = [row for b in Loader(Dataset(Filling()), batch) for row in b["x"][:, 0].tolist()]
        assert rows == list(range(20))
    assert [row["seen"] for row in Dataset(Filling()).head(3)] == [[0], [1], [2]]


def test_an_own_fingerprint_is_taken():
    class Own(Squares):
        def fingerprint(self):
            return "mine"

    assert MemorySource(Own(3)).fingerprint() == "mine"


@pytest.mark.parametrize("batched", [False, True])
def test_of_records_that_are_others_each_time_the_number_counts(batched):
    class Augmented(Squares):
        def __getitem__(self, i):
            return i + np.random.default_rng().random()

    class Batched(Augmented):
        def __getitems__(self, some):
            return [self[i] for i in some]

    def state(n):
        return Loader(Dataset((Batched if batched else Augmented)(n)).shuffle(), 4).state_dict()

    resumed = Loader(Dataset((Batched if batched else Augmented)(40)).shuffle(), 4)
    resumed.load_state_dict(state(40))
    with pytest.raises(MismatchError, match="source"):
        resumed.load_state_dict(state(41))


def rows_of(source) -> Any:
    return source.read(np.arange(len(source)))


def test_what_a_record_holds_is_copied():
    record = {"a": [1, [2]], "b": (np.zeros(2), {"c": []})}
    source = MemorySource([record])
    (got,) = rows_of(source)
    assert same(got, record)
    got["a"][1].append(3)
    got["b"][0][:] = 1
    got["b"][1]["c"].append(4)
    assert same(rows_of(source), [{"a": [1, [2]], "b": (np.zeros(2), {"c": []})}])


def test_pieces_hash_as_the_whole(monkeypatch):
    a = np.arange(60_000).reshape(300, 20, 10)
    views = [a.T, a[::2, :, 3], a[:, ::-1], a[:0], np.asfortranarray(a), a.astype(">i4").T]
    for view in views:
        whole = MemorySource({"x": np.ascontiguousarray(view)[None]}).fingerprint()
        with monkeypatch.context() as context:
            context.setattr(memory, "_PIECE", 1 << 10)
            assert MemorySource({"x": view[None]}).fingerprint() == whole


def test_a_view_of_a_map_is_neither_copied_nor_pickled(tmp_path):
    n = 40_000_000
    values = np.memmap(tmp_path / "a", np.uint16, "w+", shape=(n,))
    values[:] = np.arange(n) % 65_521
    values.flush()
    view = np.lib.stride_tricks.sliding_window_view(np.memmap(tmp_path / "a", np.uint16, "r"), 256)
    columns = {"x": view[3::16], "y": np.arange(len(view[3::16]))}
    ds = Dataset(columns)
    tracemalloc.start()
    state = Loader(ds, 2).state_dict()
    assert tracemalloc.get_traced_memory()[1] < 16 << 20  # the view has 1.3 GB
    tracemalloc.stop()
    source = MemorySource({"x": view[3::16]})
    data = pickle.dumps(source)
    assert len(data) < 1000
    again: Any = pickle.loads(data)
    wanted = np.array([9, 0, len(source) - 1])
    assert same(again.read(wanted), source.read(wanted))
    assert again.read(wanted).tree["x"][:, 0].tolist() == view[3::16][wanted, 0].tolist()
    assert again.fingerprint() == source.fingerprint()
    with Loader(ds.shuffle(), 3, workers=1) as there, Loader(ds.shuffle(), 3) as here:
        assert same(next(there), next(here))
    values[:5_000] = 7
    values.flush()
    assert Loader(Dataset(columns), 2).state_dict() != state


def test_a_private_map_goes_with_its_changes(tmp_path):
    np.arange(100, dtype=np.uint8).tofile(tmp_path / "a")
    values = np.memmap(tmp_path / "a", np.uint8, "c")
    values[:] = 7
    again: Any = pickle.loads(pickle.dumps(MemorySource({"x": values})))
    assert again.read(np.array([0, 99])).tree["x"].tolist() == [7, 7]


@pytest.mark.parametrize(
    "numbers",
    [
        range(0),
        range(5),
        range(10, 0, -3),
        range(0, 5, 2**70),
        range(-(2**63), -(2**63) + 3),
        range(2**63 - 2, 2**63 + 2),
        range(2**70, 2**70 + 2),
        range(-(2**62), 2**62, 2**61),
    ],
)
def test_a_range_is_read_as_the_list_of_its_numbers(numbers: range) -> None:
    indices = np.arange(len(numbers))[::-1]
    assert MemorySource(numbers).read(indices) == MemorySource(list(numbers)).read(indices)


_GAPS = {
    "aligned": np.dtype([("a", "i1"), ("b", "i8")], align=True),
    "in another order": np.dtype({"names": ["a", "b"], "formats": ["i4", "i4"], "offsets": [4, 0]}),
    "nested": np.dtype(
        [("a", "i4"), ("b", np.dtype([("c", "i1"), ("d", "i4")], align=True), (2,))]
    ),
    "long": np.dtype(np.longdouble),
    "long within": np.dtype([("a", np.longdouble)]),
    "long complex": np.dtype(np.clongdouble),
}


@pytest.mark.parametrize("dtype", _GAPS.values(), ids=list(_GAPS))
def test_a_fingerprint_looks_at_values_and_not_at_the_bytes_between_them(dtype):
    clean, dirty = (np.full(4 * dtype.itemsize, byte, np.uint8).view(dtype) for byte in (0, 255))
    for values in (clean, dirty):
        _fill(values, 0)
    assert MemorySource(clean).fingerprint() == MemorySource(dirty).fingerprint()
    _fill(dirty, 1)
    assert MemorySource(clean).fingerprint() != MemorySource(dirty).fingerprint()


def _fill(values, number):
    if values.dtype.names is None:
        values[...] = number
    for name in values.dtype.names or ():
        _fill(values[name], number)


@dataclass(frozen=True)
class Lazy:
    """An array as zarr 3 has them: a dataclass, with a shape but without a length."""

    values: Any
    chunks: int = 7

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def dtype(self) -> Any:
        return self.values.dtype

    def __getitem__(self, at: Any) -> Any:
        return self.values[at]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.asarray(self.values, dtype)


def test_an_array_of_another_library_may_be_a_dataclass_without_a_length():
    values = np.arange(30).reshape(10, 3)
    for given, expected in (
        (Lazy(values), values),
        ({"x": Lazy(values), "y": {"z": Lazy(values)}}, {"x": values, "y": {"z": values}}),
    ):
        found, same = Dataset(given), Dataset(expected)
        assert found.fingerprint() == same.fingerprint()
        for one, other in zip(found, same, strict=True):
            assert str(one) == str(other)
