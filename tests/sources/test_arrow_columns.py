"""Every type of Arrow: one batch whichever path its rows take, files that decode alike, nulls."""

from __future__ import annotations

import datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pyarrow import ipc

from pipeline import Dataset, Loader
from pipeline.debug.conformance import check_source, same
from pipeline.errors import CollateError, RecordError, SourceError
from pipeline.sources.arrow_ipc import ArrowIpcSource
from pipeline.sources.arrow_types import merged
from pipeline.sources.parquet import ParquetSource

DAY, MOMENT = datetime.date(2020, 1, 2), datetime.datetime(2020, 1, 2, 3, 4, 5)
STRUCT = pa.struct([("a", pa.int8()), ("b", pa.list_(pa.string()))])
TYPES: dict[str, tuple[list, pa.DataType]] = {
    **{str(t): ([1, 2, 3], t) for t in (pa.int8(), pa.uint16(), pa.int64(), pa.uint64())},
    **{str(t): ([1.5, None, 2.5], t) for t in (pa.float16(), pa.float32(), pa.float64())},
    "bool": ([True, False, True], pa.bool_()),
    "date32": ([DAY, None, DAY], pa.date32()),
    "date64": ([DAY, None, DAY], pa.date64()),
    "timestamp": ([MOMENT, None, MOMENT], pa.timestamp("us")),
    "timestamp tz": ([MOMENT, None, MOMENT], pa.timestamp("ms", "Asia/Tokyo")),
    "duration": ([datetime.timedelta(1), None, datetime.timedelta(2)], pa.duration("s")),
    "time32": ([datetime.time(1), None, datetime.time(2)], pa.time32("s")),
    "time64": ([datetime.time(1), None, datetime.time(2)], pa.time64("us")),
    "decimal128": ([Decimal("1.50"), None, Decimal("2.00")], pa.decimal128(5, 2)),
    "decimal256": ([Decimal("1.50"), None, Decimal("2.00")], pa.decimal256(50, 2)),
    "interval": ([pa.MonthDayNano([1, 2, 3])] * 3, pa.month_day_nano_interval()),
    "null": ([None, None, None], pa.null()),
    **{str(t): (["a\0", None, "é"], t) for t in (pa.string(), pa.large_string(), pa.string_view())},
    **{
        str(t): ([b"a\0", None, b""], t) for t in (pa.binary(), pa.large_binary(), pa.binary_view())
    },
    "fixed binary": ([b"ab", None, b"c\0"], pa.binary(2)),
    "list": ([[1, 2], [3, 4], [5, 6]], pa.list_(pa.int32())),
    "ragged": ([[1, 2], [3], []], pa.list_(pa.int32())),
    "null list": ([[1, 2], None, [3, 4]], pa.list_(pa.int32())),
    "large list": ([[1, 2], [3, 4], [5, 6]], pa.large_list(pa.int8())),
    "list view": ([[1, 2], [3, 4], [5, 6]], pa.list_view(pa.int8())),
    "large list view": ([[1.5], None, [2.5]], pa.large_list_view(pa.float32())),
    "fixed list": ([[1, 2], [3, 4], [5, 6]], pa.list_(pa.int16(), 2)),
    "list of text": ([["a"], [], None], pa.list_(pa.string_view())),
    "list of lists": ([[[1], [2]], [[3], [4]], [[5], [6]]], pa.list_(pa.list_(pa.int8()))),
    "list of ragged lists": ([[[1], [2, 3]], [[3]], [[5]]], pa.list_(pa.list_(pa.int8()))),
    "list of structs": ([[{"a": 1, "b": ["x"]}], [], None], pa.list_(STRUCT)),
    "struct": ([{"a": 1, "b": ["x"]}, {"a": 2, "b": None}, {"a": 3, "b": []}], STRUCT),
    "map": ([[("k", 1)], [], None], pa.map_(pa.string(), pa.int32())),
    "dictionary": (["a", "b", "a"], pa.dictionary(pa.int8(), pa.string())),
    "dictionary in list": ([["a"], None, ["b"]], pa.list_(pa.dictionary(pa.int8(), pa.string()))),
    "run ends": ([7, 7, 8], pa.run_end_encoded(pa.int32(), pa.int64())),
    "run ends of text": (["a", "a", None], pa.run_end_encoded(pa.int16(), pa.string())),
}


def array(name: str) -> pa.Array:
    values, kind = TYPES[name]
    if pa.types.is_run_end_encoded(kind):
        return pc.call_function(
            "run_end_encode",
            [pa.array(values, kind.value_type)],
            pc.RunEndEncodeOptions(kind.run_end_type),
        )
    return pa.array(values, kind)


