"""The doctor: a loader that breaks one law is told so, and one that keeps them is left alone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.__main__ import main
from pipeline.debug.doctor import LAWS, DoctorError, Report, examine, frameworks
from pipeline.debug.doctor.compare import difference, global_difference, lost_and_repeated
from pipeline.debug.doctor.frameworks import Accelerated
from pipeline.debug.doctor.launch import Seen
from pipeline.debug.doctor.subjects import subject_of
from pipeline.debug.doctor.watch import Job, Log
from pipeline.errors import ChainError
from tests.debug.doctored import fed

FACTORIES = "tests.debug.doctored"


def report(name: str, **options: object) -> Report:
    options = {"batches": 24, "shuffled": True, "hosts": (1,), "key": "id", **options}
    return examine(f"{FACTORIES}:{name}", **options)  # pyright: ignore[reportArgumentType]


def broken(found: Report) -> set[str]:
    return {row.law for row in found.rows if row.verdict == "broken"}


CASES = {
    "Clock": {"same order twice", "resume", "second resume", "state through JSON"},
    "Unseeded": {"same order twice"},
    "Replays": {"resume", "second resume", "state through JSON", "every record once"},
    "OnceOnly": {"second resume", "every record once"},
    "EmptyPass": {"resume at the epoch's edge"},
    "Aliased": {"state unchanged by use"},
    "NoJson": {"state through JSON"},
    "Unshuffled": {"epochs differ"},
    "in_workers": {"worker count does not matter"},
    "for_hosts": {"host count does not matter"},
    "Silent": {"worker killed: error or recovery, never silence"},
    "Signals": set[str](),
    "Littering": {"nothing left behind"},
    "Memory": {"nothing left behind"},
}
# what an order of its own in each process, and a worker that nobody ends, may lead to
FOLLOWS = {
    "Clock": {"resume at the epoch's edge", "every record once", "epochs differ"},
    "Silent": {"nothing left behind"},
    "Signals": {"nothing left behind"},
}


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_the_law_that_is_broken_is_named_and_no_other(name: str) -> None:
    found = report(name, hosts=(1, 2) if name == "for_hosts" else (1,))
    assert broken(found) - FOLLOWS.get(name, set()) == CASES[name], str(found)
    assert [row.law for row in found.rows] == list(LAWS)
    for row in found.rows:
        if row.verdict == "broken":
            assert row.came is not None
            assert row.expected is not None


@pytest.mark.long
@pytest.mark.parametrize("name", ["right", "stateless", "shuffled", "packed_mix", "fed"])
def test_no_alarm_where_the_laws_hold(name: str) -> None:
    key = None if name in ("packed_mix", "fed") else "id"
    hosts = (1, 2) if name == "right" else (1, 2, 4)
    found = report(name, key=key, shuffled=name != "stateless", hosts=hosts)
    assert not broken(found), str(found)
    claims = {row.law for row in found.rows if row.verdict == "held"}
    if name in ("shuffled", "packed_mix", "fed"):
        assert claims == set(LAWS)


@pytest.mark.long
@pytest.mark.parametrize(("name", "seconds"), [("OneShot", 60), ("Slow", 1)])
def test_no_alarm_for_a_single_pass_nor_for_a_slow_one(name: str, seconds: float) -> None:
    found = report(name, shuffled=False, seconds=seconds)
    assert not broken(found), str(found)
    held = {row.law for row in found.rows if row.verdict == "held"}
    assert {"resume", "resume at the epoch's edge", "every record once"} <= held


@pytest.mark.long
def test_what_no_two_runs_share_is_not_laid_to_workers_and_hosts() -> None:
    pytest.importorskip("torch", reason="needs the extra: pip install 'lockstep-data[torch]'")
    found = report("unseeded_torch", shuffled=False, hosts=(1, 2))
    assert broken(found) == {"same order twice"}
    for law in ("worker count does not matter", "host count does not matter"):
        assert "two runs differ already" in found[law].note


@pytest.mark.long
def test_a_loader_that_hangs_is_not_examined() -> None:
    with pytest.raises(DoctorError, match=r"at step 4: nothing more within \d s"):
        report("Hangs", seconds=2)


@pytest.mark.long
def test_a_state_that_cannot_be_taken_is_no_order_that_changes() -> None:
    found = report("Fails")
    assert found["state unchanged by use"].came == "NotImplementedError: no state yet"
    assert "changes the order" not in str(found)


@pytest.mark.long
@pytest.mark.slow
def test_each_of_a_torch_feed_s_states_is_whole() -> None:
    pytest.importorskip("torch", reason="needs the extra: pip install 'lockstep-data[torch]'")
    saved, restored = fed(), fed()
    next(saved)
    state = saved.state_dict()
    subject_of(restored).restore([state, state], rank=1)
    assert restored.state_dict() == state
    assert next(restored)["tokens"].tolist() == next(saved)["tokens"].tolist()


def test_a_process_that_stays_when_its_run_is_done_is_waited_for_a_while(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    log = Log(path)
    assert not log.lingers()
    log.write(rows=[1])
    os.utime(path, (0, 0))
    assert not log.lingers()
    log.write(done=True, heavy=[])
    assert not log.lingers()
    os.utime(path, (0, 0))
    assert log.lingers()


def test_what_ranks_save_into_one_folder_is_there_for_each_of_them() -> None:
    class Accelerator:
        def load_state(self, folder: str) -> None:
            self.found = {path.name: path.read_text() for path in Path(folder).iterdir()}

    accelerator = Accelerator()
    files = ({"model": b"0", "random_0": b"a"}, {"model": b"1", "random_1": b"b"})
    states = [{"taken": 3, "files": held} for held in files]
    Accelerated(accelerator, []).restore(states, rank=1)
    assert accelerator.found == {"model": "0", "random_0": "a", "random_1": "b"}


def test_lightning_s_loop_is_given_data_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    class Trainer:
        def __init__(self) -> None:
            self.callbacks: list[Any] = []
            self.fit_loop: Any = SimpleNamespace(epoch_loop=SimpleNamespace())
            self.fitted: Any = None

        def fit(self, *parts: Any, ckpt_path: Any) -> None:
            self.fitted = parts, ckpt_path

    Trainer.__module__ = "lightning.pytorch"
    monkeypatch.setattr(frameworks, "_callback", lambda *_: None)
    watch: Any = None
    for more, data in (((), None), (("data",), "data")):
        subject_of(((trainer := Trainer()), "module", *more)).run(watch, 0)
        assert trainer.fitted == (("module", data), None)


@pytest.mark.long
def test_a_loader_of_two_lines_is_examined_by_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine_doctor.py").write_text(
        "from pipeline import Dataset, Loader\n"
        "def right():\n    return Loader(Dataset(range(20)).shuffle(), 2)\n"
        "class Wrong:\n"
        "    at = 0\n"
        "    def __iter__(self):\n"
        "        while self.at < 12:\n"
        "            self.at += 1\n"
        "            yield {'id': self.at}\n"
        "        self.at = 0\n"
        "    def state_dict(self):\n        return {'at': self.at}\n"
        "    def load_state_dict(self, state):\n        self.at = state['at'] + 1\n"
    )
    assert main(["doctor", "mine_doctor:right", "--batches", "10", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["law"] for row in rows] == list(LAWS)
    assert {tuple(row) for row in rows} == {("law", "verdict", "step", "came", "expected")}
    assert {row["verdict"] for row in rows} == {"held", "unclaimed"}
    assert main(["doctor", "mine_doctor:Wrong", "--batches", "10", "--key", "id"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 12
    told = next(line for line in lines if line.startswith("✘ resume:"))
    assert "should have come" in told
    assert "lost 1: [" in told
    assert "does not claim it" in lines[6]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("broken", "ValueError: no such bucket"),
        ("empty", "gives no batch"),
        ("number", "cannot be iterated"),
        ("N", "is no function"),
        ("nowhere", "has no 'nowhere'"),
    ],
)
def test_what_cannot_be_examined_is_said(name: str, says: str) -> None:
    with pytest.raises(DoctorError, match=says):
        report(name)


@pytest.mark.slow
def test_a_key_that_no_batch_has_is_named() -> None:
    with pytest.raises(DoctorError, match=r"no such field, but 'id'"):
        report("right", key="name")


def test_counts_that_mean_nothing_are_refused() -> None:
    counts = ({"workers": (-1,)}, {"hosts": (0,)}, {"workers": ()}, {"batches": 1})
    for options in (*counts, {"seconds": 0}, {"seconds": float("nan")}):
        with pytest.raises(ChainError):
            report("right", **options)


def seen(batches: list[list[int]], start: int = 0, edges: tuple[int, ...] = (), **facts: object):
    rows = [list[int | float | str](b) for b in batches]
    job = Job("run", start=start, least=len(batches))
    return Seen(job, rows, list(edges), {"done": True, **facts})


WHOLE = seen([[0, 1], [2, 3], [4, 5], [6, 7]], edges=(2, 4))


@pytest.mark.parametrize(
    ("run", "step", "came"),
    [
        (seen([[4, 5], [6, 7]], 2), None, None),
        (seen([[2, 3], [6, 7]], 2), 2, [2, 3]),
        (seen([[4, 5]], 2, edges=(2, 3)), 2, "a pass without a batch"),
        (seen([[4, 5], [6, 7]], 2, edges=(3,)), 3, "the end of a pass"),
    ],
)
def test_the_first_step_that_differs_is_found(run: Seen, step: int, came: object) -> None:
    found = difference(WHOLE, run)
    assert (found and found.step, found and found.came) == (step, came)


def test_what_never_came_is_a_difference() -> None:
    short = seen([[4, 5]], 2)
    short.job = Job("run", start=2, least=2)
    found = difference(WHOLE, short)
    assert found is not None
    assert (found.step, found.expected) == (3, [6, 7])
    hung = seen([], 2)
    hung.facts, hung.job = {"hung": 30.0}, short.job
    found = difference(WHOLE, hung)
    assert found is not None
    assert found.came == "nothing more within 30 s"


def test_hosts_together_have_the_stream_whoever_s_batch_is_global() -> None:
    split = [seen([[0], [2], [4], [6]]), seen([[1], [3], [5], [7]])]
    assert global_difference(WHOLE, split) is None
    longer = [seen([[0, 1], [4, 5]]), seen([[2, 3], [6, 7]])]
    assert global_difference(WHOLE, longer) is None
    same = [seen([[0], [2], [4], [6]]), seen([[0], [2], [4], [6]])]
    found = global_difference(WHOLE, same)
    assert found is not None
    assert (found.step, found.came, found.expected) == (0, [0, 0], [0, 1])
    resumed = [seen([[4], [6]], 2), seen([[5], [7]], 2)]
    assert global_difference(WHOLE, resumed, skip=4) is None


def test_lost_and_repeated_records_are_counted() -> None:
    assert lost_and_repeated([[1, 2], [2, 3]], [[2, 2], [2, 4]]) == ([1, 3], [2, 4])


def test_nothing_of_the_doctor_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with pytest.raises(DoctorError):
        report("nowhere")
    assert not os.listdir(tmp_path)
