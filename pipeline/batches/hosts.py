"""Which rows of the global batch are this process's: by hand, by a feed, or all of them."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np

from pipeline.batches.streams import CountedStream, Share
from pipeline.block import Int64s
from pipeline.checks import whole
from pipeline.errors import BatchError, FeedError, HostsError, LanesError
from pipeline.nodes import Part
from pipeline.sampling.passes import Passes
from pipeline.sampling.sizes import Sizes
from pipeline.types import ENDLESS, Feed


@dataclass(frozen=True, slots=True)
class HostShare:
    """Rows of a global batch by hand: host h of H has the h-th of H near-equal runs."""

    host: int
    hosts: int

    def rows(self, batch: int) -> Int64s:
        return np.arange(self.host * batch // self.hosts, (self.host + 1) * batch // self.hosts)


def share_of(feed: Feed | None, host: int | None, hosts: int | None, sizes: Sizes) -> Share:
    if feed is not None:
        if host is not None or hosts is not None:
            raise HostsError(
                f"{host=}, {hosts=} beside feed=: the feed knows its own rows. Drop them."
            )
        if not (hasattr(feed, "rows") and hasattr(feed, "put")):
            raise FeedError(f"feed={feed!r}: give JaxFeed(sharding) or TorchFeed()")
        return feed
    if (host is None) != (hosts is None):
        raise HostsError(f"{host=}, {hosts=}: give both, or neither")
    if host is None or hosts is None:
        _refuse_untold()
        return HostShare(0, 1)
    if not 0 <= whole("host", host, -(1 << 62), HostsError) < whole("hosts", hosts, 1, HostsError):
        raise HostsError(f"{host=} must lie in 0..{hosts - 1}")
    for _, batch_size in sizes:
        if batch_size % hosts:
            raise BatchError(
                f"{batch_size=} is the global batch; it does not split over {hosts=}. "
                f"Nearest: {_nearest(batch_size, hosts)}."
            )
    return HostShare(host, hosts)


def check_lanes(chain: Part, share: Share, size: int) -> None:
    """Raises BatchError or LanesError if lanes do not fit the batch size or the hosts."""
    if size % chain.lanes:
        raise BatchError(
            f"batch_size={size} does not split over lanes={chain.lanes}. "
            f"Nearest: {_nearest(size, chain.lanes)}."
        )
    hosts = getattr(share, "hosts", 1)
    if chain.lanes % hosts:
        what = chain.node.counter
        fits = [str(h) for h in range(1, chain.lanes + 1) if chain.lanes % h == 0]
        raise LanesError(
            f"{what} makes {hosts=} need {hosts} lanes; this dataset has {chain.lanes} (saved "
            f"states depend on it). New run: .lanes({hosts}). Resuming: {', '.join(fits)} hosts."
        )


def check_end(stream: CountedStream) -> None:
    """Raises LanesError where hosts would end a pass at different steps."""
    if stream.alone or stream.ends_together:
        return
    raise LanesError(
        "a finite counted dataset ends on each host at another step, and the others would wait "
        'forever: with several hosts give steps=, remainder="pad", or .repeat()'
    )


def _refuse_untold() -> None:
    # asks only libraries that the user already runs: never starts one
    jax, dist = sys.modules.get("jax"), sys.modules.get("torch.distributed")
    if jax is not None and jax.distributed.is_initialized():
        running, library = jax.process_count(), "jax"
    elif dist is not None and dist.is_available() and dist.is_initialized():
        running, library = dist.get_world_size(), "torch"
    else:
        return
    if running > 1:
        feed = "JaxFeed(sharding)" if library == "jax" else "TorchFeed()"
        raise HostsError(
            f"{running} {library} processes are running but this Loader was not told: each would "
            f"train on the same rows. Use feed={feed}, or host=, hosts=."
        )


def check_even(passes: Passes, share: Share) -> None:
    short = 0 if passes.n >= ENDLESS else passes.n % passes.batch_size
    if passes.steps is not None and passes.steps * passes.batch_size <= passes.n:
        short = 0
    if short:
        try:
            share.rows(short)
        except BatchError as e:
            raise BatchError(
                f"a pass of {passes.n} rows ends with a batch of {short}, which does not split "
                'over the devices. Use remainder="drop", remainder="pad" or .repeat().'
            ) from e


def _nearest(size: int, divisor: int) -> str:
    low = size // divisor * divisor
    return ", ".join(str(n) for n in (low, low + divisor) if n)
