"""No number loses digits, no mask is lost, nothing is promoted by what stands beside it."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest

from pipeline import Dataset, Loader, WindowSource, pad_to
from pipeline.errors import ChainError, CollateError, PipelineError
from pipeline.sources.exact import InexactError, exact, objects
from pipeline.transforms.collate import collate

BIG = [0xF3A1B2C3D4E5F607, 0x13A1B2C3D4E5F607]  # hashes, the first beyond int64
LOST: dict[str, Any] = {
    "beyond int64": BIG,
    "beside a float": [2**53 + 1, 0.5],
    "nested": [[2**63 + 1, 1], [2, 3]],
    "two dtypes": [np.uint64(2**63 + 1), np.int64(1)],
}
HELD: dict[str, Any] = {
    "whole": [1, 2**62],
    "unsigned": [2**63 + 1, 2**63 + 3],
    "rounded already": [1e300, 2.0**60, 1],
    "infinite": [float("inf"), 1],
    "mixed": [1, 2.5],
}


@pytest.mark.parametrize("values", LOST.values(), ids=list(LOST))
def test_lists_whose_numbers_would_change_are_refused(values: Any):
    with pytest.raises(InexactError, match="float64 does not hold"):
        exact(values)


@pytest.mark.parametrize("values", HELD.values(), ids=list(HELD))
def test_lists_whose_numbers_are_held_are_arrays(values: Any):
    assert exact(values).tolist() == values


@pytest.mark.parametrize("values", LOST.values(), ids=list(LOST))
@pytest.mark.parametrize(
    "use",
    [
        lambda v: next(Loader(Dataset({"id": v}), 2)),
        lambda v: next(Loader(Dataset([{"id": v}]), 1)),
        lambda v: Dataset([v]).pack(4).head(1),
        lambda v: pad_to(4)([v]),
        lambda v: collate([{"id": x} for x in v]),
    ],
    ids=["column", "list in a row", "pack", "pad_to", "one a row"],
)
def test_no_way_into_a_batch_changes_numbers(values: Any, use: Any):
    with pytest.raises(PipelineError):
        use(values)


def test_integers_beside_nulls_of_other_libraries_are_not_rounded():
    pd = pytest.importorskip("pandas")
    big = 2**60 + 1
    for values in ([big, None], [big, 7]):
        columns = [pa.array(values), pa.chunked_array([values[:1], values[1:]], pa.int64())]
        for column in [*columns, pd.Series(values, dtype="UInt64")]:
            if None in values:
                with pytest.raises(ChainError, match=r"nulls beside integers.*Fill the nulls"):
                    Dataset({"id": column})
                with pytest.raises(ChainError, match="nulls beside integers"):
                    Dataset(column)
            else:
                assert Dataset({"id": column})[0]["id"] == big
    assert np.isnan(Dataset({"id": pa.array([7, None])})[1]["id"])  # held by float64, as it was


def test_columns_of_several_dtypes_are_refused_whatever_their_values():
    for values in ([np.int64(1), np.uint64(2)], [np.array([1]), np.array([1.5])]):
        with pytest.raises(ChainError, match="one dtype"):
            Dataset({"x": values})
    ds = Dataset({"x": [np.int64(1), np.array(2, ">i8")]})
    assert next(Loader(ds, 2))["x"].tolist() == [1, 2]


def test_masks_are_refused_by_pack_and_pad_to():
    ds = Dataset([1]).map(lambda i: np.ma.masked_equal([1, 2], 1))
    for use in (lambda: ds.pack(2).head(1), lambda: next(Loader(ds, 1, collate=pad_to(2)))):
        with pytest.raises(CollateError, match="mask"):
            use()


def test_lists_are_no_second_axis_of_objects():
    assert objects([[1], [2]]).tolist() == [[1], [2]]


# ---- windows over records


class _Rows:
    """A source that gives records as a list."""

    def __init__(self, rows: list[Any]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, indices: Any) -> list[Any]:
        return [self.rows[i] for i in indices]


@pytest.mark.parametrize("make", [list, _Rows])
@pytest.mark.parametrize(
    "rows",
    [
        [b"ab\0", b"c\0\0", b"", b"\0"],
        ["a\0", "b", "", "cd"],
        [1, 2, 3, 4, 5.5, 6],
        [1, 2, 2**63 + 1, 4],
        [np.int32(1), np.int64(2), np.int64(3), np.int64(4)],
        [[1, 2], [3], [4, 5], [6, 7]],
        [{"x": 1, "s": b"\0"}, {"x": 2, "s": b""}, {"x": 3, "s": b"a"}, {"x": 4.5, "s": b"b"}],
        [{"x": 1}, {"y": 2}, {"x": 3}, {"x": 4}],
        [None, 1, 2, 3],
    ],
    ids=str,
)
def test_a_window_is_the_same_whatever_is_read_beside_it(make: Any, rows: list[Any]):
    source = WindowSource(make(rows), 2)
    together = cast(Any, source.read(np.arange(len(source))))
    for i in range(len(source)):
        (alone,) = cast(Any, source.read(np.array([i])))
        assert repr(alone) == repr(together[i])
        if not isinstance(rows[0], dict):
            assert list(map(_plain, alone)) == list(map(_plain, rows[2 * i : 2 * i + 2]))


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
