"""What workers are sent: the dataset, the modules to import, and the globals it depends on.

A module's function is sent by name, so a worker gets the module as it is on disk. Whatever the
parent has changed in the module since is compared: plain values are sent along, and everything else
must be equal. Functions of scripts and of other modules that no worker finds are sent themselves.
"""

from __future__ import annotations

import collections
import functools
import importlib
import io
import marshal
import pickle
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import cloudpickle
import numpy as np

from pipeline.errors import ChainError, WorkerError
from pipeline.nodes import Part
from pipeline.transforms.bytecode import imports
from pipeline.transforms.code import Code, code_digest
from pipeline.transforms.ownership import is_importable, is_users, module_of
from pipeline.workers import packets

ALIGN = 64  # of the parts in memory, in bytes
SIMPLE = 1 << 16  # bytes of a pickled value up to which it is sent along
PARTS = 1 << 14  # values in a container up to which it is sent along
_NOT_AHEAD = {"jax", "jaxlib"}  # jax starts threads, which make a fork unsafe
_Cached = functools._lru_cache_wrapper
_SHOWN = 40  # characters of a value in a message


class Global(NamedTuple):
    """A global that a stage depends on, in a module of the user's: data, a function or a class.

    Attributes:
        stage: the stage, for messages.
        digest: of its value in the parent.
        shown: its value in words.
        value: its value, pickled, if it is plain and small; else b"".
    """

    stage: str
    digest: str
    shown: str
    value: bytes


Name = tuple[str, str]  # module, and dotted path in it


class Sent(NamedTuple):
    """A dataset as bytes.

    Attributes:
        data: its pickle.
        buffers: out-of-band buffers of the pickle, of arrays.
        modules: names of the modules that loading it imports, in order.
    """

    data: bytes
    buffers: list[memoryview]
    modules: list[str]


class Parcel(NamedTuple):
    """A dataset in memory that worker processes map.

    Attributes:
        fd: descriptor of the memory.
        sizes: bytes of the pickle and of each buffer; each begins at a multiple of `ALIGN`.
        modules: to import before the dataset is loaded.
    """

    fd: int
    sizes: list[int]
    modules: list[str]


def parcel(chain: Part, stack: bool) -> Parcel:
    """Write the dataset once, into memory that all workers map.

    Raises:
        ChainError: something cannot be sent; the message names the stage.
    """
    sent = dumps(chain, stack)
    parts = [memoryview(sent.data), *sent.buffers]
    return Parcel(packets.memory(parts, ALIGN), [part.nbytes for part in parts], sent.modules)


def dumps(chain: Part, stack: bool) -> Sent:
    """The dataset as bytes, for `loads` in a worker.

    Raises:
        ChainError: something cannot be sent; the message names the stage.
    """
    buffers: list[pickle.PickleBuffer] = []
    file = io.BytesIO()
    pickler = _Pickler(file, dict(_labels(chain)), buffers.append)
    try:
        pickler.dump((chain, stack))
    except Exception as error:
        raise ChainError(
            f"{pickler.stage} cannot be sent to worker processes: {error}. Open it inside the "
            "function, or use Threads(n)."
        ) from error
    named = [*pickler.named, *_codes(chain)]
    relied = dict(_relied_on(named))
    data = pickle.dumps((relied, file.getvalue()))
    modules = [m for m in pickler.modules if m.partition(".")[0] not in _NOT_AHEAD]
    return Sent(data, [buffer.raw() for buffer in buffers], modules)


def loads(data: bytes | memoryview, buffers: Any) -> tuple[Part, bool]:
    """The dataset that was sent, and whether to stack rows.

    Raises:
        WorkerError: a global differs from the parent's, so functions might compute something else.
    """
    relied, pickled = pickle.loads(data)
    chain, stack = pickle.loads(pickled, buffers=buffers)
    _settle(relied)
    return chain, stack


def _labels(chain: Part) -> Iterator[tuple[int, str]]:
    # names of sources and stages for messages, by id
    for component in chain.components:
        yield id(component.source), f"source {type(component.source).__name__}"
    for part in chain.parts.values():
        yield from _labels(part)
    for i, stage in enumerate(chain.stages):
        yield id(stage), f"stage {i}: {stage.kind} {stage.name!r}"


# ---- what is sent by name


class _Pickler(cloudpickle.Pickler):
    # records which modules loading will import, and which of the user's objects are sent by name
    def __init__(
        self, file: io.BytesIO, labels: dict[int, str], keep: Callable[[Any], Any]
    ) -> None:
        super().__init__(file, 5, buffer_callback=keep)
        self._labels, self.stage = labels, "the dataset"
        self.modules: dict[str, None] = {}  # an ordered set
        self.named: list[tuple[str, Any]] = []

    def reducer_override(self, obj: Any) -> Any:
        self.stage = self._labels.get(id(obj), self.stage)
        if isinstance(obj, types.CodeType):  # from 3.1.3 on, cloudpickle drops the file's name
            return marshal.loads, (marshal.dumps(obj),)
        _carry(obj.__name__ if isinstance(obj, types.ModuleType) else module_of(obj))
        if isinstance(obj, _Cached) and not _is_named(obj):
            return _cached, (obj.__wrapped__, obj.cache_parameters())
        reduced = super().reducer_override(obj)
        if isinstance(obj, types.ModuleType):
            self._import(obj.__name__)
        elif isinstance(obj, types.FunctionType | types.BuiltinFunctionType | type):
            by_name = reduced is NotImplemented
            if by_name:
                self._import(module_of(obj))
            if isinstance(obj, types.FunctionType) and is_users(module_of(obj)):
                for name in imports(obj.__code__, obj.__globals__.get("__package__") or ""):
                    self._import(name)
            if by_name or isinstance(obj, types.FunctionType):
                self.named.append((self.stage, obj))
        return reduced

    def _import(self, module: str) -> None:
        if module and module not in sys.builtin_module_names and is_importable(module):
            self.modules[module] = None


