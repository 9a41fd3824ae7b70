"""How batches become torch tensors, and which of their rows are this process's."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.block import Int64s
from pipeline.checks import whole
from pipeline.errors import BatchError, FeedError, HostsError, need
from pipeline.tree import leaves, map_leaves


class TorchFeed:
    """Batches as `torch.Tensor`s: this process's rows of the global batch.

    On CPU a tensor shares the batch's memory: nothing is copied. For CUDA the batch is pinned and
    copied on a stream of its own, `prefetch` batches ahead of the loop. Object fields (strings,
    bytes, ragged lists) become Python lists, as torch's own collate makes them; what a `collate=`
    returned beside arrays stays as it is.

    Where torch.distributed runs, each process has its share of every batch. Make feed and Loader
    after `init_process_group` (with Lightning, in `train_dataloader`).

    Args:
        device: where tensors go: "cpu", "cuda", "cuda:1" or a torch.device.
        prefetch: how many batches are on the way to the device while one is used.
        mesh: a DeviceMesh, where not every process has rows of its own.
        dims: names of the mesh's dims that split the batch, outermost first; processes that differ
            along other dims (tensor, context, pipeline) get the same rows. May be left out if the
            mesh has one dim, as `mesh["dp"]` has.

    Raises:
        MissingExtraError: torch is not installed.
        FeedError: no such device, a negative prefetch, or dims that the mesh lacks.

    >>> from pipeline import Dataset, Loader
    >>> ds = Dataset({"x": np.arange(4, dtype=np.float32), "s": ["a", "b", "c", "d"]})
    >>> next(Loader(ds, 2, feed=TorchFeed()))
    {'x': tensor([0., 1.]), 's': ['a', 'b']}
    """

    library = "torch"  # batches are split over the processes of this library
    # checkpointers of torch restore only the fields of a fresh loader's state: it must have all
    whole_states = True

    def __init__(
        self,
        device: Any = "cpu",
        prefetch: int = 2,
        *,
        mesh: Any = None,
        dims: tuple[str, ...] | list[str] | str | None = None,
    ) -> None:
        try:
            import torch
        except ImportError as e:
            raise need("torch", "torch") from e
        self.device = _device(torch, device)
        self.prefetch = whole("prefetch", prefetch, 0, FeedError)
        self._torch, self._mesh = torch, mesh
        self._dims = _mesh_dims(mesh, dims)
        self._made: tuple[int, int] | None = None
        self._stream: Any = None

    def __repr__(self) -> str:
        dims = f", dims={self._dims}" if self._dims else ""
        return f"TorchFeed({str(self.device)!r}, prefetch={self.prefetch}{dims})"

    def __getstate__(self) -> dict[str, Any]:
        # another process has a torch, a stream and a place of its own
        return vars(self) | {"_torch": None, "_made": None, "_stream": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        import torch

        vars(self).update(state, _torch=torch)

    # ---- which rows

    @property
    def primary(self) -> bool:
        """Whether this process writes what all of them share."""
        return not self._running() or self._torch.distributed.get_rank() == 0

    @property
    def hosts(self) -> int:
        """How many processes have rows of their own."""
        return self._share()[1]

    def rows(self, batch: int) -> Int64s:
        """This process's rows of a global batch: int64[m], rising.

        Raises:
            BatchError: the batch does not split over the processes.
            HostsError: torch.distributed was started or ended since the rows were first asked for.
        """
        index, count = self._share()
        if batch % count:
            raise BatchError(
                f"a batch of {batch} rows does not split over {count} torch processes. Choose a "
                f'multiple of {count}; for a short last batch, remainder="drop" or "pad".'
            )
        each = batch // count
        return np.arange(index * each, (index + 1) * each)

    def _share(self) -> tuple[int, int]:
        now = self._place()
        self._made = self._made or now
        if now != self._made:
            (was, of), (is_now, among) = self._made, now
            raise HostsError(
                f"this TorchFeed was process {was} of {of} when its Loader was made, and is "
                f"{is_now} of {among} now: rows would be lost or repeated. Make both after "
                "init_process_group (with Lightning, in train_dataloader)."
            )
        return now

    def _place(self) -> tuple[int, int]:
        # this process among those with rows of their own
        if self._mesh is None:
            dist = self._torch.distributed
            return (dist.get_rank(), dist.get_world_size()) if self._running() else (0, 1)
        index, count = 0, 1
        for dim in self._dims:
            size = self._mesh.size(dim)
            index, count = index * size + self._mesh.get_local_rank(dim), count * size
        return index, count

    def _running(self) -> bool:
        dist = self._torch.distributed
        return dist.is_available() and dist.is_initialized()

    # ---- tensors

    def put(self, batch: Any, rows: Int64s, total: int) -> Any:
        """This process's rows as tensors `[len(rows), ...]`.

        Raises:
            FeedError: a field has a dtype that torch lacks.
        """
        self._share()
        names = iter([name for name, _ in leaves(batch)])
        if self.device.type != "cuda":
            return map_leaves(lambda leaf: self._send(self._leaf(next(names), leaf)), batch)
        return self._ahead(map_leaves(lambda leaf: self._leaf(next(names), leaf), batch))

    def _leaf(self, name: str, leaf: Any) -> Any:
        if not isinstance(leaf, np.ndarray | np.generic):
            return leaf
        a = np.asarray(leaf)
        return a.tolist() if a.dtype == object else self._tensor(name, a)

    def _tensor(self, name: str, a: NDArray[Any]) -> Any:
        if a.dtype.name.startswith(("bfloat16", "float8_")) and hasattr(self._torch, a.dtype.name):
            # NumPy has these from ml_dtypes, torch of its own: the bits are the same
            bits = self._torch.from_numpy(_plain(a.view(f"u{a.dtype.itemsize}")))
            return bits.view(getattr(self._torch, a.dtype.name))
        try:
            return self._torch.from_numpy(_plain(a))
        except TypeError as e:
            kind = "V" if a.dtype.names else a.dtype.kind.replace("V", "")
            remedy = _REMEDY.get(kind, "Convert it in a .map, or drop it there.")
            raise FeedError(f"field {name!r} holds {a.dtype}, which torch lacks. {remedy}") from e

    def _send(self, leaf: Any) -> Any:
        tensor = isinstance(leaf, self._torch.Tensor)
        return leaf.to(self.device, non_blocking=True) if tensor else leaf

    def _ahead(self, batch: Any) -> Any:
        # copies run beside the kernels already queued; only later ones wait for them
        cuda = self._torch.cuda
        self._stream = self._stream or cuda.Stream(self.device)
        current = cuda.current_stream(self.device)

        def send(leaf: Any) -> Any:
            if not isinstance(leaf, self._torch.Tensor) or leaf.is_cuda:
                return leaf
            sent = self._send(leaf.pin_memory())
            sent.record_stream(current)
            return sent

        with cuda.stream(self._stream):
            sent = map_leaves(send, batch)
        current.wait_stream(self._stream)
        return sent

    # ---- states

    def gather(self, state: Any) -> list[Any]:
        """The state of every process with rows of its own; a collective if there are several.

        States travel as JSON in byte tensors: nothing is unpickled.
        """
        if not self._running():
            return [state]
        if self._mesh is None:
            return self._exchange([state], None)
        states = [state]
        for dim in self._dims:
            states = self._exchange(states, self._mesh.get_group(dim))
        return states

    def _exchange(self, states: list[Any], group: Any) -> list[Any]:
        torch, dist = self._torch, self._torch.distributed
        device = _device_of(dist.get_backend_config(group))
        text = torch.frombuffer(bytearray(json.dumps(states).encode()), dtype=torch.uint8)
        size = torch.tensor([len(text)], device=device)
        sizes = [torch.zeros_like(size) for _ in range(dist.get_world_size(group))]
        dist.all_gather(sizes, size, group=group)
        padded = torch.zeros(int(max(sizes)), dtype=torch.uint8, device=device)
        padded[: len(text)] = text.to(device)
        texts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(texts, padded, group=group)
        parts = [t[: int(n)].cpu().numpy().tobytes() for t, n in zip(texts, sizes, strict=True)]
        return [state for part in parts for state in json.loads(part)]


_REMEDY = {
    "M": "Give times as numbers in a .map: x.astype(np.int64).",
    "m": "Give times as numbers in a .map: x.astype(np.int64).",
    "f": "Take x.astype(np.float64) in a .map.",
    "c": "Take x.astype(np.complex128) in a .map.",
    "S": "Give bytes as a list or an object array.",
    "U": "Give strings as a list or an object array.",
    "V": "Give each of its fields as an array of its own in a .map.",
}


def _device(torch: Any, device: Any) -> Any:
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as e:
        raise FeedError(f"{device=}: {e}") from e
    if found.type == "cuda":
        here = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not here or (found.index or 0) >= here:
            raise FeedError(
                f"{device=}: torch sees {here or 'no'} GPUs here. TorchFeed() gives CPU tensors."
            )
    return found


def _plain(a: NDArray[Any]) -> NDArray[Any]:
    """The array itself where torch can share its memory, else a copy."""
    if not a.dtype.isnative:
        a = a.astype(a.dtype.newbyteorder("="))
    return a if a.flags.writeable and all(s >= 0 for s in a.strides) else a.copy()


def _mesh_dims(mesh: Any, dims: Any) -> tuple[int, ...]:
    if mesh is None:
        if dims is not None:
            raise FeedError(f"{dims=} without mesh=: give the DeviceMesh that they belong to")
        return ()
    known = tuple(mesh.mesh_dim_names or ())
    if dims is None:
        if mesh.ndim != 1:
            raise FeedError(
                f"the mesh has {mesh.ndim} dims {known}: name those that split the batch, like "
                f"dims={known[:1] or ('dp',)}"
            )
        return (0,)
    named = (dims,) if isinstance(dims, str) else tuple(dims)
    if not set(named) <= set(known) or len(set(named)) != len(named):
        raise FeedError(f"dims={named} are not among the mesh's: {known}")
    return tuple(known.index(name) for name in named)


def _device_of(backends: str) -> str:
    # "cpu:gloo,cuda:nccl": collectives over CPU tensors need no device memory
    devices = [pair.partition(":")[0] for pair in backends.split(",")]
    return "cpu" if "cpu" in devices else devices[0]
