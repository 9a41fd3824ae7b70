"""Which stream of batches a loader reads: checked against its hosts, lanes and devices."""

from __future__ import annotations

from pipeline.chain import Chain
from pipeline.hosts import HostShare, check_end, check_even, check_lanes
from pipeline.sampling.passes import Passes
from pipeline.streams import CountedStream, IndexedStream, Share, Stream
from pipeline.workers.work import Executor


def open_stream(
    chain: Chain, executor: Executor, share: Share, size: int, remainder: str, steps: int | None
) -> Stream:
    """The stream of a chain's batches for this process.

    Raises:
        BatchError: the batch size fits neither hosts, lanes, devices nor the dataset.
        LanesError: a counted dataset cannot be shared by so many hosts.
    """
    share.rows(size)  # a batch that fits no devices is refused here, not at the first step
    if not chain.counted:
        passes = Passes(chain.length, size, remainder == "drop", steps)
        passes.check()
        if not isinstance(share, HostShare) and remainder == "keep":
            check_even(passes, share)
        return IndexedStream(chain, executor, share, passes, remainder == "pad")
    check_lanes(chain, share, size)
    stream = CountedStream(
        chain, executor, share, batch_size=size, remainder=remainder, steps=steps
    )
    check_end(stream)
    return stream