def unions() -> dict[str, pa.Array]:
    ids = pa.array([0, 1, 0], pa.int8())
    return {
        "dense union": pa.UnionArray.from_dense(
            ids, pa.array([0, 0, 1], pa.int32()), [pa.array([1, 2]), pa.array(["x"])]
        ),
        "sparse union": pa.UnionArray.from_sparse(
            ids, [pa.array([1, 2, 3]), pa.array(list("xyz"))]
        ),
    }


def write(folder, columns, name="a.arrow", *, stream=False, codec=None):
    path, rows = str(folder / name), pa.table(columns)
    made = ipc.new_stream if stream else ipc.new_file
    with made(path, rows.schema, options=ipc.IpcWriteOptions(compression=codec)) as w:
        w.write_table(rows)
    return path


def batch(ds, n):
    try:
        return next(Loader(ds, n))
    except CollateError as e:
        return str(e)


def utc(moment):
    if getattr(moment, "tzinfo", None) is None:
        return moment
    return moment.astimezone(datetime.UTC).replace(tzinfo=None)


@pytest.mark.parametrize("stream", [False, True], ids=["file", "stream"])
@pytest.mark.parametrize("name", [*TYPES, *unions()])
def test_the_same_rows_give_the_same_batch_whichever_path_they_take(tmp_path, name, stream):
    values = unions().get(name)
    values = array(name) if values is None else values
    ds = Dataset(write(tmp_path, {"c": values}, stream=stream))
    for n in (1, 2, 3):
        a, b = batch(ds, n), batch(ds.map(lambda row: row), n)
        assert same(a, b), (n, a, b)
    got = [row["c"] for row in ds]
    known = values.to_pylist()
    for a, b in zip(got, known, strict=True):
        if isinstance(a, np.generic) and a.dtype.kind in "mM":
            assert np.isnat(a) if b is None else a == np.array(utc(b), a.dtype)
        elif isinstance(a, float | np.floating):
            assert a == b or (b is None and np.isnan(a))
        elif isinstance(a, dict):
            assert {k: v.tolist() if hasattr(v, "tolist") else v for k, v in a.items()} == b
        else:
            assert (a.tolist() if hasattr(a, "tolist") else a) == b
    if not isinstance(values, pa.UnionArray):
        check_source(ArrowIpcSource(write(tmp_path, {"c": values}, stream=stream)), samples=3)


def test_lists_of_equal_length_stack_and_ragged_ones_are_named(tmp_path):
    ds = Dataset(write(tmp_path, {"ids": [[1, 2], [3, 4], [5]]}))
    assert next(Loader(ds, 2))["ids"].tolist() == [[1, 2], [3, 4]]
    assert next(Loader(ds, 2))["ids"].dtype == np.int64
    with pytest.raises(CollateError, match=r"'ids': record 0 of .* has shape \(2,\), record 2 of"):
        next(Loader(ds, 3))


@pytest.mark.parametrize("kind", [pa.month_day_nano_interval(), pa.map_(pa.string(), pa.int8())])
def test_a_type_that_cannot_be_read_is_refused_at_opening(tmp_path, kind, monkeypatch):
    def no(*args, **options):
        raise pa.ArrowNotImplementedError("no such kernel")

    monkeypatch.setattr("pipeline.sources.arrow_columns._python", no)
    monkeypatch.setattr("pipeline.sources.arrow_columns.Objects._put", no)
    path = write(tmp_path, {"x": pa.nulls(2, kind), "y": [1, 2]})
    with pytest.raises(SourceError, match=r"column 'x' of .*a\.arrow is of a type .*columns=") as e:
        Dataset(path).on_error("skip")
    assert not isinstance(e.value, RecordError)
    assert len(ArrowIpcSource(path, ["y"])) == 2


def test_two_fields_of_one_name_are_refused(tmp_path):
    twice = pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"])
    path = write(tmp_path, {"s": twice, "l": [1]})
    with pytest.raises(SourceError, match=r"'s' has two fields 'a'"):
        ArrowIpcSource(path)
    assert len(ArrowIpcSource(path, ["l"])) == 1


def test_a_union_of_no_types_is_refused_before_pyarrow_aborts(tmp_path):
    schema = pa.schema([("u", pa.list_(pa.union([], "dense")))])
    path = str(tmp_path / "a.arrow")
    with ipc.new_stream(path, schema):
        pass
    with pytest.raises(SourceError, match=r"a\.arrow: column 'u' is a union of no types"):
        ArrowIpcSource(path)


