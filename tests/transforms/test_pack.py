"""Pack: every token once and in order, in rows that say where each came from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.block import Block, Columns, Segments
from pipeline.debug.digest import digest
from pipeline.errors import ChainError, CollateError
from pipeline.transforms import FlatMap, Pack
from pipeline.transforms.packers import HOWS, plan

from .making import SITE, block_of, keys


SIZES = st.lists(st.integers(0, 25), max_size=30)


def documents_of(sizes: list[int]) -> list[np.ndarray[Any, Any]]:
    """Documents whose tokens are all different: 1, 2, 3, …"""
    tokens = np.arange(1, sum(sizes) + 1, dtype=np.int32)
    return np.split(tokens, np.cumsum(sizes)[:-1]) if sizes else []


def packed(block: Block, stage: Pack) -> tuple[Block, dict[str, Any]]:
    out = stage.apply(block, SITE)
    if not len(out):
        return out, {}
    assert isinstance(out.values, Columns)
    return out, out.values.tree


@pytest.mark.parametrize("how", HOWS)
@given(sizes=SIZES, limit=st.integers(1, 12))
def test_each_token_once_where_the_segments_say(how, sizes, limit):
    docs = documents_of(sizes)
    out, tree = packed(block_of(docs, first=3), Pack(limit, how))
    got: list[dict[int, list[int]]] = [{} for _ in docs]  # by the token each piece starts at
    s = out.origin.segments or Segments.none(0)
    for row in range(len(out)):
        filled = 0
        spans = range(s.bounds[row], s.bounds[row + 1])
        for number, k in enumerate(spans, 1):
            document, n = int(s.origin.record[k]) - 3, int(s.stop[k] - s.start[k])
            here = slice(filled, filled + n)
            assert (
                tree["tokens"][row, here].tolist()
                == docs[document][s.start[k] : s.stop[k]].tolist()
            )
            assert (tree["segment_ids"][row, here] == number).all()
            assert tree["positions"][row, here].tolist() == list(range(n))
            assert n > 0
            got[document][int(s.start[k])] = tree["tokens"][row, here].tolist()
            filled += n
        assert spans
        assert 0 < filled <= limit
        for name in tree:
            assert not tree[name][row, filled:].any()
    joined = [[t for start in sorted(pieces) for t in pieces[start]] for pieces in got]
    assert joined == [doc.tolist() for doc in docs]


@pytest.mark.parametrize("how", HOWS)
@given(sizes=SIZES, limit=st.integers(1, 12))
def test_a_row_is_its_first_segment_by_provenance(how, sizes, limit):
    out, _ = packed(block_of(documents_of(sizes)), Pack(limit, how))
    s = out.origin.segments or Segments.none(0)
    expected = [(0, int(s.origin.record[k]), (int(s.start[k]),)) for k in s.bounds[:-1]]
    assert keys(out) == expected
    assert len(set(expected)) == len(out)


@given(sizes=SIZES, limit=st.integers(1, 12))
def test_split_pads_the_last_row_only(sizes, limit):
    out, tree = packed(block_of(documents_of(sizes)), Pack(limit, "split"))
    assert len(out) == -(-sum(sizes) // limit)
    if len(out):
        assert tree["tokens"].reshape(-1)[: sum(sizes)].tolist() == list(range(1, sum(sizes) + 1))


def naive_first_fit(sizes: list[tuple[int, ...]], limits: tuple[int, ...]) -> list[list[Any]]:
    """Rows of (document, start, stops), by the definition."""
    rows: list[tuple[list[int], list[Any]]] = []
    for document, size in enumerate(sizes):
        start = [0] * len(size)
        while any(a < n for a, n in zip(start, size, strict=True)):
            stop = [min(a + L, n) for a, n, L in zip(start, size, limits, strict=True)]
            need = [b - a for a, b in zip(start, stop, strict=True)]
            room = (r for r in rows if all(n <= f for n, f in zip(need, r[0], strict=True)))
            free, pieces = next(room, (list(limits), []))
            if not pieces:
                rows.append((free, pieces))
            free[:] = [f - n for n, f in zip(need, free, strict=True)]
            pieces.append((document, start[0], tuple(stop)))
            start = stop
    return [pieces for _, pieces in rows]


@st.composite
def fitting(draw):
    limits = tuple(draw(st.lists(st.integers(1, 12), min_size=1, max_size=3)))
    if len(set(limits)) == 1 and draw(st.booleans()):
        one = draw(SIZES)
        return limits, [(n,) * len(limits) for n in one]
    return limits, draw(st.lists(st.tuples(*(st.integers(0, L) for L in limits)), max_size=30))


@given(fitting())
def test_first_fit_is_the_textbook_one(case):
    limits, sizes = case
    layout = plan(
        np.array(sizes, np.int64).reshape(-1, len(limits)),
        np.array(limits),
        how="first_fit",
        longest_first=False,
    )
    got: list[list[Any]] = [[] for _ in range(layout.rows)]
    for d, a, b, row in zip(layout.document, layout.start, layout.stop, layout.row, strict=True):
        got[row].append((d, a, tuple(b.tolist())))
    assert got == naive_first_fit(sizes, limits)


def test_split_example():
    out, tree = packed(block_of([[5, 6, 7], [], [8, 9]]), Pack(2))
    assert tree["tokens"].tolist() == [[5, 6], [7, 8], [9, 0]]
    assert tree["segment_ids"].tolist() == [[1, 1], [1, 2], [1, 0]]
    assert tree["positions"].tolist() == [[0, 1], [0, 0], [0, 0]]
    assert {name: a.dtype.name for name, a in tree.items()} == {
        "tokens": "int64",
        "segment_ids": "int32",
        "positions": "int32",
    }
    assert keys(out) == [(0, 0, (0,)), (0, 0, (2,)), (0, 2, (1,))]


def test_first_fit_keeps_documents_whole_and_goes_back_to_open_rows():
    docs = [np.full(n, i + 1, np.uint16) for i, n in enumerate([3, 3, 1, 9, 2])]
    out, tree = packed(block_of(docs), Pack(4, "first_fit"))
    assert tree["tokens"].tolist() == [
        [1, 1, 1, 3],
        [2, 2, 2, 4],
        [4, 4, 4, 4],
        [4, 4, 4, 4],
        [5, 5, 0, 0],
    ]
    assert tree["tokens"].dtype == np.uint16
    assert keys(out)[2:4] == [(0, 3, (0,)), (0, 3, (4,))]


def test_fields_of_their_own_lengths_share_segments():
    rows = [
        {"text": np.arange(3) + 1, "image": np.ones(1)},
        {"text": np.arange(2) + 11, "image": np.full(4, 2.0)},
        {"text": np.array([21]), "image": np.zeros(0)},
    ]
    out, tree = packed(block_of(rows), Pack({"text": 4, "image": 4}, "first_fit"))
    assert out.origin.segments is not None
    assert out.origin.segments.stop.tolist() == [3, 1, 2]  # of the first field
    assert tree["text"].tolist() == [[1, 2, 3, 21], [11, 12, 0, 0]]
    assert tree["image"].tolist() == [[1, 0, 0, 0], [2, 2, 2, 2]]
    assert tree["image"].dtype == np.float64
    assert tree["text_segment_ids"].tolist() == [[1, 1, 1, 2], [1, 1, 0, 0]]
    assert tree["image_segment_ids"].tolist() == [[1, 0, 0, 0], [1, 1, 1, 1]]
    assert tree["image_positions"].tolist() == [[0, 0, 0, 0], [0, 1, 2, 3]]


@pytest.mark.parametrize("how", HOWS)
def test_aligned_fields_are_cut_alike(how):
    rows = [{"x": np.arange(n), "y": np.arange(n) * 2} for n in (5, 7, 2)]
    _, tree = packed(block_of(rows), Pack({"x": 4, "y": 4}, how))
    assert (tree["y"] == 2 * tree["x"]).all()
    assert (tree["x_segment_ids"] == tree["y_segment_ids"]).all()


@pytest.mark.parametrize("how", HOWS)
def test_columns_pack_like_their_rows(how):
    a = np.arange(24, dtype=np.int16).reshape(4, 6)
    for lengths, columns in ((5, a), ({"t": 5}, {"t": a})):
        whole, tree = packed(block_of(columns), Pack(lengths, how))
        rows, same = packed(block_of(block_of(columns).rows()), Pack(lengths, how))
        assert digest(tree) == digest(same)
        assert keys(whole) == keys(rows)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("docs", [[], [np.zeros(0, np.int32)] * 3])
def test_no_tokens_make_no_rows(how, docs):
    out = Pack(4, how).apply(block_of(docs), SITE)
    assert len(out) == 0
    assert out.origin.place.shape == (0, 1)


def test_pack_after_flat_map_and_pack_deepens_provenance():
    pieces = FlatMap(lambda d: [d, d + 100], "twice").apply(block_of([np.arange(1, 4)]), SITE)
    once = Pack(2, "split").apply(pieces, SITE)
    assert keys(once) == [(0, 0, (0, 0)), (0, 0, (0, 2)), (0, 0, (1, 1))]
    again = Block([row["tokens"] for row in once.rows()], once.origin)
    out = Pack(4, "split").apply(again, SITE)
    assert keys(out) == [(0, 0, (0, 0, 0)), (0, 0, (1, 1, 0))]
    segments = Block.concat([out, out]).origin.segments
    assert segments is not None
    assert segments.origin.place.shape == (6, 2)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"lengths": 0}, "0 is no number of tokens"),
        ({"lengths": 2.5}, "2.5 is no number of tokens"),
        ({"lengths": {}}, "name at least one field"),
        ({"lengths": 8, "how": "best"}, "choose one of split, first_fit, best_fit"),
        ({"lengths": 8, "block": 0}, "block=0"),
        ({"lengths": {"a": 4, "b": 5}}, "need one length"),
        ({"lengths": {"positions": 4}}, "rename those that collide"),
    ],
)
def test_what_cannot_be_built(args, message):
    with pytest.raises(ChainError, match=message):
        Pack(**args)


@pytest.mark.parametrize(
    ("lengths", "rows", "error", "message"),
    [
        (
            4,
            [{"t": [1]}],
            ChainError,
            r"record 0 of Columns.*the fields \['t'\].*pack\({'t': 2048}",
        ),
        ({"t": 4}, [[1, 2]], ChainError, "is no dict"),
        (
            {"t": 4},
            [{"t": [1], "id": 3}],
            ChainError,
            r"cannot keep the fields \['id'\].*Drop them",
        ),
        ({"t": 4, "u": 4}, [{"t": [1]}], ChainError, r"lengths for \['u'\]"),
        (4, ["text"], CollateError, "has str, not numbers along one axis"),
        (4, [[["a"]]], CollateError, "not numbers along one axis"),
        (4, [np.zeros((2, 2))], CollateError, r"float64\[2, 2\]"),
        (
            4,
            [np.zeros(2, "i4"), [], np.zeros(2, "i8")],
            CollateError,
            "record 0 .*int32, record 2 .*int64",
        ),
        (
            {"t": 4, "u": 4},
            [{"t": [1], "u": [1, 2]}],
            CollateError,
            r"record 0 .*{'t': 1, 'u': 2} tokens.*cut its fields at different tokens",
        ),
    ],
)
def test_rows_that_do_not_pack_are_named(lengths, rows, error, message):
    with pytest.raises(error, match=message) as caught:
        Pack(lengths).apply(block_of(rows), SITE)
    assert caught.value.__notes__ == ["in S"]


def test_first_fit_refuses_to_cut_fields_apart():
    rows = [{"t": [1] * 4, "u": [1]}, {"t": [1] * 5, "u": [1]}]
    with pytest.raises(CollateError, match=r"record 1 .*drop or shorten"):
        Pack({"t": 4, "u": 4}, "first_fit").apply(block_of(rows), SITE)


def test_lengths_are_copied_and_all_options_are_in_the_fingerprint():
    lengths = {"t": 4}
    stage = Pack(lengths)
    lengths["t"] = 5
    assert stage.fields == {"t": 4}
    stages = [
        stage,
        Pack({"t": 5}),
        Pack({"t": 4}, "first_fit"),
        Pack({"t": 4}, block=7),
        Pack({"tokens": 4}),
        Pack(4),
    ]
    assert len({s.fingerprint() for s in stages}) == len(stages)


@pytest.mark.parametrize(
    ("how", "golden"), [("split", "6be448bf73d0436e"), ("first_fit", "6b80ab03105bc8e8")]
)
def test_golden(how, golden):
    sizes = np.random.Generator(np.random.Philox(5)).lognormal(3.5, 1, 60).astype(int).tolist()
    out, tree = packed(block_of(documents_of(sizes)), Pack(128, how))
    assert digest({**tree, "keys": np.array(keys(out), dtype=object)}) == golden
