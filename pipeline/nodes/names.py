"""Names that other libraries use, and what to write here instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.checks import shown
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
    "from_generator": "Dataset(list(records)), or a source of your own",
    "from_list": "Dataset(records)",
    "from_tensor_slices": "Dataset({name: array})",
    "with_format": "Loader(ds, n, feed=TorchFeed())",
    "iter": "iter(ds), or Loader(ds, batch_size)",
    "to_list": "list(ds)",
    "first": "ds[0]",
    "ignore_errors": 'ds.on_error("skip")',
    "snapshot": "ds.cache(folder)",
    "group_by_window": "ds.bucket(key, boundaries)",
    "choose_from_datasets": "mix({name: ds}, weights)",
    "sample_from_datasets": "mix({name: ds}, weights)",
}
_OF_METHODS = {
    "buffer_size": "shuffle() for all rows, shuffle(window=n) for neighbours only",
    "reshuffle_each_iteration": "shuffle(reshuffle=)",
    "rng": "shuffle(seed=)",
    "generator": "shuffle(seed=)",
    "random_state": "shuffle(seed=)",
    "count": "repeat(epochs)",
    "num_epochs": "repeat(epochs)",
    "num_workers": "Loader(ds, n, workers=)",
    "num_proc": "Loader(ds, n, workers=)",
    "num_threads": "Loader(ds, n, workers=Threads(n))",
    "num_parallel_calls": "Loader(ds, n, workers=)",
    "concurrency": "Loader(ds, n, workers=)",
    "deterministic": "not needed: rows always come in one order",
    "with_indices": "ds.map_with_index(f)",
    "batch_size": "not needed: a batched function may see any number of rows",
    "remove_columns": "what f returns",
    "input_columns": "what f takes of its row",
    "load_from_cache_file": "ds.map(f).cache(folder)",
    "desc": "name=",
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
    """The error for an attribute that a Dataset lacks; it translates other libraries' names.

    >>> print(unknown_name("take"))
    a Dataset has no .take: here it is ds.limit(n)
    """
    return no_attribute("a Dataset", name, _OURS)


def no_attribute(owner: str, name: str, ours: Mapping[str, str]) -> AttributeError:
    """The error for an attribute that an object lacks.

    Args:
        owner: the object, in words.
        name: the attribute.
        ours: for each name of another library, what to write here.
    """
    if name in ours:
        return UnknownNameError(f"{owner} has no .{name}: here it is {ours[name]}")
    return AttributeError(f"{owner} has no .{name}")


def refuse_options(what: str, others: Mapping[str, Any]) -> None:
    """Raise OptionError if there are any `others`; it translates those of other libraries.

    Args:
        what: "Dataset", or one of its methods.
        others: the unknown options that were given, by name.

    >>> refuse_options("map", {"num_proc": 4})
    Traceback (most recent call last):
    pipeline.errors.OptionError: map(num_proc=4): here it is Loader(ds, n, workers=)
    """
    known = _OPTIONS if what == "Dataset" else _OF_METHODS
    for name, value in others.items():
        answer = f"here it is {known[name]}" if name in known else "there is no such option"
        raise OptionError(f"{what}({name}={shown(value, 40)}): {answer}")
