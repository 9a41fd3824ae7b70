"""What workers are sent: the dataset, what to import for it, and what its functions rely on.

A function of a module travels by name, so a worker meets the module as it is on disk. What the
parent has set there since is compared: plain values are taken along, all else must be the same.
"""

from __future__ import annotations

import dis
import io
import os
import pickle
import site
import sys
import sysconfig
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import cloudpickle
import numpy as np

from pipeline.chain import Chain
from pipeline.errors import OURS, ChainError, WorkerError
from pipeline.transforms.code import code_digest
from pipeline.workers import packets

ALIGN = 64  # of the parts in memory
SIMPLE = 1 << 16  # bytes of a pickled value that is taken along
_NOT_AHEAD = {"jax", "jaxlib", "__main__"}  # jax has threads, and a fork with it is not safe
_SHOWN = 40  # letters of a value in a message


class Global(NamedTuple):
    """What a function relies on by name: data, code or a class member of a module of the user's.

    Attributes:
        stage: the stage that does, for messages.
        digest: of its value in the parent.
        shown: the value in words.
        value: the value, pickled, if it is plain and small: b"" if not.
    """

    stage: str
    digest: str
    shown: str
    value: bytes


Name = tuple[str, str]  # module, and dotted path in it


class Sent(NamedTuple):
    """A dataset as bytes.

    Attributes:
        data: a pickle of it.
        buffers: of arrays in it.
        modules: that it imports, heaviest dependencies first.
    """

    data: bytes
    buffers: list[memoryview]
    modules: list[str]


class Parcel(NamedTuple):
    """A dataset in memory that worker processes map.

    Attributes:
        fd: descriptor of the memory.
        sizes: bytes of the pickle and of each buffer; each begins at a multiple of `ALIGN`.
        modules: to import before the dataset is read.
    """

    fd: int
    sizes: list[int]
    modules: list[str]


def parcel(chain: Chain, stack: bool) -> Parcel:
    """The dataset, written once into memory that all workers map.

    Raises:
        ChainError: something cannot be sent; it names the stage.
    """
    sent = dumps(chain, stack)
    parts = [memoryview(sent.data), *sent.buffers]
    return Parcel(packets.memory(parts, ALIGN), [part.nbytes for part in parts], sent.modules)


def dumps(chain: Chain, stack: bool) -> Sent:
    """The dataset as bytes: `loads` makes it again in a worker.

    Raises:
        ChainError: something cannot be sent; it names the stage.
    """
    buffers: list[pickle.PickleBuffer] = []
    file = io.BytesIO()
    pickler = _Pickler(file, dict(_labels(chain)), buffers.append)
    try:
        pickler.dump((chain, stack))
    except Exception as error:
        raise ChainError(
            f"{_culprit(chain)} cannot be sent to worker processes: {error}. Open it inside the "
            "function, or use Threads(n)."
        ) from error
    relied = _Reliance(pickler.named).found
    data = pickle.dumps((relied, file.getvalue()))
    modules = [m for m in pickler.modules if m.partition(".")[0] not in _NOT_AHEAD]
    return Sent(data, [buffer.raw() for buffer in buffers], modules)


def loads(data: bytes | memoryview, buffers: Any) -> tuple[Chain, bool]:
    """The dataset that was sent, and whether to stack.

    Raises:
        WorkerError: its functions would compute something else here than in the parent.
    """
    relied, pickled = pickle.loads(data)
    chain, stack = pickle.loads(pickled, buffers=buffers)
    _settle(relied)
    return chain, stack


def _labels(chain: Chain) -> Iterator[tuple[int, str]]:
    # how messages call sources and stages, by id
    for component in chain.root.components(()):
        yield id(component.source), f"source {type(component.source).__name__}"
    for part in chain.parts.values():
        yield from _labels(part)
    for i, stage in enumerate(chain.stages, len(chain.before)):
        yield id(stage), f"stage {i}: {stage.kind} {stage.name!r}"


def _culprit(chain: Chain) -> str:
    if not _sends(lambda: cloudpickle.dumps(chain.root)):
        return "the source"
    for i, stage in enumerate(chain.stages):
        if not _sends(lambda stage=stage: cloudpickle.dumps(stage)):
            return f"stage {i}: {stage.kind} {stage.name!r}"
    return "the dataset"


def _sends(dumps: Callable[[], object]) -> bool:
    try:
        dumps()
    except Exception:
        return False
    return True


