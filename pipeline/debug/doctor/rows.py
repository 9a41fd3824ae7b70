"""Which records a batch holds: one value a row, by a field that names it or by a digest."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from operator import itemgetter
from typing import Any

import numpy as np

from pipeline.debug.digest import digest
from pipeline.errors import ChainError, PipelineError
from pipeline.tree import leaves, map_leaves

Record = int | float | str


def rows_of(batch: Any, key: str | None) -> list[Record]:
    """One value for each row of a batch; a batch whose leaves have no common length is one row.

    Args:
        batch: arrays or tensors `[rows, ...]` in dicts, lists or tuples; or a single example.
        key: a field (of a tuple, its number) whose values name the records; else rows are digested.

    Raises:
        ChainError: the batch has no such field.

    >>> rows_of({"id": np.array([3, 1]), "x": np.zeros((2, 4))}, "id")
    [3, 1]
    >>> len(rows_of({"x": np.zeros((2, 4))}, None)), len(rows_of({"text": "one example"}, None))
    (2, 1)
    """
    plain = _plain(batch)
    if key is not None:
        return _values(_field(plain, key))
    lengths = {_length(leaf) for _, leaf in leaves(plain)}
    if len(lengths) != 1 or None in lengths:
        return [_digest(plain)]
    return [_digest(map_leaves(itemgetter(i), plain)) for i in range(lengths.pop() or 0)]


def _plain(value: Any) -> Any:
    # batches of any library as arrays in dicts and tuples
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    if isinstance(value, list):
        parts = [_plain(v) for v in value]
        stacked = parts and all(isinstance(p, np.ndarray) and p.ndim for p in parts)
        return tuple(parts) if stacked and len({len(p) for p in parts}) == 1 else parts
    if type(value).__module__.startswith("torch") and hasattr(value, "detach"):
        return _of_tensor(value)
    return np.asarray(value) if hasattr(value, "__array__") else value


def _of_tensor(tensor: Any) -> Any:
    tensor = tensor.detach().cpu()
    if str(tensor.dtype) == "torch.bfloat16":
        tensor = tensor.view(dtype=__import__("torch").int16)
    return tensor.numpy()


def _length(leaf: Any) -> int | None:
    if isinstance(leaf, np.ndarray):
        return len(leaf) if leaf.ndim else None
    return len(leaf) if isinstance(leaf, list) else None


def _field(batch: Any, key: str) -> Any:
    found = {str(i): v for i, v in enumerate(batch)} if isinstance(batch, tuple) else batch
    if isinstance(found, dict) and key in found:
        return found[key]
    names = ", ".join(map(repr, found)) if isinstance(found, dict) else type(batch).__name__
    raise ChainError(f"--key {key}: the loader's batches have no such field, but {names}")


def _values(field: Any) -> list[Record]:
    flat = field.reshape(-1).tolist() if isinstance(field, np.ndarray) else field
    flat = flat if isinstance(flat, list) else [flat]
    return [v if isinstance(v, int | float | str) else _text(v) for v in flat]


def _text(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else repr(value)


def _digest(row: Any) -> str:
    try:
        return digest(row)
    except PipelineError:  # it holds objects of other libraries
        return hashlib.blake2b(pickle.dumps(row), digest_size=8).hexdigest()
