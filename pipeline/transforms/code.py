"""What a user's function computes, as eight hex digits that any process agrees on."""

from __future__ import annotations

import argparse
import array
import collections
import datetime
import decimal
import enum
import fractions
import functools
import hashlib
import operator
import pathlib
import re
import struct
import sys
import types
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.transforms import bytecode
from pipeline.transforms.ownership import (
    is_python,
    is_users,
    module_of,
    package_of,
    source_of_module,
)
from pipeline.transforms.pickled import (
    Sight,
    as_array,
    is_drawn_from,
    is_machinery,
    is_tensor,
    is_used_up,
    pickled,
    serialization,
    sight_of,
    state_of,
    without_caches,
)

_DEEPEST = 80  # levels of nesting; Python's own stack ends at about 1,000 calls
_PIECE = 1 << 24  # bytes of an array that are hashed at once
_HEAP_TYPE = 1 << 9  # of a class's __flags__
_ATOMS = (type(None), bool, int, float, complex, str, bytes, range, slice, type(...))
# types of the standard library whose repr tells all of their value
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
_OPERATORS = (operator.itemgetter, operator.attrgetter, operator.methodcaller)
_NAMED_VALUES = int | float | complex | str | bytes  # and subclasses; _ATOMS: exact types


@dataclass(frozen=True)
class Code:
    """What a function computed when it was looked at.

    Attributes:
        digest: eight hex digits over all of it.
        unseen: in words, what it holds whose content cannot be seen: the digest stays the same
            when that changes, though the function may compute something else.
        packages: installed packages that it uses, which count by name and not by version.
        globals: a digest of each global that it reads, by its full name.
    """

    digest: str
    unseen: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    globals: dict[str, str] = field(default_factory=dict[str, str], compare=False, repr=False)

    @staticmethod
    def of(f: Any) -> Code:
        """What `f` computes: equal in every process of one Python minor version.

        It covers bytecode, constants, defaults, closures, partial arguments, the state of bound and
        callable objects (what pickle sees of it included), arrays and tensors by content, and the
        global data, functions and classes of the user's modules that the code names, recursively.
        It leaves out comments, line numbers, local names, changed docstrings, globals that the
        function itself assigns (caches), and the code of installed packages that it calls.
        """
        walk = _Walk(module_of(_innermost(f)))
        body = walk.of(f)
        seen = walk.seen[-1]
        version = b"%d.%d" % sys.version_info[:2]
        return Code(
            _digest(version, body).hex()[:8],
            tuple(sorted(seen.unseen)[:8]),
            tuple(sorted(seen.packages)),
            {name: value.hex()[:8] for name, value in sorted(walk.globals.items())},
        )

    @staticmethod
    def said(fingerprint: str) -> Code:
        """The code of a function for which the user gives a fingerprint."""
        return Code(_digest(b"said", fingerprint.encode()).hex()[:8])


def code_digest(f: Any) -> str:
    """Eight hex digits over what `f` computes; see `Code.of`.

    >>> code_digest(lambda x: x + 1) == code_digest(lambda y: y + 1)
    True
    >>> code_digest(lambda x: x + 1) == code_digest(lambda x: x + 2)
    False
    """
    return Code.of(f).digest


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


def _digest(tag: bytes, *parts: bytes) -> bytes:
    framed = b"".join(b"%d:" % len(part) + part for part in (tag, *parts))
    return hashlib.blake2b(framed, digest_size=16).digest()


def _array_digest(a: np.ndarray[Any, Any]) -> bytes:
    # as _digest(b"array", dtype, shape, a.tobytes()), without a second copy of it all
    h = hashlib.blake2b(digest_size=16)
    for part in (b"array", str(a.dtype).encode(), repr(a.shape).encode()):
        h.update(b"%d:" % len(part) + part)
    h.update(b"%d:" % a.nbytes)
    for piece in _pieces(a):
        h.update(piece)
    return h.digest()


