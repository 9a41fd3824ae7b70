"""Pack: every token once and in order, in rows that say where each came from."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline import Dataset
from pipeline.block import Block, Columns, Segments
from pipeline.debug.digest import digest
from pipeline.errors import ChainError, CollateError
from pipeline.transforms import FlatMap, Pack
from pipeline.transforms.packers import HOWS, LONGER, plan
from tests.examples import examples

from .making import SITE, block_of, keys
from .slow_packer import slow_plan

SIZES = st.lists(st.integers(0, 25), max_size=30)
PLAIN: dict[str, Any] = {
    "how": "split",
    "cross": True,
    "longest_first": True,
    "max_segments": None,
    "longer": "split",
}
RULES = st.fixed_dictionaries(
    {
        "how": st.sampled_from(HOWS),
        "cross": st.booleans(),
        "longest_first": st.booleans(),
        "max_segments": st.none() | st.integers(1, 4),
        "longer": st.sampled_from(LONGER),
    }
)


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


@st.composite
def planned(draw):
    """Limits, sizes of documents and the rule to pack them by."""
    limits = tuple(draw(st.lists(st.integers(1, 12), min_size=1, max_size=3)))
    rule = draw(RULES)
    apart = rule["how"] == "split" and rule["cross"]
    if len(set(limits)) == 1 and (apart or draw(st.booleans())):
        sizes = st.lists(st.integers(0, draw(st.sampled_from([2, 25]))), max_size=30)
        return limits, [(n,) * len(limits) for n in draw(sizes)], rule
    if apart:
        rule["cross"] = False
    most = 20 if rule["longer"] == "truncate" else 0
    fields = (st.integers(0, max(L, most)) for L in limits)
    return limits, draw(st.lists(st.tuples(*fields), max_size=30)), rule


@examples(90)
@given(planned())
@example(((9,), [(1,), (0,), (2,), (1,), (3,), (1,)], {**PLAIN, "max_segments": 2}))
@example(((4,), [(4,), (0,), (1,), (9,), (4,)], {**PLAIN, "how": "first_fit"}))
@example(((4,), [(4,), (0,), (1,), (9,), (4,)], {**PLAIN, "how": "split", "cross": False}))
def test_plans_are_those_of_the_definitions(case):
    limits, sizes, rule = case
    lengths = np.array(sizes, np.int64).reshape(-1, len(limits))
    layout = plan(lengths, limits, **rule)
    got: list[list[Any]] = [[] for _ in range(layout.rows)]
    for d, a, b, row in zip(layout.document, layout.start, layout.stop, layout.row, strict=True):
        got[row].append((d, a, tuple(b.tolist())))
    assert got == slow_plan(sizes, limits, **rule)
    offset = layout.offset.tolist()
    for i, row in enumerate(layout.row.tolist()):
        here = [j for j in range(i) if layout.row[j] == row]
        assert offset[i] == layout.sizes[here].sum(0).tolist()
    tokens = sum(sum(map(min, n, limits) if rule["longer"] != "split" else n) for n in sizes)
    room = layout.rows * sum(limits)
    assert layout.padding(np.array(limits)) == (1 - tokens / room if room else 0.0)


def test_longest_first_and_best_fit_pad_less():
    rng = np.random.Generator(np.random.Philox(1))
    sizes = rng.lognormal(5.7, 1, (8, 256)).astype(np.int64) + 1

    def rows(how: str, longest_first: bool) -> int:
        return sum(plan(s, 2048, how=how, longest_first=longest_first).rows for s in sizes)

    assert rows("best_fit", False) < rows("first_fit", False)
    assert rows("first_fit", True) < rows("first_fit", False)
    assert rows("best_fit", True) <= rows("first_fit", True)


@pytest.mark.parametrize("how", HOWS)
@given(
    sizes=SIZES,
    limit=st.integers(1, 12),
    marks=st.tuples(*[st.none() | st.integers(100, 101)] * 2),
    cross=st.booleans(),
)
def test_marks_are_tokens_like_others(how, sizes, limit, marks, cross):
    """bos= and eos= give what documents give that hold them already."""
    docs = documents_of(sizes)
    before, after = ([] if m is None else [m] for m in marks)
    whole = [np.array([*before, *d, *after] if len(d) else [], np.int32) for d in docs]
    stage = Pack(limit, how, cross=cross, bos=marks[0], eos=marks[1])
    out, tree = packed(block_of(docs), stage)
    plain, expected = packed(block_of(whole), Pack(limit, how, cross=cross))
    assert digest(tree) == digest(expected)
    assert keys(out) == keys(plain)
    s, whole_s = (b.origin.segments or Segments.none(0) for b in (out, plain))
    for k in range(len(s.start)):
        size = sizes[int(s.origin.record[k])]
        for own, marked in ((s.start, whole_s.start), (s.stop, whole_s.stop)):
            assert own[k] == min(max(marked[k] - len(before), 0), size)


def test_marks_differ_by_field_and_are_cut_with_what_is_too_long():
    rows = [{"x": np.arange(1, 3), "y": np.arange(5, 10)}]
    lengths = {"x": 4, "y": 4}
    stage = Pack(lengths, "first_fit", longer="truncate", bos={"x": 90, "y": 91}, eos={"x": 80})
    _, tree = packed(block_of(rows), stage)
    assert tree["x"].tolist() == [[90, 1, 2, 80]]
    assert tree["y"].tolist() == [[91, 5, 6, 7]]


@pytest.mark.parametrize("how", HOWS)
def test_meta_has_one_value_a_segment(how):
    rows = [
        {"t": np.ones(n, np.int32), "id": f"d{n}", "w": n / 2, "at": np.array([n, -n])}
        for n in (3, 0, 5, 1, 1)
    ]
    meta = ("id", "w", "at")
    out, tree = packed(block_of(rows), Pack({"t": 4}, how, meta=meta))
    padded, fixed = packed(block_of(rows), Pack({"t": 4}, how, meta=meta, max_segments=5))
    s = out.origin.segments
    assert s is not None
    assert len(padded) == len(out)
    for row in range(len(out)):
        here = slice(int(s.bounds[row]), int(s.bounds[row + 1]))
        used = [rows[r] for r in s.origin.record[here].tolist()]
        assert tree["id"][row].tolist() == [r["id"] for r in used]
        assert tree["w"][row].tolist() == [r["w"] for r in used]
        assert tree["at"][row].tolist() == [r["at"].tolist() for r in used]
        none = 5 - len(used)
        assert fixed["id"][row].tolist() == [r["id"] for r in used] + [None] * none
        assert fixed["w"][row].tolist() == [r["w"] for r in used] + [0.0] * none
        assert fixed["at"][row].tolist() == [r["at"].tolist() for r in used] + [[0, 0]] * none
    columns = block_of({"t": np.ones((3, 2)), "n": np.arange(3)})
    _, tree = packed(columns, Pack({"t": 4}, how, meta=["n"], max_segments=2))
    assert sorted(tree["n"].ravel().tolist()) == [0, 0, 1, 2]


def test_what_is_longer_than_a_row_is_cut_shortened_or_refused():
    docs = block_of([np.arange(1, 7), np.arange(7, 9)])
    for how in HOWS:
        _, tree = packed(docs, Pack(4, how, longer="truncate"))
        assert sorted(tree["tokens"].ravel().tolist()) == [0, 0, 1, 2, 3, 4, 7, 8]
        with pytest.raises(CollateError, match=r"record 0 .*{'tokens': 6} .*longer='refuse'"):
            Pack(4, how, longer="refuse").apply(docs, SITE)
        Pack(6, how, longer="refuse").apply(docs, SITE)
        with pytest.raises(CollateError, match=r"record 0 .*{'tokens': 7} "):
            Pack(6, how, longer="refuse", bos=1).apply(docs, SITE)


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
    out, tree = packed(block_of(docs), Pack(4, "first_fit", longest_first=False))
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
    stage = Pack({"text": 4, "image": 4}, "first_fit", longest_first=False)
    out, tree = packed(block_of(rows), stage)
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
        ({"lengths": 8, "longer": "drop"}, "choose one of split, truncate, refuse"),
        ({"lengths": 8, "max_segments": 0}, "max_segments=0"),
        ({"lengths": 8, "bos": 1.5}, "bos=1.5: give a whole number"),
        ({"lengths": 8, "eos": True}, "eos=True: give a whole number"),
        ({"lengths": {"a": 8}, "eos": {"b": 2}}, r"\['b'\] are not packed, only \['a'\]"),
        ({"lengths": 8, "meta": ["id"]}, "give the field to pack its length by name"),
        ({"lengths": {"a": 8}, "meta": "id"}, r"give names, as in meta=\['id'\]"),
        ({"lengths": {"a": 8}, "meta": ["a"]}, r"\['a'\] would be there twice"),
        ({"lengths": {"a": 8}, "meta": ["x", "x"]}, "would be there twice"),
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
            r"what to do with the fields \['id'\].*meta=.*drop them",
        ),
        ({"t": 4, "u": 4}, [{"t": [1]}], ChainError, r"wants the fields \['u'\]"),
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


def test_marks_that_tokens_cannot_hold_are_refused():
    docs = block_of([np.arange(3, dtype=np.uint8)])
    with pytest.raises(ChainError, match=r"bos=256.*'tokens' .*uint8.*wider dtype"):
        Pack(4, bos=256).apply(docs, SITE)
    Pack(4, eos=255).apply(docs, SITE)


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
        Pack(4, cross=False),
        Pack(4, "first_fit"),
        Pack(4, "first_fit", longest_first=False),
        Pack(4, "best_fit"),
        Pack(4, max_segments=3),
        Pack(4, longer="truncate"),
        Pack(4, longer="refuse"),
        Pack(4, bos=1),
        Pack(4, eos=1),
        Pack(4, bos={"tokens": 2}),
        Pack({"t": 4}, meta=["id"]),
    ]
    assert len({s.fingerprint() for s in stages}) == len(stages)
    assert Pack(4, longest_first=False).fingerprint() == Pack(4).fingerprint()
    assert Pack(4, bos={"tokens": 1}).fingerprint() == Pack(4, bos=1).fingerprint()


@pytest.mark.parametrize(
    ("stage", "golden"),
    [
        (Pack(128, "split"), "6be448bf73d0436e"),
        (Pack(128, "first_fit", longest_first=False), "6b80ab03105bc8e8"),
    ],
)
def test_golden(stage, golden):
    sizes = np.random.Generator(np.random.Philox(5)).lognormal(3.5, 1, 60).astype(int).tolist()
    out, tree = packed(block_of(documents_of(sizes)), stage)
    assert digest({**tree, "keys": np.array(keys(out), dtype=object)}) == golden


def test_fingerprints_are_what_they_were_where_data_is():
    assert Pack(4).fingerprint() == "pack pack 847f6330"
    old = Pack({"t": 4}, "first_fit", 7, "p", longest_first=False)
    assert old.fingerprint() == "pack p 0d113f1c"


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, ml_dtypes.float8_e5m2, ml_dtypes.int4])
def test_other_numbers_pack(dtype):
    rows = Dataset([np.ones(3, dtype)] * 2).pack(4, bos=2).head(2)
    assert rows[0]["tokens"].dtype == dtype
    assert rows[0]["tokens"].astype(int).tolist() == [2, 1, 1, 1]


@pytest.mark.parametrize(
    ("rows", "lengths"),
    [
        (["some text"], 4),
        ([b"some text"], 4),
        ([{"text": "some text"}], {"text": 4}),
        ([{"text": "some text"}], 4),
        ([{"text": "some text"}], {"tokens": 4}),
    ],
)
def test_text_is_to_be_tokenized_first(rows, lengths):
    with pytest.raises((ChainError, CollateError), match=r"Tokenize .*first"):
        Dataset(rows).pack(lengths).head(1)


def test_names_that_packing_adds_are_refused_only_where_they_meet():
    row = {"tokens": np.arange(3), "segment_ids": np.arange(3)}
    with pytest.raises(ChainError, match="would be there twice"):
        Dataset([row]).pack({"tokens": 4}, meta=["segment_ids"])
    with pytest.raises(ChainError, match="rename those that collide"):
        Dataset([row]).pack({"segment_ids": 4})
    both = Dataset([row]).pack({"tokens": 4, "segment_ids": 4}).head(1)[0]
    assert "tokens_segment_ids" in both
    assert "tokens" in Dataset([{"tokens": np.arange(3)}]).pack({"tokens": 4}).head(1)[0]
