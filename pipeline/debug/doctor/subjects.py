"""How somebody's loader is iterated, saved and restored, whichever library it comes from."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, Protocol

from pipeline.errors import ChainError
from pipeline.loader import Loader


class Watch(Protocol):
    """Who looks on as a subject runs."""

    def came(self, batch: Any) -> None:
        """A batch was handed out."""
        ...

    def after(self) -> None:
        """The state may be asked for: it is that just after the last batch."""
        ...

    def edge(self) -> None:
        """A pass ended."""
        ...


class Subject:
    """A loader under examination.

    Attributes:
        keeps: whether it has a state at all.
        plain: whether the state is data, not a checkpoint's files.
        torch: whether its processes are torch's, so that hosts are ranks of torch.distributed.
        skips_ends: whether a restored pass that is at its end is no pass: a state of an iterator.
    """

    keeps, plain, torch, skips_ends = True, True, False, False

    def run(self, watch: Watch, epoch: int) -> None:
        """Hand out batch after batch, pass after pass, beginning with a pass's number."""
        while True:
            self.begin(epoch)
            for batch in self.iterate():
                watch.came(batch)
                watch.after()
            watch.edge()
            epoch += 1

    def begin(self, epoch: int) -> None:
        """Say which pass comes, as training loops do."""

    def iterate(self) -> Iterator[Any]:
        """The batches of a pass."""
        raise NotImplementedError

    def save(self) -> Any:
        """The state just after the last batch."""
        raise NotImplementedError

    def restore(self, states: list[Any], rank: int) -> None:
        """Go on from a state; of several hosts' states, this rank takes its own."""
        raise NotImplementedError


class Looped(Subject):
    """Any iterable; its state, if it has one, is its own: `state_dict` or `get_state`."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.torch = _is_torch(loader)
        pairs = (("state_dict", "load_state_dict"), ("get_state", "set_state"))
        # Accelerate's wrapper has the methods always, and a state only if it was told to
        refuses = getattr(loader, "use_stateful_dataloader", True) is False
        self._names = next((p for p in pairs if not refuses and has(loader, p)), None)
        self.keeps = self._names is not None

    def begin(self, epoch: int) -> None:
        loader = self.loader
        sampler = getattr(loader, "sampler", None)
        dataset = getattr(loader, "dataset", None)
        batch_sampler = getattr(loader, "batch_sampler", None)
        datasets = [dataset] if of(dataset, "datasets", "IterableDataset") else []
        for part in (loader, sampler, getattr(batch_sampler, "sampler", None), *datasets):
            if callable(tell := getattr(part, "set_epoch", None)) and not _streams(part):
                tell(epoch)

    def iterate(self) -> Iterator[Any]:
        return iter(self.loader)

    def save(self) -> Any:
        assert self._names
        method = getattr(self.loader, self._names[0])
        return method()

    def restore(self, states: list[Any], rank: int) -> None:
        assert self._names
        getattr(self.loader, self._names[1])(states[rank % len(states)])


class Ours(Looped):
    """Lockstep's Loader: the states of its hosts are merged."""

    def restore(self, states: list[Any], rank: int) -> None:
        from pipeline.checkpoint import merge

        self.loader.load_state_dict(merge(states))


class Iterators(Looped):
    """The state is the iterator's, as Grain's are."""

    skips_ends = True

    def __init__(self, loader: Any) -> None:
        super().__init__(loader)
        self._iterator: Any = iter(loader)
        pairs = (("get_state", "set_state"), ("state_dict", "load_state_dict"))
        self._names = next((p for p in pairs if has(self._iterator, p)), None)
        self.keeps = self._names is not None
        self._fresh = True

    def iterate(self) -> Iterator[Any]:
        if not self._fresh:
            self._iterator = iter(self.loader)
        self._fresh = False
        return self._iterator

    def save(self) -> Any:
        assert self._names
        return getattr(self._iterator, self._names[0])()

    def restore(self, states: list[Any], rank: int) -> None:
        assert self._names
        getattr(self._iterator, self._names[1])(states[rank % len(states)])


class Counted(Looped):
    """MosaicML's and LitData's datasets by themselves: their state wants to know what was taken."""

    def __init__(self, loader: Any) -> None:
        super().__init__(loader)
        self._taken = 0

    def iterate(self) -> Iterator[Any]:
        for example in self.loader:
            self._taken += 1
            yield example
        self._taken = 0

    def save(self) -> Any:
        if of(self.loader, "litdata", "StreamingDataset"):
            return self.loader.state_dict(self._taken, 1, 1)
        return {"taken": self._taken, "state": self.loader.state_dict(self._taken, False)}

    def restore(self, states: list[Any], rank: int) -> None:
        state = states[rank % len(states)]
        if of(self.loader, "litdata", "StreamingDataset"):
            self._taken = state["num_samples_yielded"]
            return self.loader.load_state_dict(state)
        self._taken = state["taken"]
        return self.loader.load_state_dict(state["state"])


def subject_of(made: Any) -> Subject:
    """The subject around what a factory returned.

    Raises:
        ChainError: it is no iterable, nor (Trainer, module), (Trainer, module, data) or
            (Accelerator, loader).
    """
    from pipeline.debug.doctor import frameworks

    if isinstance(made, tuple) and len(made) in (2, 3):
        if of(made[0], ("lightning", "pytorch_lightning"), "Trainer"):
            return frameworks.Lightning(*made)
        if of(made[0], "accelerate", "Accelerator") and len(made) == 2:
            return frameworks.Accelerated(*made)
    if isinstance(made, Loader):
        return Ours(made)
    if not hasattr(made, "__iter__"):
        raise ChainError(
            f"the factory returned {type(made).__name__}, which cannot be iterated: return a "
            "loader, (Trainer, module) or (Trainer, module, datamodule) of Lightning, or "
            "(Accelerator, loader)"
        )
    if of(made, ("streaming", "litdata"), "StreamingDataset"):
        return Counted(made)
    own = Looped(made)
    if own.keeps or own.torch:
        skips = not own.keeps and of(made, "accelerate", "DataLoaderShard", "DataLoaderDispatcher")
        return frameworks.Skipping(made) if skips else own
    return Iterators(made)


def of(value: Any, packages: str | tuple[str, ...], *names: str) -> bool:
    """Is it of a class of that name, or one below, of a package that need not be installed?"""
    roots = (packages,) if isinstance(packages, str) else packages
    return any(
        c.__name__ in names and c.__module__.split(".")[0] in roots for c in type(value).__mro__
    )


def has(value: Any, methods: tuple[str, ...]) -> bool:
    """Whether it has all of these methods."""
    return all(callable(getattr(value, name, None)) for name in methods)


def _streams(part: Any) -> bool:
    return of(part, ("streaming", "litdata"), "StreamingDataset", "StreamingDataLoader")


def _is_torch(loader: Any) -> bool:
    if isinstance(loader, Loader):
        return getattr(loader._feed, "library", None) == "torch"
    return of(loader, ("torch", "accelerate"), "DataLoader", "DataLoaderAdapter")


def named_arguments(factory: Any) -> set[str]:
    """Which of `workers`, `host` and `hosts` a factory's signature names.

    >>> sorted(named_arguments(lambda workers=0, host=0, **others: None))
    ['host', 'workers']
    """
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return set()
    named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return named & {"workers", "host", "hosts"}
