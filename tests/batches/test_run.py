"""Batches ahead of the loop come once each and in order, and an error waits for its turn."""

from __future__ import annotations

from itertools import product

import pytest

from pipeline import Dataset
from pipeline.batches.run import Made, Run
from pipeline.batches.stream import Stream
from pipeline.checkpoint.position import Position
from pipeline.sampling.cursor import Cursor
from tests.batches.checks import opened


def _run(ds: Dataset, prefetch: int, position: Position | None = None, fails: int = -1) -> Run:
    stream = opened(ds, 4)
    position = position or Position(stream.start())

    def make(stream: Stream, cursor: Cursor) -> Made | None:
        if cursor.step == fails:
            raise RuntimeError("step 3 is broken")
        take = stream.take(cursor)
        return None if take is None else Made(take.block.rows(), len(take.block), 0, take.after)

    return Run(stream.at(position), position, make, prefetch)


def _handed_out(run: Run, passes: int, *, across: bool = False) -> list[list[list[int]]]:
    found: list[list[list[int]]] = []
    for _ in range(passes):
        batches = list[list[int]]()
        epoch = run.position.cursor.epoch
        while run.position.cursor.epoch == epoch and run.fill(across=across):
            made, run.position = run.ready.popleft()
            batches.append(made.batch)
        found.append(batches)
    return found


@pytest.mark.parametrize(("n", "prefetch"), list(product([4, 8, 10], [0, 1, 2, 9])))
def test_the_same_batches_whatever_is_made_ahead(n: int, prefetch: int) -> None:
    passes = _handed_out(_run(Dataset(range(n)), prefetch), 3)
    whole = [list(range(i, min(n, i + 4))) for i in range(0, n, 4)]
    assert passes == [whole] * 3


@pytest.mark.parametrize("prefetch", [0, 1, 5])
def test_an_error_ahead_waits_until_its_batch_is_asked_for(prefetch: int) -> None:
    run = _run(Dataset(range(20)), prefetch, fails=3)
    for step in range(3):
        assert run.fill(across=False)
        made, run.position = run.ready.popleft()
        assert made.batch[0] == 4 * step
    for _ in range(2):
        with pytest.raises(RuntimeError, match="broken"):
            run.fill(across=False)
    assert run.position.cursor.step == 3


@pytest.mark.parametrize("prefetch", [0, 3])
@pytest.mark.parametrize("skipped", [(0, 1), (1, 3), (4, 5), (3, 7), (0, 5), (2, 12)])
def test_skipped_steps_are_passed_over(prefetch: int, skipped: tuple[int, int]) -> None:
    stream = opened(Dataset(range(20)), 4)
    position = Position(stream.start()).skipping((skipped,), stream.rule)
    run = _run(Dataset(range(20)), prefetch, position)
    given = list[int]()
    while len(given) < 8:
        if not run.fill(across=True):
            continue
        made, run.position = run.ready.popleft()
        given.append(made.after.step - 1)
    assert given == [k for k in range(40) if not skipped[0] <= k < skipped[1]][:8]


def test_cancel_drops_what_is_ready() -> None:
    run = _run(Dataset(range(40)), 5)
    run.fill(across=False)
    assert len(run.ready) == 6
    run.cancel()
    assert not run.ready
    assert _handed_out(run, 1)[0][0] == [0, 1, 2, 3]
