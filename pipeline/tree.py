"""What a pytree is here: dicts, tuples, namedtuples and dataclasses nest; all else is a leaf."""

from __future__ import annotations

import copy
import dataclasses
import datetime
import enum
import sys
import types
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from pathlib import PurePath
from typing import Any, cast
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from pipeline.checks import shown
from pipeline.errors import ChainError, CollateError

Keep = Callable[[Any], Any]

# types whose values cannot be changed in place
ATOMS = frozenset({str, bytes, int, float, bool, complex, type(None)})

DEEPEST = (
    64  # levels of containers in a row: far beyond any use, far below what Python's stack holds
)

_CONSTANTS = {
    *(datetime.date, datetime.datetime, datetime.time, datetime.timedelta, datetime.timezone),
    *(Decimal, Fraction, UUID, range, slice, types.FunctionType, types.BuiltinFunctionType),
}
# iterators are as they are, too: a copy of one would take from what it iterates over
_CONSTANT_KINDS = (np.generic, enum.Enum, PurePath, type, types.ModuleType, Iterator)


def too_deep(row: str = "a row") -> CollateError:
    """The error for a row whose containers nest without end, or nearly so."""
    return CollateError(
        f"{row} nests dicts, tuples or lists more than {DEEPEST} levels deep: flatten it in .map, "
        "or keep the nested part as text (JSON)"
    )


def children(tree: Any) -> list[tuple[str, Any]] | None:
    """The named parts of one container, or None for a leaf.

    >>> children({"x": 1, "y": 2})
    [('x', 1), ('y', 2)]
    """
    if type(tree) is np.ndarray or type(tree) in ATOMS:  # nearly all leaves are
        return None
    if isinstance(tree, dict):
        return [(str(k), v) for k, v in tree.items()]
    if isinstance(tree, tuple):
        names = getattr(tree, "_fields", range(len(tree)))
        return [(str(k), v) for k, v in zip(names, tree, strict=True)]
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type) and not _is_array(tree):
        return [(name, getattr(tree, name)) for name in _field_names(tree)]
    return None


def _is_array(tree: Any) -> bool:
    # an array of another library that is a dataclass, as those of zarr are
    return all(hasattr(tree, name) for name in ("__array__", "dtype", "shape"))


def _field_names(tree: Any) -> list[str]:
    # a field(init=False) without default may never have been set
    return [name for name in _fields(type(tree)) if hasattr(tree, name)]


@lru_cache(1 << 10)  # rows ask for it
def _fields(kind: type) -> dict[str, None]:
    return dict.fromkeys(f.name for f in dataclasses.fields(kind))


@lru_cache(1 << 10)
def _others(kind: type) -> tuple[dict[str, None], list[str]]:
    # the fields of a kind, and the slots that are none of them
    fields = _fields(kind) if dataclasses.is_dataclass(kind) else {}
    slots: list[str] = []
    for base in kind.__mro__:
        names = vars(base).get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            private = name.startswith("__") and not name.endswith("__")
            slots.append(f"_{base.__name__.lstrip('_')}{name}" if private else name)
    return fields, [name for name in slots if name not in {*fields, "__dict__", "__weakref__"}]


def attributes(tree: Any) -> dict[str, Any]:
    """What a container holds beside its parts: attributes that are no fields.

    >>> class Named(dict): ...
    >>> row = Named(x=1)
    >>> row.name = "a"
    >>> attributes(row), attributes({"x": 1})
    ({'name': 'a'}, {})
    """
    if type(tree) in (dict, tuple):  # nearly all containers are
        return {}
    fields, slots = _others(type(tree))
    held: dict[str, Any] = getattr(tree, "__dict__", {})
    if not slots and held.keys() <= fields.keys():
        return {}
    found = {name: value for name, value in held.items() if name not in fields}
    found |= {name: getattr(tree, name) for name in slots if hasattr(tree, name)}
    if isinstance(tree, dict):  # some give their items as attributes, too
        mirrored = {k for k, v in dict.items(tree) if found.get(k) is v}
        return {k: v for k, v in found.items() if k not in mirrored}
    return found


def rebuild(tree: Any, parts: list[Any], keep: Keep | None = lambda value: value) -> Any:
    """A container of the same kind as `tree` around other parts, in `children(tree)` order.

    Constructors are not called: they may change or refuse what they are given.

    Args:
        tree, parts: the container, and the new parts.
        keep: what becomes of each of its `attributes`; None to leave those of dataclasses out.
    """
    if type(tree) is dict:
        return dict(zip(tree, parts, strict=True))
    if type(tree) is tuple:
        return tuple(parts)
    if isinstance(tree, dict):
        return _like_dict(tree, parts, keep or (lambda value: value))
    if isinstance(tree, tuple):
        return _like_tuple(tree, parts, keep)
    return _like_dataclass(tree, parts, keep)


