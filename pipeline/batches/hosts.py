"""Which rows of the global batch are this process's: by hand, by a feed, or all of them."""

from __future__ import annotations

import os
import sys
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.batches.stream import Share
from pipeline.block import Int64s
from pipeline.checks import whole
from pipeline.errors import BatchError, FeedError, HostsError
from pipeline.sampling.sizes import Sizes
from pipeline.types import Feed

# environment variables in which launchers say how many processes they have started
LAUNCHERS = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
_FEEDS = {"jax": "JaxFeed(sharding)", "torch": "TorchFeed()"}


@dataclass(frozen=True, slots=True)
class HostShare:
    """A host's share, given by hand: host h of H has the h-th of H near-equal runs of rows."""

    host: int
    hosts: int

    def rows(self, batch: int) -> Int64s:
        """This host's rows: int64[m], rising.

        Raises:
            BatchError: there are fewer rows than hosts.
        """
        if batch < self.hosts:
            raise BatchError(
                f"a batch of {batch} rows does not split over hosts={self.hosts}: some would have "
                'none. For a short last batch, remainder="drop" or "pad".'
            )
        return np.arange(self.host * batch // self.hosts, (self.host + 1) * batch // self.hosts)


def share_of(feed: Feed | None, host: int | None, hosts: int | None, sizes: Sizes) -> Share:
    """Which rows of each batch this process gets.

    Raises:
        HostsError: its place among the processes is unclear.
        FeedError: the feed is not one.
        BatchError: a batch size does not split over the hosts.
    """
    if feed is not None:
        if host is not None or hosts is not None:
            raise HostsError(
                f"{host=}, {hosts=} beside feed=: the feed knows its own rows. Drop them."
            )
        _check_feed(feed)
        for _, size in sizes:
            feed.rows(size)  # a batch that fits no devices is refused here, not at the first step
        return feed
    if (host is None) != (hosts is None):
        raise HostsError(f"{host=}, {hosts=}: give both, or neither")
    if host is None or hosts is None:
        return HostShare(0, 1)
    if not 0 <= whole("host", host, -(1 << 62), HostsError) < whole("hosts", hosts, 1, HostsError):
        raise HostsError(f"{host=} must lie in 0..{hosts - 1}")
    for _, batch_size in sizes:
        if batch_size % hosts:
            raise BatchError(
                f"{batch_size=} is the global batch; it does not split over {hosts=}. "
                f"Nearest: {nearest(batch_size, hosts)}."
            )
    return HostShare(host, hosts)


def nearest(size: int, divisor: int) -> str:
    """The multiples of `divisor` on both sides of a batch size, in words."""
    low = size // divisor * divisor
    return ", ".join(str(n) for n in (low, low + divisor) if n)


def _check_feed(feed: Any) -> None:
    if isinstance(feed, type):
        raise FeedError(f"feed={feed.__name__} is a class: give an object, {feed.__name__}(…)")
    if not (hasattr(feed, "rows") and hasattr(feed, "put")):
        raise FeedError(f"feed={feed!r}: give JaxFeed(sharding) or TorchFeed()")


class Neighbours:
    """Notices other processes that would train on the same rows as this one.

    A process group may begin, or torch may fork its workers, after a loader was made. So the loader
    looks again as it begins a pass. Only libraries that the program has imported are asked.

    Args:
        feed: the loader's feed, which splits batches over the processes of its own library.
        told: whether the user gave host=, hosts=.
    """

    def __init__(self, feed: Feed | None, *, told: bool) -> None:
        self._feed, self._told = feed, told
        self._library = getattr(feed, "library", None)
        self._custom = feed is not None and self._library is None
        self._warned = False

    def check(self, *, warn: bool = True) -> None:
        """Refuse to go on where other processes get the same rows.

        Args:
            warn: whether to warn of a launcher's environment variables, which prove nothing alone.

        Raises:
            HostsError: several processes run, and the loader was not told of them.
        """
        if self._told or self._custom:
            return
        _refuse_in_torch_worker()
        for library, running in (("jax", _jax_processes()), ("torch", _torch_processes())):
            if running > 1 and library != self._library:
                raise HostsError(
                    f"{running} {library} processes are running but this Loader was not told: each "
                    f"would train on the same rows. Use feed={_FEEDS[library]}, or host=, hosts=."
                )
            if running > 1:
                self._warn_of_local_sharding(running)
                return
        if warn and not self._warned:
            self._warned = True
            _warn_of_launcher()

    def _warn_of_local_sharding(self, running: int) -> None:
        local = getattr(getattr(self._feed, "sharding", None), "is_fully_addressable", False)
        if local and not self._warned:
            self._warned = True
            warnings.warn(
                f"{running} jax processes are running, but the sharding of this JaxFeed has only "
                "devices of this one: each gets the same rows. Shard over jax.devices().",
                stacklevel=5,
            )


def _jax_processes() -> int:
    jax: Any = sys.modules.get("jax")
    known = hasattr(jax, "distributed")  # it may be half imported
    return jax.process_count() if known and jax.distributed.is_initialized() else 1


def _torch_processes() -> int:
    dist: Any = sys.modules.get("torch.distributed")
    known = hasattr(dist, "is_initialized") and dist.is_available()
    return dist.get_world_size() if known and dist.is_initialized() else 1


def _refuse_in_torch_worker() -> None:
    data: Any = sys.modules.get("torch.utils.data")
    info = data.get_worker_info() if hasattr(data, "get_worker_info") else None
    if info is not None and info.num_workers > 1:
        raise HostsError(
            f"this Loader runs in worker {info.id} of a torch DataLoader with num_workers="
            f"{info.num_workers}: each would give the same rows. Iterate the Loader itself, with "
            "workers= of its own, or give host=, hosts=."
        )


def _warn_of_launcher() -> None:
    for name in LAUNCHERS:
        count = os.environ.get(name, "")
        if count.isdigit() and int(count) > 1:
            warnings.warn(
                f"{name}={count}, but this Loader was not told of other processes: if each of them "
                "makes one, all train on the same rows. Give feed=, or host=, hosts=.",
                stacklevel=4,
            )
            return
