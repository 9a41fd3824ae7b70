"""The machinery of `make bench`: medians and ratios, aims, the page, and what `--check` refuses."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as bench
from benchmarks import measure, report
from benchmarks.measure import Figure, Workload, measured, rate


class _Clock:
    # stands still but for what passes
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(measure.time, "perf_counter", lambda: self.now)

    def passes(self, seconds: float) -> int:
        self.now += seconds
        return 0


def _values(*values: float) -> Callable[[], float]:
    return iter(values).__next__


def _workload(ours: list[float], theirs: list[float], **more: Any) -> Workload:
    runs = {"lockstep": _values(*ours), "torch": _values(*theirs)}
    return Workload("rows", "what", "rows/s", runs, **more)


def test_the_first_round_warms_and_the_others_give_median_least_and_most():
    found = measured(_workload([99, 3, 1, 2], [0, 5, 5, 8]), 3)
    assert found == {"lockstep": Figure(2, 1, 3), "torch": Figure(5, 5, 8)}


def test_runs_take_turns():
    order: list[str] = []

    def run(name: str) -> Callable[[], float]:
        return lambda: order.append(name) or 1.0

    measured(Workload("w", "q", "u", {"lockstep": run("a"), "torch": run("b")}), 2)
    assert order == ["a", "b"] * 3


@pytest.mark.parametrize(("less", "ratio"), [(False, 2.0), (True, 0.5)])
def test_a_ratio_above_one_says_that_ours_is_better(less: bool, ratio: float):
    workload = _workload([0, 6], [0, 3], less=less)
    entry = report.entry(workload, measured(workload, 1))
    assert entry["ratios"] == {"lockstep": {"torch": ratio}}


@pytest.mark.parametrize(("aim", "held"), [(1.9, "held"), (2.1, "NOT held")])
def test_an_aim_is_told_with_its_ratio_as_held_or_not(aim: float, held: str):
    aims = {("lockstep", "torch"): aim, ("lockstep", "absent"): 9.0}
    workload = _workload([0, 4], [0, 2], aims=aims)
    entry = report.entry(workload, measured(workload, 1))
    lines = list(report.table("rows", entry))
    assert lines[-1] == f"  aim: lockstep ≥ {aim} × torch: 2.00, {held}"
    assert not any("absent" in line for line in lines)  # a peer that is not installed


def _results(ratio: float) -> dict[str, Any]:
    return {"workloads": {"rows": {"ratios": {"lockstep": {"torch": ratio}}}}}


@pytest.mark.parametrize(("now", "worse"), [(1.61, False), (1.59, True)])
def test_a_ratio_is_lost_where_it_fell_by_more_than_a_fifth(now: float, worse: bool):
    assert bool(report.lost(_results(now), _results(2.0))) is worse


def test_what_was_not_measured_before_is_not_lost():
    assert report.lost(_results(0.1), {"workloads": {}}) == []


def test_a_rate_counts_batches_after_the_warm_ones(monkeypatch: pytest.MonkeyPatch):
    clock = _Clock(monkeypatch)
    given = (clock.passes(10.0 if i < 2 else 0.1) for i in range(100))
    assert rate(given, 8, warm=2, most=5) == pytest.approx(80)


def test_a_rate_ends_after_some_time(monkeypatch: pytest.MonkeyPatch):
    clock, taken = _Clock(monkeypatch), list[int]()

    def batches() -> Any:
        for i in range(1000):
            taken.append(i)
            yield clock.passes(measure.LONGEST / 4)

    rate(batches(), 8, warm=1, most=1000)
    assert len(taken) < 10


# ---- the command


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    """Runs the command on one workload of known figures; docs are in tmp_path."""
    monkeypatch.setattr(bench, "DOCS", tmp_path)

    def run(ours: float, *args: str) -> int:
        workload = _workload([ours] * 3, [1.0] * 3, aims={("lockstep", "torch"): 1.5})
        monkeypatch.setattr(bench, "found", lambda *_: [workload])
        monkeypatch.setattr(sys, "argv", ["bench", "--rounds", "2", *args])
        return bench.main()

    return run


def test_page_json_and_figure_are_written_and_hold_the_same(
    small: Callable[..., int], tmp_path: Path
):
    assert small(2.0) == 0
    page, figure = (tmp_path / f"benchmarks.{x}" for x in ("md", "svg"))
    found = json.loads((tmp_path / "benchmarks.json").read_text())
    assert found["workloads"]["rows"]["figures"]["lockstep"] == [2.0, 2.0, 2.0]
    assert "| lockstep | 2.0 | 2.0 | 2.0 | 2.00 × torch |" in page.read_text()
    assert "Aim: lockstep ≥ 1.5 × torch: 2.00, held." in page.read_text()
    assert found["environment"]["command"] in page.read_text()
    assert "rows: lockstep to torch" in figure.read_text()


def test_check_compares_with_what_is_committed_and_writes_nothing(
    small: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    small(2.0)
    before = (tmp_path / "benchmarks.json").read_text()
    assert small(1.9, "--check") == 0
    assert small(1.0, "--check") == 1
    assert "rows: lockstep was 2.00 × torch, is 1.00" in capsys.readouterr().out
    assert (tmp_path / "benchmarks.json").read_text() == before


def test_peers_that_are_not_installed_are_named(
    small: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(report, "PEERS", (*report.PEERS, "nosuchpeer"))
    small(2.0)
    assert "nosuchpeer" in capsys.readouterr().out.splitlines()[0]
    assert "nosuchpeer" in (tmp_path / "benchmarks.md").read_text()


def test_the_command_is_told_without_the_place_it_wrote_to(
    small: Callable[..., int], tmp_path: Path
):
    place = tmp_path / "elsewhere"
    small(2.0, "--out", str(place))
    found = json.loads((place / "benchmarks.json").read_text())
    assert found["environment"]["command"] == "python -m benchmarks --rounds 2"
    assert str(tmp_path) not in (place / "benchmarks.md").read_text()


def test_every_workload_is_found_and_an_unknown_one_is_refused(tmp_path: Path):
    with pytest.raises(SystemExit, match=r"no workloads nosuch: there are .*tokens"):
        list(bench.found(tmp_path, ["nosuch"], 1.0))
