"""Which records a batch holds: one value a row, by a field that names it or by a digest."""

from __future__ import annotations

import types
from collections.abc import Mapping
from operator import itemgetter
from typing import Any

import numpy as np

from pipeline.debug.digest import digest
from pipeline.errors import ChainError, PipelineError
from pipeline.transforms.pickled import as_array, pickled
from pipeline.tree import children, leaves, map_leaves

Record = int | float | str

_BY_NAME = (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType)


def rows_of(batch: Any, key: str | None) -> list[Record]:
    """One value for each row of a batch; a batch whose leaves have no common length is one row.

    Args:
        batch: arrays or tensors `[rows, ...]` in dicts, lists, tuples or dataclasses; a list of
            examples; or a single example.
        key: a field (of a tuple, its number) whose values name the records; else rows are digested.

    Raises:
        ChainError: the batch has no such field.

    >>> rows_of({"id": np.array([3, 1]), "x": np.zeros((2, 4))}, "id")
    [3, 1]
    >>> rows_of([{"id": 3}, {"id": 1}], "id")
    [3, 1]
    >>> len(rows_of({"x": np.zeros((2, 4))}, None)), len(rows_of({"text": "one example"}, None))
    (2, 1)
    """
    plain = _plain(batch)
    if key is not None:
        return _named(plain, key)
    lengths = {_length(leaf) for _, leaf in leaves(plain)}
    if len(lengths) != 1 or None in lengths:
        return [_digest(plain)]
    return [_digest(map_leaves(itemgetter(i), plain)) for i in range(lengths.pop() or 0)]


def _plain(value: Any) -> Any:
    # batches of any library as arrays in dicts and tuples
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if type(value) is tuple:
        return tuple(map(_plain, value))
    if (fields := children(value)) is not None:  # a namedtuple or a dataclass
        return {name: _plain(v) for name, v in fields}
    if isinstance(value, list):
        parts = [_plain(v) for v in value]
        stacked = parts and all(isinstance(p, np.ndarray) and p.ndim for p in parts)
        return tuple(parts) if stacked and len({len(p) for p in parts}) == 1 else parts
    if _is_tensor(value):
        return _of_tensor(value)
    return np.asarray(value) if hasattr(value, "__array__") else value


def _is_tensor(value: Any) -> bool:
    return type(value).__module__.startswith("torch") and hasattr(value, "detach")


def _of_tensor(tensor: Any) -> Any:
    import torch

    tensor = tensor.detach().cpu()
    if tensor.is_nested:
        return [_of_tensor(part) for part in tensor.unbind()]
    if tensor.layout is not torch.strided:
        found = tensor.to_sparse_coo().coalesce()
        parts = {"indices": found.indices(), "values": found.values()}
        return {**{k: _of_tensor(t) for k, t in parts.items()}, "shape": str(tuple(found.shape))}
    tensor = tensor.dequantize() if tensor.is_quantized else tensor
    array = as_array(tensor.resolve_conj().resolve_neg())
    return tensor.tolist() if array is None else array


def _length(leaf: Any) -> int | None:
    if isinstance(leaf, np.ndarray):
        return len(leaf) if leaf.ndim else None
    return len(leaf) if isinstance(leaf, list) else None


def _named(batch: Any, key: str) -> list[Record]:
    if isinstance(batch, list):
        return [record for example in batch for record in _named(example, key)]
    return _values(_field(batch, key))


def _field(batch: Any, key: str) -> Any:
    found = {str(i): v for i, v in enumerate(batch)} if isinstance(batch, tuple) else batch
    if isinstance(found, dict) and key in found:
        return found[key]
    names = ", ".join(map(repr, found)) if isinstance(found, dict) else type(batch).__name__
    raise ChainError(f"--key {key}: the loader's batches have no such field, but {names}")


def _values(field: Any) -> list[Record]:
    flat = field.reshape(-1).tolist() if isinstance(field, np.ndarray) else field
    flat = flat if isinstance(flat, list) else [flat]
    # NaN is a name like others, though it differs from itself
    return [v if isinstance(v, int | float | str) and v == v else _text(v) for v in flat]


def _text(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else repr(value)


def _digest(row: Any) -> str:
    try:
        return digest(row)
    except PipelineError:  # it holds objects of other libraries
        return digest(_content(row, ()))


def _content(value: Any, outer: tuple[int, ...]) -> Any:
    # what equal objects have in common, wherever they lie, in plain containers. A pickle would not
    # do: that of a tensor tells its address, and that of a set the order of its hashes
    if isinstance(value, str | bytes | int | float | complex | None):
        return value
    if id(value) in outer:
        return "an object around this one"
    outer = (*outer, id(value))
    if isinstance(value, np.ndarray):
        return [_content(v, outer) for v in value.tolist()] if value.dtype.hasobject else value
    if isinstance(value, Mapping):
        return {str(k): _content(v, outer) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_content(v, outer) for v in value]
    if isinstance(value, set | frozenset):
        return sorted(digest(_content(v, outer)) for v in value)
    if isinstance(value, _BY_NAME):
        return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value)}"
    if _is_tensor(value):
        return _of_tensor(value)
    if hasattr(value, "__array__"):
        return np.asarray(value)
    return [type(value).__qualname__, _content(pickled(value), outer)]
