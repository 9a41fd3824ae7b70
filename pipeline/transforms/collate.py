"""Stacks rows into one batch, leaf by leaf; errors name the field and rows that do not stack."""

from __future__ import annotations

import marshal
from collections.abc import Callable
from operator import is_
from typing import Any, NamedTuple, NoReturn, cast

import numpy as np

from pipeline.block import Block, Columns
from pipeline.checks import numeric, shown
from pipeline.errors import CollateError
from pipeline.sources.exact import Array, objects
from pipeline.transforms.leaf import DTYPES, UNEQUAL, Describe, as_array, called
from pipeline.tree import DEEPEST, UNMASKED, attributes, children, rebuild, too_deep

Empty = Callable[[tuple[int, ...], np.dtype[Any]], Array]  # makes a batch's arrays

_TEXT = {str, bytes, type(None)}  # always objects
_REMEDY = {
    "shape": UNEQUAL,
    "dtype": "Give every row one dtype in .map, or pass collate=.",
    "fields": "Return the same fields for every row in .map, or pass collate=.",
}
FEW = 16  # values, for which the quicker look is not quicker
# how `marshal` writes plain ints of 32 bits and floats: a letter that nothing else has, and this
_WRITTEN: dict[type, tuple[bytes, np.dtype[Any]]] = {
    int: (b"i", np.dtype("<i4")),
    float: (b"g", np.dtype("<f8")),
}


class Look(NamedTuple):
    """What a look at some values tells.

    Attributes:
        kinds: their types.
        numbers: the values `[n]`, int64 or float64, where these are at hand.

    >>> Look.at([1, "a", 2]).kinds == {int, str}
    True
    """

    kinds: set[type]
    numbers: Array | None = None

    @classmethod
    def at(cls, values: list[Any]) -> Look:
        """Look at values, at each of them only once where they are all ints, or all floats."""
        numbers = _numbers(values) if len(values) >= FEW else None
        return cls(set(map(type, values) if numbers is None else (type(values[0]),)), numbers)


def collate(
    rows: list[Any],
    describe: Describe | None = None,
    *,
    empty: Empty = np.empty,
    look: Look | None = None,
    strict: bool = False,
) -> Any:
    """Rows (pytrees) as one pytree of arrays `[n, ...]`.

    Python bools, ints and floats become bool, int64 and float64; arrays stack; a list of numbers,
    nested or not, is one array; strings, bytes, None and other objects become object arrays `[n]`
    (fixed-width ones would strip zero bytes). No dtype is promoted, since the result would depend
    on which rows happen to meet in a batch.

    Args:
        rows: at least one.
        describe: names row i in messages.
        empty: makes the arrays that rows are copied into.
        look: what is known of these rows.
        strict: whether to refuse rows of which only their own batch can be made: with fields in
            another order than the first, or with attributes that are no fields.

    Raises:
        CollateError: shapes, dtypes or fields differ, or there are no rows.

    >>> batch = collate([{"x": 1, "s": "a"}, {"x": 2, "s": "bc"}])
    >>> batch["x"], batch["s"]
    (array([1, 2]), array(['a', 'bc'], dtype=object))
    """
    if not rows:
        raise CollateError(
            "cannot stack 0 rows: their fields are unknown. Collate one row or more."
        )
    describe = describe or (lambda i: f"row {i}")
    if children(rows[0]) is None:
        return _stack_leaves(rows, "", describe, empty, look)
    return _stack(rows, "", describe, empty, 0, strict)


def refuse_none(rows: list[Any], describe: Describe, made: str = "") -> None:
    """Refuse rows that are None, as they come from functions that forget to return.

    Args:
        rows: the rows of one batch.
        describe: names row i in messages.
        made: the stage that made them, if known.

    Raises:
        CollateError: a row is None.
    """
    if type(None) in set(map(type, rows)):
        i = next(i for i, row in enumerate(rows) if row is None)
        told = f"{made} returned None for {describe(i)}" if made else f"{describe(i)} is None"
        raise CollateError(
            f"{told}, which is no row of a batch. Return the row, or drop it with "
            ".filter(lambda row: row is not None)."
        )


