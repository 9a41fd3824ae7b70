"""Workers import modules anew: what the parent has set there since is taken along or refused."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import Dataset, Loader, Processes
from pipeline.errors import WorkerError
from pipeline.workers import sending

_CONFIG = """
    import collections
    import functools

    SEEN = collections.Counter({1: 3})
    SEQ = 4
    TABLE = {"a": 1}
    WEIGHTS = None
    CALLS = {}

    class Size:
        n = 3

        def __init__(self, by=0):
            self.by = by

        def __call__(self, t):
            return t[:self.n + self.by]

        @classmethod
        def of(cls, t):
            return t[:cls.n]

    class Settings:
        def __init__(self):
            self.n = 2

    SETTINGS = Settings()

    def cut(t):
        return t[:SEQ]

    def tallied(t):
        SEEN[0] += 1
        return t[:SEEN[1]]

    def by_import(t):
        import runconfig
        return t[:runconfig.SEQ]

    def half(t):
        return t[:SEQ // 2]

    def by_settings(t):
        return t[:SETTINGS.n]

    def scaled(t):
        return t * (0 if WEIGHTS is None else WEIGHTS[0]) + TABLE["a"]

    def counted(t):
        CALLS[int(t[0])] = CALLS.get(int(t[0]), 0) + 1
        return t

    @functools.lru_cache
    def cached(n):
        return SEQ + n

    def by_cache(t):
        return t[:cached(0)]
"""
COLUMNS = np.arange(64).reshape(4, 16)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    (tmp_path / "runconfig.py").write_text(textwrap.dedent(_CONFIG))
    (tmp_path / "runsteps.py").write_text(
        "import runconfig\nfrom runconfig import cut as trim\n"
        "def step(t): return trim(t)\ndef look(t): return t[:runconfig.SEQ]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield importlib.import_module("runconfig")
    for name in ("runconfig", "runsteps"):
        sys.modules.pop(name, None)


def _set(name: str, value: Any) -> Callable[[Any], None]:
    return lambda config: setattr(config, name, value)


def _fill(config: Any) -> None:
    config.TABLE["a"] = 7


def _tally(config: Any) -> None:
    config.SEEN[1] = 8


def _through(module: Any, t: Any) -> Any:
    return t[: module.SEQ]


class Through:
    def __init__(self, module: Any) -> None:
        self.module = module

    def __call__(self, t: Any) -> Any:
        return t[: self.module.SEQ]


def _class(config: Any) -> None:
    config.Size.n = 6


@pytest.mark.long
@pytest.mark.parametrize(
    ("change", "f"),
    [
        (_set("SEQ", 8), lambda c: c.cut),
        (_set("SEQ", 8), lambda c: lambda t: t[: c.SEQ]),
        (_set("SEQ", 8), lambda c: lambda t: c.cut(t)),
        (_set("SEQ", 8), lambda c: c.by_cache),
        (_set("SEQ", 8), lambda c: importlib.import_module("runsteps").step),
        (_set("SEQ", 8), lambda c: importlib.import_module("runsteps").look),
        (_set("WEIGHTS", np.array([3])), lambda c: c.scaled),
        (_fill, lambda c: c.scaled),
        (_class, lambda c: c.Size()),
        (_class, lambda c: c.Size(2)),
        (_class, lambda c: c.Size.of),
        (_set("SEQ", 8), lambda c: c.counted),
        (_set("SEQ", 8), lambda c: c.by_import),
        (_set("SEQ", 8), lambda c: functools.partial(_through, c)),
        (_set("SEQ", 8), lambda c: Through(c)),
        (_tally, lambda c: c.tallied),
    ],
    ids=[
        *("function", "attribute", "called", "cached", "imported name", "module of a module"),
        *("array", "filled", "class", "object of a class", "classmethod", "cache"),
        *("imported as it runs", "argument", "attribute", "counter"),
    ],
)
def test_plain_values_that_the_parent_has_set_reach_the_workers(
    config: Any, change: Any, f: Any
) -> None:
    change(config)
    ds = Dataset(COLUMNS).map(f(config))
    plain = next(Loader(ds, 2))
    with Loader(ds, 2, workers=Processes(1, parent=False)) as loader:
        assert np.array_equal(next(loader), plain)


def _patch(config: Any) -> None:
    config.cut = config.half


def _state(config: Any) -> None:
    config.SETTINGS.n = 5


def _large(config: Any) -> None:
    config.TABLE.update({str(i): i for i in range(sending.PARTS)})


@pytest.mark.parametrize(
    ("change", "f", "name"),
    [
        (_state, lambda c: c.by_settings, "SETTINGS"),
        (_patch, lambda c: lambda t: c.cut(t), "cut"),
        (_large, lambda c: c.scaled, "TABLE"),
    ],
    ids=["object", "function", "large"],
)
def test_what_cannot_be_taken_along_is_refused_by_stage_and_global(
    config: Any, change: Any, f: Any, name: str
) -> None:
    change(config)
    ds = Dataset(COLUMNS).map(lambda t: t).map(f(config), name="late")
    with Loader(ds, 2, workers=Processes(1, parent=False)) as loader:
        for _ in range(2):
            with pytest.raises(WorkerError, match=rf"stage 1: map 'late'.*'{name}'.*runconfig"):
                next(loader)


def test_code_that_was_edited_since_is_refused(config: Any) -> None:
    path = Path(config.__file__)
    path.write_text(path.read_text().replace("t[:SEQ]", "t[1:SEQ]"))
    os.utime(path, (1, time.time() + 10))  # so that no compiled file seems to be newer
    with (
        Loader(Dataset(COLUMNS).map(config.cut), 2, workers=Processes(1, parent=False)) as loader,
        pytest.raises(WorkerError, match=r"stage 0: map 'cut'.*'cut'"),
    ):
        next(loader)


# ---- what is imported, and when


def test_what_functions_need_is_imported_once_before_the_forks(tmp_path: Path) -> None:
    heavy = "import os\nwith open(os.environ['SEEN'], 'a') as f: f.write(f'{os.getpid()} ')\n"
    for name in ("heavya", "heavyb", "heavyc"):
        (tmp_path / f"{name}.py").write_text(heavy)
    (tmp_path / "mine.py").write_text("import heavya\ndef f(x):\n    import heavyb\n    return x\n")
    script = textwrap.dedent("""
        import mine, sys
        from pipeline import Dataset, Loader, Processes
        def late(x):
            import heavyc
            return x
        workers = Processes(3, parent=False)
        loader = Loader(Dataset(range(64)).map(mine.f).map(late), 2, workers=workers)
        assert sum(len(b) for b in loader) == 64
        loader.close()
    """)
    (tmp_path / "script.py").write_text(script)
    seen = tmp_path / "seen"
    subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env={**os.environ, "SEEN": str(seen), "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
        timeout=60,
    )
    # each in the main process at most, and in the forkserver: not once in each worker
    pids = seen.read_text().split()
    assert len(set(pids)) == 2
    assert len(pids) <= 4


def test_a_module_that_starts_threads_is_left_to_the_workers(tmp_path: Path) -> None:
    (tmp_path / "threaded.py").write_text(
        "import threading\nlock = threading.Lock()\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "def f(x): return x, threading.active_count()\n"
    )
    script = (
        "import threaded\nfrom pipeline import Dataset, Loader, Processes\n"
        "workers = Processes(2, parent=False)\n"
        "print(next(Loader(Dataset(range(2)).map(threaded.f), 2, workers=workers))[1].tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "[2, 2]\n", done.stderr  # the thread is there in each worker


# ---- workers of workers


_NESTS = """
from pipeline import Dataset, Loader, Processes
def f(x):
    return x
first = next(Loader(Dataset(range(8)).map(f), 2, workers=Processes(2, parent=False)))
"""


def test_a_module_that_draws_with_workers_at_import_is_refused_by_line(tmp_path: Path) -> None:
    (tmp_path / "nests.py").write_text(_NESTS)
    done = subprocess.run(
        [sys.executable, "-c", "import nests"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "WorkerError: nests, line 5 of " in done.stderr
    assert "Processes(n=2" in done.stderr


def test_a_function_that_starts_workers_in_a_worker_is_refused() -> None:
    def nested(x: int) -> Any:
        return next(Loader(Dataset(range(2)), 2, workers=Processes(1, parent=False)))

    with (
        Loader(Dataset(range(2)).map(nested), 2, workers=Processes(1, parent=False)) as loader,
        pytest.raises(WorkerError, match=r"test_modules, line \d+ of .* inside a worker process"),
    ):
        next(loader)


def test_a_worker_may_evaluate_by_itself() -> None:
    def nested(x: int) -> Any:
        return next(Loader(Dataset(range(2)), 2))

    with Loader(Dataset(range(2)).map(nested), 2, workers=Processes(1, parent=False)) as loader:
        assert next(loader).tolist() == [[0, 1], [0, 1]]


# ---- evaluation


def test_once_keeps_its_workers_from_pass_to_pass() -> None:
    once = Loader(
        Dataset(range(8)).map(lambda x: os.getpid()), 2, workers=Processes(1, parent=False)
    ).once()
    passes = [{int(pid) for batch in once for pid in batch} for _ in range(3)]
    assert passes[0] == passes[1] == passes[2]
    assert len(passes[0]) == 1
    once.close()
    assert {int(pid) for batch in once for pid in batch} != passes[0]
    once.close()


def test_a_loaders_passes_of_once_share_workers_and_end_with_it() -> None:
    loader = Loader(
        Dataset(range(8)).map(lambda x: os.getpid()), 2, workers=Processes(1, parent=False)
    )
    passes = [{int(pid) for batch in loader.once() for pid in batch} for _ in range(2)]
    assert passes[0] == passes[1]
    loader.close()


def test_passes_of_once_may_overlap_and_break_off() -> None:
    once = Loader(Dataset(range(8)), 2, workers=Processes(1, parent=False)).once()
    for a, b in zip(once, once, strict=True):
        assert a.tolist() == b.tolist()
    assert [next(iter(once)).tolist() for _ in range(3)] == [[0, 1]] * 3
    assert [batch.tolist() for batch in once] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    once.close()


_SCRIPT = """
import multiprocessing, sys
from typing import NamedTuple
from pipeline import Dataset, Loader, Processes

class Row(NamedTuple):
    x: int

def step(x):
    return Row(x + OFFSET)

OFFSET = 5
DS = Dataset(range(8)).map(step)

def train(rank, state, out):
    with Loader(DS, 4, workers=Processes(1, parent=False)) as loader:
        loader.load_state_dict(state)
        batch = next(loader)
        out.put((type(batch) is Row, batch.x.tolist(), loader.state_dict()))

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    loader, out = Loader(DS, 4), context.Queue()
    next(loader)
    process = context.Process(target=train, args=(0, loader.state_dict(), out))
    process.start()
    alike, rows, state = out.get(timeout=60)
    process.join()
    loader.load_state_dict(state)
    print(alike, rows, loader.epoch)
"""


@pytest.mark.slow
def test_a_script_in_a_spawned_process_has_workers(tmp_path: Path) -> None:
    # as torch.multiprocessing.spawn starts trainings: the script is module __mp_main__ there
    (tmp_path / "train.py").write_text(_SCRIPT)
    command = [sys.executable, str(tmp_path / "train.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    assert (done.stdout, done.returncode) == ("True [9, 10, 11, 12] 1\n", 0), done.stderr


def test_a_module_that_no_worker_finds_is_sent(tmp_path: Path) -> None:
    (tmp_path / "loaded.py").write_text(
        "import functools\n"
        "N = 3\n"
        "class Row(dict): pass\n"
        "@functools.cache\n"
        "def more(x): return x + N\n"
        "def step(x): return Row(x=more(x))\n"
    )
    spec = importlib.util.spec_from_file_location("loaded_by_path", tmp_path / "loaded.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["loaded_by_path"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.N = 4  # pyright: ignore[reportAttributeAccessIssue]
    try:
        for f in (module.step, lambda x: module.step(x)):
            ds = Dataset(range(4)).map(f)
            workers = Processes(1, parent=False)
            with Loader(ds, 4, collate=list, workers=workers) as loader:
                rows = next(loader)
            assert rows == [{"x": 4}, {"x": 5}, {"x": 6}, {"x": 7}]
            assert all(type(row) is module.Row for row in rows)
    finally:
        del sys.modules["loaded_by_path"]
