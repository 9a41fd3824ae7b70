"""What people give to Dataset, and what is made of it or refused."""

from __future__ import annotations

from collections import UserDict
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import Dataset, Loader
from pipeline.errors import ChainError, CollateError, PipelineError, SourceError
from tests.sources.test_array_record import write


class Made:
    """A source of any length that returns anything."""

    def __init__(self, length, answer=None):
        self.length, self.answer = length, answer

    def __len__(self):
        return self.length

    def read(self, indices):
        return self.answer


@pytest.mark.parametrize("length", [2**63, -1, 1.5, 2**62, 2**48 + 1, None, "4"])
def test_lengths_that_are_none(length):
    with pytest.raises(SourceError, match=r"cannot be used: .*from 0 to 2\*\*48"):
        Dataset(Made(length))


def test_sequences_too_long_for_order_arithmetic():
    with pytest.raises(SourceError, match="the length of range cannot be used"):
        Dataset(range(2**62))
    assert len(Dataset(range(2**48))) == 2**48


@pytest.mark.parametrize(
    "answer",
    [None, 5, "abcd", b"abcd", {"x": [1], "y": 1, "z": 2, "w": 3}, iter(range(4))],
)
def test_answers_that_are_no_records(answer):
    with pytest.raises(SourceError, match=r"Made\.read gave an? \w+ for 4 indices.*list of"):
        next(Loader(Dataset(Made(4, answer)), 4))


def test_mappings_are_columns(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.arange(3), y=np.ones((3, 2)))
    with np.load(tmp_path / "a.npz") as loaded:
        ds = Dataset(loaded)
    assert len(ds) == 3
    assert ds[1]["x"] == 1
    for kind in (UserDict, MappingProxyType):  # a tokenizer of Hugging Face gives a UserDict
        same = Dataset(kind({"x": [1, 2], "s": ["a", "b"]}))
        assert [row["s"] for row in same] == ["a", "b"]
        assert same.fingerprint() == Dataset({"x": [1, 2], "s": ["a", "b"]}).fingerprint()


def test_streams_are_refused_with_what_to_do():
    for stream in (iter([1]), (i for i in range(3)), {1, 2}):
        with pytest.raises(ChainError, match=r"Is it a stream\? Give list\(…\) of it, or write"):
            Dataset(stream)


def test_tensors_that_numpy_cannot_hold_are_no_columns():
    torch = pytest.importorskip("torch")
    for odd in (torch.ones(2, dtype=torch.bfloat16), torch.ones(2, requires_grad=True)):
        for values in (odd, {"x": odd}):
            with pytest.raises(ChainError, match="a column is a Tensor that NumPy cannot hold"):
                Dataset(values)


def test_a_list_of_paths_opens_files(tmp_path):
    for name, values in (("a.parquet", [1, 2]), ("B.PARQUET", [3])):
        pq.write_table(pa.table({"x": values}), tmp_path / name)
    paths = [str(tmp_path / name) for name in ("a.parquet", "B.PARQUET")]
    assert [int(row["x"]) for row in Dataset(paths)] == [1, 2, 3]
    assert [int(row["x"]) for row in Dataset(tuple(paths[::-1]))] == [3, 1, 2]
    assert len(Dataset([Path(path) for path in paths])) == 3
    write(tmp_path / "a.array_record", [b"a"])
    with pytest.raises(SourceError, match="files of several formats"):
        Dataset([*paths, str(tmp_path / "a.array_record")])
    with pytest.raises(SourceError, match=r"missing\.tar does not exist"):
        Dataset([str(tmp_path / "missing.tar")])


def test_other_lists_of_strings_are_records(tmp_path):
    (tmp_path / "a.txt").write_text("line")
    for names in (["a.parquet", "b"], [str(tmp_path / "a.txt")], ["a.parquet", 1], [], ["a.npy"]):
        assert list(Dataset(names)) == names


def test_a_dataset_is_no_source():
    ds = Dataset(range(3)).shuffle()
    for given in (ds, [ds, ds], (ds,), Loader(ds, 2), [Loader(ds, 2)]):
        with pytest.raises(ChainError, match=r"this is a \w+ already: chain on a Dataset"):
            Dataset(given)


MASKED = np.ma.masked_equal([[1, 0], [2, 3]], 0)


@pytest.mark.parametrize("data", [MASKED, {"x": MASKED}, (MASKED, MASKED), {"a": {"b": MASKED}}])
def test_masked_columns_are_refused(data):
    with pytest.raises(ChainError, match=r"lose its mask.*x\.filled\(0\)"):
        Dataset(data)


@pytest.mark.parametrize("data", [[MASKED], [{"x": MASKED}], [(1, [MASKED])]])
def test_masked_records_are_refused(data):
    with pytest.raises(PipelineError, match="lose its mask"):
        next(Loader(Dataset(data), 1))


def _some_masked(rows: np.ndarray) -> np.ma.MaskedArray:
    return np.ma.array(rows, mask=rows % 2)


@pytest.mark.parametrize(
    "made",
    [
        lambda ds: ds.map(lambda i: MASKED),
        lambda ds: ds.map(lambda i: {"x": [MASKED]}),
        lambda ds: ds.map(lambda i: np.ma.masked),
        lambda ds: ds.map(_some_masked, batched=True),
        lambda ds: ds.flat_map(lambda i: [MASKED]).lanes(1),
        lambda ds: ds.map(lambda i: {"x": MASKED}).cache(),
    ],
)
@pytest.mark.parametrize("workers", [0, 2])
def test_masks_that_functions_make_are_refused(made, workers):
    with (
        Loader(made(Dataset(range(4))), 2, workers=workers) as loader,
        pytest.raises(PipelineError, match=r"lose its mask.*x\.filled\(0\)"),
    ):
        next(loader)


def test_a_mask_that_collate_makes_is_refused():
    loader = Loader(Dataset(range(4)), 2, collate=lambda rows: {"x": _some_masked(np.array(rows))})
    with pytest.raises(CollateError, match="lose its mask"):
        next(loader)
