"""A source as a dataset: its records, in its order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline import Columns, Dataset, Loader, MemorySource, Threads, WindowSource, mix
from pipeline.debug.digest import digest
from pipeline.errors import SourceError
from tests.nodes.checks import check_indexed

SOURCES: dict[str, Any] = {
    "values": ["a", "b", "c"],
    "columns": {"x": np.arange(12).reshape(4, 3), "y": np.arange(4.0)},
    "one": [{"x": 1}],
    "range": range(31),
    "bytes": [b"", b"\0", b"ab\0"],
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=list(SOURCES))
def test_a_leaf_is_a_node(source: Any) -> None:
    check_indexed(Dataset(source))


class Answers:
    """Two records, read as a test says."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def __len__(self) -> int:
        return 2

    def read(self, indices: Any) -> Any:
        return self.answer


@pytest.mark.parametrize("answer", [None, 3, {"x": [1, 2]}, "ab", b"ab", iter([1, 2])])
def test_what_is_no_sequence_is_refused(answer: Any) -> None:
    with pytest.raises(SourceError, match="must return a list of records"):
        Dataset(Answers(answer)).read([0, 1])


@pytest.mark.parametrize("answer", [[], [1], [1, 2, 3], Columns({"x": np.arange(3)})])
def test_another_number_of_records_is_refused(answer: Any) -> None:
    with pytest.raises(SourceError, match="one record an index"):
        Dataset(Answers(answer)).read([0, 1])


@pytest.mark.parametrize(
    "bounds", [[1, 9], [0, 8], [0, 5, 4, 9], [0.0, 9.0], [], [[0, 9]], [0, 9, 9, 12]]
)
def test_chunk_bounds_rise_from_nothing_to_the_length(bounds: Any) -> None:
    class Chunked(MemorySource):
        chunk_bounds = np.array(bounds)

    with pytest.raises(SourceError, match="must rise from 0 to 9"):
        len(Dataset(Chunked(range(9))).shuffle(chunks=2))


@pytest.mark.parametrize("said", [7, b"v1", None])
def test_a_fingerprint_is_a_text(said: Any) -> None:
    class Named(Answers):
        def fingerprint(self) -> Any:
            return said

    with pytest.raises(SourceError, match=r"Named\.fingerprint\(\) returned .*\. Return a text"):
        Dataset(Named([1, 2])).fingerprint()


def test_a_fingerprint_may_be_an_attribute() -> None:
    class Named(Answers):
        fingerprint = "v1"

    assert Dataset(Named([1, 2])).fingerprint() != Dataset(Answers([1, 2])).fingerprint()


class Filling:
    """A source that fills one array again with each read, and sorts what it is asked for."""

    def __init__(self, whole: bool) -> None:
        self.rows, self.whole = np.zeros((500, 2), np.int64), whole

    def __len__(self) -> int:
        return 500

    def read(self, indices: Any) -> Any:
        if self.whole and len(self.rows) != len(indices):
            self.rows = np.zeros((len(indices), 2), np.int64)
        rows = self.rows[: len(indices)] if not self.whole else self.rows
        rows[:] = indices[:, None]
        indices.sort()
        return Columns({"x": rows})


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(
    "chain",
    [
        lambda ds: ds.shuffle(),
        lambda ds: ds.shuffle().filter(lambda row: row["x"][0] % 3 > 0, block=7).lanes(2),
        lambda ds: mix({"a": ds, "b": ds.filter(lambda row: True)}, {"a": 1, "b": 2}),
        lambda ds: ds.shuffle().random_map(lambda row, rng: {"x": row["x"] + rng.random()}),
        lambda ds: Dataset(WindowSource(ds.components[0].source, 2)).shuffle(),
    ],
)
def test_memory_that_a_source_fills_again_is_copied(chain: Any, whole: bool) -> None:
    known = Dataset({"x": np.repeat(np.arange(500)[:, None], 2, 1)}, seed=1)
    expected = [digest(batch) for batch in Loader(chain(known), 16)]
    for workers in (0, Threads(1)):
        with Loader(chain(Dataset(Filling(whole), seed=1)), 16, workers=workers) as loader:
            assert [digest(batch) for batch in list(loader)] == expected


class OneRow:
    """A source whose rows are one object, or share an array, filled again or the same for all."""

    def __init__(self, how: str) -> None:
        self.how, self.row = how, {"x": np.zeros(3, np.int64), "i": [0]}

    def __len__(self) -> int:
        return 9

    def read(self, indices: Any) -> list[Any]:
        return [self.one(i) for i in indices.tolist()]

    def one(self, i: int) -> Any:
        if self.how == "constant":
            return {"x": self.row["x"], "i": i}
        self.row["x"][:] = self.row["i"][0] = i
        if self.how == "array":
            return {"x": self.row["x"][:2], "i": i}
        return self.row["i"] if self.how == "list" else self.row


@pytest.mark.parametrize("how", ["row", "array", "list"])
def test_rows_that_a_source_fills_again_are_refused(how: str) -> None:
    with pytest.raises(SourceError, match=r"OneRow\.read returned one object for records 8 and 7"):
        next(Loader(Dataset(OneRow(how))[::-1], 4))
    with pytest.raises(SourceError, match="records 3 and 5"):
        next(Loader(Dataset(OneRow(how))[[3, 3, 5]], 3))
    assert len(next(Loader(Dataset(OneRow(how)), 1)))


def test_rows_may_share_what_does_not_change() -> None:
    batches = list(Loader(Dataset(OneRow("constant")), 3))
    assert [batch["i"].tolist() for batch in batches] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


def test_an_error_of_a_source_tells_records_and_epochs() -> None:
    class Broken(MemorySource):
        def read(self, indices: Any) -> Any:
            raise RuntimeError("worn out")

    with pytest.raises(RuntimeError, match="worn out") as caught:
        Dataset(Broken(range(9))).read([7, 3, 1, 0], epoch=2)
    assert caught.value.__notes__ == ["in source Broken, records [7, 3, 1]…, epochs [2]"]
