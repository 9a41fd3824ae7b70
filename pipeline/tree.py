"""What a pytree is here: dicts, tuples, namedtuples and dataclasses nest; all else is a leaf."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.checks import shown
from pipeline.errors import ChainError, CollateError

DEEPEST = (
    64  # levels of containers in a row: far beyond any use, far below what Python's stack holds
)

# types whose values cannot be changed in place
ATOMS = frozenset({str, bytes, int, float, bool, complex, type(None)})


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
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        return [(f.name, getattr(tree, f.name)) for f in dataclasses.fields(tree)]
    return None


def rebuild(tree: Any, parts: list[Any]) -> Any:
    """A container of the same kind as `tree` around other parts, in `children(tree)` order."""
    if isinstance(tree, dict):
        same = copy.copy(tree)  # not type(tree)(pairs): a defaultdict takes no pairs
        same.update(zip(tree, parts, strict=True))
        return same
    if isinstance(tree, tuple):
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    names = [f.name for f in dataclasses.fields(tree)]
    return dataclasses.replace(tree, **dict(zip(names, parts, strict=True)))


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
    return sum([nbytes(part, depth + 1) for part in parts])


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


def fresh(value: Any, depth: int = 0) -> Any:
    """A copy of a record, with its containers and arrays.

    Raises:
        CollateError: it is too deep.
    """
    kind = type(value)
    if kind in ATOMS:
        return value
    if kind is np.ndarray and value.dtype.kind != "O":
        return value.copy()
    if isinstance(value, np.ndarray):
        refuse_mask(value)
        return fresh_elements(value.copy())
    parts = value if kind is list else children(value)
    if parts is None:
        return value
    if depth == DEEPEST:
        raise too_deep()
    if kind is list:
        return [v if type(v) in ATOMS else fresh(v, depth + 1) for v in parts]
    return rebuild(value, [v if type(v) in ATOMS else fresh(v, depth + 1) for _, v in parts])


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


def fresh_elements(a: NDArray[Any]) -> NDArray[Any]:
    """The array itself or, if it holds objects, a copy of it and of its mutable objects."""
    if a.dtype.kind != "O" or a.ndim == 0:
        return a
    flat = np.array(a, order="C").reshape(-1)
    for i, value in enumerate(flat):
        if type(value) not in ATOMS:
            flat[i] = fresh(value)
    return flat.reshape(a.shape)


def owned(a: NDArray[Any]) -> NDArray[Any]:
    """The array itself where nobody else holds its memory and it can be written to; else a copy."""
    # a view may be into a block that later batches read, or into an array that a user keeps
    if a.dtype == object:
        return fresh_elements(a)
    own = a.base is None and a.flags.writeable and a.flags.c_contiguous
    return a if own else a.copy()
