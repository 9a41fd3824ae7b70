"""What a user's function computes, as eight hex digits that any process agrees on."""

from __future__ import annotations

import argparse
import array
import collections
import datetime
import decimal
import dis
import enum
import fractions
import functools
import hashlib
import operator
import pathlib
import re
import sys
import types
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

_OPTIMIZED, _VARARGS, _HAS_DOCSTRING = 0x1, 0xC, 0x4000000  # co_flags; the last from 3.14 on
_DEEPEST = 80  # levels of nesting; Python's own stack ends at about 1,000 calls
_HEAP_TYPE = 1 << 9  # of a class's __flags__
_ATOMS = (type(None), bool, int, float, complex, str, bytes, range, slice, type(...))
# of the standard library, what its repr says in full
_VALUES = (
    array.array,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    datetime.timezone,
    decimal.Decimal,
    fractions.Fraction,
    pathlib.PurePath,
    re.Pattern,
    uuid.UUID,
)
_BOOKKEEPING = {"__dict__", "__weakref__"}
_OPERATORS = (operator.itemgetter, operator.attrgetter, operator.methodcaller)
_NAMED_VALUES = int | float | complex | str | bytes  # as parents; _ATOMS are these exactly


def code_digest(f: Any) -> str:
    """Eight hex digits over what `f` computes: equal in every process of one Python minor version.

    It covers bytecode, constants, defaults, closures, partial arguments, the state of bound and
    callable objects, arrays by content, and the global data, functions and classes of the same
    module that the code names, recursively. It leaves out comments, line numbers, local names,
    changed docstrings, globals that the function itself assigns (caches), and code reached through
    another module or an opaque object: give such an object a `fingerprint()` method.

    >>> code_digest(lambda x: x + 1) == code_digest(lambda y: y + 1)
    True
    >>> code_digest(lambda x: x + 1) == code_digest(lambda x: x + 2)
    False
    """
    version = b"%d.%d" % sys.version_info[:2]
    return _digest(version, _Walk(_module(_innermost(f))).of(f)).hex()[:8]


def code_name(f: Any) -> str:
    """A function's name for messages.

    >>> code_name(len), code_name(lambda x: x), code_name(functools.partial(len))
    ('len', '<lambda>', 'len')
    """
    inner = _innermost(f)
    return str(getattr(inner, "__name__", type(inner).__name__))


def _innermost(f: Any) -> Any:
    while isinstance(f, functools.partial):
        f = f.func
    return f


def _module(obj: Any) -> str:
    module = getattr(obj, "__module__", None)
    return module if isinstance(module, str) else ""


def _digest(tag: bytes, *parts: bytes) -> bytes:
    framed = b"".join(b"%d:" % len(part) + part for part in (tag, *parts))
    return hashlib.blake2b(framed, digest_size=16).digest()


def _loads(code: types.CodeType) -> tuple[set[str], set[str]]:
    """Names of globals that code reads, and that it writes; nested functions included."""
    reads: set[str] = set()
    writes: set[str] = set()
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"):
            reads.add(step.argval)
        elif step.opname == "STORE_GLOBAL":
            writes.add(step.argval)
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            more_reads, more_writes = _loads(inner)
            reads, writes = reads | more_reads, writes | more_writes
    return reads, writes


def _constants(code: types.CodeType) -> tuple[Any, ...]:
    consts = code.co_consts
    if sys.version_info >= (3, 14):
        documented = code.co_flags & _HAS_DOCSTRING
    else:  # a def's first constant is its docstring or None
        documented = code.co_flags & _OPTIMIZED and code.co_name[0] != "<" and consts
    return (None, *consts[1:]) if documented and isinstance(consts[0], str) else consts


def _members(cls: type) -> Iterator[tuple[str, Any]]:
    # what a class says itself: its functions and data, without Python's own bookkeeping
    for name, value in sorted(vars(cls).items()):
        special = name.startswith("__") and name.endswith("__")
        if name.startswith("__annotate") or (special and not isinstance(value, types.FunctionType)):
            continue
        yield name, value


