"""Opens a dataset's stream of batches, once it is checked against hosts, lanes and devices."""

from __future__ import annotations

from pipeline.batches.hosts import nearest
from pipeline.batches.indexed import IndexedStream
from pipeline.batches.stream import Share, Stream
from pipeline.batches.streamed import LaneStream
from pipeline.errors import BatchError, LanesError
from pipeline.nodes import Part
from pipeline.sampling.sizes import Rule
from pipeline.types import ENDLESS
from pipeline.workers.work import Executor


def open_stream(part: Part, executor: Executor, share: Share, rule: Rule) -> Stream:
    """The stream of a dataset's batches for this process.

    Raises:
        BatchError: a batch size fits neither hosts, lanes, devices nor the dataset.
        LanesError: a streamed dataset cannot be shared by so many hosts.
    """
    sizes, remainder, steps = rule
    if not part.streamed:
        stream = IndexedStream(part, executor, share, rule)
        stream.check()
        for _, size in sizes if remainder == "keep" else ():
            _check_last(part.length, size, steps, share)
        return stream
    for _, size in sizes:
        _check_lanes(part, share, size)
    stream = LaneStream(part, executor, share, rule)
    if not (stream.alone or stream.ends_together):
        raise LanesError(
            "a finite counted dataset ends on each host at another step, and the others would wait "
            'forever: with several hosts give steps=, remainder="pad", or .repeat()'
        )
    return stream


def _check_last(n: int, size: int, steps: int | None, share: Share) -> None:
    # whether every process gets rows of the last batch of a pass
    short = 0 if n >= ENDLESS or (steps is not None and steps * size <= n) else n % size
    if short:
        try:
            share.rows(short)
        except BatchError as e:
            raise BatchError(
                f"a pass of {n} rows ends with a batch of {short}, which does not split over the "
                'hosts or devices. Use remainder="drop", remainder="pad" or .repeat().'
            ) from e


def _check_lanes(part: Part, share: Share, size: int) -> None:
    if size % part.lanes:
        raise BatchError(
            f"batch_size={size} does not split over lanes={part.lanes}. "
            f"Nearest: {nearest(size, part.lanes)}."
        )
    hosts = getattr(share, "hosts", 1)
    if part.lanes % hosts:
        what = part.node.counter
        fits = [str(h) for h in range(1, part.lanes + 1) if part.lanes % h == 0]
        raise LanesError(
            f"{what} makes {hosts=} need {hosts} lanes; this dataset has {part.lanes} (saved "
            f"states depend on it). New run: .lanes({hosts}). Resuming: {', '.join(fits)} hosts."
        )
