"""The description: what chains, what is refused when chained, what a dataset says of itself."""

from __future__ import annotations

import pickle
from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import Columns, Dataset, Loader, concatenate, zip_datasets
from pipeline.errors import (
    ChainError,
    LengthError,
    PositionError,
    SourceError,
    StreamEndError,
)


def numbers(n: int = 10) -> Dataset:
    return Dataset(range(n))


def test_methods_give_new_datasets() -> None:
    ds = numbers()
    assert ds.shuffle() is not ds
    assert list(ds) == list(range(10))


@pytest.mark.parametrize(
    ("chain", "name"),
    [
        (lambda ds: ds.shuffle(), "shuffle"),
        (lambda ds: ds[2:5], "slice"),
        (lambda ds: ds[0], "ds[i]"),
        (lambda ds: ds.read([0]), "read"),
        (lambda ds: ds.map_with_index(lambda i, row: row), "map_with_index"),
    ],
)
def test_order_is_refused_after_counting(chain: Any, name: str) -> None:
    counted = numbers().filter(lambda x: x > 2, name="big")
    with pytest.raises(ChainError, match="filter 'big' counts rows") as caught:
        chain(counted)
    assert f"Move {name} before it" in str(caught.value)


def test_lengths() -> None:
    assert len(numbers()[2:8:2]) == 3
    assert len(numbers().repeat(3)) == 30
    for ds in (numbers().repeat(), numbers().filter(lambda x: True)):
        with pytest.raises(LengthError):
            len(ds)
    assert list(numbers(4).filter(lambda x: x > 1)) == [2, 3]  # list() asks for a length first


def test_rows_by_position() -> None:
    ds = numbers().shuffle()
    rows = list(ds)
    assert [ds[i] for i in range(10)] == rows
    assert ds[-1] == rows[-1]
    assert ds[np.int64(3)] == rows[3]  # pyright: ignore[reportCallIssue, reportArgumentType]
    for bad in (10, -11):
        with pytest.raises(IndexError, match="of a dataset of 10 rows"):
            ds[bad]
    with pytest.raises(PositionError, match="lie outside"):
        ds.read([3, 10])
    assert len(ds.read([])) == 0
    assert ds.read([1, 1]).rows() == [rows[1], rows[1]]


def test_slices() -> None:
    assert list(numbers()[::-1]) == list(range(10))[::-1]
    assert list(numbers()[7:2:-2]) == [7, 5, 3]
    assert len(numbers()[20:]) == 0
    endless = numbers().repeat()
    assert list(endless[8:13]) == [8, 9, 0, 1, 2]
    with pytest.raises(ChainError, match="needs a start and a stop"):
        endless[3:]


def test_pinned_orders() -> None:
    ds = numbers().shuffle()
    fresh = list(ds.repeat(2))
    assert fresh[:10] != fresh[10:]
    pinned = list(numbers().shuffle(reshuffle=False).repeat(2))
    assert pinned[:10] == pinned[10:] == fresh[:10]
    cut = list(ds[:].repeat(2))
    assert cut[:10] == cut[10:]


def test_two_random_stages_of_one_name_are_refused() -> None:
    with pytest.raises(ChainError, match=r"two shuffle stages are named 'shuffle'.*name="):
        numbers().shuffle().shuffle()
    numbers().shuffle().shuffle(name="again")
    with pytest.raises(ChainError, match="two random_map stages"):
        numbers().random_map(lambda x, rng: x).random_map(lambda x, rng: x)


@pytest.mark.parametrize("bad", [3, None, 2.5, object()])
def test_what_is_no_source_is_refused(bad: Any) -> None:
    with pytest.raises(ChainError, match="a dataset needs a source"):
        Dataset(bad)


def test_bad_arguments() -> None:
    with pytest.raises(ChainError, match="seed"):
        Dataset(range(3), seed="a")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ChainError, match="epochs=0: give a whole number from 1"):
        numbers().repeat(0)
    with pytest.raises(ChainError, match="empty"):
        Dataset([]).repeat()
    with pytest.raises(ChainError, match="before repeat"):
        numbers().repeat().shuffle()
    with pytest.raises(ChainError, match="only counted datasets have lanes"):
        numbers().lanes(2)
    with pytest.raises(ChainError, match="lanes=0: give a whole number"):
        numbers().filter(bool).lanes(0)
    with pytest.raises(SourceError, match="nothing-here"):
        Dataset("nothing-here/*.parquet")


def test_repeat_passes_through_counting_stages() -> None:
    def even(x: int) -> bool:
        return x % 2 == 0

    after = numbers().shuffle().filter(even).repeat(2)
    before = numbers().shuffle().repeat(2).filter(even)
    assert list(after) == list(before)
    assert after.fingerprint() == before.fingerprint()


