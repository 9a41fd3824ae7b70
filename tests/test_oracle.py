"""The pipeline against the executable model of its rules: the same provenance in the same rows."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline import Dataset, Loader, concatenate, mix, scan, zip_datasets
from pipeline.errors import BatchError
from pipeline.nodes import blocks
from pipeline.provenance.where import RowOrigin
from pipeline.sampling.permutation import Permutation
from pipeline.seeds import derive_seed
from tests import semantics_model as model
from tests.examples import examples

BLOCK = 8  # the model's block size
_WINDOW = 5


@pytest.fixture(autouse=True)
def _our_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    # orders aside: the model permutes and draws lengths as we do
    def perm(n: int, path: tuple[str, ...], name: str, epoch: int, *first: int) -> list[int]:
        window = ("window", first[0] // _WINDOW) if first else ()
        return Permutation(n, derive_seed(0, path, name, epoch, *window))(np.arange(n)).tolist()

    plain = model.h

    def h(*names: Any) -> int:
        return _length_hash(names[1][2]) if names[0] == "len" else plain(*names)

    monkeypatch.setattr(model, "perm", perm)
    monkeypatch.setattr(model, "h", h)
    monkeypatch.setattr(blocks, "BLOCK", BLOCK)


class Row:
    """A record, or one of the rows that it became."""

    def __init__(self, record: int, place: tuple[int, ...] = ()) -> None:
        self.record, self.place = record, place


def _length_hash(record: int) -> int:
    return record * 7 + 3


def _keeps(record: int, place: tuple[Any, ...]) -> bool:
    return (record + sum(p for p in place if p != "p")) % 3 != 0


def _copies(record: int) -> int:
    return record % 4


def _fan(row: Row) -> list[Row]:
    return [Row(row.record, (*row.place, j)) for j in range(_copies(row.record))]


@st.composite
def _roots(draw: st.DrawFn, depth: int) -> tuple[Any, Dataset]:
    """What a chain stands on: a source, or a few chains after or beside one another, or mixed."""
    kind = draw(st.sampled_from(["source", "concatenate", "zip", "mix"])) if depth else "source"
    if kind == "source":
        n = draw(st.integers(1, 40))
        return model.Src(n), Dataset([Row(i) for i in range(n)])
    parts = draw(st.lists(_chains(depth - 1), min_size=1, max_size=3))
    if kind == "concatenate":
        return model.Concat([t for t, _ in parts]), concatenate([o for _, o in parts])
    if kind == "mix":
        return draw(_mixes(parts))
    n = min(t.n for t, _ in parts)
    parts = [(t.slice(0, n), o[:n]) for t, o in parts]
    named = {str(i): o for i, (_, o) in enumerate(parts)}
    return model.Zip([t for t, _ in parts]), zip_datasets(named).map(lambda row: row["0"])


@st.composite
def _schedules(draw: st.DrawFn, components: int, stop: str) -> list[tuple[int, dict[str, float]]]:
    """Weights of components "0", "1", … from rows that suit any number of lanes."""
    rows = [0, *sorted(draw(st.sets(st.integers(1, 6), max_size=2)))]
    common = st.lists(st.integers(0, 4), min_size=components, max_size=components).filter(any)
    named: list[dict[str, float]] = []
    for row in rows:
        weights: list[float] = [*draw(common)]
        # some too small for the round of a table; they end again where a pass waits for them
        rare = 0 if stop == "all" and row == rows[-1] else 1e-7
        weights = [w or draw(st.sampled_from([0, rare])) for w in weights]
        named.append(dict(zip(map(str, range(components)), weights, strict=True)))
    return [(8 * row, weights) for row, weights in zip(rows, named, strict=True)]


def _entries(mixed: Dataset, lanes: int = 1) -> tuple[Any, ...]:
    # as the model takes them; its own arithmetic is exact for up to three components
    assert mixed.top.node.mixture is not None
    _, schedule = mixed.top.node.mixture
    return tuple((row // lanes, weights) for row, weights in schedule.entries)


def _pass_of(sizes: list[int], entries: Any, stop: str) -> int:
    # rows of a pass, looked for in the model's own draws
    live = {c for _, weights in entries for c, w in enumerate(weights) if w}
    left = {c for c in live if not entries[-1][1][c]}
    ends = {c: max(r for (_, w), (r, _) in pairwise(entries) if w[c]) for c in left}
    given, done = Counter[int](), set[int]()
    for row in range(1 << 14):
        c = int(model.table(entries, row)[0][row])
        done |= {x for x in left if row >= ends[x]}
        if (stop == "all" and done >= live) or (stop == "first" and given[c] == sizes[c]):
            return row
        given[c] += 1
        done |= {c} if given[c] == sizes[c] else set()
    raise AssertionError("a pass is longer than the model was asked for")


@st.composite
def _mixes(draw: st.DrawFn, parts: list[tuple[Any, Dataset]]) -> tuple[Any, Dataset]:
    stop: Any = draw(st.sampled_from(["first", "all"]))
    schedule = draw(_schedules(len(parts), stop))
    ours = mix({str(i): o for i, (_, o) in enumerate(parts)}, schedule, stop)
    n = _pass_of([t.n for t, _ in parts], _entries(ours), stop)
    return model.Mix([t for t, _ in parts], _entries(ours), n), ours


@st.composite
def _chains(draw: st.DrawFn, depth: int = 2) -> tuple[Any, Dataset]:
    """The same random chain twice: the model's and ours."""
    theirs, ours = draw(_roots(depth))
    for i in range(draw(st.integers(0, 4))):
        op = draw(st.sampled_from(["shuffle", "window", "slice", "select", "repeat", "map"]))
        if op == "shuffle":
            theirs, ours = theirs.shuffle(f"s{i}"), ours.shuffle(name=f"s{i}")
        elif op == "window":
            theirs = theirs.shuffle(f"s{i}", window=_WINDOW)
            ours = ours.shuffle(window=_WINDOW, name=f"s{i}")
        elif op == "slice":
            a, b = draw(st.integers(0, 9)), draw(st.integers(10, 60))
            c = draw(st.integers(1, 3))
            if len(range(theirs.n)[a:b:c]):
                theirs, ours = theirs.slice(a, b, c), ours[a:b:c]
        elif op == "select":
            some = draw(st.lists(st.integers(0, theirs.n - 1), min_size=1, max_size=40))
            theirs, ours = model.Slice(theirs, some), ours[some]
        elif op == "repeat":
            k = draw(st.integers(1, 3))
            theirs, ours = theirs.repeat(k), ours.repeat(k)
        else:
            theirs, ours = theirs.map(str), ours.map(lambda row: row)
    return theirs, ours


