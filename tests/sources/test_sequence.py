"""SequenceSource over other libraries' datasets, and which of them Dataset picks it for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline import Dataset, Loader, MemorySource, SequenceSource
from pipeline.debug.conformance import check_source
from pipeline.errors import RecordError, SourceError
from pipeline.sources.arrow_types import plain

datasets = pytest.importorskip("datasets")


def read(source: SequenceSource, indices) -> Any:
    return source.read(np.array(indices))


class Many:
    """A data source as TFDS and PyTorch have them: it counts how often it is asked."""

    def __init__(self, n=20):
        self.n, self.calls = n, 0

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        raise AssertionError("one by one")

    def __getitems__(self, indices):
        self.calls += 1
        assert all(type(i) is int for i in indices)
        return [{"x": np.full(2, i)} for i in indices]


def table(n=30):
    return datasets.Dataset.from_dict(
        {
            "id": list(range(n)),
            "text": [f"t{i}\0" for i in range(n)],
            "tokens": [list(range(1 + i % 4)) for i in range(n)],
            "deep": [{"x": i / 2} for i in range(n)],
        }
    )


@pytest.mark.parametrize("n", [0, 1, 2, 1000])
def test_keeps_what_a_source_promises(n):
    check_source(SequenceSource(Many(n)), samples=16)
    check_source(SequenceSource([{"x": i} for i in range(n)]), samples=16)


def test_what_the_object_holds_stays_as_it_is():
    class Holding(Many):
        def __getitems__(self, indices) -> Any:
            return [held] * len(indices)

    held = {"x": [1, 2]}
    first, second = read(SequenceSource(Holding()), [3, 3])
    first["x"][0] = 7
    assert second == held == {"x": [1, 2]}


@pytest.mark.parametrize("how", ["row", "array", "constant"])
def test_one_object_filled_again_for_each_of_many_gives_each_its_own_values(how):
    filled: dict[str, Any] = {"x": np.zeros(3, np.int64), "i": 0}

    class Filling(Many):
        def __getitems__(self, indices) -> Any:
            return list(map(self.one, indices))

        def one(self, i) -> Any:
            if how == "constant":
                return {"x": filled["x"], "i": i}
            filled["x"][:] = filled["i"] = i
            return filled if how == "row" else {"x": filled["x"][:2], "i": i}

    batches = list(Loader(Dataset(Filling(9))[::-1], 4))
    assert [i for b in batches for i in b["i"].tolist()] == list(range(9))[::-1]
    again = read(SequenceSource(Filling(9)), [3, 3, 5])
    assert [row["i"] for row in again] == [3, 3, 5]
    assert all((b["i"] * (how != "constant") == b["x"].T).all() for b in batches)


def test_many_are_asked_for_at_once_and_dataset_does_so():
    many = Many()
    ds = Dataset(many)
    assert [row["x"][0] for row in ds.read([3, 1, 3]).rows()] == [3, 1, 3]
    assert many.calls == 1
    assert isinstance(ds.components[0].source, SequenceSource)
    assert isinstance(Dataset([1, 2]).components[0].source, MemorySource)


@pytest.mark.parametrize("n", [1, 2, 1000])
def test_hugging_face(n):
    made = table(n)
    for values in (made, made.with_format("numpy"), made.shuffle(seed=3)):
        source = SequenceSource(values)
        check_source(source, samples=16, most_pickled=None)
        for got, known in zip(read(source, np.arange(n)).rows(), made_rows(values), strict=True):
            assert got["tokens"].dtype == np.int64
            assert {**got, "tokens": got["tokens"].tolist()} == known


def made_rows(values):
    return list(values.with_format(None))


def test_other_formats_of_hugging_face_are_kept():
    made = table()
    upper = made.with_transform(lambda rows: {"t": [t.upper() for t in rows["text"]]})
    assert read(SequenceSource(upper), [3, 1]) == [{"t": "T3\0"}, {"t": "T1\0"}]
    some = SequenceSource(made.with_format("numpy", columns=["id"]))
    assert list(read(some, [3]).tree) == ["id"]
    single = SequenceSource(made.with_format("numpy", dtype=np.float32))
    assert read(single, [3])[0]["id"].dtype == np.float32


def test_features_that_decode_are_left_to_hugging_face():
    rows = [{"image": {"bytes": b"x", "path": "y"}, "id": i} for i in range(2)]
    made = datasets.Dataset.from_list(rows).cast_column("image", datasets.Image(decode=False))
    assert read(SequenceSource(made), [1]) == [rows[1]]
    assert read(SequenceSource(made.remove_columns("image")), [1]).tree["id"].dtype == np.int64


def test_fingerprints():
    made = table()
    assert SequenceSource(made).fingerprint() == SequenceSource(table()).fingerprint()
    assert SequenceSource(made).fingerprint() != SequenceSource(made.shuffle(seed=1)).fingerprint()
    assert SequenceSource(Many(5)).fingerprint() != SequenceSource(Many(6)).fingerprint()


def test_a_null_integer_is_a_bad_record():
    source = SequenceSource(datasets.Dataset.from_dict({"id": [1, None, 3]}))
    with pytest.raises(
        RecordError, match=r"column 'id' of record 1 of this Dataset is null.*on_error"
    ):
        read(source, [2, 1])
    assert read(source, [2, 0]).tree["id"].tolist() == [3, 1]


def test_what_is_no_sequence():
    with pytest.raises(SourceError, match="a generator has no length"):
        SequenceSource(i for i in range(3))

    class Columns(Many):
        def __getitems__(self, indices) -> Any:
            return {"x": indices}

    with pytest.raises(SourceError, match="gave 1 records for 2 indices"):
        read(SequenceSource(Columns()), [0, 1])

    class Lazy(Many):
        def __getitems__(self, indices) -> Any:
            return (i for i in indices)

    with pytest.raises(SourceError, match="__getitems__ gave generator for 2 indices"):
        Dataset(Lazy()).read([0, 1])


FRAME = {"id": [2**53 + 1, 7], "w": [0.5, 1.5], "s": ["a", None]}


def tables() -> dict[str, Any]:
    made = {"arrow": pa.table(FRAME), "batch": pa.RecordBatch.from_pydict(FRAME)}
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(FRAME)
    return {
        **made,
        "pandas": frame,
        "pandas with an index": frame.set_index(pandas.Index([5, 6], name="place")),
        "pandas, rows left out": pandas.concat([frame, frame])[2:],
    }


@pytest.mark.parametrize("name", list(tables()))
def test_a_table_is_its_columns_by_name(name):
    ds = Dataset(tables()[name])
    assert [(int(row["id"]), float(row["w"]), row["s"]) for row in ds] == [
        (2**53 + 1, 0.5, "a"),
        (7, 1.5, None),
    ]
    assert list(ds[0]) == ["id", "w", "s"]
    assert next(Loader(ds, 2))["id"].dtype == np.int64
    check_source(SequenceSource(tables()[name]), samples=2, most_pickled=None)


def test_a_tables_fingerprint_is_that_of_its_contents():
    whole = pa.table({"a": range(10), "n": [None, *range(9)]})
    pieces = pa.concat_tables([whole[:3], whole[3:]])
    known = SequenceSource(whole).fingerprint()
    assert SequenceSource(pieces).fingerprint() == known
    assert SequenceSource(whole.to_pandas(types_mapper=None)).fingerprint() != known  # floats
    other = whole.set_column(1, "n", pa.array([0, *range(9)]))
    assert SequenceSource(other).fingerprint() != known
    assert SequenceSource(whole.rename_columns(["a", "b"])).fingerprint() != known


def test_nulls_of_tables():
    made = pa.table({"n": [None, 2]})
    with pytest.raises(RecordError, match="'n' of record 0 of this Table is null"):
        Dataset(made)[0]
    assert read(SequenceSource(made, nulls="mask"), [0, 1]).tree["n_mask"].tolist() == [False, True]
    assert np.isnan(read(SequenceSource(made, nulls="float"), [0]).tree["n"][0])


def test_a_frame_that_arrow_cannot_hold_says_which_column():
    pandas = pytest.importorskip("pandas")
    with pytest.raises(SourceError, match=r"this DataFrame .*column a.*values of one type"):
        Dataset(pandas.DataFrame({"a": [1, "x"]}))


def test_addresses_of_python_objects_are_no_column():
    class Frame:  # as one of Polars with a column of type Object
        columns, dtypes = ("id", "image"), ("Int64", "Object")

        def __len__(self):
            return 1

        def __getitem__(self, name):
            raise AssertionError("by name")

        def __arrow_c_stream__(self, requested_schema=None):
            return pa.table({"id": [1], "image": [b"address."]}).__arrow_c_stream__()

    with pytest.raises(SourceError, match=r"Python objects, 'image', .*frame\.to_dicts\(\)"):
        Dataset(Frame())


def test_a_dict_of_datasets_is_refused_naming_them():
    made = table()
    splits = datasets.DatasetDict({"train": made, "test": made})
    for several in (splits, {"train": made, "test": made}, {"train": Dataset([1]), "test": Many()}):
        with pytest.raises(SourceError, match=r"\['train', 'test'\], not columns"):
            Dataset(several)
    assert Dataset({"id": made["id"]})[3] == {"id": 3}


VIEWS: dict[str, Any] = {
    "text": pa.array(["a", None, "c"] * 5, pa.string_view()),
    "bytes": pa.array([b"a", b"b", None] * 5, pa.binary_view()),
    "lists": pa.array([["a"], [], None] * 5, pa.list_(pa.string_view())),
    "structs": pa.array([{"s": "a"}, {"s": None}, None] * 5, pa.struct([("s", pa.string_view())])),
    "maps": pa.array([[("k", "v")]] * 15, pa.map_(pa.string_view(), pa.string_view())),
    "runs": pa.RunEndEncodedArray.from_arrays(pa.array([4, 15], pa.int32()), pa.array(["a", "b"])),
    "list views": pa.array([[1], [2, 3], None] * 5, pa.list_view(pa.int64())),
}


@pytest.mark.parametrize("chunks", [1, 3])
@pytest.mark.parametrize("name", list(VIEWS))
def test_views_and_run_ends_of_tables_are_decoded(name: str, chunks: int) -> None:
    parts = [VIEWS[name][i * 15 // chunks : (i + 1) * 15 // chunks] for i in range(chunks)]
    values = pa.table({"x": pa.chunked_array(parts), "n": range(15)})
    ds = Dataset(values, seed=1).shuffle()
    kind = plain(VIEWS[name].type)
    same = pa.table({"x": pa.array(VIEWS[name].to_pylist(), kind), "n": range(15)})
    for row, other in zip(ds, Dataset(same, seed=1).shuffle(), strict=True):
        assert str(row) == str(other)
    assert len(Dataset(values.slice(0, 0))) == 0


def test_columns_of_one_name_are_refused_beside_views() -> None:
    column = pa.array(["a"], pa.string_view())
    with pytest.raises(SourceError, match="each its own"):
        Dataset(pa.Table.from_arrays([column, column], names=["a", "a"]))


def test_features_that_decode_are_read_in_arrow_s_format_too() -> None:
    features = datasets.Features(
        {"a": datasets.Array2D((2, 3), "float32"), "b": datasets.Value("int8")}
    )
    rows = {"a": [np.full((2, 3), i, np.float32) for i in range(4)], "b": range(4)}
    theirs = datasets.Dataset.from_dict(rows, features=features)
    batch = next(Loader(Dataset(theirs.with_format("arrow")), 2))
    assert np.array_equal(batch["a"], next(Loader(Dataset(theirs), 2))["a"])
    chosen = Dataset(theirs.with_format("arrow", columns=["a"]))
    assert chosen[1].keys() == {"a"}