def test_rows_may_be_any_pytree() -> None:
    Point = namedtuple("Point", ["x", "y"])

    @dataclass
    class Pair:
        a: Any
        b: Any

    rows = [Pair(Point(i, float(i)), (str(i), [i, i])) for i in range(4)]
    batch = next(Loader(Dataset(rows), 4))
    assert isinstance(batch, Pair)
    assert isinstance(batch.a, Point)
    assert batch.a.y.dtype == np.float64
    assert batch.b[0].tolist() == ["0", "1", "2", "3"]
    assert batch.b[1].shape == (4, 2)


def test_columns_pass_through_as_columns() -> None:
    ds = Dataset({"x": np.arange(6), "y": np.zeros((6, 2), np.float32)}).shuffle()[1:5]
    assert isinstance(ds.read([0, 3]).values, Columns)
    doubled = ds.map(lambda rows: {"x": rows["x"] * 2}, batched=True)
    assert isinstance(doubled.read([0, 3]).values, Columns)


def test_spec_reads_at_most_one_record() -> None:
    reads: list[int] = []

    class Counting:
        def __len__(self) -> int:
            return 100

        def read(self, indices: Any) -> list[Any]:
            reads.append(len(indices))
            return [{"x": np.float32(i)} for i in indices]

    assert repr(Dataset(Counting()).shuffle().spec) == "{'x': float32[]}"
    assert reads == [1]
    with pytest.raises(PositionError, match="no spec"):
        _ = Dataset([]).spec


def test_a_source_that_gives_too_few_records_is_named() -> None:
    class Short:
        def __len__(self) -> int:
            return 4

        def read(self, indices: Any) -> list[Any]:
            return [0]

    with pytest.raises(SourceError, match=r"Short\.read gave 1 records for 3 indices"):
        Dataset(Short()).read([0, 1, 2])


def test_head_and_iteration() -> None:
    assert numbers().repeat().head(12) == [*range(10), 0, 1]
    assert numbers(3).head() == [0, 1, 2]
    assert numbers().filter(lambda x: x > 7).head() == [8, 9]
    lanes = list(numbers().filter(lambda x: True, block=2).lanes(2))
    assert lanes == [0, 1, 3, 2, 4, 5, 6, 8, 7, 9]  # blocks 0 12 34 5 67 89, lanes in turn


def test_datasets_pickle() -> None:
    ds = numbers().shuffle().filter(bool).lanes(2).repeat(2)
    copied = pickle.loads(pickle.dumps(ds))
    assert copied.fingerprint() == ds.fingerprint()
    assert list(copied) == list(ds)


def test_open_by_path(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"x": [1, 2, 3]}), tmp_path / "a.parquet")
    assert [int(row["x"]) for row in Dataset(str(tmp_path / "*.parquet"))] == [1, 2, 3]
    assert [int(row["x"]) for row in Dataset(tmp_path / "a.parquet")] == [1, 2, 3]


def test_repr_shows_the_chain() -> None:
    written = "Dataset(MemorySource, seed=0)\n  .shuffle()\n  .repeat(2)"
    assert repr(numbers().shuffle().repeat(2)) == written


def test_concatenation_keeps_columns_and_components_apart() -> None:
    parts = [Dataset({"x": np.arange(k, k + 4)}, seed=1).shuffle() for k in (0, 10)]
    both = concatenate(parts)
    assert isinstance(both.read([7, 0]).values, Columns)
    rows = [int(row["x"]) for row in both]
    assert sorted(rows[:4]) == [0, 1, 2, 3]
    assert rows[:4] != [x - 10 for x in rows[4:]]  # their shuffles differ by path
    where = Loader(both, 8).where(0)
    assert [row.component for row in where] == ["0"] * 4 + ["1"] * 4
    assert list(both.fingerprint())[:2] == ["seed", "root"]
    assert len(both.read([])) == 0


def test_zip_is_rows_side_by_side() -> None:
    columns = zip_datasets({"a": Dataset(np.arange(4)), "b": Dataset({"x": np.arange(4) * 2})})
    assert isinstance(columns.read([1, 2]).values, Columns)
    assert columns[3] == {"a": 3, "b": {"x": 6}}
    assert list(zip_datasets({"n": numbers(2), "s": Dataset(["u", "v"])})) == [
        {"n": 0, "s": "u"},
        {"n": 1, "s": "v"},
    ]


