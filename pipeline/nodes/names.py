"""What other libraries call what a Dataset does: each of their names gets an answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.errors import OptionError, UnknownNameError

_SPLIT = "slices of one order: ds = ds.shuffle(reshuffle=False), then ds[:n] and ds[n:]"
_OURS = {
    "batch": "Loader(ds, batch_size)",
    "padded_batch": "Loader(ds, batch_size, collate=pad_to(n))",
    "bucket_by_sequence_length": "ds.bucket(key, boundaries)",
    "unbatch": "ds.flat_map(f)",
    "flatten": "ds.flat_map(f)",
    "prefetch": "Loader(ds, n, workers=, ahead=)",
    "take": "ds.limit(n)",
    "skip": "ds[n:], or Loader.skip(range(a, b)) for steps",
    "split": _SPLIT,
    "train_test_split": _SPLIT,
    "random_split": _SPLIT,
    "set_epoch": "not needed: each pass of a Loader has an order of its own",
    "shard": "Loader(ds, n, host=, hosts=), or a feed",
    "select": "ds[[0, 7]]",
    "subset": "ds[[0, 7]]",
    "slice": "ds[a:b]",
    "sort": "ds[positions]",
    "enumerate": "ds.map_with_index(f)",
    "apply": "ds.map(f)",
    "map_batches": "ds.map(f, batched=True)",
    "with_transform": "ds.map(f)",
    "rename_column": "ds.map(f)",
    "remove_columns": "ds.map(f), or columns= of the source",
    "random_map_with_index": "ds.random_map(f)",
    "mix": "mix({name: ds}, weights)",
    "concatenate": "concatenate([a, b])",
    "zip": "zip_datasets({name: ds})",
    "interleave": "interleave([a, b])",
    "cycle": "ds.repeat()",
    "cardinality": "len(ds)",
    "num_rows": "len(ds)",
    "element_spec": "ds.spec",
    "features": "ds.spec",
    "column_names": "ds.spec",
    "as_numpy_iterator": "iter(ds)",
    "to_iter_dataset": "Loader(ds, batch_size)",
    "state_dict": "Loader.state_dict()",
}
_OPTIONS = {
    "shuffle": "ds.shuffle()",
    "batch_size": "Loader(ds, batch_size)",
    "num_workers": "Loader(ds, n, workers=)",
    "drop_last": 'Loader(ds, n, remainder="drop")',
    "transform": "ds.map(f)",
    "streaming": "not needed: sources read what is asked for",
    "split": "the source of one split",
}


def unknown_name(name: str) -> AttributeError:
    """The error for an attribute that a Dataset lacks; other libraries' names get an answer.

    >>> print(unknown_name("take"))
    a Dataset has no .take: here it is ds.limit(n)
    """
    if name in _OURS:
        return UnknownNameError(f"a Dataset has no .{name}: here it is {_OURS[name]}")
    return AttributeError(f"a Dataset has no .{name}")


def refuse_options(what: str, others: Mapping[str, Any]) -> None:
    """Raises OptionError if there are options that nobody has."""
    for name, value in others.items():
        shown = f"{what}({name}={repr(value)[:40]})"
        answer = f"here it is {_OPTIONS[name]}" if name in _OPTIONS else "there is no such option"
        raise OptionError(f"{shown}: {answer}")
