"""Whether a transform keeps its contract: it is pure, picklable, and right about provenance."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cloudpickle
import numpy as np

from pipeline.block import Block, Columns, Int64s, Origin, Segments
from pipeline.debug.digest import digest
from pipeline.types import Component, Site, Transform


def check_transform(transform: Transform, block: Block, site: Site | None = None) -> None:
    """Apply a transform to a block and to parts of it, and check what the library relies on.

    It must return the same rows each time, leave its input unchanged, survive cloudpickle, and keep
    its fingerprint. A transform that is not counted must keep the number and provenance of rows,
    and treat each row alone. A counted one must give each row a provenance of its own, which
    extends that of an input row.

    Args:
        transform: the one to check.
        block: input rows with distinct provenances, whose values `digest` accepts.
        site: where the transform stands; by default at positions 0 to n - 1 of plain components.

    Raises:
        AssertionError: it breaks a rule; the message says which.

    >>> from pipeline.transforms import Map
    >>> record = np.arange(3)
    >>> block = Block([1, 2, 3], Origin.of_records(0, np.zeros_like(record), record))
    >>> check_transform(Map(lambda x: x + 1, "next"), block)
    """
    site = site or _site_of(block)
    before = _print(block)
    out = transform.apply(block, site)
    _expect(_print(block) == before, "apply changed its input block")
    _expect(len(out.values) == len(out.origin), "rows and provenance differ in number")
    _expect(_print(transform.apply(block, site)) == _print(out), "two calls gave different rows")
    copy = cloudpickle.loads(cloudpickle.dumps(transform))
    _expect(_print(copy.apply(block, site)) == _print(out), "a pickled copy gave different rows")
    _expect(copy.fingerprint() == transform.fingerprint(), "a pickled copy's fingerprint differs")
    _expect(len(_part(transform, block, site, np.arange(0))) == 0, "no rows became some")
    if transform.counted:
        _check_counted(block.origin, out.origin)
    else:
        _check_rowwise(transform, block, site, out)


def _expect(kept: bool, otherwise: str) -> None:
    if not kept:
        raise AssertionError(otherwise)


def _site_of(block: Block) -> Site:
    source = Columns(np.arange(1))
    count = int(block.origin.component.max(initial=0)) + 1
    names = [()] if count == 1 else [(str(i),) for i in range(count)]
    components = tuple(Component(name, source) for name in names)
    return Site(0, (), components, "the checked stage", np.arange(len(block)))


def _origin_tree(origin: Origin) -> dict[str, Any]:
    tree = {name: getattr(origin, name) for name in ("component", "epoch", "record", "place")}
    for name in ("segments", "beside"):
        s: Segments | None = getattr(origin, name)
        if s is not None:
            spans = {"bounds": s.bounds, "start": s.start, "stop": s.stop}
            tree[name] = spans | {"origin": _origin_tree(s.origin)}
    return tree


def _print(block: Block) -> str:
    return digest({"rows": block.rows(), "origin": _origin_tree(block.origin)})


def _part(transform: Transform, block: Block, site: Site, chosen: Int64s) -> Block:
    index = None if site.index is None else site.index[chosen]
    return transform.apply(block.take(chosen), replace(site, index=index))


def _check_rowwise(transform: Transform, block: Block, site: Site, out: Block) -> None:
    n = len(block)
    same = digest(_origin_tree(out.origin)) == digest(_origin_tree(block.origin))
    _expect(same, "a transform that is not counted must keep the rows' provenance and number")
    order, half = np.arange(n), n // 2
    for chosen in ([order[i : i + 1] for i in range(n)], [order[:half], order[half:]]):
        parts = [_part(transform, block, site, part) for part in chosen] or [out]
        _expect(_print(Block.concat(parts)) == _print(out), "rows depend on how they are grouped")
    back = _part(transform, block, site, order[::-1])
    _expect(_print(back.take(order[::-1])) == _print(out), "rows depend on their order")


def _keys(origin: Origin, depth: int) -> list[tuple[int, ...]]:
    place = origin.place[:, :depth]
    table = np.column_stack([origin.component, origin.epoch, origin.record, place])
    return [tuple(row) for row in table.tolist()]


def _check_counted(below: Origin, above: Origin) -> None:
    depth = below.place.shape[1]
    known = set(_keys(below, depth))
    own = _keys(above, above.place.shape[1])
    _expect(len(set(own)) == len(own), "two rows have one provenance: add a place for each")
    _expect(set(_keys(above, depth)) <= known, "a row's provenance is not that of an input row")
    if above.segments is not None:
        cut = set(_keys(above.segments.origin, depth))
        _expect(cut <= known, "a segment's provenance is not that of an input row")
