"""How batches become global jax arrays, and which of their rows are this process's."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.block import Int64s
from pipeline.checks import shown, whole
from pipeline.errors import BatchError, FeedError, need
from pipeline.tree import leaves, map_leaves


class JaxFeed:
    """Batches as global `jax.Array`s of one sharding.

    A process's rows follow from the sharding, not from its index: on a mesh where processes differ
    only along a tensor axis, all of them read the same rows.

    Args:
        sharding: the sharding of a batch's axes; a field of lower rank takes its first axes.
        prefetch: how many batches are on the way to the devices while one is used.

    Raises:
        MissingExtraError: jax is not installed.

    >>> import jax
    >>> from jax.sharding import NamedSharding, PartitionSpec
    >>> from pipeline import Dataset, Loader
    >>> mesh = jax.make_mesh((1,), ("data",))
    >>> feed = JaxFeed(NamedSharding(mesh, PartitionSpec("data")))
    >>> loader = Loader(Dataset({"x": np.arange(4, dtype=np.int32)}), 2, feed=feed)
    >>> next(loader)["x"].sharding == feed.sharding
    True
    """

    library = "jax"  # batches are split over the processes of this library

    def __init__(self, sharding: Any, prefetch: int = 2) -> None:
        try:
            import jax
        except ImportError as e:
            raise need("jax", "jax") from e
        if not hasattr(sharding, "addressable_devices_indices_map"):
            raise FeedError(
                f"JaxFeed({shown(sharding)}): give a sharding of jax, as NamedSharding(mesh, "
                'PartitionSpec("data"))'
            )
        self.sharding = sharding
        self.prefetch = whole("prefetch", prefetch, 0, FeedError)
        self._jax = jax

    def __repr__(self) -> str:
        return f"JaxFeed({self.sharding!r}, prefetch={self.prefetch})"

    def __deepcopy__(self, memo: Any) -> JaxFeed:
        return self  # it never changes, and devices cannot be copied

    @property
    def primary(self) -> bool:
        """Whether this process writes what all of them share."""
        return self._jax.process_index() == 0

    def rows(self, batch: int) -> Int64s:
        """This process's rows of a global batch: int64[m], rising.

        Raises:
            BatchError: the batch does not split over the devices.
        """
        self._check_split(batch)
        index = self._leading().addressable_devices_indices_map((batch,))
        spans = {i[0].indices(batch)[:2] for i in index.values()}
        return np.unique(np.concatenate([np.arange(*span) for span in sorted(spans)]))

    def put(self, batch: Any, rows: Int64s, total: int) -> Any:
        """The batch as global arrays `[total, ...]`, made from this process's rows of it.

        Raises:
            FeedError: a field is no array of numbers, or its numbers do not fit jax's integers.
        """
        for name, leaf in leaves(batch):
            self._check(name, leaf, len(rows))
        self._check_split(total)
        with self._jax.profiler.TraceAnnotation("transfer"):
            return map_leaves(lambda a: self._place(np.asarray(a), rows, total), batch)

    def gather(self, state: Any) -> list[Any]:
        """The state of every process, by their index; a collective where there are several."""
        if self._jax.process_count() == 1:
            return [state]
        from jax.experimental import multihost_utils

        text = np.frombuffer(json.dumps(state).encode(), np.uint8)
        sizes = multihost_utils.process_allgather(np.array([len(text)]))
        padded = np.zeros(int(sizes.max()), np.uint8)
        padded[: len(text)] = text
        all_text = multihost_utils.process_allgather(padded)
        flat = zip(all_text.reshape(len(sizes), -1), sizes.ravel(), strict=True)
        return [json.loads(row[: int(n)].tobytes()) for row, n in flat]

    def _check_split(self, batch: int) -> None:
        try:
            self._leading().shard_shape((batch,))
        except ValueError as e:
            raise BatchError(
                f"a batch of {batch} rows does not split over {self.sharding}. Choose a multiple "
                'of its devices; for a short last batch, remainder="drop" or "pad".'
            ) from e

    def _leading(self) -> Any:
        return self._cut(1)

    def _cut(self, ndim: int) -> Any:
        # a spec may name more axes than a field has
        spec = getattr(self.sharding, "spec", None)
        if spec is None or len(spec) <= ndim:
            return self.sharding
        sharding = self._jax.sharding
        return sharding.NamedSharding(self.sharding.mesh, sharding.PartitionSpec(*spec[:ndim]))

    def _place(self, local: NDArray[Any], rows: Int64s, total: int) -> Any:
        def shard(index: Any) -> NDArray[Any]:
            start, stop, _ = index[0].indices(total)
            first = int(np.searchsorted(rows, start))
            return local[first : first + stop - start][:, *index[1:]]

        shape, sharding = (total, *local.shape[1:]), self._cut(local.ndim)
        try:
            sharding.shard_shape(shape)
        except ValueError as e:
            raise FeedError(
                f"a field of shape {shape} does not split over {sharding}. Pad it, or name fewer "
                "axes in the sharding."
            ) from e
        return self._jax.make_array_from_callback(shape, sharding, shard)

    def _check(self, name: str, leaf: Any, rows: int) -> None:
        a = np.asarray(leaf)
        if not a.ndim or len(a) != rows:
            raise FeedError(
                f"field {name!r} has shape {a.shape}, but this process has {rows} rows of the "
                "batch: collate must give each field a leading axis of rows."
            )
        if not a.dtype.isnative or a.dtype == np.longdouble:
            raise FeedError(f"field {name!r} holds {a.dtype.str}: .astype(np.{a.dtype.name}) it")
        # dtypes of ml_dtypes are those that jax.numpy has by their name, such as bfloat16
        if a.dtype.kind not in "biufc" and not hasattr(self._jax.numpy, a.dtype.name):
            raise FeedError(
                f"field {name!r} holds {a.dtype}, which no device takes. Drop it in a .map, or "
                "turn it into numbers."
            )
        small = self._jax.dtypes.canonicalize_dtype(a.dtype)
        if small != a.dtype and a.size:
            _check_range(name, a, small)


def _check_range(name: str, a: NDArray[Any], small: np.dtype[Any]) -> None:
    # whether numbers stay in range as jax takes them: none becomes another one, or infinite
    parts = [np.real(a), np.imag(a)] if a.dtype.kind == "c" else [a]
    info = np.iinfo(small) if a.dtype.kind in "iu" else np.finfo(small)
    for part in parts:
        finite = part if a.dtype.kind in "iu" else part[np.isfinite(part)]
        if finite.size and (finite.min() < info.min or finite.max() > info.max):
            raise FeedError(
                f"field {name!r} holds {finite.min()}..{finite.max()}, but jax takes {a.dtype} as "
                f"{small}. Set jax_enable_x64, or map it to a smaller range."
            )
