"""Ray actors evaluate: the same bytes, actors die and are replaced, and Ray goes as it came."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings

from pipeline import Dataset, Loader, Ray, Serial, Threads
from pipeline.debug.digest import digest
from pipeline.errors import ChainError, MissingExtraError, PipelineError, WorkerError
from pipeline.workers import ray_crew
from tests.datasets import Files, anything, build, run

from .conftest import children

ray = pytest.importorskip("ray", reason="needs the extra: pip install 'lockstep-data[ray]'")
pytestmark = [pytest.mark.slow, pytest.mark.long]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A Ray that the process was connected to before: loaders must leave it."""
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    assert ray.is_initialized()
    ray.shutdown()


@pytest.fixture(autouse=True, name="_nothing_left")
def _no_threads_left(cluster: None) -> Iterator[None]:
    before = {t for t in threading.enumerate() if t.name.startswith("lockstep")}
    yield
    assert {t for t in threading.enumerate() if t.name.startswith("lockstep")} == before


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("files"))


@given(anything())
@settings(max_examples=4)
def test_ray_changes_no_data_and_no_state(files: Files, recipe: Any) -> None:
    ds = build(files, recipe).repeat()
    try:
        whole = run(Loader(ds, 4), 9)
    except PipelineError:
        assume(False)
    state = Loader(ds, 4).state_dict()
    for i, workers in enumerate([Serial(), Ray(2), Threads(2)]):
        with Loader(ds, 4, workers=workers) as loader:
            loader.load_state_dict(json.loads(json.dumps(state)))
            assert run(loader, 3) == whole[3 * i : 3 * i + 3]
            state = loader.state_dict()


def test_batches_are_writable_and_what_only_main_knows_arrives() -> None:
    class Row(dict[str, Any]):
        """By value: no module of the actors has it."""

    ds = Dataset({"x": np.arange(1 << 16)}).map(lambda row: Row(x=np.full(8, row["x"])))
    with Loader(ds, 1 << 12, workers=Ray(2)) as loader:
        first = next(loader)["x"]
        first += 1
        assert (first[:, 0] == np.arange(1, (1 << 12) + 1)).all()
    with Loader(ds, 4, workers=Ray(1), collate=lambda rows: rows) as loader:
        assert [int(row["x"][0]) for row in next(loader)] == [0, 1, 2, 3]


def dies(once: Path | None) -> Dataset:
    def fatal(row: Any) -> Any:
        if row["x"] == 37 and (once is None or not once.exists()):
            if once is not None:
                once.touch()
            os._exit(3)
        return row

    return Dataset({"x": np.arange(64)}).map(fatal)


def test_an_actors_death_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "died").touch()
    plain = [digest(batch) for batch in Loader(dies(tmp_path / "died"), 4)]
    (tmp_path / "died").unlink()
    with Loader(dies(tmp_path / "died"), 4, workers=Ray(2)) as loader:
        assert [digest(batch) for batch in loader] == plain
        assert loader.stats().restarts == 1


@pytest.mark.long
def test_killed_actors_cost_nothing() -> None:
    def pid(row: Any) -> Any:
        return {"x": row["x"], "pid": os.getpid()}

    ds = Dataset({"x": np.arange(200)}).shuffle().map(pid)
    seen: list[int] = []
    with Loader(ds, 4, workers=Ray(2), ahead=0) as loader:
        for step, batch in enumerate(loader):
            seen += batch["x"].tolist()
            if step % 20 == 7:
                os.kill(int(batch["pid"][-1]), signal.SIGKILL)
        restarts = loader.stats().restarts
    assert seen == [int(row["x"]) for row in ds]
    assert restarts > 0


def test_a_work_that_kills_every_actor_is_named() -> None:
    with Loader(dies(None), 4, workers=Ray(2)) as loader:
        assert [int(next(loader)["x"][0]) for _ in range(9)] == list(range(0, 36, 4))
        with pytest.raises(WorkerError, match=r"3 Ray actors died .*record 37 of MemorySource"):
            next(loader)


def test_errors_arrive_as_themselves_and_the_stream_goes_on() -> None:
    def bad(row: Any) -> Any:
        if row["x"] == 5:
            raise KeyError("no label")
        return row

    with Loader(Dataset({"x": np.arange(12)}).map(bad), 4, workers=Ray(2)) as loader:
        next(loader)
        for _ in range(2):
            with pytest.raises(KeyError, match="no label") as caught:
                next(loader)
            assert "record 5 of MemorySource" in "\n".join(caught.value.__notes__)
        loader.skip(range(1, 2))
        assert next(loader)["x"].tolist() == [8, 9, 10, 11]


def test_skipped_rows_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    def bad(row: Any) -> Any:
        if row["x"] == 5:
            raise ValueError("no label")
        return row

    ds = Dataset({"x": np.arange(12)}).map(bad).on_error("skip")
    with Loader(ds, 4, workers=Ray(2)) as loader:
        passes = [[batch["x"].tolist() for batch in loader] for _ in range(2)]
    said = [r.getMessage() for r in caplog.records if "record 5 of MemorySource" in r.getMessage()]
    assert len([s for s in said if "epoch 0" in s]) == 1
    serial = Loader(ds, 4)
    assert passes == [[batch["x"].tolist() for batch in serial] for _ in range(2)]