@st.composite
def _steady_chains(draw: st.DrawFn) -> tuple[Any, Dataset]:
    """Chains that a scan may be of: their rows stay in every epoch."""
    theirs, ours = draw(_roots(0))
    for i in range(draw(st.integers(0, 3))):
        op = draw(st.sampled_from(["slice", "select", "map"]))
        if op == "slice":
            theirs = theirs.shuffle(f"s{i}").slice(0, max(1, theirs.n - 2))
            ours = ours.shuffle(name=f"s{i}")[: max(1, len(ours) - 2)]
        elif op == "select":
            some = draw(st.lists(st.integers(0, theirs.n - 1), min_size=1, max_size=40))
            theirs, ours = model.Slice(theirs, some), ours[some]
        else:
            theirs, ours = theirs.map(str), ours.map(lambda row: row)
    return theirs, ours


@st.composite
def _counted_chains(draw: st.DrawFn) -> tuple[Any, Dataset]:
    theirs, ours = draw(_chains())
    for _ in range(draw(st.integers(1, 2))):
        if draw(st.booleans()):
            theirs = theirs.filter(lambda k: _keeps(k[2], k[3]))
            ours = ours.filter(lambda row: _keeps(row.record, row.place), block=BLOCK)
        else:
            theirs, ours = (
                theirs.flat_map(lambda k: _copies(k[2])),
                ours.flat_map(_fan, block=BLOCK),
            )
    if draw(st.booleans()):
        length = draw(st.integers(1, 6))
        theirs = theirs.pack(length)

        def tokens(row: Row) -> np.ndarray[Any, Any]:
            return np.full(1 + _length_hash(row.record) % length, row.record)

        # the model's documents choose as they come
        ours = ours.map(tokens).pack(length, how="first_fit", block=BLOCK, longest_first=False)
    if draw(st.booleans()):
        k = draw(st.integers(1, 3))
        theirs, ours = theirs.repeat(k), ours.repeat(k)
    return theirs, ours