ALIKE = {
    "text": (["a"], pa.string(), ["b"], pa.large_string()),
    "views": (["a"], pa.string_view(), ["b"], pa.dictionary(pa.int8(), pa.string())),
    "bytes": ([b"a"], pa.binary(), [b"b"], pa.binary(1)),
    "lists": ([[1]], pa.list_(pa.int8()), [[2]], pa.large_list(pa.int8())),
    "deep": ([[["a"]]], pa.list_(pa.list_(pa.string())), [[["b"]]],
             pa.large_list(pa.list_view(pa.large_string()))),
    "decimals": ([Decimal("1.5")], pa.decimal128(5, 1), [Decimal("2.5")], pa.decimal256(50, 1)),
    "zones": ([MOMENT], pa.timestamp("s", "UTC"), [MOMENT], pa.timestamp("s", "Asia/Tokyo")),
    "null": ([1], pa.int64(), ["x"], pa.string()),
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in ALIKE if name != "null"])
def test_files_that_decode_alike_are_one_dataset(tmp_path, name):
    first, a, second, b = ALIKE[name]
    if pa.types.is_struct(a):
        return
    paths = [
        write(tmp_path, {"c": pa.array(values, kind)}, f"{i}.arrow")
        for i, (values, kind) in enumerate([(first, a), (second, b)])
    ]
    for order in (paths, paths[::-1]):
        source = ArrowIpcSource(order)
        check_source(source, samples=2)
        alone = [ArrowIpcSource(path).read(np.array([0])).rows()[0] for path in order]
        assert same(source.read(np.array([0, 1])).rows(), alone)


def test_the_order_of_fields_is_no_difference_at_any_depth(tmp_path):
    a = pa.struct([("x", pa.int8()), ("y", pa.struct([("p", pa.string()), ("q", pa.int8())]))])
    b = pa.struct(
        [("y", pa.struct([("q", pa.int8()), ("p", pa.large_string())])), ("x", pa.int8())]
    )
    value = {"x": 1, "y": {"p": "a", "q": 2}}
    paths = []
    for i, kind in enumerate((a, b)):
        path = str(tmp_path / f"{i}.parquet")
        lists = pa.array([[value]], pa.list_(kind))
        pq.write_table(pa.table({"s": pa.array([value], kind), "l": lists}), path)
        paths.append(path)
    rows = ParquetSource(paths).read(np.array([0, 1])).rows()
    assert same(rows[0], rows[1])
    assert [list(row["l"][0]) for row in rows] == [["x", "y"]] * 2
    assert [list(row["l"][0]["y"]) for row in rows] == [["p", "q"]] * 2


@pytest.mark.parametrize("kind", [pa.string(), pa.float32(), pa.list_(pa.int8()), pa.date32()])
def test_a_column_null_throughout_one_file_takes_the_type_of_the_others(tmp_path, kind):
    some = {pa.string(): "a", pa.float32(): 1.5, pa.date32(): DAY}.get(kind, [1, 2])
    paths = [str(tmp_path / f"{i}.parquet") for i in range(3)]
    for path, column in zip(paths, (pa.nulls(2), pa.array([some], kind), pa.nulls(1)), strict=True):
        pq.write_table(pa.table({"c": column}), path)
    source = ParquetSource(paths)
    check_source(source, samples=4)
    typed = ParquetSource([paths[1]]).read(np.array([0])).tree["c"]
    assert source.read(np.arange(4)).tree["c"].dtype == typed.dtype
    assert source._fields.schema.field("c").type == ParquetSource(paths[1])._fields.schema[0].type
    hidden = [{"c": pa.array([[None]], pa.list_(pa.null()))}, {"c": pa.array([["a"]])}]
    nested = [write(tmp_path, columns, f"n{i}.arrow") for i, columns in enumerate(hidden)]
    assert ArrowIpcSource(nested).read(np.arange(2)).tree["c"].tolist() == [[None], ["a"]]


def test_what_decodes_in_another_way_is_refused_with_both_types(tmp_path):
    for a, b in (
        (pa.int32(), pa.int64()),
        (pa.list_(pa.int8()), pa.list_(pa.int8(), 2)),
        (pa.timestamp("s"), pa.timestamp("ms")),
        (pa.timestamp("s"), pa.timestamp("s", "UTC")),
        (pa.decimal128(5, 1), pa.decimal128(5, 2)),
        (pa.string(), pa.binary()),
        (pa.struct([("a", pa.int8())]), pa.struct([("b", pa.int8())])),
    ):
        assert merged(a, b) is None
        assert merged(a, a) == a
        paths = [write(tmp_path, {"c": pa.nulls(1, t)}, f"{i}.arrow") for i, t in enumerate((a, b))]
        with pytest.raises(SourceError, match=r"column 'c' is .* in .*1\.arrow but .*0\.arrow"):
            ArrowIpcSource(paths)


