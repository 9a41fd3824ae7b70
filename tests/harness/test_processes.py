"""Several processes train as one does: the same batches, and together they stop, die and resume."""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.__main__ import main
from harness.config import Config
from harness.distributed import LOST, Place, check_alike, place, tells_no_loss
from harness.errors import ConfigError
from harness.ledger import read
from pipeline import JaxFeed
from pipeline.debug.journal import Run
from tests.harness.runs import LIMIT, Workplace, at_step, finished, outcomes, wait_until

SLURM = {"SLURM_NTASKS": "4", "SLURM_PROCID": "3", "SLURM_STEP_NODELIST": "n[1-4]"}
OMPI = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}
OMPI4 = {**OMPI, "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911"}
JAX = {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}
NONE = (None, None, None)


@pytest.mark.parametrize(
    ("flags", "environment", "found"),
    [
        (NONE, {}, None),
        (NONE, {"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, None),  # a job's script, no step of it
        (NONE, {**SLURM, "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, None),
        (NONE, {**JAX, "JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"}, None),
        (NONE, JAX, Place("a:1", 2, 1)),
        (("b:2", "4", "0"), JAX, Place("b:2", 4, 0)),
        ((None, None, "0"), JAX, Place("a:1", 2, 0)),
        (NONE, SLURM, Place(None, 4, 3)),
        (NONE, OMPI4, Place(None, 2, 1)),
        (("b:2", None, None), OMPI, Place("b:2", 2, 1)),
        (("b:2", None, None), {"PMI_SIZE": "2", "PMI_RANK": "0"}, Place("b:2", 2, 0)),
    ],
)
def test_a_process_finds_its_place(
    flags: tuple[str | None, ...], environment: dict[str, str], found: Place | None
) -> None:
    assert place(flags, environment) == found


@pytest.mark.parametrize("several", [True, False])
def test_a_loss_is_told_in_one_line_and_every_other_error_whole(
    several: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("harness.distributed.alone", lambda: not several)
    log = logging.getLogger("test_a_loss_is_told")
    log.addFilter(tells_no_loss)
    try:
        raise TimeoutError("completed 4/5 futures") from ValueError("Timeout at barrier 'x'")
    except TimeoutError:
        log.exception("a thread failed: another process is gone")
    try:
        raise OSError("no space left")
    except OSError:
        log.exception("a thread failed: the disk is full")
    log.error("a barrier, without an exception")
    told = [record.getMessage().rpartition(" ")[2] for record in caplog.records]
    assert told == ([] if several else ["gone"]) + ["full", "exception"]


def _lost() -> Exception:
    # as Orbax raises it where a barrier is waited for in vain
    try:
        raise TimeoutError("completed 4/5 futures") from ValueError("Timeout at barrier 'x'")
    except TimeoutError as e:
        return e


@pytest.mark.parametrize("several", [True, False])
@pytest.mark.parametrize("error", [_lost(), ConnectionResetError(104, "Connection reset by peer")])
def test_waiting_in_vain_is_no_fault_of_the_folder(
    error: Exception,
    several: bool,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    def train(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr("harness.train.train", train)
    monkeypatch.setattr("harness.distributed.alone", lambda: not several)
    monkeypatch.setattr("harness.distributed.leave", lambda _: None)
    monkeypatch.setattr("harness.distributed._unsaid", threading.Lock())
    assert main(["train", "--run", str(tmp_path / "run")]) == (LOST if several else 2)
    told = capfd.readouterr().err
    assert ("another process of this run has ended" in told) is several
    assert ("give --run a folder" in told) is not several


@pytest.mark.parametrize(
    ("flags", "environment", "named"),
    [
        (("a:1", None, None), {}, "--processes or JAX_NUM_PROCESSES"),
        (NONE, {"JAX_PROCESS_ID": "0", "JAX_NUM_PROCESSES": "2"}, "JAX_COORDINATOR_ADDRESS"),
        (NONE, {"PMI_SIZE": "2", "PMI_RANK": "0"}, "--coordinator"),
        (NONE, OMPI, "--coordinator"),
        (("a:1", "2", "2"), {}, "process 2 of 2"),
        (("a:1", "two", "0"), {}, "process 0 of two"),
        (("a", "2", "0"), {}, "host:port"),
    ],
)
def test_half_a_place_is_refused(
    flags: tuple[str | None, ...], environment: dict[str, str], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        place(flags, environment)


@pytest.mark.parametrize("other", [{"learning_rate": 0.1}, {"until": 9}, {"seed": 1, "until": 5}])
def test_processes_that_were_given_something_else_are_refused(
    other: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = {"learning_rate": 0.2, "until": 5, "seed": 0}
    monkeypatch.setattr("harness.distributed.alone", lambda: False)
    for given in (mine, mine | other):  # every process says the same
        monkeypatch.setattr(JaxFeed, "gather", lambda _, told: [mine, mine, mine | other])
        name = next(k for k in mine if k in other and other[k] != mine[k])
        with pytest.raises(
            ConfigError, match=rf"process 2 was given {name}=.*, process 0 {mine[name]}"
        ):
            check_alike(given)
    monkeypatch.setattr(JaxFeed, "gather", lambda _, told: [told, told])
    check_alike(mine)


@pytest.mark.parametrize(("batch_size", "lanes"), [(8, 4), (6, 3), (10, 2), (7, 1), (64, 4)])
def test_lanes_default_to_the_greatest_divisor_up_to_4(batch_size: int, lanes: int) -> None:
    assert Config(batch_size=batch_size).lanes == lanes
    assert Config(batch_size=batch_size, lanes=1).lanes == 1


@pytest.mark.long
def test_stopped_killed_and_resumed_on_other_numbers_of_processes(
    workplace: Workplace, uninterrupted: Callable[[int], Path]
) -> None:
    run = workplace.path / "several"
    workplace.interrupt("several", signal.SIGTERM, at_step(4))
    begun = workplace.start_several("several", 2)
    wait_until(lambda: at_step(11)(run), begun)
    begun[1].send_signal(signal.SIGTERM)
    found = outcomes(begun)
    assert [status for status, _ in found] == [143, 143], found
    assert finished(run)[-1] == read(run / "ledger.jsonl")[-1].step + 1
    for processes, victim, step in ((2, 0, 17), (4, 3, 25)):  # 0 is who the others ask for news
        begun = workplace.start_several("several", processes)
        wait_until(lambda step=step: at_step(step)(run), begun)
        begun[victim].kill()
        killed = time.monotonic()
        found = outcomes(begun)
        # 20 seconds where nothing else runs: JAX needs ten to notice, and a busy machine some more
        assert time.monotonic() - killed < 40
        for i, (status, out) in enumerate(found):
            if i != victim:
                assert status == LOST, out
                assert out.count("another process of this run has ended") == 1, out
    found = outcomes(workplace.start_several("several", 2, devices=2))
    assert [status for status, _ in found] == [0, 0], found
    whole, mine = Run(uninterrupted(1)), Run(run)
    expected = {line.step: whole.digest(line) for line in whole.path()}
    path = list(mine.path())  # not the steps that were redone: who was killed may lack their lines
    assert {line.step for line in path} == set(expected)
    assert [line.step for line in path if mine.digest(line) != expected[line.step]] == []


@pytest.mark.long
def test_processes_go_back_together(workplace: Workplace) -> None:
    for more in ((), ("--from", "20")):
        found = outcomes(workplace.start_several("back", 2, *more))
        assert [status for status, _ in found] == [0, 0], found
    aside = (workplace.path / "back/checkpoints").glob("set-aside-*/state")
    assert sorted(path.parent.name for path in aside) == ["set-aside-35", "set-aside-40"]


@pytest.mark.long
def test_processes_that_share_no_folder_are_refused(workplace: Workplace) -> None:
    found = outcomes(workplace.start_several("apart", 2, apart=True))
    for status, out in found:
        assert status in (2, LOST), out
        assert "Traceback" not in out
    assert any("process 1 does not see the run's folder" in out for _, out in found)
    assert not list(workplace.path.glob("apart*"))


@pytest.mark.long
def test_processes_that_do_not_divide_the_lanes_are_refused(workplace: Workplace) -> None:
    found = outcomes(workplace.start_several("odd", 2, "lanes=1"))
    for status, out in found:
        assert status in (2, LOST), out
        assert "Traceback" not in out
    assert any("lanes=1" in out for _, out in found)


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        words = ["--coordinator", address, "--processes", "2", "--process", "0"]
        done = subprocess.run(
            [sys.executable, "-m", "harness", "train", "--run", str(tmp_path / "run"), *words],
            env=Workplace(tmp_path).environment(),
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
    assert done.returncode == 2
    assert f"could not be joined at {address}: [Errno 98]" in done.stderr
