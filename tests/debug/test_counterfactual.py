"""The right culprit is named, and what its absence would bring is what it then brings."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipeline import Dataset, Loader, Threads, TorchFeed, mix, scan
from pipeline.debug import counterfactual
from pipeline.debug.counterfactual import AHEAD, LOOP, _Trial, explain, measure
from pipeline.debug.counterfactual.measure import Run, run
from pipeline.debug.counterfactual.standins import Recording

ROWS = {"x": np.arange(4000.0)}


class Clock:
    """A clock that passes by sleeping alone, so that what is measured does not depend on luck."""

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        self._now += 1e-6  # a run of no sleep at all ends too
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += seconds


@pytest.fixture
def no_real_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    monkeypatch.setattr(time, "sleep", clock.sleep)


def nap(seconds: float) -> Any:
    def f(row: Any) -> Any:
        time.sleep(seconds)
        return row

    return f


class Slow:
    """A source that needs some time for each record."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __len__(self) -> int:
        return 1000

    def read(self, indices: Any) -> list[Any]:
        time.sleep(self._seconds * len(indices))
        return [{"x": float(i)} for i in indices]


def of_source(seconds: float) -> Loader:
    return Loader(Dataset(Slow(seconds)).map(nap(0.005), name="decode").repeat(), 2)


def of_stage(*stages: float) -> Loader:
    ds = Dataset(ROWS, seed=1).shuffle()
    for seconds in stages:
        ds = ds.map(nap(seconds), name=f"nap {seconds}")
    return Loader(ds.repeat(), 2)


class SlowFeed(TorchFeed):
    """Devices that are far away."""

    def put(self, batch: Any, rows: Any, total: int) -> Any:
        time.sleep(0.04)
        return super().put(batch, rows, total)


def slow_collate(rows: Any) -> Any:
    time.sleep(0.04)
    return rows


CULPRITS = {  # as it is, with its loop; without the culprit; its name and what it brings
    "stage": (of_stage(0.02, 0.005), None, of_stage(0.005), None, "stage 1: map 'nap 0.02'", 5.0),
    "source": (of_source(0.02), None, of_source(0), None, "source", 5.0),
    "loop": (of_stage(0.02), 0.1, of_stage(0.02), None, LOOP, 3.5),
    "feed": (of_stage(0.005), None, of_stage(0.005), None, "feed", 5.0),  # with a `SlowFeed`
}


def test_a_collate_of_one_s_own_is_told_what_to_do(
    no_real_time: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Trial, "_workers", lambda _: [])
    found = explain(of_stage(0.005).like(collate=slow_collate), seconds=2)
    assert found.limit == "collate"
    assert "do its work in a .map, for workers" in found.advice[0]


@pytest.mark.parametrize("culprit", CULPRITS)
def test_the_culprit_is_named_with_its_gain(
    culprit: str, no_real_time: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Trial, "_workers", lambda _: [])  # processes have another clock
    loader, step, better, step_then, limit, gain = CULPRITS[culprit]
    if culprit == "feed":
        pytest.importorskip("torch")
        loader = loader.like(feed=SlowFeed())
    found = explain(loader, seconds=20, step=step)
    said = next(c.gain for c in found.counterfactuals if c.name == limit)
    came = run(better.like(), 20, step_then).rate / run(loader.like(), 20, step).rate
    assert found.limit == limit
    assert said == pytest.approx(gain, rel=0.05)
    assert came == pytest.approx(gain, rel=0.05)
    others = [c.gain for c in found.counterfactuals if c.name != limit]
    assert max(others) < gain / 2