def in_c_order(tree: Any) -> Any:
    """The same batch, its arrays and tensors laid out row by row and in native byte order.

    So the memory layout of a batch does not depend on where rows came from or who evaluated them.
    What has this layout already is returned as it is.

    Raises:
        CollateError: an array is masked.

    >>> a = np.zeros((2, 3)).T
    >>> in_c_order({"a": a, "b": [a]})["b"][0].strides
    (16, 8)
    """
    # called for each batch: the common cases come first
    if type(tree) is np.ndarray and tree.dtype.isbuiltin == 1 and tree.flags.c_contiguous:
        return tree
    if type(tree) is dict:
        found = {key: in_c_order(part) for key, part in cast(dict[Any, Any], tree).items()}
        return tree if all(map(is_, found.values(), tree.values())) else found
    if isinstance(tree, np.ndarray):
        if isinstance(tree, np.ma.MaskedArray):
            raise CollateError(f"the batch holds {UNMASKED}")
        dtype = np.result_type(tree.dtype, tree.dtype)  # in native order, without gaps
        same = tree.flags.c_contiguous and tree.dtype == dtype
        return tree if same else np.asarray(tree, dtype, order="C")
    if str(getattr(tree, "layout", "")) == "torch.strided":
        return tree.contiguous()
    kind = type(tree)
    parts = tree if kind is list else [part for _, part in children(tree) or ()]
    found = [in_c_order(part) for part in parts]
    if all(map(is_, found, parts)):
        return tree
    return found if kind is list else rebuild(tree, found)


def collate_block(block: Block, describe: Describe | None = None) -> Any:
    """A block's rows as a pytree of arrays `[n, ...]`.

    Columns give the batch that their rows would give: objects, such as lists of numbers, are
    stacked. Other columns are returned as they are: the caller copies them, so that a batch never
    shares the memory of a block or source.

    Raises:
        CollateError: see `collate`.
    """
    describe = describe or (lambda i: f"row {i}")
    if isinstance(block.values, Columns):
        tree = block.values.tree
        if not len(block.values):
            return tree
        if isinstance(tree, np.ndarray) and tree.dtype == object:
            refuse_none(list(tree), describe, block.made)
        return _settled(tree, "", describe)
    look = Look.at(block.values)
    if type(None) in look.kinds:
        refuse_none(block.values, describe, block.made)
    return collate(block.values, describe, look=look)


def _settled(tree: Any, name: str, describe: Describe) -> Any:
    if type(tree) is np.ndarray and tree.dtype != object:
        return tree
    parts = children(tree)
    if parts is None:
        if isinstance(tree, np.ma.MaskedArray):
            raise CollateError(f"cannot stack {called(name)}: a batched map gave {UNMASKED}")
        if tree.dtype != object or tree.ndim > 1 or set(map(type, tree)) <= _TEXT:
            return tree
        return _stack(list(tree), name, describe, np.empty, 0)
    prefix = f"{name}." if name else ""
    return rebuild(tree, [_settled(part, prefix + field, describe) for field, part in parts])


def _differ(name: str, what: str, describe: Describe, i: int, first: str, other: str) -> NoReturn:
    raise CollateError(
        f"cannot stack {called(name)}: {describe(0)} has {what} {first}, {describe(i)} has "
        f"{other}. {_REMEDY[what]}"
    )


def _stack(
    rows: list[Any], name: str, describe: Describe, empty: Empty, depth: int, strict: bool = False
) -> Any:
    first = children(rows[0])
    if first is None:
        return _stack_leaves(rows, name, describe, empty)
    if depth == DEEPEST:
        raise too_deep(describe(0))
    prefix = f"{name}." if name else ""
    fields = [field for field, _ in first]
    if len(set(fields)) < len(fields):
        raise CollateError(
            f"cannot stack {called(name)}: {describe(0)} has two fields of one name: "
            f"{_fields_of(rows[0])}. Rename one in .map."
        )
    if strict and type(rows[0]) is dict and not _in_one_order(rows):
        raise CollateError("rows hold their fields in several orders")
    columns = _by_field(rows, fields, name, describe)
    if strict and type(rows[0]) not in (dict, tuple) and any(map(attributes, rows)):
        raise CollateError(f"a {type(rows[0]).__name__} has attributes that are no fields")
    stacked = [
        _stack(column, prefix + field, describe, empty, depth + 1, strict)
        for field, column in columns.items()
    ]
    return rebuild(rows[0], stacked, keep=None)


