"""Which stream of batches a loader reads: checked against its hosts, lanes and devices."""

from __future__ import annotations

from pipeline.batches.hosts import HostShare, check_end, check_even, check_lanes
from pipeline.batches.streams import CountedStream, IndexedStream, Share, Stream
from pipeline.nodes import Part
from pipeline.sampling.sizes import SizedPasses, Sizes
from pipeline.workers.work import Executor


def open_stream(
    chain: Part, executor: Executor, share: Share, sizes: Sizes, remainder: str, steps: int | None
) -> Stream:
    """The stream of a chain's batches for this process.

    Raises:
        BatchError: the batch size fits neither hosts, lanes, devices nor the dataset.
        LanesError: a counted dataset cannot be shared by so many hosts.
    """
    for _, size in sizes:
        share.rows(size)  # a batch that fits no devices is refused here, not at the first step
    if not chain.streamed:
        passes = SizedPasses.of(sizes, chain.length, remainder == "drop", steps)
        passes.check()
        if not isinstance(share, HostShare) and remainder == "keep":
            for _, part in passes.parts:
                check_even(part, share)
        return IndexedStream(chain, executor, share, passes, remainder == "pad")
    for _, size in sizes:
        check_lanes(chain, share, size)
    stream = CountedStream(chain, executor, share, sizes=sizes, remainder=remainder, steps=steps)
    check_end(stream)
    return stream