def _state(obj: Any) -> dict[str, Any]:
    """An object's own data, by name, less what it merely caches."""
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


def _slots(cls: type) -> tuple[str, ...]:
    slots = vars(cls).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _written_in_python(obj: Any) -> bool:
    # compiled classes change with their library's version, not with the user's code
    return not isinstance(obj, type) or bool(obj.__flags__ & _HEAP_TYPE)


class _Walk:
    """One digest in the making: every object once, cycles by their distance on the way down.

    `follow` says whether to go into code of other modules: yes for what a function holds (closure,
    defaults, state), no for what it finds by a global name. The standard library is only named.
    """

    def __init__(self, home: str) -> None:
        self.done: dict[tuple[int, bool, str], tuple[Any, bytes]] = {}  # obj too: pins its id
        self.active: list[int] = []
        self.home = home  # the module of the code being walked

    def of(self, obj: Any, follow: bool = True) -> bytes:
        """Digest of a value."""
        if type(obj) in _ATOMS:
            return _digest(b"atom", type(obj).__name__.encode(), repr(obj).encode())
        if id(obj) in self.active:
            depth = len(self.active) - self.active.index(id(obj))
            return _digest(b"cycle", b"%d" % depth)
        if len(self.active) == _DEEPEST:
            return _digest(b"deep", type(obj).__name__.encode())
        key = id(obj), follow, self.home
        if key not in self.done:
            self.active.append(id(obj))
            self.done[key] = obj, self._new(obj, follow)
            self.active.pop()
        return self.done[key][1]

    def _all(self, items: Iterable[Any], follow: bool = True) -> list[bytes]:
        return [self.of(item, follow) for item in items]

    def _mapping(self, items: Iterable[tuple[Any, Any]]) -> bytes:
        return _digest(b"map", *sorted(_digest(b"item", *self._all(item)) for item in items))

    def _new(self, obj: Any, follow: bool) -> bytes:
        if isinstance(obj, types.CodeType):
            return self._code(obj)
        if isinstance(obj, types.ModuleType):
            return _digest(b"module", b"" if obj.__name__ == self.home else obj.__name__.encode())
        if not isinstance(obj, type) and callable(getattr(obj, "fingerprint", None)):
            return _digest(b"fingerprint", str(obj.fingerprint()).encode())
        for known in (self._plain(obj), self._holder(obj, follow)):
            if known is not None:
                return known
        if not self._enters(obj, follow):
            return self._named(obj)
        if isinstance(obj, types.FunctionType):
            return self._function(obj)
        return self._class(obj) if isinstance(obj, type) else self._instance(obj, follow)

    def _enters(self, obj: Any, follow: bool) -> bool:
        module = _module(obj)
        library = module.partition(".")[0] in sys.stdlib_module_names and module != "__main__"
        return not library and _written_in_python(obj) and (follow or module == self.home)

    def _named(self, obj: Any) -> bytes:
        module = _module(obj)
        name = getattr(obj, "__qualname__", None) or getattr(obj, "__name__", None)
        name = str(name or type(obj).__qualname__)
        # the same file is __main__ in one process and a module in another
        return _digest(b"name", b"" if module == self.home else module.encode(), name.encode())

    def _code(self, code: types.CodeType) -> bytes:
        counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount
        shape = counts, code.co_flags & _VARARGS, code.co_names
        body = code.co_code, code.co_exceptiontable, repr(shape).encode()
        return _digest(b"code", *body, *self._all(_constants(code)))

    def _function(self, f: types.FunctionType) -> bytes:
        outer, self.home = self.home, _module(f)
        parts = self._all((f.__code__, f.__defaults__, f.__kwdefaults__))
        parts += [self._cell(cell) for cell in f.__closure__ or ()]
        reads, writes = _loads(f.__code__)
        for name in sorted((reads - writes) & f.__globals__.keys()):
            value = self.of(f.__globals__[name], follow=False)
            parts.append(_digest(b"global", name.encode(), value))
        self.home = outer
        return _digest(b"function", *parts)

    def _cell(self, cell: types.CellType) -> bytes:
        try:
            held = cell.cell_contents
        except ValueError:  # not filled yet
            return b"empty"
        return self.of(held)

    def _class(self, cls: type) -> bytes:
        outer, self.home = self.home, cls.__module__
        parts = self._all(cls.__bases__, follow=False)
        parts += [_digest(name.encode(), self.of(value)) for name, value in _members(cls)]
        self.home = outer
        return _digest(b"class", cls.__qualname__.encode(), *parts)

    def _instance(self, obj: Any, follow: bool) -> bytes:
        """Class and state of an object: its methods may compute from any of it."""
        state = self._mapping(_state(obj).items())
        return _digest(b"object", self._named(obj), self.of(type(obj), follow), state)

    def _holder(self, obj: Any, follow: bool) -> bytes | None:
        """What wraps other code: by what it wraps; None for anything else."""
        if isinstance(obj, functools.partial):
            return _digest(b"partial", *self._all((obj.func, obj.args, obj.keywords), follow))
        if isinstance(obj, types.MethodType):
            return _digest(b"method", *self._all((obj.__func__, obj.__self__), follow))
        if isinstance(obj, property):
            return _digest(b"property", *self._all((obj.fget, obj.fset), follow))
        if isinstance(obj, functools.cached_property):
            return _digest(b"property", self.of(obj.func, follow))
        if isinstance(obj, types.BuiltinFunctionType | types.MethodWrapperType):
            owner = obj.__self__  # of vocabulary.get: the vocabulary
            bound = b"" if isinstance(owner, types.ModuleType) else self.of(owner, follow)
            return _digest(b"builtin", self._named(obj), bound)
        inner = None if isinstance(obj, type) else getattr(obj, "__wrapped__", None)
        if inner is not None and not isinstance(obj, types.FunctionType):  # jit, lru_cache
            return _digest(b"wrapped", self._named(type(obj)), self.of(inner, follow))
        return None

    def _plain(self, obj: Any) -> bytes | None:
        """Data by its content; None for anything else."""
        kind = type(obj).__name__.encode()
        if isinstance(obj, enum.Enum):
            return _digest(b"enum", self._named(type(obj)), *self._all((obj.name, obj.value)))
        if isinstance(obj, _VALUES):
            return _digest(b"value", kind, repr(obj).encode())
        if isinstance(obj, types.SimpleNamespace | argparse.Namespace):
            return _digest(kind, self._mapping(vars(obj).items()))
        if isinstance(obj, list | tuple | collections.deque):
            return _digest(kind, *self._all(obj))
        if isinstance(obj, set | frozenset):
            return _digest(kind, *sorted(self._all(obj)))
        if isinstance(obj, dict | types.MappingProxyType):
            return _digest(kind, self._mapping(obj.items()))
        if isinstance(obj, bytearray | memoryview):
            return _digest(kind, bytes(obj))
        if isinstance(obj, re.Pattern):
            return _digest(b"pattern", *self._all((obj.pattern, obj.flags)))
        if isinstance(obj, _OPERATORS):
            return _digest(kind, self.of(obj.__reduce__()[1:]))
        if isinstance(obj, np.dtype):
            return _digest(b"dtype", str(obj).encode())
        if not callable(obj) and hasattr(obj, "__array__"):
            with suppress(Exception):  # a tensor that cannot leave its device is no plain data
                return self._array(np.asarray(obj))
        return _digest(kind, repr(obj).encode()) if isinstance(obj, _NAMED_VALUES) else None

    def _array(self, a: np.ndarray[Any, Any]) -> bytes:
        body = self.of(a.tolist()) if a.dtype.hasobject else a.tobytes()
        return _digest(b"array", str(a.dtype).encode(), repr(a.shape).encode(), body)
