"""A Loader with the interface of torch's DataLoader, for code that only knows that one.

    from pipeline.compat.torch_dataloader import DataLoader

Arguments and attributes are torch's: `batch_size` is that of this process, `num_workers` is a
number of processes. Under torch.distributed each process gets its rows of the global batch, without
a DistributedSampler or `set_epoch`. It is not a subclass of torch's: Lightning and Accelerate would
make a DataLoader of their own from its parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pipeline.checks import whole
from pipeline.dataset import Dataset
from pipeline.errors import BatchError, OptionError, PositionError
from pipeline.feed import TorchFeed
from pipeline.loader import Loader

# torch's arguments for speed, with their defaults: they are attributes, and change nothing here
_IGNORED: dict[str, Any] = {
    "pin_memory": False,
    "pin_memory_device": "",
    "persistent_workers": False,
    "prefetch_factor": None,
    "timeout": 0,
    "in_order": True,
}
_REFUSED = {
    "sampler": "give a Dataset in the order that you want: ds.shuffle(), ds[[3, 1]], mix(…)",
    "batch_sampler": "the Loader cuts batches: batch_size=, or ds.bucket(…) for similar lengths",
    "worker_init_fn": "randomness comes from the row: ds.random_map(f)",
    "generator": "give seed=",
    "multiprocessing_context": "the Loader starts its own processes",
}


class DataLoader:
    """Batches of this process as tensors; `for batch in loader` is one pass from its start.

    If a loop is left early, the next `for` is the next pass, in another order, as torch's is. Where
    nobody knows where a pass ends (a streamed dataset, or an endless one without steps=), the next
    `for` goes on instead. After `load_state_dict`, it goes on where the state says. One loop runs
    at a time: a second one over the same object ends the first.

    Args:
        dataset: a Dataset, or anything with `__len__` and `__getitem__`, as torch's are.
        batch_size: rows of this process.
        shuffle: whether each pass has a new random order.
        num_workers: processes that evaluate.
        collate_fn: makes a batch from a list of this process's rows. By default a list of n numbers
            is a tensor `[rows, n]`; `torch.utils.data.default_collate` makes n tensors of it.
        drop_last: leave out a short last batch.
        seed: of the order; by default a Dataset's own, and 0 for other datasets.
        device: where tensors go.
        steps: batches in a pass; None for all.
        others: torch's arguments for speed are accepted and ignored; those that would change the
            order are refused.

    Raises:
        OptionError: an argument of torch's is refused; the message says what to use instead.

    >>> loader = DataLoader([{"x": i} for i in range(5)], batch_size=2)
    >>> [batch["x"].tolist() for batch in loader], len(loader)
    ([[0, 1], [2, 3], [4]], 3)
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool = False,
        *,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        drop_last: bool = False,
        seed: int | None = None,
        device: Any = "cpu",
        steps: int | None = None,
        **others: Any,
    ) -> None:
        for name, value in others.items():
            if value is not None and name not in _IGNORED:
                remedy = _REFUSED.get(name, "it is no argument of torch's DataLoader")
                raise OptionError(f"{name}={value!r}: {remedy}")
        whole("batch_size", batch_size, 1, BatchError)
        ds, order = dataset, seed
        if not isinstance(dataset, Dataset):
            ds, order = Dataset(dataset, seed=seed or 0), None
        feed = TorchFeed(device)
        self.dataset, self.batch_size, self.drop_last = dataset, batch_size, drop_last
        self.num_workers, self.collate_fn = num_workers, collate_fn
        self.sampler = self.batch_sampler = None
        self.pin_memory = bool(others.get("pin_memory"))
        vars(self).update(dict.fromkeys(_REFUSED) | _IGNORED | others)
        self.loader = Loader(
            ds.shuffle(seed=order) if shuffle else ds,
            batch_size * feed.hosts,
            feed=feed,
            collate=collate_fn,
            remainder="drop" if drop_last else "keep",
            workers=num_workers,
            steps=steps,
        )
        self._begun: int | None = None  # the pass of the last loop
        self._loops = 0

    def __iter__(self) -> Iterator[Any]:
        if self.loader.epoch == self._begun:  # that loop was left early
            self.loader._to_next_pass()
        self._begun = self.loader.epoch
        self._loops = mine = self._loops + 1
        for batch in self.loader:
            yield batch
            if self._loops != mine:
                raise PositionError(
                    "another loop over this DataLoader has begun, and both would take batches from "
                    "each other: make a DataLoader for each"
                )

    def __len__(self) -> int:
        return len(self.loader)

    def state_dict(self) -> dict[str, Any]:
        """The position as plain JSON, the same on every process. All processes must call it."""
        return self.loader.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on at a saved position with the next `for`, on any number of processes."""
        self.loader.load_state_dict(state_dict)
        self._begun = None

    def close(self) -> None:
        """End the worker processes."""
        self.loader.close()
