"""check_source finds what is broken, and only that."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import numpy as np
import pytest

from pipeline.block import Columns
from pipeline.debug.conformance import check_source, same


class Good:
    """Columns and every optional member; each class below breaks one promise."""

    def __init__(self, n=50):
        self.n = n
        self.columns = Columns({"x": np.arange(n), "v": np.arange(2.0 * n).reshape(n, 2)})

    def __len__(self):
        return self.n

    def read(self, indices) -> Any:
        if len(indices) and (indices.min() < 0 or indices.max() >= self.n):
            raise IndexError(indices)
        return self.columns.read(indices)

    def where(self, indices):
        return [("file", int(i)) for i in indices]

    def fingerprint(self) -> str:
        return "good"

    @property
    def chunk_bounds(self):
        return np.array([0, self.n // 2, self.n])

    def close(self):
        pass


class Rows(Good):
    def read(self, indices):
        return super().read(indices).rows()


class DropsRepeats(Good):
    def read(self, indices):
        return super().read(np.unique(indices))


class Sorts(Good):
    def read(self, indices):
        return super().read(np.sort(indices))


class SortsInPlace(Good):
    def read(self, indices):
        indices.sort()
        return super().read(indices)


class CountsFromTheEnd(Good):
    def read(self, indices):
        return super().read(np.where(indices < 0, indices % self.n, indices))


class Clips(Good):
    def read(self, indices):
        return self.columns.read(np.clip(indices, 0, self.n - 1))


class RaisesTheWrongError(Good):
    def read(self, indices):
        try:
            return super().read(indices)
        except IndexError as e:
            raise KeyError from e


class GivesViews(Good):
    def read(self, indices):
        got = super().read(indices)
        if len(indices) == self.n and (np.diff(indices) == 1).all():
            return self.columns
        return got


class SharesColumns(Good):
    def read(self, indices):
        x = super().read(indices).tree["x"]
        return Columns({"x": x, "y": x})


class GivesItsRecords(Good):
    def __init__(self):
        super().__init__()
        self.records = [{"a": [i]} for i in range(self.n)]

    def read(self, indices):
        super().read(indices)
        return [self.records[i] for i in indices]


class SharesRepeats(Good):
    def read(self, indices):
        rows = {int(i): [int(i)] for i in indices}
        super().read(indices)
        return [rows[int(i)] for i in indices]


class DtypeByRows(Good):
    def read(self, indices):
        x = super().read(indices).tree["x"]
        return Columns({"x": x if 7 in x else x.astype(float)})


class Iterates(Good):
    def read(self, indices):
        return iter(super().read(indices).rows())


class Forgets(Good):
    calls = itertools.count()

    def read(self, indices):
        got = super().read(indices)
        got.tree["x"] += next(self.calls)
        return got


class OneThreadOnly(Good):
    thread = threading.get_ident()

    def read(self, indices):
        got = super().read(indices)
        got.tree["x"] += threading.get_ident() != self.thread
        return got


class PicklesItsCache(Good):
    def __init__(self):
        super().__init__()
        self.cache = []

    def read(self, indices):
        self.cache.extend(indices.tolist())
        return super().read(indices)


class FatPickle(Good):
    def __init__(self):
        super().__init__(200_000)


class LosesOnPickling(Good):
    def __setstate__(self, state):
        self.__init__(state["n"] - 1)


class WhereIsConstant(Good):
    def where(self, indices):
        return [("file", 0) for _ in indices]


class WhereIsShort(Good):
    def where(self, indices):
        return super().where(indices)[1:]


class BoundsFall(Good):
    @property
    def chunk_bounds(self):
        return np.array([0, 30, 20, self.n])


class BoundsStop(Good):
    @property
    def chunk_bounds(self):
        return np.array([0, 30])


class RandomFingerprint(Good):
    def fingerprint(self):
        return str(object())[-10:] + str(np.random.default_rng().integers(1 << 60))


class ClosesForEver(Good):
    closed = False

    def close(self):
        self.closed = True

    def read(self, indices):
        if self.closed:
            raise AssertionError("closed")
        return super().read(indices)


@pytest.mark.parametrize("good", [Good(0), Good(1), Good(2), Good(), Rows(), Rows(0)])
def test_good_sources_pass(good):
    check_source(good)


BROKEN = {
    DropsRepeats: "One for each index",
    Sorts: "alone it is",
    SortsInPlace: "changed its indices",
    CountsFromTheEnd: r"read\(\[-1\]\) of 50 records gave .*IndexError",
    Clips: "IndexError",
    GivesViews: "writing into what read returned changed the source",
    SharesColumns: "share memory",
    GivesItsRecords: "changed the source|writing into",
    SharesRepeats: "writing into the first changed the second",
    DtypeByRows: "alone it is|must not depend on which rows",
    Iterates: "Return Columns, or a sequence",
    Forgets: "alone it is",
    OneThreadOnly: "read in 4 threads",
    PicklesItsCache: "it carries what was read",
    FatPickle: "more than 1048576",
    LosesOnPickling: "has 49 records, not 50",
    WhereIsConstant: "but they differ",
    WhereIsShort: "gave 49 places",
    BoundsFall: "must rise from 0 to 50",
    BoundsStop: "must rise from 0 to 50",
    RandomFingerprint: "fingerprint is",
    ClosesForEver: "closed",
}


@pytest.mark.parametrize("broken", list(BROKEN))
def test_broken_sources_are_caught(broken):
    with pytest.raises(AssertionError, match=BROKEN[broken]):
        check_source(broken())


def test_an_error_of_another_kind_shows():
    with pytest.raises(KeyError):
        check_source(RaisesTheWrongError())


def test_same_looks_at_types_and_takes_nan_for_itself():
    nan = float("nan")
    assert same([1, (nan, "a")], [1, (nan, "a")])
    assert same(np.array([None, [1]], object), np.array([None, [1]], object))
    for a, b in [
        (1, True),
        ([1], (1,)),
        ([1], [1, 2]),
        ({"a": 1}, {"b": 1}),
        (np.int32(1), np.int64(1)),
        (np.array([1]), np.array([[1]])),
        (np.array([1.0]), np.array([np.nan])),
    ]:
        assert not same(a, b)