NULLS = pa.table(
    {
        "i": pa.array([1, None, 3], pa.int8()),
        "b": pa.array([True, None, False]),
        "f": pa.array([1.5, None, 2.5], pa.float32()),
        "l": pa.array([[1, None], None, []], pa.list_(pa.int16())),
        "v": pa.array([[1, None], None, [3, 4]], pa.list_(pa.uint8(), 2)),
        "s": pa.array([{"k": 1}, {"k": None}, None], pa.struct([("k", pa.int64())])),
    }
)


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_nulls_may_be_floats(tmp_path, suffix):
    source = nulls_source(tmp_path, suffix, "float")
    got = source.read(np.arange(3)).tree
    assert same(got["i"], np.array([1, np.nan, 3]))
    assert same(got["b"], np.array([1, np.nan, 0]))
    assert got["f"].dtype == np.float32
    assert same(got["l"][0], np.array([1, np.nan]))
    assert got["l"][1] is None
    assert same(got["v"], np.array([[1, np.nan], [np.nan, np.nan], [3, 4]]))
    assert same(got["s"]["k"], np.array([1, np.nan, np.nan]))
    assert source.fingerprint() != nulls_source(tmp_path, suffix, "raise").fingerprint()


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_nulls_may_be_masked(tmp_path, suffix):
    source = nulls_source(tmp_path, suffix, "mask")
    check_source(source, samples=3)
    got = source.read(np.arange(3)).tree
    assert list(got) == ["i", "i_mask", "b", "b_mask", "f", "l", "l_mask", "v", "v_mask", "s"]
    assert same(got["i"], np.array([1, 0, 3], np.int8))
    assert same(got["i_mask"], np.array([True, False, True]))
    assert same(got["b"], np.array([True, False, False]))
    assert same(got["l"][0], np.array([1, 0], np.int16))
    assert same(got["l_mask"][0], np.array([True, False]))
    assert same(got["v"], np.array([[1, 0], [0, 0], [3, 4]], np.uint8))
    assert same(got["v_mask"], np.array([[True, False], [False, False], [True, True]]))
    assert same(got["s"]["k_mask"], np.array([True, False, False]))


def nulls_source(folder, suffix, nulls):
    path = str(folder / f"a.{suffix}")
    if suffix == "parquet":
        pq.write_table(NULLS, path)
        return ParquetSource(path, nulls=nulls)
    return ArrowIpcSource(write(folder, NULLS), nulls=nulls)


def test_what_the_nulls_option_cannot_do_is_said(tmp_path):
    path = write(tmp_path, {"i": pa.array([None, 2**53 + 1]), "i_mask": [1, 2]})
    with pytest.raises(SourceError, match=r'"mask" adds \'i_mask\' beside \'i\''):
        ArrowIpcSource(path, nulls="mask")
    source = ArrowIpcSource(path, nulls="float")
    assert np.isnan(source.read(np.array([0])).tree["i"][0])
    with pytest.raises(RecordError, match=r"'i' of row 1 of .* no float64 is equal to"):
        source.read(np.array([1]))
    with pytest.raises(SourceError, match="nulls='zero' must be"):
        ArrowIpcSource(path, nulls="zero")


def test_a_row_of_a_null_integer_says_what_to_do(tmp_path):
    source = ArrowIpcSource(write(tmp_path, {"i": pa.array([1, None])}))
    with pytest.raises(RecordError, match=r'row 1 of .* is null.*nulls="float" or nulls="mask"'):
        source.read(np.array([1]))
    assert str(source.read(np.array([], np.int64))) == "Columns(i: int64[0])"


def test_the_time_that_numpy_takes_for_none_is_refused(tmp_path):
    values = pa.array([-(2**63), 0, None], pa.int64()).cast(pa.timestamp("s"))
    source = ArrowIpcSource(write(tmp_path, {"t": values}))
    assert np.isnat(source.read(np.array([2])).tree["t"][0])
    with pytest.raises(RecordError, match=r"'t' of row 0 of .* is -2\*\*63"):
        source.read(np.array([0]))


@pytest.mark.parametrize(
    "nested",
    [
        lambda t: [t],
        lambda t: [[t], []],
        lambda t: {"t": t, "n": 1},
        lambda t: [{"t": t}],
        lambda t: {"k": [t, None]},
    ],
)
def test_nanoseconds_of_a_time_are_refused_at_any_depth(tmp_path, nested):
    def kind(value):
        if isinstance(value, list):
            return pa.list_(kind(value[0]))
        if isinstance(value, dict):
            return pa.struct([(k, kind(v)) for k, v in value.items()])
        return pa.time64("ns") if value == 1001 else pa.int64()

    good, bad = (nested(t) for t in (2000, 1001))
    path = str(tmp_path / "t.parquet")
    pq.write_table(pa.table({"x": pa.array([good, bad, good], kind(bad))}), path)
    ds = Dataset(path)
    assert "datetime.time(0, 0, 0, 2)" in repr(ds[0])
    with pytest.raises(RecordError, match=r"row 1 .*1001.* Python's times have microseconds"):
        ds[1]
    assert len(list(ds.on_error("skip"))) == 3
