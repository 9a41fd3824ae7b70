"""What rows, errors and odd values do is the same serially, in threads and in processes."""

from __future__ import annotations

import io
import threading
import time
import traceback
import urllib.error
import warnings
from email.message import Message
from typing import Any, cast

import numpy as np
import pytest

from pipeline import Dataset, Loader, Processes, Serial, Threads
from pipeline.errors import ChainError, CollateError
from pipeline.workers.work import Rows

ENGINES = pytest.mark.parametrize(
    "workers",
    [
        Serial(),
        Threads(2),
        Processes(2, parent=False),
        pytest.param(Processes(2), marks=pytest.mark.long),
    ],
    ids=str,
)


def _text(error: BaseException) -> str:
    return "\n".join([str(error), *getattr(error, "__notes__", ())])


# ---- values that cannot be measured


class _Odd:
    """Its size cannot be told, in every way that one could ask."""

    nbytes = "many"

    def __len__(self) -> int:
        raise RuntimeError("no length")

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.array(3, np.float32)


def _zero_d(kind: str) -> Any:
    if kind == "torch":
        torch = pytest.importorskip("torch")
        return lambda i: (torch.zeros(3), torch.tensor(int(i)))
    if kind == "numpy":
        return lambda i: (np.zeros(3), np.array(i))
    return lambda i: (np.zeros(3), _Odd())


@pytest.mark.long
@ENGINES
@pytest.mark.parametrize("kind", ["torch", "numpy", "odd"])
def test_leaves_without_a_length_make_batches(workers: Any, kind: str) -> None:
    ds = Dataset(range(8)).map(_zero_d(kind))
    with Loader(ds, 4, workers=workers) as loader:
        batches = list(loader)
        assert loader.stats().rows == 8
    assert [np.asarray(b[1]).shape for b in batches] == [(4,), (4,)]


def test_jax_scalars_make_batches() -> None:
    jax = pytest.importorskip("jax")
    ds = Dataset([{"x": jax.numpy.zeros(()), "y": jax.numpy.ones(3)} for _ in range(4)])
    assert next(Loader(ds, 2))["x"].shape == (2,)


@ENGINES
def test_batches_that_cannot_be_measured_are_handed_out(workers: Any) -> None:
    with Loader(Dataset(range(4)), 2, collate=lambda rows: _Odd(), workers=workers) as loader:
        assert [type(batch) for batch in loader] == [_Odd, _Odd]
        assert loader.stats().batches == 2


@pytest.mark.long
@ENGINES
@pytest.mark.parametrize("row", [{}, (), {"a": {}}, {"a": (), "b": {"c": {}}}], ids=repr)
def test_rows_without_leaves_are_batches_without_leaves(workers: Any, row: Any) -> None:
    ds = Dataset([row] * 4).map(lambda r: r)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Loader(ds, 2, workers=workers) as loader:
            assert list(loader) == [row, row]


# ---- rows that can be read only once


def _count(x: int) -> Any:
    yield x


async def _later(x: int) -> int:
    return x


@pytest.mark.long
@ENGINES
@pytest.mark.parametrize(
    "f", [_count, lambda x: map(str, [x]), lambda x: iter([x]), lambda x: zip([x], strict=True)]
)
def test_iterators_as_rows_are_refused_by_stage_and_record(workers: Any, f: Any) -> None:
    ds = Dataset(range(6)).map(lambda x: f(x) if x == 5 else x, name="lazy")
    with Loader(ds, 3, workers=workers) as loader:
        next(loader)
        with pytest.raises(ChainError) as caught:
            next(loader)
    assert "stage 0: map 'lazy'" in _text(caught.value)
    assert "record 5 of MemorySource" in _text(caught.value)
    assert "read only once" in str(caught.value)


@pytest.mark.long
@ENGINES
@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")
def test_coroutines_as_rows_are_refused(workers: Any) -> None:
    with (
        Loader(Dataset(range(2)).map(_later), 2, workers=workers) as loader,
        pytest.raises(ChainError, match="coroutine"),
    ):
        next(loader)


