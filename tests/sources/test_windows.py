"""WindowSource: windows by arithmetic, never over the border of a sequence."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import Dataset, Loader
from pipeline.block import Columns
from pipeline.debug.conformance import check_source
from pipeline.errors import ChainError, PositionError
from pipeline.sources import MemorySource, WindowSource


class Chunked(MemorySource):
    """Tokens in files of so many, read as a source."""

    def __init__(self, n: int, chunk: int) -> None:
        super().__init__(np.arange(n))
        self.n, self.chunk, self.closed = n, chunk, 0

    @property
    def chunk_bounds(self):
        return np.array([*range(0, self.n, self.chunk), self.n])

    def where(self, indices):
        return [(f"file {i // self.chunk}", i % self.chunk) for i in indices.tolist()]

    def close(self):
        self.closed += 1


def slowly(n: int, lengths: list[int] | None, length: int, stride: int, tail: str) -> list[int]:
    """Where windows start, found by trying every token."""
    starts: list[int] = []
    begin = 0
    for size in [n] if lengths is None else lengths:
        own = [s for s in range(0, size, stride) if s + length <= size]
        if tail == "overlap" and own and own[-1] + length < size:
            own.append(size - length)
        starts += [begin + s for s in own]
        begin += size
    return starts


@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=6),
    st.booleans(),
    st.integers(1, 8),
    st.integers(1, 9),
    st.sampled_from(["drop", "overlap"]),
    st.integers(1, 7),
)
def test_windows_are_those_of_the_definition(lengths, one, length, stride, tail, chunk):
    n = sum(lengths)
    known = None if one else lengths
    starts = slowly(n, known, length, stride, tail)
    if not starts:
        with pytest.raises(ChainError, match=rf"no window of {length} tokens fits"):
            WindowSource(np.arange(n), length, stride, lengths=known, tail=tail)
        return
    every = np.arange(len(starts))
    expected = [list(range(s, s + length)) for s in starts]
    for tokens in (np.arange(n), Chunked(n, chunk), {"x": np.arange(n)}, list(range(n))):
        windows = WindowSource(tokens, length, stride, lengths=known, tail=tail)
        assert len(windows) == len(starts)
        assert windows.starts(every).tolist() == starts
        read = windows.read(every[::-1])
        got = np.stack(read) if isinstance(read, list) else read.tree
        got = got["x"] if isinstance(got, dict) else got
        assert got.tolist() == expected[::-1]
    bounds = WindowSource(Chunked(n, chunk), length, stride, lengths=known, tail=tail).chunk_bounds
    assert bounds is not None
    assert bounds[-1] == len(starts)
    if tail == "drop":  # a tail's window may begin a chunk earlier
        owner = np.searchsorted(bounds, every, side="right") - 1
        assert owner.tolist() == [s // chunk for s in starts]


@pytest.mark.parametrize(
    "tokens",
    [
        np.arange(50, dtype=np.uint16),
        np.arange(100.0).reshape(50, 2),
        {"frame": np.arange(150).reshape(50, 3), "t": np.arange(50)},
        Chunked(50, 9),
        np.array([{"x": i} for i in range(50)], object),
    ],
)
def test_windows_conform(tokens):
    check_source(WindowSource(tokens, 7, 3))
    check_source(WindowSource(tokens, 7, 9, lengths=[20, 3, 0, 27], tail="overlap"))


def test_mapped_files_conform_and_pickle_as_their_path(tmp_path: Path):
    path = tmp_path / "tokens.bin"
    np.arange(1 << 20, dtype=np.uint16).tofile(path)
    mapped = np.memmap(path, np.uint16, "r")
    windows = WindowSource(mapped, 100)
    check_source(windows, most_pickled=2000)
    assert windows.where(np.array([3])) == [(str(path), 300)]
    first = windows.fingerprint()
    part = WindowSource(mapped[5:], 100)  # a part pickles as what it holds
    copy = pickle.loads(pickle.dumps(part))
    assert copy.read(np.array([0])).tree[0, 0] == 5
    assert part.where(np.array([1])) == [("tokens", 100)]
    other = np.memmap(path, np.uint16, "r+")
    other[-1] = 7
    assert WindowSource(np.memmap(path, np.uint16, "r"), 100).fingerprint() != first


def test_fingerprints_tell_every_cut_apart():
    tokens = np.arange(40)
    sources = [
        WindowSource(tokens, 4),
        WindowSource(tokens + 1, 4),
        WindowSource(tokens, 5),
        WindowSource(tokens, 4, 3),
        WindowSource(tokens, 4, tail="overlap"),
        WindowSource(tokens, 4, lengths=[20, 20]),
        WindowSource(tokens, 4, lengths=[19, 21]),
    ]
    assert len({s.fingerprint() for s in sources}) == len(sources)
    assert WindowSource(tokens, 4, 4, lengths=[40]).fingerprint() == sources[0].fingerprint()


def test_what_it_stands_on_says_where_and_is_closed():
    beneath = Chunked(50, 20)
    windows = WindowSource(beneath, 8)
    assert windows.where(np.array([3, 0])) == [("file 1", 4), ("file 0", 0)]
    windows.close()
    assert beneath.closed == 1


def test_windows_are_records_of_an_indexed_dataset():
    frames = np.arange(90).reshape(30, 3)
    clips = Dataset(WindowSource({"frames": frames}, 4, 2, lengths=[11, 4, 15]), seed=1).shuffle()
    rows = [row for batch in Loader(clips, 4) for row in batch["frames"]]
    starts = sorted(int(row[0, 0]) // 3 for row in rows)
    assert starts == slowly(30, [11, 4, 15], 4, 2, "drop")
    assert clips.spec["frames"].shape == (4, 3)
    assert {row.file for row in Loader(clips, 4).where(0)} <= {f"sequence {i}" for i in range(3)}


@pytest.mark.parametrize(
    ("args", "options", "message"),
    [
        ((np.arange(9), 0), {}, "window length=0"),
        ((np.arange(9), 2, 0), {}, "window stride=0"),
        ((np.arange(9), 2.5), {}, "window length=2.5"),
        ((np.arange(9), 2), {"tail": "pad"}, 'tail=\'pad\'.*"drop" or "overlap"'),
        ((np.arange(9), 2), {"lengths": [4, 4]}, "2 sequences make up 8 tokens.*stream has 9"),
        ((np.arange(9), 2), {"lengths": [10, -1]}, "lengths of 2"),
        ((np.arange(9), 10), {}, "no window of 10 tokens fits: the longest sequence has 9"),
        ((np.array(3), 1), {}, "axis of tokens"),
        ((7, 1), {}, "not int"),
    ],
)
def test_what_cannot_be_cut_is_refused(args: Any, options: Any, message: str):
    with pytest.raises(ChainError, match=message):
        WindowSource(*args, **options)


def test_windows_outside_are_refused():
    windows = WindowSource(np.arange(9), 3)
    for asked in ([3], [-1]):
        with pytest.raises(PositionError):
            windows.read(np.array(asked))
    assert isinstance(windows.read(np.array([], np.int64)), Columns)