def test_actors_import_nothing_heavy_and_seed_globals_in_their_main_thread() -> None:
    def modules(row: Any, rng: Any) -> Any:
        import random

        return {"names": " ".join(sys.modules), "v": random.random()}

    ds = Dataset({"x": np.arange(8)}).random_map(modules, seed_globals=True)
    with Loader(ds, 4, workers=Ray(1)) as loader:
        batch = next(loader)
    assert not {"jax", "orbax", "torch", "pyarrow.dataset"} & set(batch["names"][0].split())
    assert batch["v"].tolist() == next(Loader(ds, 4))["v"].tolist()


def test_what_cannot_be_sent_is_named() -> None:
    lock = threading.Lock()
    ds = Dataset(range(8)).map(lambda x: (lock, x))
    with Loader(ds, 4, workers=Ray(1)) as loader, pytest.raises(ChainError, match="stage 0: map"):
        next(loader)


def test_a_cluster_that_is_too_small_is_told() -> None:
    with (
        Loader(Dataset(range(8)), 4, workers=Ray(3)) as loader,
        pytest.warns(RuntimeWarning, match=r"wants 3 CPUs of a Ray cluster that has 2"),
    ):
        assert next(loader).tolist() == [0, 1, 2, 3]


def test_an_actor_that_finds_no_place_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ray_crew, "PATIENCE", 0.5)
    ds = Dataset(range(64))
    with Loader(ds, 4, workers=Ray(2)) as first, Loader(ds, 4, workers=Ray(1)) as second:
        next(first)
        end = threading.Thread(target=_closes_when_told, args=(first, caplog))
        end.start()
        assert next(second).tolist() == [0, 1, 2, 3]
        end.join()
    assert "of 2 in this Ray cluster 0 are free" in caplog.text


def _closes_when_told(loader: Loader[Any], caplog: pytest.LogCaptureFixture) -> None:
    deadline = time.monotonic() + 60
    while "Ray cluster" not in caplog.text and time.monotonic() < deadline:
        time.sleep(0.02)
    loader.close()


def test_modules_and_files_are_found_where_the_parent_finds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "far_away_functions.py").write_text(
        "import os\ndef listed(x):\n    return x, os.getcwd(), sorted(os.listdir('here'))\n"
    )
    (tmp_path / "here" / "a").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    from far_away_functions import listed  # pyright: ignore[reportMissingImports]

    ds = Dataset(range(2)).map(listed)
    with Loader(ds, 2, workers=Ray(1), collate=list) as loader:
        assert next(loader) == [(x, str(tmp_path), ["a"]) for x in range(2)]


@pytest.mark.parametrize(
    ("address", "environment", "where"),
    [(None, None, "local"), (None, "auto", "auto"), ("local", "auto", "local"), ("a:1", "", "a:1")],
)
def test_where_ray_is_started(
    monkeypatch: pytest.MonkeyPatch, address: str | None, environment: str | None, where: str
) -> None:
    asked: list[str] = []
    fake = SimpleNamespace(is_initialized=lambda: False, init=lambda at, **_: asked.append(at))
    monkeypatch.setattr(ray_crew, "library", lambda: fake)
    monkeypatch.setenv("RAY_ADDRESS", environment or "")
    session = ray_crew._Session()
    session.enter(Ray(1, address=address))
    assert asked == [where]
    assert session.alone == (where == "local")


def test_options_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ChainError, match=r"Ray\(0\)"):
        Ray(0)
    with pytest.raises(ChainError, match="cpus=-1"):
        Ray(1, cpus=-1)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"lockstep-data\[ray\]"):
        Ray(1)


_OWN = """
import time
import ray
from pipeline import Dataset, Loader, Ray
ds = Dataset(range(64)).map(lambda x: x * x)
with Loader(ds, 4, workers=Ray(3)) as first:
    with Loader(ds, 4, workers=Ray(1)) as second:
        assert next(first).tolist() == next(second).tolist() == [0, 1, 4, 9]
    assert ray.is_initialized()
    assert next(first).tolist() == [16, 25, 36, 49]
assert not ray.is_initialized()
loader = Loader(ds, 4, workers=Ray(1))
next(loader)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.long
def test_a_ray_of_our_own_ends_with_its_last_loader_and_with_us() -> None:
    process = subprocess.Popen([sys.executable, "-c", _OWN], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as lines:
        assert "ready\n" in lines
    # Ray's own agents take their time
    family = {pid for pid in children(process.pid) if _works(_command(pid))}
    assert any("raylet" in _command(pid) for pid in family)
    assert any("Evaluator" in _command(pid) for pid in family)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while alive := {pid for pid in family if _runs(pid)}:
        assert time.monotonic() < deadline, alive
        time.sleep(0.02)


def test_a_worker_of_ray_may_start_no_actors() -> None:
    def nested(x: int) -> Any:
        return next(Loader(Dataset(range(2)), 2, workers=Ray(1)))

    with (
        Loader(Dataset(range(2)).map(nested), 2, workers=Ray(1)) as loader,
        pytest.raises(WorkerError, match="inside a Ray actor"),
    ):
        next(loader)


@pytest.mark.parametrize("error", [SystemExit(123), StopIteration(4)], ids=repr)
def test_exits_of_functions_arrive_with_stage_and_record(error: BaseException) -> None:
    def fail(row: Any) -> Any:
        raise error

    ds = Dataset({"x": np.arange(4)}).map(fail, name="fail")
    with (
        Loader(ds, 4, workers=Ray(1)) as loader,
        pytest.raises((SystemExit, RuntimeError)) as caught,
    ):
        next(loader)
    notes = "\n".join(caught.value.__notes__)
    assert "stage 0: map 'fail'" in notes
    assert "record 0 of" in notes


def _works(command: str) -> bool:
    return "raylet/raylet" in command or "gcs_server" in command or "Evaluator" in command


def _command(pid: int) -> str:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