def _is_named(obj: Any) -> bool:
    # whether a worker finds it by its name: pickle takes what `lru_cache` makes for such
    module = module_of(obj)
    return is_importable(module) and _resolved(module, obj.__qualname__) is obj


def _cached(f: Callable[..., Any], options: dict[str, Any]) -> Any:
    return functools.lru_cache(**options)(f)


def _carry(module: str) -> None:
    # what no worker could import by its name is pickled itself
    if module in sys.modules and not is_importable(module):
        cloudpickle.register_pickle_by_value(sys.modules[module])


def _codes(chain: Part) -> Iterator[tuple[str, Any]]:
    # objects and modules that functions hold depend on globals too, which the stages' codes include
    for part in chain.parts.values():
        yield from _codes(part)
    for i, stage in enumerate(chain.stages):
        for code in stage.codes:
            yield f"stage {i}: {stage.kind} {stage.name!r}", code


def _relied_on(named: list[tuple[str, Any]]) -> Iterator[tuple[Name, Global]]:
    # globals that are sent by name, globals that their code reads, and members of their classes
    met: set[Name] = set()
    for stage, obj in named:
        for module, path in _names(obj):
            if (module, path) not in met and is_users(module) and is_importable(module):
                met.add((module, path))
                yield (module, path), _global(stage, _resolved(module, path))


def _names(obj: Any) -> Iterator[Name]:
    if isinstance(obj, Code):
        yield from map(_split, obj.globals)
    if not isinstance(obj, type | types.FunctionType):
        return
    module, path = module_of(obj), getattr(obj, "__qualname__", "")
    by_name = _resolved(module, path) is obj
    if by_name:
        yield module, path
    if isinstance(obj, type):
        for name, member in vars(obj).items() if by_name else ():
            if not name.startswith(("__", "_abc_")) and not hasattr(type(member), "__get__"):
                yield module, f"{path}.{name}"
    if is_users(module):
        names = map(_split, Code.of(obj).globals)
        # a function sent by value carries the globals of its own module
        yield from (name for name in names if by_name or name[0] != module)


def _split(full: str) -> Name:
    # "a.b.c" is c of module a.b, or b.c of module a
    module = full.rpartition(".")[0]
    while module and module not in sys.modules:
        module = module.rpartition(".")[0]
    return module, full[len(module) + 1 :]


def _resolved(module: str, path: str) -> Any:
    value: Any = sys.modules.get(module)
    for name in path.split("."):
        value = getattr(value, name, None)
    return value


def _global(stage: str, value: Any) -> Global:
    data = pickle.dumps(value, 5) if _plain(value, [PARTS]) else b""
    shown = repr(value) if data else ""
    shown = shown if len(shown) <= _SHOWN else shown[: _SHOWN - 1] + "…"
    return Global(stage, _digest(value), shown, data if len(data) <= SIMPLE else b"")


def _plain(value: Any, most: list[int]) -> bool:
    # numbers, text, arrays and containers of them, with at most so many parts
    most[0] -= 1
    if most[0] < 0:
        return False
    kind = type(value)
    if kind in (bool, int, float, complex, str, bytes, type(None)) or isinstance(value, np.generic):
        return True
    if kind is np.ndarray:
        return not value.dtype.hasobject and value.nbytes <= SIMPLE
    if kind in (dict, collections.Counter, collections.OrderedDict):
        return all(_plain(k, most) and _plain(v, most) for k, v in value.items())
    return kind in (list, tuple, set, frozenset, collections.deque) and all(
        _plain(v, most) for v in value
    )


def _digest(value: Any) -> str:
    try:
        return code_digest(value)
    except Exception as error:
        return f"{type(error).__name__}"


# ---- in the worker


def _settle(relied: dict[Name, Global]) -> None:
    # first set plain values, then compare everything, since code may reach a value by other names
    for module, _ in relied:
        with suppress(Exception):
            importlib.import_module(module)
    for (module, path), there in relied.items():
        if there.value and _digest(_resolved(module, path)) != there.digest:
            owner, _, name = path.rpartition(".")
            held = _resolved(module, owner) if owner else sys.modules.get(module)
            if held is not None:
                setattr(held, name, pickle.loads(there.value))
    differ = [name for name, there in relied.items() if _digest(_resolved(*name)) != there.digest]
    if differ:
        # prefer a value to a function that reads it: it says more
        name = min(differ, key=lambda name: callable(_resolved(*name)))
        raise WorkerError(_differs(*name, relied[name]))


def _differs(module: str, path: str, there: Global) -> str:
    here = _resolved(module, path)
    file = getattr(sys.modules.get(module), "__file__", module)
    shown = "" if callable(here) else f": {repr(here)[:_SHOWN]}"
    shown += f", not {there.shown}" if there.shown else ""
    return (
        f"{there.stage} would compute something else in worker processes: {path!r} of module "
        f"{module} ({file}) is not what it is in the main process{shown}. Workers import modules "
        "anew, without what the main process has set or edited since; only plain values are taken "
        "along. Pass it as an argument (functools.partial, a closure or an object), or use "
        "Threads(n)."
    )