def _like_dict(tree: dict[Any, Any], parts: list[Any], keep: Keep) -> Any:
    same: Any = copy.copy(tree)  # not type(tree)(pairs): a defaultdict takes no pairs
    for name, value in attributes(tree).items():
        object.__setattr__(same, name, keep(value))
    # the class's own methods may convert values, or refuse to set them
    dict.update(same, zip(tree, parts, strict=True))
    held = getattr(tree, "__dict__", None)
    if held is tree:  # its items are its attributes
        object.__setattr__(same, "__dict__", same)
    elif held:
        for (key, old), part in zip(dict.items(tree), parts, strict=True):
            if isinstance(key, str) and held.get(key) is old:
                object.__setattr__(same, key, part)
    return same


def _like_tuple(tree: Any, parts: list[Any], keep: Keep | None) -> Any:
    try:
        same: Any = tuple.__new__(type(tree), parts)
    except TypeError:  # a type written in C, such as time.struct_time
        return type(tree)(parts)
    for name, value in attributes(tree).items() if keep else ():
        object.__setattr__(same, name, cast(Keep, keep)(value))
    return same


def _like_dataclass(tree: Any, parts: list[Any], keep: Keep | None) -> Any:
    kind: Any = type(tree)
    try:
        same = object.__new__(kind)
    except TypeError:  # one that is an exception or a list, too
        same = kind.__new__(kind)
    for name, value in attributes(tree).items() if keep else ():
        object.__setattr__(same, name, cast(Keep, keep)(value))
    for name, part in zip(_field_names(tree), parts, strict=True):
        object.__setattr__(same, name, part)  # it may be frozen
    return same