# ---- what is sent by name


class _Pickler(cloudpickle.Pickler):
    # notes which modules the reader will import, and what of the user's code goes by name
    def __init__(
        self, file: io.BytesIO, labels: dict[int, str], keep: Callable[[Any], Any]
    ) -> None:
        super().__init__(file, 5, buffer_callback=keep)
        self._labels, self._stage = labels, "the dataset"
        self.modules: dict[str, None] = {}  # in the order in which they were met
        self.named: list[tuple[str, Any]] = []

    def reducer_override(self, obj: Any) -> Any:
        self._stage = self._labels.get(id(obj), self._stage)
        reduced = super().reducer_override(obj)
        if isinstance(obj, types.ModuleType):
            self._import(obj.__name__)
        elif isinstance(obj, types.FunctionType | types.BuiltinFunctionType | type):
            by_name = reduced is NotImplemented
            if by_name:
                self._import(getattr(obj, "__module__", None))
            if isinstance(obj, types.FunctionType) and (not by_name or of_user(obj.__module__)):
                for name in _imports(obj.__code__):
                    self._import(name)
            if not isinstance(obj, types.BuiltinFunctionType):
                self.named.append((self._stage, obj))
        return reduced

    def _import(self, module: Any) -> None:
        if isinstance(module, str) and module not in sys.builtin_module_names:
            self.modules[module] = None


def _imports(code: types.CodeType) -> Iterator[str]:
    """Modules that code imports when it runs, nested functions included."""
    for step in dis.get_instructions(code):
        if step.opname == "IMPORT_NAME" and step.argval:
            yield step.argval
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _imports(inner)


