"""What holds of every stream of batches: each stream's own file of tests runs it through these."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from pipeline import Dataset
from pipeline.batches.hosts import HostShare
from pipeline.batches.opening import open_stream
from pipeline.batches.stream import Stream, Take
from pipeline.checkpoint.position import Position
from pipeline.sampling.cursor import Cursor
from pipeline.sampling.sizes import sizes_of
from pipeline.workers.serial import Serial
from tests.nodes.checks import same

PASSES = 2
STEPS = 7  # of a pass that does not end before


def opened(ds: Dataset, size: Any, remainder: str = "keep", **options: Any) -> Stream:
    """The stream of one process; options: `steps`, `host`, `hosts`."""
    share = HostShare(options.get("host", 0), options.get("hosts", 1))
    executor = Serial().open(ds.top, ahead=1 << 24, stack=True)
    return open_stream(ds.top, executor, share, (sizes_of(size), remainder, options.get("steps")))


def walked(stream: Stream, passes: int = PASSES) -> list[tuple[Cursor, Take]]:
    """The cursors of some passes, each with its batch."""
    cursor, found = stream.start(), list[tuple[Cursor, Take]]()
    for epoch in range(passes):
        assert cursor.epoch == epoch
        for _ in range(STEPS):
            take = stream.take(cursor)
            if take is None:
                break
            found.append((cursor, take))
            cursor = take.after
            if cursor.epoch > epoch:
                break
        else:
            return found
        if cursor.epoch == epoch:
            cursor = stream.turn(cursor)
    return found


def check_stream(ds: Dataset, size: Any, remainder: str = "keep", **options: Any) -> None:
    """A batch is a function of its cursor, and every way to a cursor leads to the same one."""
    stream = opened(ds, size, remainder, **options)
    steps = walked(stream)
    assert [cursor.step for cursor, _ in steps] == list(range(len(steps)))
    for (_, take), (cursor, _) in pairwise(steps):
        assert take.after.rows == cursor.rows
    for cursor, take in reversed(steps):  # in any order
        again = stream.take(cursor)
        assert again is not None
        same(again.block, take.block)
        same(stream.origin(cursor), take.block.origin)
        assert again.slots.tolist() == take.slots.tolist()
        _check_ways(stream, cursor, steps)
    _check_origins(stream, steps)
    if stream.per_pass is not None and len(steps) > stream.per_pass:
        assert {c.step for c, _ in steps if not c.batch} == {
            k for k in range(len(steps)) if k % stream.per_pass == 0
        }


def _check_ways(stream: Stream, cursor: Cursor, steps: list[tuple[Cursor, Take]]) -> None:
    def alike(other: Cursor) -> None:
        there = stream.take(other)
        wanted = steps[cursor.step][1]
        if there is None:  # the end of a pass and the start of the next are one place
            there = stream.take(stream.turn(other))
        assert there is not None
        same(there.block, wanted.block)

    alike(stream.locate(cursor.step))
    alike(stream.jump(stream.start(), cursor.step) if not cursor.epoch else cursor)
    far = stream.advance(stream.start(), cursor.step)
    assert far.step == cursor.step or far.epoch == 1
    alike(stream.at(Position(cursor)).locate(cursor.step))


def _check_origins(stream: Stream, steps: list[tuple[Cursor, Take]]) -> None:
    # of all rows of some steps at once
    whole = [take.block.origin for _, take in steps]
    if sum(map(len, whole)) != sum(take.total for _, take in steps):
        return  # other hosts have rows, or there is padding
    found = list(stream.origins(0, len(steps)))
    numbers = np.concatenate([at for at, _ in found]).tolist()
    assert numbers == sorted(numbers)
    records = [r for _, origin in found for r in origin.record.tolist()]
    for k, origin in enumerate(whole):
        there = [r for at, r in zip(numbers, records, strict=True) if at == k]
        assert sorted(there) == sorted(origin.record.tolist())


def check_hosts(ds: Dataset, size: int, hosts: int, **options: Any) -> None:
    """The hosts' parts are disjoint, and together they are the batch of one host."""
    alone = walked(opened(ds, size, **options))
    parts = [walked(opened(ds, size, host=h, hosts=hosts, **options)) for h in range(hosts)]
    assert {len(part) for part in parts} == {len(alone)}
    for k, (_, whole) in enumerate(alone):
        takes = [part[k][1] for part in parts]
        rows = [r for take in takes for r in take.rows.tolist()]
        assert sorted(rows) == sorted(whole.rows.tolist())
        assert len(set(rows)) == len(rows)
        assert {take.total for take in takes} == {whole.total}
        given = sorted(r for take in takes for r in take.block.origin.record.tolist())
        assert given == sorted(whole.block.origin.record.tolist())