def leaves(tree: Any, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Every leaf with its dotted name; a bare leaf has the name "".

    Raises:
        CollateError: the tree is too deep.

    >>> list(leaves({"a": 1, "b": (2, 3)}))
    [('a', 1), ('b.0', 2), ('b.1', 3)]
    """
    parts = children(tree)
    if parts is None:
        yield prefix, tree
        return
    if depth == DEEPEST:
        raise too_deep()
    for name, part in parts:
        yield from leaves(part, f"{prefix}.{name}" if prefix else name, depth + 1)


def nbytes(tree: Any, depth: int = 0) -> int:
    """Bytes of a pytree's arrays; other leaves count nothing.

    >>> nbytes({"a": np.zeros(2), "b": (np.zeros(3, np.int8), "text")})
    19
    """
    # called for each block of each stage: the common cases come first
    if isinstance(tree, np.ndarray):
        return tree.nbytes
    parts = tree.values() if isinstance(tree, dict) else children(tree)
    if parts is None:
        return getattr(tree, "nbytes", 0)
    if not isinstance(tree, dict):
        parts = [part for _, part in parts]
    if depth == DEEPEST:  # others refuse it: a measurement never fails
        return 0
    return sum([a.nbytes if type(a) is np.ndarray else nbytes(a, depth + 1) for a in parts])


def map_leaves(f: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """Apply `f` to the leaves of trees of one structure.

    Raises:
        CollateError: a tree of `rest` has other fields than `tree`, or they are too deep.

    >>> map_leaves(lambda a, b: a + b, {"x": 1}, {"x": 2})
    {'x': 3}
    """
    return _map(f, tree, rest, 0)


def _map(f: Callable[..., Any], tree: Any, rest: tuple[Any, ...], depth: int) -> Any:
    # called for each batch: the common cases come first
    if not rest and type(tree) is np.ndarray:
        return f(tree)
    if not rest and type(tree) is dict and depth < DEEPEST:
        return {key: _map(f, part, (), depth + 1) for key, part in tree.items()}
    parts = children(tree)
    if parts is None:
        return f(tree, *rest)
    if depth == DEEPEST:
        raise too_deep()
    if not rest:
        return rebuild(tree, [_map(f, part, (), depth + 1) for _, part in parts])
    if type(tree) is dict and all(type(t) is dict and t.keys() == tree.keys() for t in rest):
        return {
            key: _map(f, part, tuple([other[key] for other in rest]), depth + 1)
            for key, part in tree.items()
        }
    columns: list[list[Any]] = [[v for _, v in parts]]
    for other in rest:
        got = children(other)
        found = dict(got) if got is not None else None
        if found is None or set(found) != {k for k, _ in parts}:
            raise CollateError(
                f"rows differ in structure: {shown(sorted(k for k, _ in parts))} and "
                f"{shown(sorted(found)) if found is not None else type(other).__name__}. "
                "Return the same fields for every row."
            )
        columns.append([found[k] for k, _ in parts])
    rows = zip(*columns, strict=True)
    return rebuild(tree, [_map(f, first, tuple(others), depth + 1) for first, *others in rows])


UNMASKED = (
    "a masked array, which would lose its mask in a batch. Give two fields, such as "
    '{"x": x.filled(0), "x_mask": np.ma.getmaskarray(x)}.'
)


def refuse_mask(value: Any) -> None:
    """Raise ChainError for a masked array: a batch of it would hold what is masked.

    >>> refuse_mask(np.ma.masked_equal([1, 0], 0))
    Traceback (most recent call last):
    pipeline.errors.ChainError: this is a masked array, which would lose its mask in a batch. Give
    two fields, such as {"x": x.filled(0), "x_mask": np.ma.getmaskarray(x)}.
    """
    if isinstance(value, np.ma.MaskedArray):
        raise ChainError(f"this is {UNMASKED}")


def fresh(value: Any, depth: int = 0) -> Any:
    """A copy of a record: of its containers, arrays, tensors and other objects that can change.

    Objects of other types are copied as `copy.deepcopy` does. What cannot be copied, such as a lock
    or an open file, is shared.

    Raises:
        CollateError: it is too deep.

    >>> row = {"x": np.zeros(2), "seen": {1}}
    >>> same = fresh(row)
    >>> same["x"][0] = same["seen"].pop()
    >>> row
    {'x': array([0., 0.]), 'seen': {1}}
    """
    kind = type(value)
    if kind in ATOMS:
        return value
    if isinstance(value, np.ndarray):
        return _fresh_array(value)
    if kind is dict and depth < DEEPEST:
        return {k: v if type(v) in ATOMS else fresh(v, depth + 1) for k, v in value.items()}
    parts = value if kind is list else children(value)
    if parts is None:
        return _fresh_leaf(value)
    if depth == DEEPEST:
        raise too_deep()
    if kind is list:
        return [v if type(v) in ATOMS else fresh(v, depth + 1) for v in parts]
    copied = [v if type(v) in ATOMS else fresh(v, depth + 1) for _, v in parts]
    return rebuild(value, copied, _fresh_leaf)


def _fresh_array(a: NDArray[Any]) -> NDArray[Any]:
    if type(a) is np.ndarray and not a.dtype.hasobject:
        return a.copy()
    refuse_mask(a)
    if not a.dtype.hasobject:
        return a.copy()
    return fresh_elements(a) if type(a) is np.ndarray and a.dtype.kind == "O" else copy.deepcopy(a)


def _fresh_leaf(value: Any) -> Any:
    kind = type(value)
    if is_constant(kind):
        return value
    try:
        if kind is _tensor_type() and not vars(value):
            # deepcopy refuses tensors that were computed from ones with gradients
            return value.detach().clone().requires_grad_(value.requires_grad)
        return copy.deepcopy(value)
    except MemoryError:
        raise
    except Exception:
        return value


def _tensor_type() -> Any:
    """torch's tensors; None while nobody has imported torch."""
    return getattr(sys.modules.get("torch"), "Tensor", None)


@lru_cache(1 << 12)
def is_constant(kind: type) -> bool:
    """Whether values of a type cannot be changed in place, or are never copied."""
    if issubclass(kind, np.void):
        return False  # the fields of a structured scalar can be set
    return kind in ATOMS or kind in _CONSTANTS or issubclass(kind, _CONSTANT_KINDS)


def fresh_elements(a: NDArray[Any]) -> NDArray[Any]:
    """The array itself or, if it holds objects, a copy of it and of its mutable objects."""
    if a.dtype.kind != "O":
        return _fresh_array(a) if a.dtype.hasobject else a
    flat = np.array(a, order="C").reshape(-1)
    for i, value in enumerate(flat):
        if type(value) not in ATOMS:
            flat[i] = fresh(value)
    return flat.reshape(a.shape)


def owned(a: NDArray[Any]) -> NDArray[Any]:
    """The array itself where nobody else holds its memory and it can be written to; else a copy."""
    # a view may be into a block that later batches read, or into an array that a user keeps
    if a.dtype.hasobject:
        return fresh_elements(a)
    own = a.base is None and a.flags.writeable and a.flags.c_contiguous
    return a if own else a.copy()