def test_what_cannot_be_joined_is_refused() -> None:
    with pytest.raises(ChainError, match=r"zip needs equal lengths, got \{'a': 2, 'b': 3\}"):
        zip_datasets({"a": numbers(2), "b": numbers(3)})
    with pytest.raises(ChainError, match="filter 'bool' of dataset '1' counts rows"):
        concatenate([numbers(2), numbers(3).filter(bool)])
    with pytest.raises(ChainError, match="never ends"):
        concatenate([numbers(2).repeat(), numbers(3)])
    with pytest.raises(ChainError, match="no datasets"):
        concatenate([])


def test_windows_keep_rows_near_where_they_lie() -> None:
    rows = list(numbers(23).shuffle(window=5))
    assert [sorted(rows[i : i + 5]) for i in range(0, 23, 5)] == [
        list(range(i, min(i + 5, 23))) for i in range(0, 23, 5)
    ]
    assert rows != list(range(23))
    with pytest.raises(ChainError, match="window=0: give a whole number from 1 on"):
        numbers().shuffle(window=0)


def test_a_shuffle_may_have_a_seed_of_its_own() -> None:
    orders = {tuple(numbers().shuffle(seed=s)) for s in (None, 1, 2)}
    assert len(orders) == 3
    assert list(Dataset(range(10), seed=5).shuffle(seed=1)) == list(numbers().shuffle(seed=1))


def test_an_order_that_does_not_reshuffle_pins_those_beneath() -> None:
    rows = list(numbers().shuffle(name="a").shuffle(name="b", reshuffle=False).repeat(2))
    assert rows[:10] == rows[10:]
    above = list(numbers().shuffle(name="a", reshuffle=False).shuffle(name="b").repeat(2))
    assert above[:10] != above[10:]


def test_a_slice_of_an_endless_dataset_keeps_fresh_randomness() -> None:
    drawn = numbers(4).random_map(lambda x, rng: (x, rng.random()), name="r").repeat()
    rows = list(drawn[0:6].repeat(2))
    assert [x for x, _ in rows[:6]] == [x for x, _ in rows[6:]]
    assert len({r for _, r in rows}) == 12


def test_random_maps_of_one_name_are_refused_across_a_join() -> None:
    def draw(row: Any, rng: np.random.Generator) -> Any:
        return row, rng.random()

    joined = concatenate([numbers(3).random_map(draw), numbers(3)])
    with pytest.raises(ChainError, match="two random_map stages are named 'draw'"):
        joined.random_map(draw)
    joined.shuffle().random_map(draw, name="again")


def test_what_drops_everything_is_no_endless_wait() -> None:
    barren = numbers(100).filter(lambda x: False).repeat()
    for look in (lambda: barren.spec, barren.head):
        with pytest.raises(StreamEndError, match="gave no row"):
            look()


@pytest.mark.parametrize(
    "chain",
    [
        lambda ds: ds.map(None),
        lambda ds: ds.filter(3),
        lambda ds: ds.filter(bool, block=float("nan")),
        lambda ds: ds.flat_map(list, block=0),
        lambda ds: ds.repeat(2.5),
        lambda ds: ds.repeat(True),
        lambda ds: ds.filter(bool).lanes(2.7),
        lambda ds: ds.shuffle(seed=1.5),
        lambda ds: ds.shuffle(window="a"),
        lambda ds: ds.read([0], epoch=-1),
        lambda ds: ds.head(-1),
        lambda ds: ds[::0],
        lambda ds: ds["a":],
        lambda ds: ds["a"],
        lambda ds: ds[1.5],
    ],
)
def test_arguments_are_checked_where_they_are_given(chain: Any) -> None:
    with pytest.raises((ChainError, PositionError), match="give "):
        chain(numbers())


def test_files_of_one_size_with_other_records_are_other_data(tmp_path: Path) -> None:
    from array_record.python.array_record_module import ArrayRecordWriter

    marks: list[Any] = []
    for word in (b"cat", b"dog"):
        writer = ArrayRecordWriter(str(tmp_path / "a.array_record"), "group_size:1")
        for i in range(500):
            writer.write(word + b"%d" % i)
        writer.close()
        marks.append(Dataset(tmp_path / "a.array_record").fingerprint())
    assert marks[0] != marks[1]


def test_a_long_range_is_not_read_for_its_fingerprint() -> None:
    assert Dataset(range(10**12)).fingerprint() != Dataset(range(10**12 + 1)).fingerprint()


def test_a_fingerprint_looks_into_the_source_once() -> None:
    asked: list[int] = []

    class Asked:
        def __len__(self) -> int:
            return 4

        def read(self, indices: Any) -> list[int]:
            return list(indices)

        def fingerprint(self) -> str:
            asked.append(1)
            return "constant"

    loader = Loader(Dataset(Asked()), 2)
    states = [loader.state_dict() for _ in range(3)]
    assert states[0] == states[2]
    assert len(asked) == 1