def _model_rows(rows: list[Any]) -> list[Any]:
    out: list[Any] = []
    for value, key in rows:
        if isinstance(value, tuple) and value and value[0] == "P":
            out.append([k for _, k in value[1]])
        else:
            out.append(key)
    return out


def _our_rows(loader: Loader, step: int) -> list[Any]:
    out: list[Any] = []
    for row in loader.where(step):
        if row.segments:
            out.append([_key(s.row) for s in row.segments])
        else:
            out.append(_key(row))
    return out


def _key(row: RowOrigin) -> tuple[Any, ...]:
    path = tuple(row.component.split("/")) if row.component else ()
    return path, row.epoch, row.record, row.place


@given(_chains(), st.sampled_from([1, 2, 4]))
@examples(60)
def test_indexed_rows_agree(pair: tuple[Any, Dataset], hosts: int) -> None:
    theirs, ours = pair
    batch = next((size for size in (4, 2, 1) if size % hosts == 0 and size <= theirs.n), None)
    for host in range(hosts):
        if batch is None:  # not a row for each host: no batch, there as here
            assert model.Loader(theirs, hosts, host=host, hosts=hosts).next() is None
            if theirs.n:
                with pytest.raises(BatchError, match=f"is more than the {theirs.n} rows"):
                    Loader(ours, hosts, host=host, hosts=hosts, remainder="drop")
            else:
                assert not list(Loader(ours, hosts, host=host, hosts=hosts, remainder="drop"))
            continue
        reference: Any = model.Loader(theirs, batch, host=host, hosts=hosts)
        loader = Loader(ours, batch, host=host, hosts=hosts, remainder="drop")
        for step in range(len(loader)):
            assert _our_rows(loader, step) == _model_rows(reference.next())
        assert reference.next() is None


def _flag(row: Row) -> bool:
    return _keeps(row.record, row.place)


@given(_steady_chains(), st.integers(1, 3))
@examples(25)
def test_rows_kept_by_a_scan_agree(pair: tuple[Any, Dataset], repeats: int) -> None:
    theirs, ours = pair
    flags = scan(ours, _flag, workers=0)
    kept = np.flatnonzero(flags.values).tolist()
    assume(kept)
    theirs = model.Slice(theirs, kept).shuffle("after").repeat(repeats)
    loader = Loader(ours.filter(flags).shuffle(name="after").repeat(repeats), 1)
    reference: Any = model.Loader(theirs, 1)
    for step in range(len(loader)):
        assert _our_rows(loader, step) == _model_rows(reference.next())
    assert reference.next() is None


@given(_steady_chains(), st.integers(1, 6))
@examples(25)
def test_rows_packed_by_a_scan_agree(pair: tuple[Any, Dataset], length: int) -> None:
    def size(row: Row) -> int:
        return 1 + _length_hash(row.record) % length

    theirs, ours = pair
    lengths = scan(ours, size, workers=0)
    docs = ours.map(lambda row: np.full(size(row), row.record))
    packed = docs.pack(length, lengths=lengths, how="first_fit", block=BLOCK, longest_first=False)
    loader = Loader(packed, 1)
    reference: Any = model.Loader(theirs.pack(length), 1)
    for step in range(len(loader)):
        assert _our_rows(loader, step) == _model_rows(reference.next())
    assert reference.next() is None