class _Lines:
    """A source whose records are generators."""

    def __len__(self) -> int:
        return 4

    def read(self, indices: Any) -> list[Any]:
        return [(i for i in [0]) if i == 2 else int(i) for i in indices]


@ENGINES
def test_generators_of_a_source_are_refused_by_record(workers: Any) -> None:
    with (
        Loader(Dataset(_Lines()), 4, workers=workers) as loader,
        pytest.raises(ChainError, match="record 2 of _Lines"),
    ):
        next(loader)


@pytest.mark.long
@ENGINES
def test_generators_inside_of_rows_are_refused_by_field_and_record(workers: Any) -> None:
    ds = Dataset(range(4)).map(lambda x: {"n": x, "g": _count(x)})
    with (
        Loader(ds, 2, workers=workers) as loader,
        pytest.raises(CollateError, match=r"'g'.*record 0 of MemorySource"),
    ):
        next(loader)


@pytest.mark.long
@ENGINES
def test_generators_that_flat_map_gives_as_rows_are_refused(workers: Any) -> None:
    ds = Dataset(range(4)).flat_map(lambda x: [_count(x)], name="lazy")
    with (
        Loader(ds, 2, workers=workers) as loader,
        pytest.raises(ChainError) as caught,
    ):
        next(loader)
    assert "stage 0: flat_map 'lazy'" in _text(caught.value)
    assert "record 0 of MemorySource" in _text(caught.value)


def test_rows_that_cannot_be_sent_are_named() -> None:
    ds = Dataset(range(4)).map(lambda x: (threading.Lock(), x))
    with (
        Loader(ds, 4, collate=lambda rows: rows, workers=Processes(1, parent=False)) as loader,
        pytest.raises(ChainError, match=r"record 0 of MemorySource.*cannot be sent.*lock"),
    ):
        next(loader)


# ---- errors


