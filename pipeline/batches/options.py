"""Checks a loader's options, and translates the names that other libraries use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.checks import function, whole
from pipeline.errors import BatchError, OptionError
from pipeline.nodes.names import no_attribute

REMAINDERS = ("keep", "drop", "pad")
_OURS = {
    "num_workers": "workers=",
    "worker_count": "workers=",
    "num_threads": "workers=Threads(n)",
    "persistent_workers": "workers live as long as the loader",
    "multiprocessing_context": "workers=Processes(n)",
    "worker_init_fn": "workers=; import what a stage needs inside its function",
    "timeout": "workers=Processes(n, timeout=)",
    "drop_last": 'remainder="drop"',
    "drop_remainder": 'remainder="drop"',
    "shuffle": "dataset.shuffle()",
    "sampler": "dataset.shuffle() or dataset[indices]",
    "batch_sampler": "batch_size=, dataset.shuffle() and dataset[indices]",
    "generator": "Dataset(source, seed=)",
    "seed": "Dataset(source, seed=)",
    "collate_fn": "collate=",
    "batch_fn": "collate=",
    "pin_memory": 'feed=TorchFeed("cuda")',
    "pin_memory_device": 'feed=TorchFeed("cuda")',
    "device": 'feed=TorchFeed("cuda")',
    "sharding": "feed=JaxFeed(sharding)",
    "prefetch": "ahead=, or a feed's prefetch=",
    "prefetch_factor": "ahead=, or a feed's prefetch=",
    "buffer_size": "ahead=",
    "rank": "host=",
    "shard_id": "host=",
    "shard_index": "host=",
    "process_index": "host=",
    "world_size": "hosts=",
    "num_replicas": "hosts=",
    "num_shards": "hosts=",
    "shard_count": "hosts=",
    "process_count": "hosts=",
    "epochs": "dataset.repeat(epochs), or a `for` an epoch",
    "num_epochs": "dataset.repeat(epochs), or a `for` an epoch",
    "num_records": "dataset.limit(n)",
    "transform": "dataset.map(f)",
    "transforms": "dataset.map(f)",
    "operations": "dataset.map(f)",
    "batch": "batch_size",
    "micro_batch_size": "batch_size, of all hosts together",
    "global_batch_size": "batch_size, of all hosts together",
    "per_device_batch_size": "batch_size, of all hosts together",
}
_ATTRIBUTES = {
    "set_epoch": "not needed: each pass has an order of its own; loader.seek(step) moves it",
    "reset": "loader.seek(0), or loader.once() for passes that begin at step 0",
    "rewind": "loader.seek(step)",
    "state": "loader.state_dict()",
    "restore": "loader.load_state_dict(state)",
    "next": "next(loader)",
    "repeat": "Loader(ds.repeat(), n)",
    "shuffle": "Loader(ds.shuffle(), n)",
    "map": "Loader(ds.map(f), n)",
    "take": "Loader(ds, n, steps=)",
    "shutdown": "loader.close()",
}


def unknown_attribute(name: str) -> AttributeError:
    """The error for an attribute that a Loader lacks; it translates other libraries' names.

    >>> print(unknown_attribute("restore"))
    a Loader has no .restore: here it is loader.load_state_dict(state)
    """
    return no_attribute("a Loader", name, _ATTRIBUTES)


def check_options(others: Mapping[str, Any], remainder: Any, steps: Any, collate: Any) -> None:
    """Check the options that can be judged alone.

    Args:
        others: options that a Loader does not have.
        remainder, steps, collate: the Loader's options of these names.

    Raises:
        OptionError: there are any `others`.
        BatchError: remainder or steps has a value that it cannot have.
        ChainError: collate is not a function.

    >>> check_options({"num_workers": 4}, "keep", None, None)
    Traceback (most recent call last):
    pipeline.errors.OptionError: Loader(num_workers=4): here it is workers=
    """
    for name, value in others.items():
        shown = f"Loader({name}={repr(value)[:40]})"
        if name in _OURS:
            raise OptionError(f"{shown}: here it is {_OURS[name]}")
        raise OptionError(f"{shown}: a Loader has no such option. See help(pipeline.Loader).")
    if remainder not in REMAINDERS:
        raise BatchError(f"remainder={remainder!r}: choose one of {', '.join(REMAINDERS)}")
    if steps is not None:
        whole("steps", steps, 1, BatchError)
    if collate is not None:
        function("collate", collate)