@pytest.mark.parametrize(("by_room", "named"), [(15, AHEAD), (12, "stage 0: map 'slow'")])
def test_more_room_is_named_before_a_stage_that_gains_little_more(
    by_room: int, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rated(loader: Loader, seconds: float, step: Any = None, **_: Any) -> Run:
        called.clear()
        with loader:
            next(loader)
            stats = loader.stats()
            return Run(by_room if stats.ahead >= 1 << 30 else 10 if called else 18, stats)

    called: list[Any] = []
    slow = lambda row: called.append(sum(range(3000))) or row  # noqa: E731

    monkeypatch.setattr(counterfactual, "run", rated)
    monkeypatch.setattr(_Trial, "_workers", lambda _: [])
    monkeypatch.setattr(_Trial, "_collate", lambda _: None)
    ds = Dataset(ROWS).map(slow, name="slow").repeat()
    found = explain(Loader(ds, 2, workers=Threads(1), ahead=1))
    assert (found.limit, {c.name: c.gain for c in found.counterfactuals}[AHEAD]) == (
        named,
        by_room / 10,
    )


def test_with_more_room_workers_go_on_while_the_loop_is_busy() -> None:
    many, begun = threading.Event(), [0]

    def count(row: Any) -> Any:
        begun[0] += 1
        if begun[0] >= 200:
            many.set()
        return row

    ds = Dataset(ROWS).map(count).repeat()
    with Loader(ds, 2, workers=Threads(1), ahead=1) as loader:
        for _ in range(20):
            next(loader)
        assert begun[0] < 200  # however fast: it may hold a few batches, whoever waits for whom
    begun[0] = 0
    with Loader(ds, 2, workers=Threads(1), ahead=1).like(ahead=1 << 30) as loader:
        next(loader)  # and nothing after it
        assert many.wait(60)


def test_a_stage_that_costs_nothing_leaves_rows_that_later_stages_take(tmp_path: Path) -> None:
    docs = Dataset([np.arange(1 + i % 5) for i in range(50)])
    lengths = scan(docs, len, path=tmp_path / "s", workers=0, progress=False)

    def popped(row: dict[str, Any]) -> dict[str, Any]:
        return {"y": row.pop("x") + 1}

    chains = [
        Dataset({"x": np.arange(50)}).map(lambda r: r, name="a").map(popped, name="b"),
        Dataset({"x": np.arange(50)}).map(lambda r: {"x": r["x"] + 1}, batched=True, name="a"),
        Dataset(range(50)).filter(lambda x: x % 3 == 0, name="a").map(lambda x: x, name="b"),
        docs.map(lambda d: d, name="a").pack(8, block=16),
        docs.map(lambda d: d, name="a").pack(8, lengths=lengths),
        mix({"a": Dataset(range(9)).map(str, name="s"), "b": Dataset([*"xyz"])}, {"a": 1, "b": 1}),
        Dataset(range(50)).random_map(lambda x, rng: x + rng.random(), name="r"),
    ]
    for ds in chains:
        recording = Recording(ds)
        rows = recording.dataset.head(8)
        assert str(rows) == str(ds.head(8))  # whoever records changes nothing
        for name in recording.names:
            with Loader(recording.without(name), 4) as loader:
                for _ in range(20):
                    next(loader)
                    assert len(loader.where()) > 0


@pytest.mark.parametrize("workers", [0, Threads(1)], ids=str)
def test_a_stage_taken_away_is_not_called(workers: Any) -> None:
    calls = {"a": 0, "b": 0}

    def counted(name: str) -> Any:
        def f(row: Any) -> Any:
            calls[name] += 1
            return row

        return f

    ds = Dataset({"x": np.arange(99)}).map(counted("a"), name="a").map(counted("b"), name="b")
    recording = Recording(ds)
    recording.dataset.head(20)
    for name, other in (("a", "b"), ("b", "a")):
        ready = next(n for n in recording.names if n.endswith(f"'{name}'"))
        before = dict(calls)
        with Loader(recording.without(ready), 4, workers=workers) as loader:
            assert len(list(loader)) == 25
        assert calls[name] == before[name]
        assert calls[other] == before[other] + 99


@pytest.mark.long
def test_a_page_of_a_profile_is_whole_and_escaped() -> None:
    ds = Dataset(range(64)).map(lambda x: sum(range(20_000)) + x, name="<script>").repeat()
    page = explain(ds, seconds=0.2, batch=8).html()
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert "default-src 'none'" in page
    assert page.count("<svg") == page.count("</svg>") == 1


def test_what_lies_beneath_a_shared_cache_is_left_alone(tmp_path: Path) -> None:
    ds = Dataset(range(20)).map(lambda x: x * 2, name="slow").cache(tmp_path / "kept")
    recording = Recording(ds)
    recording.dataset.head(5)
    assert recording.names == []
    assert recording.without("stage 0: map 'slow'").head(20) == ds.head(20) == [*range(0, 40, 2)]


def test_a_change_that_cannot_be_run_is_told() -> None:
    lock = threading.Lock()  # which no process can be sent

    def locked(x: int) -> int:
        with lock:
            return x + sum(range(20_000))

    found = explain(Dataset(range(100)).map(locked).repeat(), seconds=0.2, batch=10)
    assert any("workers" in text for text in found.failed)
    assert {c.name for c in found.counterfactuals} >= {"stage 0: map 'locked'"}
    assert explain(Dataset([]), seconds=0.2).limit == "nothing"


class _Begins:
    """A loader of workers that takes longer for its first batches, by the false clock."""

    def __init__(self, slow: float, filling: int) -> None:
        self.epoch, self._got, self._slow, self._filling = 0, 0, slow, filling

    def __enter__(self) -> _Begins:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __next__(self) -> int:
        time.sleep(self._slow(self._got) if callable(self._slow) else self._slow)
        self._got += 1
        if self._got > self._filling:
            self._slow = 0.001
        return self._got

    def stats(self) -> Any:
        ready = min(self._got, self._filling)
        return SimpleNamespace(rows=self._got, workers=2, works=9, asked=0, ready=ready)


@pytest.mark.parametrize(("slow", "filling"), [(0.02, 0), (0.02, 60), (0.002, 500), (0.05, 20)])
def test_workers_are_measured_once_they_have_begun(
    slow: float, filling: int, no_real_time: None
) -> None:
    loader: Any = _Begins(slow, filling)
    found = run(loader, 0.2)
    assert found.steady
    assert found.rate == pytest.approx(1000, rel=0.2)


def test_a_rate_that_never_settles_cannot_be_told(
    no_real_time: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slower(_Begins):
        def __next__(self) -> int:
            time.sleep(0.002 * 1.01**self._got)
            self._got += 1
            return self._got

    monkeypatch.setattr(measure, "STEADY", 1.01)
    slower: Any = Slower(0.0, 0)
    assert not run(slower, 1.0).steady

    def rated(loader: Loader, seconds: float, step: Any = None, **_: Any) -> Run:
        with loader:
            next(loader)
            stats = loader.stats()
        return Run(10.0, stats, steady=not stats.workers)

    monkeypatch.setattr(counterfactual, "run", rated)
    monkeypatch.setattr(_Trial, "_workers", lambda _: [Threads(2)])
    found = explain(Loader(Dataset(ROWS).repeat(), 2))
    assert not any(c.name.startswith("workers") for c in found.counterfactuals)
    assert any("cannot be told" in text for text in found.failed)