class Two(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")
        self.a, self.b = a, b


class KeywordOnly(ValueError):
    def __init__(self, *, code: int) -> None:
        super().__init__()
        self.code = code


class Locked(Exception):
    def __init__(self) -> None:
        super().__init__("locked", threading.Lock())
        self.lock = threading.Lock()


class Shy(Exception):
    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    __str__ = __repr__


class Slotted(Exception):
    __slots__ = ("code",)

    def __init__(self, code: int) -> None:
        self.code = code


class Path(OSError):
    def __init__(self, path: str) -> None:
        super().__init__(5, "bad disk", path)


class Made(Exception):
    def __new__(cls, a: int, b: int) -> Made:
        made = super().__new__(cls, a)
        made.b = b
        return made

    def __init__(self, a: int, b: int) -> None: ...

    b: int


class Tagged(ExceptionGroup[Exception]):
    def __new__(cls, errors: list[Exception], tag: str) -> Tagged:
        made = super().__new__(cls, "several", errors)
        made.tag = tag
        return made

    def __init__(self, errors: list[Exception], tag: str) -> None: ...

    tag: str


class Reduced(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(a)
        self.b = b

    def __reduce__(self) -> Any:
        return Reduced, (self.args[0], self.b)


def _http() -> urllib.error.HTTPError:
    return urllib.error.HTTPError("http://x", 404, "not there", Message(), io.BytesIO(b""))


ERRORS: dict[str, tuple[Any, dict[str, Any]]] = {
    "two": (lambda: Two(1, 2), {"a": 1, "b": 2, "args": ("1 and 2",)}),
    "keyword": (lambda: KeywordOnly(code=3), {"code": 3}),
    "locked": (Locked, {}),
    "shy": (lambda: Shy("x"), {"args": ("x",)}),
    "slotted": (lambda: Slotted(4), {"code": 4}),
    "path": (lambda: Path("/x"), {"errno": 5, "filename": "/x", "strerror": "bad disk"}),
    "made": (lambda: Made(1, 2), {"b": 2, "args": (1,)}),
    "group": (lambda: ExceptionGroup("g", [Two(1, 2), KeyError("k")]), {"message": "g"}),
    "tagged": (lambda: Tagged([Two(1, 2)], "t"), {"tag": "t", "message": "several"}),
    "reduced": (lambda: Reduced(1, 2), {"b": 2, "args": (1,)}),
    "http": (_http, {"code": 404, "reason": "not there"}),
    "unicode": (lambda: UnicodeDecodeError("utf8", b"abc", 0, 1, "why"), {"object": b"abc"}),
    "file": (lambda: FileNotFoundError(2, "no", "/f"), {"filename": "/f"}),
    "import": (lambda: ImportError("m", name="n"), {"name": "n"}),
    "exit": (lambda: SystemExit(123), {"code": 123}),
    "exit of a class": (lambda: type("Exit", (SystemExit,), {})(5), {"code": 5}),
    "interrupt": (KeyboardInterrupt, {}),
    "base": (lambda: BaseException("x"), {"args": ("x",)}),
}


@ENGINES
def test_errors_keep_type_and_content_and_name_stage_and_record(workers: Any) -> None:
    makers = [make for make, _ in ERRORS.values()]

    def fail(x: int) -> int:
        if x % 2:
            raise makers[x // 2]()
        return x

    ds = Dataset(range(2 * len(ERRORS))).map(fail, name="fail")
    with Loader(ds, 1, workers=workers) as loader:
        for i, (name, (make, content)) in enumerate(ERRORS.items()):
            kind = type(make())
            assert next(loader) == [2 * i]
            for _ in range(1 if issubclass(kind, OSError) else 2):  # those are tried again anyway
                with pytest.raises(BaseException) as caught:  # noqa: PT011
                    next(loader)
                error = cast(Any, caught.value)
                if name != "exit of a class":  # the class is one of the function's own
                    assert type(error) is kind, name
                assert type(error).__mro__[1].__name__ == kind.__mro__[1].__name__, name
                assert {key: getattr(error, key) for key in content} == content, name
                notes = "\n".join(error.__notes__)
                assert "stage 0: map 'fail'" in notes, name
                assert f"record {2 * i + 1} of MemorySource" in notes, name
                assert loader.step == 2 * i + 1
                for inner in getattr(error, "exceptions", ()):
                    assert type(inner) in (Two, KeyError), name
            loader.seek(2 * i + 2)


@pytest.mark.long
@ENGINES
@pytest.mark.parametrize("how", ["map", "batched", "filter", "flat_map"])
def test_stop_iteration_and_system_exit_name_stage_and_record(
    workers: Any, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(error: BaseException) -> Any:
        def f(row: Any) -> Any:
            raise error

        ds = Dataset({"x": np.arange(4)})
        return {
            "map": lambda: ds.map(f, name="f"),
            "batched": lambda: ds.map(f, batched=True, name="f"),
            "filter": lambda: ds.filter(f, name="f"),
            "flat_map": lambda: ds.flat_map(f, name="f"),
        }[how]()

    stage = f"stage 0: {'map' if how == 'batched' else how} 'f'"
    with Loader(fail(StopIteration(7)), 2, workers=workers) as loader:
        with pytest.raises(RuntimeError, match="StopIteration") as caught:
            next(loader)
        assert stage in _text(caught.value)
        assert "record 0 of" in _text(caught.value)
    with Loader(fail(SystemExit(123)), 2, workers=workers) as loader:
        with pytest.raises(SystemExit) as exit:
            next(loader)
        assert exit.value.code == 123
        assert stage in _text(exit.value)
        assert "record 0 of" in _text(exit.value)
    # the interpreter ends without showing notes: so they are said
    said = [r.getMessage() for r in caplog.records if "SystemExit(123)" in r.getMessage()]
    assert said
    assert stage in said[0]


# ---- tracebacks


def _deep(x: int) -> int:
    return {}["k"] if x == 5 else x


@ENGINES
def test_tracebacks_hold_the_users_lines_alone(
    workers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def frames(error: BaseException) -> list[str]:
        return [entry.filename for entry in traceback.extract_tb(error.__traceback__)]

    def raised() -> BaseException:
        with (
            Loader(Dataset(range(6)).map(lambda x: _deep(x)), 3, workers=workers) as loader,
            pytest.raises(KeyError) as caught,
        ):
            for _ in loader:
                pass
        return caught.value

    error = raised()
    assert not [file for file in frames(error) if "/pipeline/" in file]
    shown = "".join(traceback.format_exception(error))
    assert '{}["k"] if x == 5' in shown
    assert "in stage 0: map" in shown
    assert "/pipeline/" not in shown
    assert len(shown.splitlines()) <= 25
    monkeypatch.setenv("LOCKSTEP_TRACEBACK", "full")
    error = raised()
    assert [file for file in frames(error) if "/pipeline/" in file]


@pytest.mark.long
@pytest.mark.parametrize(
    "ask",
    [lambda ds: ds[0], list, lambda ds: ds.head(1), lambda ds: ds.spec, lambda ds: ds.read([0])],
)
def test_a_datasets_own_tracebacks_are_short_too(ask: Any) -> None:
    ds = Dataset(range(6)).map(lambda x: _deep(5))
    with pytest.raises(KeyError) as caught:
        ask(ds)
    shown = "".join(traceback.format_exception(caught.value))
    assert "/pipeline/" not in shown


def test_errors_of_ours_keep_their_frames() -> None:
    with pytest.raises(CollateError) as caught:
        next(Loader(Dataset([1, "a"]), 2))
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert any("collate.py" in entry.filename for entry in frames)


# ---- what results cost


def _result(kind: str, n: int) -> Any:
    if kind == "bytes":
        return b"x" * (50 * n)
    if kind == "text":
        return "x" * (50 * n)
    if kind == "arrays":  # of a size that goes through shared memory, and not stackable
        return {"a": [np.zeros(1250 + i % 2, np.float32) for i in range(n // 100)]}
    if kind == "nested":
        return [[{"a": i, "b": ["x" * 20]} for i in range(n // 5)], "ragged"]
    raise ValueError("x" * (50 * n))


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bytes", "text", "arrays", "nested", "error"])
def test_results_cross_processes_in_time_linear_in_their_bytes(kind: str) -> None:
    def cpu(n: int) -> float:
        # of this process and its workers, which end with the loader
        ds = Dataset(range(1)).map(lambda _: _result(kind, n))
        with Loader(ds, 1, workers=Processes(1, parent=False), collate=lambda rows: rows) as loader:
            with pytest.raises(ValueError, match="x") if kind == "error" else _nothing():
                loader[0]
            started = time.process_time()
            best = 1e9
            for _ in range(3):
                started = time.thread_time(), time.process_time()
                with pytest.raises(ValueError, match="x") if kind == "error" else _nothing():
                    loader[0]
                best = min(best, time.process_time() - started[1])
        return best

    small, large = cpu(25_000), cpu(400_000)
    assert large < 16 * max(small, 0.005) * 4  # quadratic: 256 times


class _nothing:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def test_many_arrays_of_one_result_come_as_they_are() -> None:
    def make(x: int) -> Any:
        return {"a": [np.full(1200 + j, 100 * x + j) for j in range(30)]}

    ds = Dataset(range(4)).map(make)
    with Loader(ds, 2, workers=Processes(2, parent=False), collate=lambda rows: rows) as loader:
        rows = [row for batch in loader for row in batch]
    for x, row in enumerate(rows):
        for j, a in enumerate(row["a"]):
            assert a.shape == (1200 + j,)
            assert (a == 100 * x + j).all()
            a += 1  # it is nobody else's


@pytest.mark.parametrize("n", [10, 6_000])
def test_works_of_any_size_reach_the_workers(n: int) -> None:
    # rows apart are as many runs: they do not fit into one packet
    ds = Dataset({"x": np.arange(4 * n)})
    executor = Processes(2, parent=False).open(ds.top, ahead=1 << 29, stack=False)
    works = [np.arange(first, 4 * n, 4) for first in range(4)] * 2
    futures = [executor.submit(Rows(rows)) for rows in works]
    for rows, future in zip(works, futures, strict=True):
        assert np.array_equal([row["x"] for row in future.result().rows()], rows)
    executor.close()