def _pieces(a: np.ndarray[Any, Any]) -> Iterator[bytes]:
    if a.nbytes <= _PIECE or not a.ndim:
        yield a.tobytes()
    elif len(a) == 1:
        yield from _pieces(a[0])
    else:
        rows = max(1, len(a) * _PIECE // a.nbytes)
        for start in range(0, len(a), rows):
            yield from _pieces(a[start : start + rows])


def _contents(f: types.FunctionType) -> list[list[Any]]:
    # for each name of the closure, a list of what it holds: empty while it is not assigned
    found: list[list[Any]] = []
    for cell in f.__closure__ or ():
        try:
            found.append([cell.cell_contents])
        except ValueError:
            found.append([])
    return found


def _members(cls: type) -> Iterator[tuple[str, Any]]:
    # the functions and data that a class defines itself, without Python's own bookkeeping
    for name, value in sorted(vars(cls).items()):
        special = name.startswith("__") and name.endswith("__")
        if name.startswith("__annotate") or (special and not isinstance(value, types.FunctionType)):
            continue
        yield name, value


def _written_in_python(obj: Any) -> bool:
    # compiled classes change with their library's version, not with the user's code
    return not isinstance(obj, type) or bool(obj.__flags__ & _HEAP_TYPE)


def _resolved(module: Any, chain: tuple[str, ...]) -> tuple[str, Any] | None:
    # name and value that a chain of attributes leads to, followed through the user's modules only
    name = module.__name__
    for attribute in chain:
        if not isinstance(module, types.ModuleType) or not is_users(module.__name__):
            break
        if not hasattr(module, attribute):
            return None
        module, name = getattr(module, attribute), f"{name}.{attribute}"
    return name, module


@dataclass
class _Seen:
    """What was found in an object and all that it holds.

    Attributes:
        unseen: in words, content that cannot be seen.
        packages: installed packages that are used.
        more: whether there was content that digests left out before version 0.1. Only then may
            newer rules apply: all other digests stay as they were.
    """

    unseen: set[str] = field(default_factory=set[str])
    packages: set[str] = field(default_factory=set[str])
    more: bool = False

    def add(self, other: _Seen) -> None:
        self.unseen |= other.unseen
        self.packages |= other.packages
        self.more |= other.more


class _Walk:
    """Computes a digest. Each object is visited once; a cycle counts by the depth it leads back.

    `follow` says whether to enter code of installed packages: yes for what a function holds
    (closure, defaults, state), no for what it finds by a global name. Python's own code counts by
    its name; the user's is entered wherever the user's code names it.
    """

    def __init__(self, home: str) -> None:
        # by id and whatever else a digest depends on; keeping the object keeps its id in use
        self.done: dict[tuple[int, bool, str, bool], tuple[Any, bytes, _Seen]] = {}
        self.active: list[int] = []
        self.home = home  # the module of the code being walked
        self.library = False  # whether that code is an installed package's
        self.seen = [_Seen()]
        self.globals: dict[str, bytes] = {}
        self.sources: set[str] = set()  # files of imported modules that were walked

    def of(self, obj: Any, follow: bool = True) -> bytes:
        """The digest of a value."""
        if type(obj) in _ATOMS:
            return _digest(b"atom", type(obj).__name__.encode(), repr(obj).encode())
        if id(obj) in self.active:
            depth = len(self.active) - self.active.index(id(obj))
            return _digest(b"cycle", b"%d" % depth)
        if len(self.active) == _DEEPEST:
            self._unseen(f"what is nested {_DEEPEST} deep")
            return _digest(b"deep", type(obj).__name__.encode())
        key = id(obj), follow, self.home, self.library
        if key not in self.done:
            self.active.append(id(obj))
            self.seen.append(_Seen())
            body = self._new(obj, follow)
            self.done[key] = obj, body, self.seen.pop()
            self.active.pop()
        _, body, seen = self.done[key]
        self.seen[-1].add(seen)
        return body

    def _unseen(self, what: Any) -> None:
        kind = type(what)
        named = f"a {module_of(kind)}.{kind.__qualname__}".replace("builtins.", "")
        self.seen[-1].unseen.add(what if isinstance(what, str) else named)

    def _more(self, tag: bytes, *parts: bytes) -> bytes:
        self.seen[-1].more = True
        return _digest(tag, *parts)

    def _all(self, items: Iterable[Any], follow: bool = True) -> list[bytes]:
        return [self.of(item, follow) for item in items]

    def _mapping(self, items: Iterable[tuple[Any, Any]]) -> bytes:
        return _digest(b"map", *sorted(_digest(b"item", *self._all(item)) for item in items))

    def _new(self, obj: Any, follow: bool) -> bytes:
        if isinstance(obj, types.CodeType):
            return self._code(obj)
        if isinstance(obj, types.ModuleType):
            self._uses(obj.__name__)
            name = b"" if obj.__name__ == self.home else obj.__name__.encode()
            # of a user's module that a function holds (as argument or attribute), all may be used
            held = self._through(obj, {()}) if follow and not self.library else []
            return _digest(b"module", name, *held)
        if not isinstance(obj, type) and callable(getattr(obj, "fingerprint", None)):
            return _digest(b"fingerprint", str(obj.fingerprint()).encode())
        data = self._plain(obj)
        if data is not None:
            return self._with_attributes(obj, data)
        held = self._holder(obj, follow)
        if held is not None:
            return held
        if not isinstance(obj, type | types.FunctionType):
            return self._instance(obj, follow)
        if not self._enters(obj, follow):
            return self._named(obj)
        return self._class(obj) if isinstance(obj, type) else self._function(obj)

    def _enters(self, obj: Any, follow: bool) -> bool:
        module = module_of(obj)
        if is_python(module) or not _written_in_python(obj):
            return False
        if follow or module == self.home:
            return True
        if is_users(module) and not self.library:
            self.seen[-1].more = True
            return True
        return False

    def _named(self, obj: Any) -> bytes:
        module = module_of(obj)
        self._uses(module)
        name = getattr(obj, "__qualname__", None) or getattr(obj, "__name__", None)
        name = str(name or type(obj).__qualname__)
        # the same file is __main__ in one process and a module in another
        return _digest(b"name", b"" if module == self.home else module.encode(), name.encode())

    def _uses(self, module: str) -> None:
        package = package_of(module)
        if package is not None:
            self.seen[-1].packages.add(package)

    # ---- code

    def _code(self, code: types.CodeType) -> bytes:
        counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount
        shape = counts, code.co_flags & bytecode.VARARGS, code.co_names
        body = code.co_code, code.co_exceptiontable, repr(shape).encode()
        return _digest(b"code", *body, *self._all(bytecode.constants(code)))

    def _function(self, f: types.FunctionType) -> bytes:
        outer = self.home, self.library
        self.home = module_of(f)
        self._uses(self.home)
        parts = self._all((f.__code__, f.__defaults__, f.__kwdefaults__))
        cells = list(zip(f.__code__.co_freevars, _contents(f), strict=True))
        parts += [self._cell(*cell) for cell in cells]
        registry = getattr(f, "registry", None)  # of functools.singledispatch
        if isinstance(registry, types.MappingProxyType):
            parts.append(self._more(b"registry", self.of(registry)))
        # what an installed decorator holds is the user's; what it names is its own
        self.library = not is_users(self.home)
        for name in sorted(bytecode.globals_read(f.__code__) & f.__globals__.keys()):
            value = f.__globals__[name]
            parts.append(self._global(name, f"{self.home}.{name}", value))
            if isinstance(value, types.ModuleType) and not self.library:
                parts += self._through(value, bytecode.attributes_of(f.__code__, name))
        for name, held in cells if not self.library else ():
            for module in held:
                if isinstance(module, types.ModuleType):
                    chains = bytecode.attributes_of(f.__code__, name, cell=True)
                    parts += self._through(module, chains)
        if not self.library:
            package = f.__globals__.get("__package__") or self.home.rpartition(".")[0]
            parts += self._imported(f.__code__, package)
        self.home, self.library = outer
        return _digest(b"function", *parts)

    def _global(self, name: str, full: str, value: Any) -> bytes:
        body = _digest(b"global", name.encode(), self._called(name, value, follow=False))
        if not isinstance(value, types.ModuleType):
            self.globals[full] = body
        return body

    def _called(self, name: str, value: Any, follow: bool = True) -> bytes:
        # unseen content of the value is told with its name
        self.seen.append(_Seen())
        body = self.of(value, follow)
        seen = self.seen.pop()
        unseen = {what if ": " in what else f"{name}: {what}" for what in seen.unseen}
        self.seen[-1].add(_Seen(unseen, seen.packages, seen.more))
        return body

    def _through(self, module: types.ModuleType, chains: set[tuple[str, ...]]) -> list[bytes]:
        """Digests of what code reaches through a user's module; of all in one that it hands on."""
        if not is_users(module.__name__):
            return []
        self.seen[-1].more = True
        parts: dict[str, bytes] = {}
        for found in (_resolved(module, chain) for chain in sorted(chains)):
            if found is None:
                continue
            name, value = found
            if not isinstance(value, types.ModuleType) or not is_users(value.__name__):
                parts[name] = self._global(name, name, value)
                continue
            outer, self.home = self.home, value.__name__
            for key, member in vars(value).items():
                if not key.startswith("__") and not isinstance(member, types.ModuleType):
                    parts[f"{name}.{key}"] = self._global(key, f"{name}.{key}", member)
            self.home = outer
        return [parts[name] for name in sorted(parts)]

    def _imported(self, code: types.CodeType, package: str) -> list[bytes]:
        """Digests of the user's modules that code imports as it runs, from their source files."""
        found = {name: source_of_module(name) for name in bytecode.imports(code, package)}
        parts: list[bytes] = []
        for name, path in sorted(found.items()):
            self._uses(name)
            if name in sys.modules:
                self._set_since(sys.modules[name], code)
            if path is None or path in self.sources:
                continue
            self.sources.add(path)
            with suppress(OSError, SyntaxError, ValueError):
                source = compile(pathlib.Path(path).read_bytes(), name, "exec", dont_inherit=True)
                inner = name if path.endswith("__init__.py") else name.rpartition(".")[0]
                parts.append(
                    self._more(
                        b"import", name.encode(), self.of(source), *self._imported(source, inner)
                    )
                )
        return parts

    def _set_since(self, module: types.ModuleType, code: types.CodeType) -> None:
        """Note what code may use of a module that it imports; this is no part of the digest."""
        self.seen.append(_Seen())
        names = {name for each in bytecode.with_nested(code) for name in each.co_names}
        self._through(module, {(name,) for name in names & vars(module).keys()})
        self.seen.pop()

    def _cell(self, name: str, held: list[Any]) -> bytes:
        if not held:
            return b"empty"
        # a module is not followed: only what the code looks up on it counts
        return self._called(name, held[0], not isinstance(held[0], types.ModuleType))

    def _class(self, cls: type) -> bytes:
        outer = self.home, self.library
        self.home, self.library = cls.__module__, not is_users(cls.__module__)
        self._uses(self.home)
        parts = self._all(cls.__bases__, follow=False)
        parts += [_digest(name.encode(), self.of(value)) for name, value in _members(cls)]
        self.home, self.library = outer
        return _digest(b"class", cls.__qualname__.encode(), *parts)

    # ---- objects

    def _instance(self, obj: Any, follow: bool) -> bytes:
        """The digest of an object's class and state, as methods may use any of both."""
        if self.library or is_machinery(obj) or is_drawn_from(obj):
            return self._by_state(obj, follow) if self._enters(obj, follow) else self._named(obj)
        tokenizer = serialization(obj)
        if tokenizer is not None:
            return self._more(b"tokenizer", self.of(type(obj), follow=False), tokenizer)
        if is_tensor(obj):
            content = as_array(obj)
            if content is not None:
                return self._more(
                    b"tensor", str(getattr(obj, "dtype", "")).encode(), self._array(content)
                )
        if is_used_up(obj):
            self._unseen(obj)
            return self._by_state(obj, follow) if self._enters(obj, follow) else self._named(obj)
        if is_python(module_of(type(obj))):
            return self._by_pickle(obj) or self._blind(obj)
        return self._by_sight(obj, follow)

    def _by_sight(self, obj: Any, follow: bool) -> bytes:
        sight = sight_of(obj)
        if sight is Sight.SOME or (sight is Sight.PERHAPS and not state_of(obj)):
            return self._by_pickle(obj) or self._blind(obj, self._by_state(obj, follow))
        self.seen.append(_Seen())
        body = self._by_state(obj, follow)
        seen = self.seen.pop()
        if seen.unseen and sight is Sight.PERHAPS:
            better = self._by_pickle(obj)
            if better is not None:
                return better
        self.seen[-1].add(seen)
        return self._blind(obj, body) if sight is Sight.UNKNOWN else body

    def _by_state(self, obj: Any, follow: bool) -> bytes:
        kind = type(obj)
        module = module_of(obj)
        entered = follow or module == self.home
        state = state_of(obj)
        self.seen.append(_Seen())
        body = self._mapping(state.items())
        seen = self.seen.pop()
        if not entered:
            seen.more = True
        if seen.more and not is_users(module):
            # content that older versions did not see: its class counts by name, its caches not
            self.seen.append(_Seen())
            body = self._mapping(without_caches(state).items())
            seen = self.seen.pop()
            seen.more = True
            of_class = self._named(kind)
        else:
            of_class = self.of(kind, follow)
        self.seen[-1].add(seen)
        return _digest(b"object", self._named(obj), of_class, body)

    def _by_pickle(self, obj: Any) -> bytes | None:
        """The digest of what pickle sees of an object; None if it, too, does not see all."""
        parts = pickled(obj)
        if parts is None:
            return None
        self.seen.append(_Seen())
        bodies = [self._part(part) for part in parts]
        seen = self.seen.pop()
        if seen.unseen:
            return None
        self.seen[-1].add(seen)
        return self._more(b"pickled", self._named(type(obj)), *bodies)

    def _part(self, part: Any) -> bytes:
        if isinstance(part, type | types.FunctionType):
            return self.of(part, follow=False)
        return _digest(b"tuple", *map(self._part, part)) if type(part) is tuple else self.of(part)

    def _blind(self, obj: Any, body: bytes | None = None) -> bytes:
        self._unseen(obj)
        return self._named(obj) if body is None else body

    def _holder(self, obj: Any, follow: bool) -> bytes | None:
        """The digest of a wrapper of other code, from what it wraps; None for anything else."""
        if isinstance(obj, functools.partial):
            return _digest(b"partial", *self._all((obj.func, obj.args, obj.keywords), follow))
        if isinstance(obj, types.MethodType):
            return self._method(obj, follow)
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

    def _method(self, method: types.MethodType, follow: bool) -> bytes:
        called = self.of(method.__func__, follow)
        self.seen.append(_Seen())
        owner = self.of(method.__self__, follow)
        seen = self.seen.pop()
        self.seen[-1].add(seen)
        if seen.more and package_of(module_of(method.__func__)) is not None:
            called = self._named(method.__func__)
        return _digest(b"method", called, owner)

    # ---- data

    def _plain(self, obj: Any) -> bytes | None:
        """The digest of plain data, from its content; None for anything else."""
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
        if isinstance(obj, struct.Struct):
            return self._more(kind, str(obj.format).encode())
        if isinstance(obj, np.dtype):
            return _digest(b"dtype", str(obj).encode())
        if not callable(obj) and hasattr(obj, "__array__"):
            with suppress(Exception):  # a tensor that cannot leave its device is no plain data
                return self._array(np.asarray(obj))
        return _digest(kind, repr(obj).encode()) if isinstance(obj, _NAMED_VALUES) else None

    def _with_attributes(self, obj: Any, data: bytes) -> bytes:
        """The digest of data, with what a subclass adds: attributes, a call, columns, a mask."""
        kind = type(obj)
        if self.library or isinstance(obj, enum.Enum | np.generic) or kind is np.ndarray:
            return data
        if hasattr(obj, "__array__"):
            if isinstance(obj, np.ma.MaskedArray):
                return self._more(b"masked", data, self._array(np.ma.getmaskarray(obj)))
            known = is_tensor(obj) or hasattr(obj, "addressable_data")  # torch's, or jax's
            added = None if known else self._by_pickle(obj)
            return data if added is None else self._more(b"labelled", data, added)
        if is_python(module_of(kind)) or not (getattr(obj, "__dict__", None) or callable(obj)):
            return data
        return self._more(
            b"subclass", data, self.of(kind, follow=False), self._mapping(vars(obj).items())
        )

    def _array(self, a: np.ndarray[Any, Any]) -> bytes:
        if not a.dtype.hasobject:
            return _array_digest(a)
        body = self.of(a.tolist())
        return _digest(b"array", str(a.dtype).encode(), repr(a.shape).encode(), body)