_INSTALLED = tuple(
    os.path.join(path, "")
    for path in {
        *(sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")),
        *site.getsitepackages(),
        site.getusersitepackages(),
        OURS,
    }
)


def of_user(module: str | None) -> bool:
    """Whether a module is the user's own: neither Python's, nor installed, nor ours.

    >>> of_user("json"), of_user("numpy.linalg"), of_user("pipeline.tree")
    (False, False, False)
    """
    found = sys.modules.get(module or "")
    file = getattr(found, "__file__", None)
    return module != "__main__" and bool(file) and not os.path.abspath(file).startswith(_INSTALLED)


class _Reliance:
    # walks from what is sent by name to all that it needs of the user's modules: data, and
    # code where it is entered from outside (the digest of a function covers its own module)
    def __init__(self, named: list[tuple[str, Any]]) -> None:
        self.found: dict[Name, Global] = {}
        self._seen: set[int] = set()
        self._inside: set[int] = set()
        for self._stage, obj in named:
            if not self._enter(obj) and isinstance(obj, types.FunctionType):
                self._modules_of(obj)  # by value: its globals go with it, but for modules

    def _enter(self, obj: Any) -> bool:
        # a function or class of a module of the user's, by the name that it has there
        module, path = getattr(obj, "__module__", "") or "", getattr(obj, "__qualname__", "")
        if not of_user(module) or _resolved(module, path) is not obj:
            return False
        self._note(module, path)
        self._code(obj)
        return True

    def _note(self, module: str, path: str) -> None:
        if (module, path) not in self.found:
            self.found[module, path] = _global(self._stage, _resolved(module, path))

    def _code(self, obj: Any) -> None:
        if id(obj) in self._seen:
            return
        self._seen.add(id(obj))
        if isinstance(obj, type):
            for name, member in vars(obj).items():
                self._member(obj, name, member)
        else:
            self._function(obj)

    def _member(self, owner: type, name: str, member: Any) -> None:
        inner = _unwrapped(member)
        if isinstance(inner, types.FunctionType):
            self._code(inner)
        elif not name.startswith(("__", "_abc_")) and not hasattr(type(member), "__get__"):
            self._note(owner.__module__, f"{owner.__qualname__}.{name}")

    def _function(self, f: types.FunctionType) -> None:
        reads, writes = _names(f.__code__)
        module = f.__globals__.get("__name__", "")
        for name in sorted((reads - writes) & f.__globals__.keys()):
            self._global(module, name, f.__globals__[name], f.__code__)

    def _global(self, module: str, name: str, value: Any, code: types.CodeType) -> None:
        inner = _unwrapped(value)
        if isinstance(value, types.ModuleType):
            self._attributes(value, code)
        elif isinstance(inner, types.FunctionType | type):
            if inner.__module__ == module:
                self._code(inner)
            else:
                self._enter(inner)
        elif of_user(module):
            self._note(module, name)
            self._enter(type(value))

    def _modules_of(self, f: types.FunctionType) -> None:
        if id(f) in self._seen:
            return
        self._seen.add(id(f))
        held = [cell.cell_contents for cell in f.__closure__ or () if _filled(cell)]
        reads, _ = _names(f.__code__)
        held += [f.__globals__[name] for name in reads & f.__globals__.keys()]
        for value in held:
            if isinstance(value, types.ModuleType):
                self._attributes(value, f.__code__)

    def _attributes(self, module: types.ModuleType, code: types.CodeType) -> None:
        # of a module: what code that has it may look at
        if not of_user(module.__name__) or id(module) in self._inside:
            return
        self._inside.add(id(module))
        for name in sorted(_attribute_names(code) & vars(module).keys()):
            value = vars(module)[name]
            if not self._enter(value):
                self._global(module.__name__, name, value, code)
        self._inside.discard(id(module))


def _unwrapped(value: Any) -> Any:
    # the function in a staticmethod, a property, a cached or otherwise wrapped function
    value = getattr(value, "fget", None) or getattr(value, "func", None) or value
    return getattr(value, "__wrapped__", value)


def _filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def _names(code: types.CodeType) -> tuple[set[str], set[str]]:
    """Globals that code reads, and that it assigns; nested functions included."""
    reads: set[str] = set()
    writes: set[str] = set()
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            reads.add(step.argval)
        elif step.opname == "STORE_GLOBAL":
            writes.add(step.argval)
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            more_reads, more_writes = _names(inner)
            reads, writes = reads | more_reads, writes | more_writes
    return reads, writes


def _attribute_names(code: types.CodeType) -> set[str]:
    names = set(code.co_names)
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            names |= _attribute_names(inner)
    return names


def _resolved(module: str, path: str) -> Any:
    value: Any = sys.modules.get(module)
    for name in path.split("."):
        value = getattr(value, name, None)
    return value


def _global(stage: str, value: Any) -> Global:
    data = b""
    if _plain(value, [1 << 14]):
        data = pickle.dumps(value, 5)
    shown = f"{type(value).__name__}" if callable(value) else repr(value) if data else ""
    shown = shown if len(shown) <= _SHOWN else shown[: _SHOWN - 1] + "…"
    return Global(stage, _digest(value), shown, data if len(data) <= SIMPLE else b"")


def _plain(value: Any, most: list[int]) -> bool:
    # numbers, text, arrays and containers of them, of no more than so many parts
    most[0] -= 1
    if most[0] < 0:
        return False
    kind = type(value)
    if kind in (bool, int, float, complex, str, bytes, type(None)) or isinstance(value, np.generic):
        return True
    if kind is np.ndarray:
        return not value.dtype.hasobject and value.nbytes <= SIMPLE
    if kind is dict:
        return all(_plain(k, most) and _plain(v, most) for k, v in value.items())
    return kind in (list, tuple, set, frozenset) and all(_plain(v, most) for v in value)


def _digest(value: Any) -> str:
    try:
        return code_digest(value)
    except Exception as error:
        return f"{type(error).__name__}"


# ---- in the worker


def _settle(relied: dict[Name, Global]) -> None:
    # take over plain values, then compare everything: code reaches values through other names too
    for (module, path), there in relied.items():
        if there.value and _digest(_resolved(module, path)) != there.digest:
            *owners, name = path.split(".")
            owner = _resolved(module, ".".join(owners)) if owners else sys.modules.get(module)
            if owner is not None:
                setattr(owner, name, pickle.loads(there.value))
    for data in (True, False):  # a value says more than the functions that use it
        for (module, path), there in relied.items():
            here = _resolved(module, path)
            if callable(here) != data and _digest(here) != there.digest:
                raise WorkerError(_differs(module, path, there, here))


def _differs(module: str, path: str, there: Global, here: Any) -> str:
    file = getattr(sys.modules.get(module), "__file__", module)
    shown = "" if callable(here) else f" (here {there.shown or 'set'}, there {repr(here)[:_SHOWN]})"
    return (
        f"{there.stage} would compute something else in worker processes: {path!r} of module "
        f"{module} ({file}) is not what a fresh import makes of it{shown}. Worker processes "
        "import modules anew, without what the main process has set or edited since. Pass it as "
        "an argument (functools.partial, a closure or an object), or use Threads(n)."
    )
