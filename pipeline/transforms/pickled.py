"""What pickle sees of an object and its attributes may not show: content held in C."""

from __future__ import annotations

import builtins
import copyreg
import functools
import json
import sys
import types
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields, is_dataclass
from enum import Enum, auto
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.transforms.ownership import module_of

# modules of Python whose objects are machinery that changes with use, and no data of a function
_MACHINERY = {
    *("_abc", "_thread", "threading", "weakref", "_weakref", "_weakrefset", "queue", "_queue"),
    *("logging", "concurrent", "multiprocessing", "asyncio", "_asyncio", "contextvars"),
    *("os", "_contextvars", "warnings", "contextlib", "typing", "abc"),
}
_MACHINERY_TYPES = (
    object,
    types.GenericAlias,
    types.UnionType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
)
_FUNCTIONS_IN_C = ("PyCapsule", "pybind11_detail_function_record")  # types that they are bound to
_BOOKKEEPING = {"__dict__", "__weakref__"}


class Sight(Enum):
    """How much of an object its attributes show."""

    ALL = auto()
    PERHAPS = auto()
    """It says itself, in Python, how it is pickled."""
    SOME = auto()
    """It says so in C, where it may keep content."""
    UNKNOWN = auto()
    """It cannot be pickled: it keeps content where nobody sees it."""


def sight_of(obj: Any) -> Sight:
    """How much of an object its attributes show."""
    kind = type(obj)
    if kind in copyreg.dispatch_table:
        return Sight.SOME
    for name in ("__reduce_ex__", "__reduce__", "__getstate__"):
        definer = next(
            parent for parent in kind.__mro__ if name in vars(parent) or parent is object
        )
        if definer is not object:
            own = isinstance(vars(definer)[name], types.FunctionType)
            return Sight.PERHAPS if own else Sight.SOME
    try:
        obj.__reduce_ex__(4)
    except Exception:
        return Sight.UNKNOWN
    return Sight.ALL


def pickled(obj: Any) -> tuple[Any, ...] | None:
    """The parts that pickle would write of an object, not pickled themselves; None if it fails.

    For an object that is pickled by its name alone, ().
    """
    kind = type(obj)
    try:
        made: Any = copyreg.dispatch_table[kind](obj) if kind in copyreg.dispatch_table else None
        made = obj.__reduce_ex__(4) if made is None else made
        if isinstance(made, str):
            return ()
        call, args, state, items, pairs, *_ = (*made, *[None] * 4)
        return call, args, state, list(items or ()), dict(pairs or ())
    except Exception:
        return None


def is_machinery(obj: Any) -> bool:
    """Whether an object holds nothing that a function could compute from: a lock, a logger, …

    An object that is pickled by its name alone, such as a function written in C, counts too.
    """
    kind = type(obj)
    if kind in _MACHINERY_TYPES or module_of(kind).partition(".")[0] in _MACHINERY:
        return True
    if obj is sys.stdout or obj is sys.stderr or kind.__name__.startswith(_FUNCTIONS_IN_C):
        return True
    parts = pickled(obj)
    return parts is not None and (not parts or parts[0] is builtins.getattr)


def is_drawn_from(obj: Any) -> bool:
    """Whether an object is a random generator, whose state changes with use and is no content."""
    kind = type(obj)
    made = ("bit_generator", "random_raw", "getrandbits", "initial_seed", "random_sample")
    return any(hasattr(kind, name) for name in made)


def is_used_up(obj: Any) -> bool:
    """Whether an object can be read only once."""
    return isinstance(obj, Iterator)


def is_tensor(obj: Any) -> bool:
    """Whether an object is one of torch's tensors, or like them."""
    # all of them, on the class: files and sockets have a detach as well
    return all(hasattr(type(obj), name) for name in ("detach", "cpu", "dtype", "shape"))


def as_array(obj: Any) -> NDArray[Any] | None:
    """A tensor's content, wherever it lies; None if it cannot be had as an array."""
    with suppress(Exception):
        if is_tensor(obj):
            obj = obj.detach().cpu().contiguous()
            if not hasattr(obj, "is_sparse") or obj.is_sparse or obj.is_quantized:
                return None
            try:
                return np.asarray(obj)
            except TypeError:  # bfloat16 and float8 are unknown to NumPy: their bytes are not
                itemsize = obj.element_size()
                raw = np.asarray(obj.reshape(-1).view(dtype=_uint8(obj)))
                return raw.reshape(*obj.shape, itemsize)
        return np.asarray(obj)
    return None


def _uint8(tensor: Any) -> Any:
    return tensor.new_empty(0).byte().dtype


def serialization(obj: Any) -> bytes | None:
    """A tokenizer's own JSON, without truncation and padding, which calls set; None for others."""
    if isinstance(obj, type) or not all(
        callable(getattr(obj, name, None)) for name in ("to_str", "no_truncation", "no_padding")
    ):
        return None
    try:
        said: dict[str, Any] = json.loads(obj.to_str())
    except Exception:
        return None
    said = {name: part for name, part in said.items() if name not in ("truncation", "padding")}
    return json.dumps(said, sort_keys=True).encode()


def state_of(obj: Any) -> dict[str, Any]:
    """An object's own attributes, without what it merely caches."""
    if is_dataclass(obj):
        return {f.name: getattr(obj, f.name) for f in fields(obj) if hasattr(obj, f.name)}
    parents = type(obj).__mro__
    cached = {
        name
        for parent in parents
        for name, value in vars(parent).items()
        if isinstance(value, functools.cached_property)
    }
    names = [s for parent in parents for s in _slots(parent)]
    state = {s: getattr(obj, s) for s in names if hasattr(obj, s)} | getattr(obj, "__dict__", {})
    return {n: v for n, v in state.items() if n not in cached and n not in _BOOKKEEPING}


def without_caches(state: dict[str, Any]) -> dict[str, Any]:
    """The attributes of an installed package's object that do not change by mere use."""
    return {
        name: value
        for name, value in state.items()
        if "cache" not in name.lower() and name != "deprecation_warnings"
    }


def _slots(cls: type) -> tuple[str, ...]:
    slots = vars(cls).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)