@given(_counted_chains(), st.sampled_from([(1, 1), (2, 1), (2, 2), (4, 2), (8, 8), (8, 4)]))
@examples(60)
def test_counted_rows_agree(pair: tuple[Any, Dataset], layout: tuple[int, int]) -> None:
    theirs, ours = pair
    lanes, hosts = layout
    references: list[Any] = [model.Loader(theirs, 8, lanes, host, hosts) for host in range(hosts)]
    expected: list[list[Any]] = []
    while all(parts := [r.next() for r in references]):
        expected.append([_model_rows(rows) for rows in parts])
    if not expected:
        return
    for host in range(hosts):
        loader = Loader(
            ours.lanes(lanes), 8, host=host, hosts=hosts, steps=len(expected), collate=list
        )
        for step, parts in enumerate(expected):
            assert _our_rows(loader, step) == parts[host]
            next(loader)
        assert loader.epoch == 1


@st.composite
def _counted_mixes(draw: st.DrawFn, lanes: int, depth: int, *, stops: Any) -> tuple[Any, Dataset]:
    stop: Any = draw(st.sampled_from(stops))
    parts = [draw(_counted_chains())]
    for _ in range(draw(st.integers(0, 2))):
        kind = draw(st.sampled_from(["indexed", "counted", "mix"] if depth else ["indexed"]))
        if kind == "mix":
            # the model's finite mixes go on within endless ones as if they were endless too
            within = ["first", "all", "never"] if stop == "first" else ["never"]
            parts.append(draw(_counted_mixes(lanes, depth - 1, stops=within)))
        else:
            parts.append(draw(_chains(1) if kind == "indexed" else _counted_chains()))
    parts = draw(st.permutations(parts))
    ours = mix(
        {str(i): o for i, (_, o) in enumerate(parts)}, draw(_schedules(len(parts), stop)), stop
    )
    theirs = model.RowMix([t for t, _ in parts], _entries(ours, lanes), stop, BLOCK)
    if draw(st.booleans()):
        theirs, ours = theirs.map(lambda value: value), ours.map(lambda row: row)
    if draw(st.booleans()):
        # what a stage sees of a packed row is its columns
        theirs = theirs.filter(lambda k: k[2] % 2 == 0)
        ours = ours.filter(_even, block=BLOCK)
    return theirs, ours


def _even(row: Any) -> bool:
    record = row.record if isinstance(row, Row) else row["tokens"][0]
    return bool(record % 2 == 0)


@given(st.data(), st.sampled_from([(1, 1), (2, 1), (2, 2), (4, 2), (8, 8)]), st.booleans())
@examples(25)
def test_counted_mixes_agree(data: st.DataObject, layout: tuple[int, int], small: bool) -> None:
    lanes, hosts = layout
    batch, most = (lanes, 40) if small else (8, 10)  # one row of each lane shows where a pass ends
    theirs, ours = data.draw(_counted_mixes(lanes, 1, stops=["first", "all", "never"]))
    references: list[Any] = [
        model.Loader(theirs, batch, lanes, host, hosts) for host in range(hosts)
    ]
    expected: list[list[Any]] = []
    ends = False
    try:
        while len(expected) < most and not ends:
            parts = [r.next() for r in references]
            ends = not all(parts)
            expected += [] if ends else [[_model_rows(rows) for rows in parts]]
    except RuntimeError:  # the model's word for a lane that gives nothing any more
        pass
    if not expected:
        return
    if ends and hosts == 1:
        once = Loader(ours.lanes(lanes), batch, remainder="drop", collate=list)
        assert sum(1 for _ in once) == len(expected)
    for host in range(hosts):
        loader = Loader(
            ours.lanes(lanes), batch, host=host, hosts=hosts, steps=len(expected), collate=list
        )
        for step, parts in enumerate(expected):
            assert _our_rows(loader, step) == parts[host]
            next(loader)
        assert loader.epoch == 1