def _in_one_order(rows: list[Any]) -> bool:
    order = list(rows[0])
    return all(list(row) == order for row in rows if type(row) is dict)


def _by_field(
    rows: list[Any], fields: list[str], name: str, describe: Describe
) -> dict[str, list[Any]]:
    kind = type(rows[0])
    if kind is dict and all(type(row) is dict and row.keys() == rows[0].keys() for row in rows):
        return {str(key): [row[key] for row in rows] for key in rows[0]}
    columns: dict[str, list[Any]] = {field: [] for field in fields}
    for i, row in enumerate(rows):
        found = dict(children(row) or ())
        if type(row) is not kind or found.keys() != columns.keys():
            _differ(name, "fields", describe, i, _fields_of(rows[0]), _fields_of(row))
        for field, column in columns.items():
            column.append(found[field])
    return columns


def _fields_of(row: Any) -> str:
    parts = children(row)
    kind = type(row).__name__
    return kind if parts is None else f"{shown([field for field, _ in parts])} ({kind})"


def _stack_leaves(
    values: list[Any],
    name: str,
    describe: Describe,
    empty: Empty,
    look: Look | None = None,
) -> Array:
    kinds, numbers = look or Look.at(values)
    if numbers is not None:
        return numbers
    if len(kinds) == 1:
        quick = _quickly(values, next(iter(kinds)), empty)
        if quick is not None:
            return quick
    arrays = [as_array(v, name, describe, i) for i, v in enumerate(values)]
    for i, a in enumerate(arrays):
        first, other = _dtype_of(arrays[0], values[0]), _dtype_of(a, values[i])
        if (a is None) != (arrays[0] is None) or (a is not None and first != other):
            _differ(name, "dtype", describe, i, first, other)
        if a is not None and arrays[0] is not None and a.shape != arrays[0].shape:
            _differ(name, "shape", describe, i, str(arrays[0].shape), str(a.shape))
    stackable = [a for a in arrays if a is not None]
    if not stackable:
        return objects(values)
    dtype = np.result_type(stackable[0].dtype, stackable[0].dtype)
    # into an array of our own: left to itself, np.stack keeps the memory order of its input
    return np.stack(stackable, out=empty((len(values), *stackable[0].shape), dtype))


def _quickly(values: list[Any], kind: type, empty: Empty) -> Array | None:
    # arrays of one shape and dtype, or numbers of one type; None where these need a closer look
    if kind is np.ndarray:
        shape, dtype = values[0].shape, values[0].dtype
        alike = shape and dtype.kind not in "SU"
        if alike and all(v.shape == shape and v.dtype == dtype for v in values):
            out = empty((len(values), *shape), np.result_type(dtype, dtype))
            np.concatenate(values, out=out.reshape(len(values) * shape[0], *shape[1:]))
            return out
    elif kind in (bool, float):
        return np.fromiter(values, DTYPES[kind], len(values))  # quicker than np.array
    elif issubclass(kind, np.generic) and numeric(np.dtype(kind)):
        return np.array(values, kind)
    elif kind is int:
        try:
            return np.fromiter(values, np.int64, len(values))
        except OverflowError:
            return None
    return objects(values) if kind in (str, bytes, type(None)) else None


def _numbers(values: list[Any]) -> Array | None:
    # None where values are not all plain ints of 32 bits, or all floats. If each letter stands
    # where the one before it says that the next value begins, then all are of that type
    letter, dtype = _WRITTEN.get(type(values[0]), (b"", None))
    if dtype is None or (letter == b"i" and not -(1 << 31) <= values[0] < 1 << 31):
        return None
    try:
        data, stride = marshal.dumps(values, 2), 1 + dtype.itemsize
    except ValueError:  # objects, or what is too deep
        return None
    if len(data) != 5 + stride * len(values) or data[5::stride].count(letter) < len(values):
        return None
    return np.ndarray(len(values), dtype, data, 6, stride).astype(DTYPES[type(values[0])])


def _dtype_of(array: Array | None, value: object) -> str:
    if array is None:
        return f"object ({type(value).__name__})"
    return str(np.result_type(array.dtype, array.dtype))  # in native order: it does not matter
