"""Nothing is lost to a fault: killed, hung and failing workers change no byte."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import Dataset, Loader, Processes, Threads
from pipeline.debug.digest import digest
from pipeline.errors import ChainError, WorkerError
from pipeline.workers import executor
from tests.workers.conftest import children


def _slow(row: Any, rng: np.random.Generator) -> Any:
    time.sleep(0.0001)
    return {"x": row["x"], "noise": rng.random(8), "s": "é\0" * int(row["x"] % 5)}


def _dataset(n: int) -> Dataset:
    return Dataset({"x": np.arange(n)}, seed=1).shuffle().random_map(_slow, name="slow")


def _at_work(loader: Loader) -> list[int]:
    # those that have begun: were all killed at birth, the pool would rightly give up
    pool: Any = getattr(loader._executor, "_crew", None)
    return [w.pid for w in pool._workers.copy().values() if w.ready and w.pid] if pool else []


def _direct(pid: int) -> set[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        found = set(map(int, file.read().split()))
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/children") as file:
            found |= set(map(int, file.read().split()))
    return found


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("counted", [False, True])
def test_a_hundred_kills_in_one_epoch_change_nothing(
    counted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # chance may hit one work three times, for which it would rightly be blamed
    monkeypatch.setattr(executor, "KILLS", 1000)
    ds = _dataset(3200)
    if counted:
        ds = ds.filter(lambda row: row["x"] % 7 > 0, block=16).lanes(4)
    plain = [digest(batch) for batch in Loader(_dataset(3200) if not counted else ds, 8)]
    rng, kills = random.Random(0), 0
    # a small budget keeps the workers at it until the end
    with Loader(ds, 8, workers=Processes(3, parent=False), ahead="20KiB") as loader:
        for step, want in enumerate(plain):
            assert digest(next(loader)) == want
            victims = _at_work(loader)
            if victims and kills * len(plain) < 110 * (step + 1):
                with contextlib.suppress(ProcessLookupError):  # just ended by itself
                    os.kill(rng.choice(victims), signal.SIGKILL)
                    kills += 1
        assert loader.epoch == 1
        assert loader.stats().restarts > kills / 2
    assert kills >= 100


def test_the_forkserver_itself_may_die() -> None:
    plain, others = [digest(batch) for batch in Loader(_dataset(400), 8)], _direct(os.getpid())
    with Loader(_dataset(400), 8, workers=Processes(2, parent=False)) as loader:
        got = [digest(next(loader))]
        for pid in _direct(os.getpid()) - others:
            os.kill(pid, signal.SIGKILL)
        got += [digest(batch) for batch in loader]
    assert got == plain


@pytest.mark.parametrize(
    ("death", "words"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "died of SIGKILL"),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), "died of SIGSEGV"),
        (lambda: os._exit(3), "exited with code 3"),
        (lambda: time.sleep(100), "hung for more than 0.3 s"),
    ],
    ids=["kill", "segfault", "exit", "hang"],
)
def test_a_record_that_kills_is_named_and_the_rest_goes_on(death: Any, words: str) -> None:
    def deadly(x: int) -> int:
        if x == 21:
            death()
        return x

    ds = Dataset(range(40)).map(deadly)
    with Loader(ds, 4, workers=Processes(2, timeout=0.3)) as loader:
        got = [next(loader).tolist() for _ in range(5)]
        for _ in range(2):
            with pytest.raises(WorkerError, match=words) as caught:
                next(loader)
            assert "record 21 of MemorySource" in str(caught.value)
            assert loader.step == 5
        loader.seek(6)
        got += [batch.tolist() for batch in loader]
    assert got == [list(range(i, i + 4)) for i in range(0, 40, 4) if i != 20]


def test_a_death_that_does_not_repeat_costs_nothing(tmp_path: Path) -> None:
    def once(x: int) -> int:
        flag = tmp_path / str(x)
        if x % 10 == 3 and not flag.exists():
            flag.touch()
            os._exit(1)
        return x * x

    with Loader(Dataset(range(40)).map(once), 4, workers=Processes(2, parent=False)) as loader:
        assert np.concatenate(list(loader)).tolist() == [x * x for x in range(40)]
        assert loader.stats().restarts == 4


def _dies_once(folder: Path, every: int) -> Any:
    def f(x: int) -> int:
        if x % every == 0:
            with contextlib.suppress(FileExistsError):
                os.close(os.open(folder / str(x), os.O_CREAT | os.O_EXCL))
                os.kill(os.getpid(), signal.SIGKILL)
        return x * x

    return f


@pytest.mark.long
@pytest.mark.parametrize("counted", [False, True])
def test_a_thousand_deaths_in_quick_succession_change_nothing(
    counted: bool, tmp_path: Path
) -> None:
    # most works hold many rows that kill, each of them once: no work is to blame
    n, deaths = (1500, 500) if counted else (3000, 1000)
    ds = Dataset(range(n)).map(_dies_once(tmp_path, 3))
    ds = ds.filter(lambda x: x % 2 == 0, block=64) if counted else ds
    with Loader(ds, 30, workers=Processes(4, parent=False)) as loader:
        got = np.concatenate(list(loader)).tolist()
        assert loader.stats().restarts >= deaths
    assert got == [x * x for x in range(n) if not counted or x % 2 == 0]


@pytest.mark.long
@pytest.mark.parametrize("rows", [1, 12])
def test_a_record_that_always_kills_is_named_among_others_that_kill_once(
    rows: int, tmp_path: Path
) -> None:
    once = _dies_once(tmp_path, 5)

    def f(x: int) -> int:
        if x == 7:
            os._exit(9)
        return once(x)

    ds = Dataset(range(60)).map(f, name="deadly")
    with Loader(ds, rows, workers=Processes(2, parent=False)) as loader:
        loader.seek(7 // rows)
        with pytest.raises(WorkerError, match=r"exited with code 9") as caught:
            next(loader)
        assert "the last in stage 0: map 'deadly', on record 7 of MemorySource" in str(caught.value)
        assert loader.stats().restarts <= 3 + rows
        loader.seek(12 // rows + 1)
        next(loader)


def test_the_stage_that_kills_is_named_where_no_record_is_known() -> None:
    def f(rows: Any) -> Any:
        os._exit(9)

    ds = Dataset({"x": np.arange(4)}).map(f, batched=True, name="deadly")
    with (
        Loader(ds, 2, workers=Processes(1, parent=False)) as loader,
        pytest.raises(WorkerError, match=r"3 worker processes .*the last in stage 0: map 'deadly'"),
    ):
        next(loader)


@pytest.mark.parametrize("workers", [Threads(2), Processes(2, parent=False)], ids=str)
def test_errors_arrive_as_themselves_and_are_raised_again_on_retry(workers: Any) -> None:
    def picky(x: int) -> int:
        if x == 9:
            raise KeyError("nine")
        return x

    with Loader(Dataset(range(16)).map(picky), 4, workers=workers) as loader:
        got = [next(loader).tolist() for _ in range(2)]
        for _ in range(2):
            with pytest.raises(KeyError, match="nine") as caught:
                next(loader)
            notes = "\n".join(caught.value.__notes__)
            assert "stage 0: map 'test_errors_" in notes or "map 'picky'" in notes
            assert "record 9 of MemorySource, epoch 0" in notes
            assert loader.step == 2
            if isinstance(workers, Processes):
                assert 'raise KeyError("nine")' in notes
        loader.seek(3)
        got.append(next(loader).tolist())
    assert got == [[0, 1, 2, 3], [4, 5, 6, 7], [12, 13, 14, 15]]


def test_what_cannot_be_sent_is_named_with_its_stage() -> None:
    import threading

    lock = threading.Lock()

    def locked(x: int) -> int:
        with lock:
            return x

    # closures over locks cannot even be hashed into a fingerprint by value, so hide it
    class Holder:
        def __init__(self) -> None:
            self.lock = lock

        def __reduce__(self) -> Any:
            raise TypeError("a lock stays where it is")

        def __call__(self, x: int) -> int:
            return locked(x)

    ds = Dataset(range(4)).map(lambda x: x, name="fine")
    ds = ds._transformed(_Unsendable(Holder()))  # type: ignore[arg-type]
    with (
        Loader(ds, 2, workers=Processes(1, parent=False)) as loader,
        pytest.raises(ChainError, match=r"stage 1: map 'held'.*Threads"),
    ):
        next(loader)


class _Unsendable:
    kind, name, random, counted, block = "map", "held", False, False, 0

    def __init__(self, f: Any) -> None:
        self.f = f

    def apply(self, block: Any, site: Any) -> Any:
        return block

    def fingerprint(self) -> str:
        return "map held 00000000"


def test_a_dataset_that_cannot_be_loaded_says_why() -> None:
    ds = Dataset(range(4)).map(_Refuses())
    with Loader(ds, 2, workers=Processes(2, parent=False)) as loader:
        for _ in range(2):
            with pytest.raises(ZeroDivisionError, match="not here"):
                next(loader)


class _Refuses:
    def __call__(self, x: int) -> int:
        return x

    def __reduce__(self) -> Any:
        return _refuse, ()


def _refuse() -> Any:
    raise ZeroDivisionError("not here")


def test_closing_ends_the_work_and_the_loader_can_go_on() -> None:
    others = children(os.getpid())  # servers of other tests
    loader = Loader(_dataset(200), 8, workers=Processes(2, parent=False))
    plain = [digest(batch) for batch in Loader(_dataset(200), 8)]
    got = [digest(next(loader)) for _ in range(3)]
    loader.close()
    assert not children(os.getpid()) - others
    got += [digest(batch) for batch in loader]
    loader.close()
    assert got == plain


def test_an_errors_causes_arrive_with_it() -> None:
    def bad(row: Any) -> Any:
        try:
            try:
                {}["label"]
            except KeyError as e:
                raise LookupError("no label") from e
        except LookupError:
            raise ValueError("unusable row")  # noqa: B904
        return row

    with (
        Loader(Dataset(range(4)).map(bad), 4, workers=Processes(1, parent=False)) as loader,
        pytest.raises(ValueError, match="unusable row") as caught,
    ):
        next(loader)
    error: Any = caught.value
    assert error.__cause__ is None
    assert isinstance(error.__context__, LookupError)
    assert isinstance(error.__context__.__cause__, KeyError)
    assert error.__context__.__suppress_context__
