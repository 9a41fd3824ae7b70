"""What holds of every node, whatever it is: each node's own file of tests runs it through these."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from pipeline import Dataset
from pipeline.block import Block, Origin
from pipeline.checkpoint.state import freeze, thaw
from pipeline.nodes.node import Span
from pipeline.nodes.now import _Now  # pyright: ignore[reportPrivateUsage]
from pipeline.nodes.part import Part
from pipeline.nodes.streamed import Reader
from pipeline.sampling.order import NoInverseError
from pipeline.tree import leaves
from pipeline.types import ENDLESS, At
from pipeline.workers import sending

EPOCHS = 3
JUNK: list[Any] = [None, 3, "ab", (), (0,), ("a", 0), (0.5, 0), (0, 0, 0, 0), [[0], [0]]]


# ---- indexed


def check_indexed(ds: Dataset) -> None:
    """Rows, provenance and positions of an indexed dataset agree, however one asks for them."""
    part, rows = ds.top, min(ds.top.length, 60)
    at = At.of_rows(_rows_of_epochs(part.length, rows), part.length)
    whole = part.read(at)
    same(part.origin(at), whole.origin)
    for which in _groups(len(whole)):
        some = at.take(which)
        same(part.read(some), whole.take(which))
        same(part.origin(some), whole.origin.take(which))
        _same_stacked(part, some, whole.take(which))
    same(_sent(part).read(at), whole)
    _check_components(part, whole.origin)
    _check_epochs(part, rows)
    if part.length == rows:
        _check_positions(part)


def _sent(part: Part) -> Part:
    # as a worker has it
    sent = sending.dumps(part, False)
    there, _ = sending.loads(sent.data, sent.buffers)
    assert there.fingerprint() == part.fingerprint()
    return there


def _rows_of_epochs(length: int, rows: int) -> Any:
    epochs = range(EPOCHS if length < ENDLESS else 1)
    return np.concatenate([epoch * length + np.arange(rows) for epoch in epochs])


def _groups(n: int) -> Iterator[Any]:
    rng = np.random.default_rng(0)
    yield np.zeros(0, np.int64)
    yield np.array([n - 1])
    yield np.arange(n)[::-1].copy()
    for size in (2, n // 2, n):
        yield rng.permutation(n)[:size]
    yield rng.integers(0, n, 7)  # repeats among them


def _same_stacked(part: Part, at: At, block: Block) -> None:
    stacked = part.read_stacked(at, np.empty)
    same(stacked.origin, block.origin)
    for one, other in zip(stacked.rows(), block.rows(), strict=True):
        assert digest(one) == digest(other)


def _check_components(part: Part, origin: Origin) -> None:
    components = part.components
    assert len({c.path for c in components}) == len(components)
    for c, record in zip(origin.component.tolist(), origin.record.tolist(), strict=True):
        assert 0 <= record < len(components[c].source)


def _check_epochs(part: Part, rows: int) -> None:
    # what says that epochs are alike is believed by scans and caches
    later_epoch = EPOCHS if part.length < ENDLESS else 0
    first, later = (
        part.read(At.of_rows(epoch * part.length + np.arange(rows), part.length))
        for epoch in (0, later_epoch)
    )
    alike = [digest(a) == digest(b) for a, b in zip(first.rows(), later.rows(), strict=True)]
    if part.node.varies() is None:
        assert all(alike)
    assert part.node.random_orders == any(True for _ in part.node.orders(part.scope))


def _check_positions(part: Part) -> None:
    # where records stand, beside a look at every row
    for order in range(EPOCHS):
        at = At.of_rows(order * part.length + np.arange(part.length), part.length)
        there = [set[Any](spans) for spans in records_of(part, part.origin(at))]
        for span in sorted({span for spans in there for span in spans}):
            try:
                found = part.positions([span], order, 0, part.length)
            except NoInverseError:
                return
            wanted = [i for i, spans in enumerate(there) if span in spans]
            assert sorted(set(found.tolist())) == wanted, (span, order)


# ---- streamed


def check_streamed(ds: Dataset, rows: int = 50) -> None:
    """Lanes of a streamed dataset are the same however they are read, and go on from any place."""
    part = ds.top
    for lane in range(part.lanes):
        reader = reader_of(part)
        whole, places = _one_by_one(reader, lane, rows)
        for step in (1, 3, 7):
            assert _digests(_pulled(part, lane, reader.start(), step, rows)) == whole
        for i in range(0, len(places), 5):
            place = freeze(json.loads(json.dumps(thaw(places[i]))))
            reader_of(part).check(place)
            rest = _digests(_pulled(part, lane, place, 4, rows - i))
            assert rest == whole[i : i + len(rest)]
        _check_has(part, lane, places)
        _check_blocks(part, lane, places[-1])
    _sent(part)
    for junk in JUNK:
        _refuses(reader_of(part), junk)


def reader_of(part: Part) -> Reader:
    """A reader that evaluates each block when its rows are asked for."""
    return part.reader(lambda names, lane, number, urgent: _Now(part, names, lane, number))


def _one_by_one(reader: Reader, lane: int, rows: int) -> tuple[list[str], list[Any]]:
    # digests of the rows of the first pass, and the place before each
    place, found, places = reader.start(), list[str](), list[Any]()
    while len(found) < rows:
        places.append(place)
        blocks, place = reader.pull(lane, place, 0, 1)
        if not blocks:
            break
        found += _digests(blocks)
        reader.keep(lane, place)
    return found, places


def _pulled(part: Part, lane: int, place: Any, step: int, rows: int) -> list[Block]:
    reader, found, got = reader_of(part), list[Block](), step
    while got == step and rows > 0:
        want = min(step, rows)
        blocks, place = reader.pull(lane, place, 0, want)
        got = sum(map(len, blocks))
        found, rows = found + blocks, rows - got
    return found


def _check_has(part: Part, lane: int, places: list[Any]) -> None:
    reader = reader_of(part)
    for want in (1, 2, 5):
        blocks, _ = reader_of(part).pull(lane, places[0], 0, want)
        assert reader.has(lane, places[0], 0, want) == (sum(map(len, blocks)) == want)


def _check_blocks(part: Part, lane: int, place: Any) -> None:
    # a block is a function of its number, and holds the records that it says
    spots = list(reader_of(part).spots(lane, place, 0))
    assert spots
    for spot in spots:
        assert 0 < spot.share <= 1
        assert spot.number >= 0
    if part.stream.late:
        return
    for component in part.components:
        names = component.path if any(component.path) else ()
        try:
            blocks = [part.read_block(names, lane, number) for number in (1, 0, 1)]
        except KeyError:  # the name of a join beneath, not of a mix
            return
        same(blocks[0], blocks[2])
        beneath = set(records_flat(part, part.block_origin(names, lane, 1)))
        assert set(records_flat(part, blocks[0].origin)) <= beneath


def _refuses(reader: Reader, junk: Any) -> None:
    try:
        reader.check(junk)
    except (TypeError, ValueError):
        return
    raise AssertionError(f"{junk!r} passes as a place")


# ---- sameness


def same(one: Any, other: Any) -> None:
    """Two blocks or two origins hold the same, bit for bit."""
    if isinstance(one, Block):
        assert _digests([one]) == _digests([other])
        one, other = one.origin, other.origin
    assert _arrays(one) == _arrays(other)


def digest(row: Any) -> str:
    """A row as text: structure, dtypes, shapes and bytes."""
    found = [
        (name, str(np.asarray(a).dtype), np.shape(a), np.asarray(a).tolist())
        for name, a in leaves(row)
    ]
    return repr(found)


def _digests(blocks: list[Block]) -> list[str]:
    return [digest(row) for block in blocks for row in block.rows()]


def _arrays(origin: Origin) -> list[Any]:
    # a column of places, or segments, that none of the rows has says nothing
    found = [a.tolist() for a in (origin.component, origin.epoch, origin.record)]
    found.append([[at for at in row if at >= 0] for row in origin.place.tolist()])
    for segments in (origin.segments, origin.beside):
        if segments is not None and len(segments.start):
            bounds = (segments.bounds - segments.bounds[0]).tolist()
            found += [bounds, segments.start.tolist(), segments.stop.tolist()]
            found += _arrays(segments.origin)
    return found


def records_of(part: Part, origin: Origin) -> Iterator[list[Span]]:
    """For each row the records that it was made of, those of packs and zips included."""
    for i in range(len(origin)):
        yield records_flat(part, origin.take(np.array([i])))


def records_flat(part: Part, origin: Origin) -> list[Span]:
    """The records that some rows were made of."""
    found = list[Span]()
    for inside in (origin.segments, origin.beside):
        if inside is not None:
            found += records_flat(part, inside.origin)
    if origin.segments is None:
        names = ["/".join(c.path) for c in part.components]
        pairs = zip(origin.component.tolist(), origin.record.tolist(), strict=True)
        found += [(names[c], record, record + 1) for c, record in pairs]
    return found
