"""What is restored is what was saved; what is not finite, damaged or impossible is named."""

from __future__ import annotations

import errno
import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import logging as absl

from harness.__main__ import main
from harness.checkpoint import Checkpoints
from harness.config import Config, make
from harness.errors import CheckpointError, ConfigError, DamagedCheckpointError, NotFiniteError
from harness.leaves import differing_leaves, leaf_digests, leaf_names
from harness.ledger import read
from harness.llama import save_llama
from harness.metrics import Screen
from harness.rundir import RunDir
from harness.seal import FILE, sealed_files
from harness.sharding import make_mesh
from harness.step import StepFunctions, TrainState, make_steps
from harness.task import Batch, Language
from harness.tokens import VOCAB
from harness.train import train
from pipeline import Dataset, Loader
from tests.harness.runs import LIMIT, TINY, Workplace

# what Orbax leaves behind where a restore fails
UNAWAITED = "ignore::pytest.PytestUnraisableExceptionWarning"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(UNAWAITED),
    pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning"),
]


@contextmanager
def opened(run: Path) -> Iterator[Checkpoints]:
    with Checkpoints(run / "checkpoints", keep=9) as found:
        yield found


def functions_of(run: Path) -> StepFunctions:
    cfg = RunDir(run).config()
    return make_steps(cfg, make_mesh(cfg))


@pytest.fixture
def run(uninterrupted: Callable[[int], Path], tmp_path: Path) -> Path:
    """A finished run of this test's own."""
    shutil.copytree(uninterrupted(1), tmp_path / "run")
    return tmp_path / "run"


class Saved(NamedTuple):
    """Checkpoints 0 and 5 of a model of no size."""

    path: Path
    functions: StepFunctions
    loader: Loader[Any]

    def refusal(self) -> str | None:
        """What a restore of checkpoint 5 says."""
        with opened(self.path) as checkpoints:
            try:
                checkpoints.restore(5, self.functions, self.loader)
            except DamagedCheckpointError as e:
                return str(e)
        return None


@pytest.fixture
def saved(tmp_path: Path) -> Iterator[Saved]:
    cfg = make({"width": 8, "layers": 1, "heads": 2, "hidden": 8, "length": 8})
    functions = make_steps(cfg, make_mesh(cfg))
    state = functions.init()
    with Loader(Dataset({"x": np.arange(64)}), 8) as loader:
        with opened(tmp_path) as checkpoints:
            for step in (0, 5):
                checkpoints.save(step, state, functions, loader, {"steps": 9})
        yield Saved(tmp_path, functions, loader)


@pytest.mark.long
@pytest.mark.parametrize("arrays", [True, False], ids=["arrays", "others"])
def test_each_flipped_bit_is_refused(saved: Saved, arrays: bool) -> None:
    rng, folder = random.Random(0), saved.path / "checkpoints/5"
    found = [name for name in sealed_files(folder) if ("/d/" in name) == arrays] + [FILE][arrays:]
    assert len(found) == (2 if arrays else 12)
    assert saved.refusal() is None
    for i in range(40):
        name = found[i % len(found)]
        whole = (folder / name).read_bytes()
        late = whole.find(b'"commit_timestamp_nsecs": ')  # a time, which nobody reads
        bit = rng.randrange(8 * (late if late >= 0 else len(whole)))
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        (folder / name).write_bytes(flipped)
        told = saved.refusal()
        (folder / name).write_bytes(whole)
        assert told is not None, (name, bit)
        assert f"file {name}: " in told or (arrays and "leaf " in told), told
        assert told.endswith(f"python -m harness train --run {saved.path} --from 0")


@pytest.mark.long
def test_a_lost_or_new_file_is_refused_and_a_checkpoint_without_a_seal_is_not(saved: Saved) -> None:
    folder = saved.path / "checkpoints/5"
    (folder / "data/more").write_text("")
    assert "file data/more: " in str(saved.refusal())
    (folder / "data/more").unlink()
    (folder / "data/loader.json").rename(saved.path / "loader.json")
    assert "file data/loader.json: " in str(saved.refusal())
    (saved.path / "loader.json").rename(folder / "data/loader.json")
    (folder / FILE).unlink()
    assert saved.refusal() is None


@pytest.mark.long
def test_one_that_is_damaged_does_not_stand_in_the_way_of_others(saved: Saved) -> None:
    metadata = saved.path / "checkpoints/5/_CHECKPOINT_METADATA"
    metadata.write_bytes(metadata.read_bytes().replace(b"init_time", b"jnit_time"))
    (saved.path / "checkpoints/9").mkdir()
    with opened(saved.path) as checkpoints:
        state = checkpoints.restore(0, saved.functions, saved.loader)
        for step in (7, 9):
            checkpoints.save(step, state, saved.functions, saved.loader, {})
        checkpoints.wait()
        assert checkpoints.steps == [0, 5, 7, 9]
        assert checkpoints.set_aside(0) == [5, 7, 9]


@pytest.mark.long
def test_lora_goes_on_beside_the_weights_that_it_began_with(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"width": 8, "layers": 1, "heads": 2, "hidden": 8, "length": 8}
    for seed in (0, 1):
        cfg = make({**sizes, "seed": seed})
        params = make_steps(cfg, make_mesh(cfg)).init().params
        save_llama(tmp_path / f"base-{seed}", cfg, params, VOCAB)
    one, other = (
        make_steps(cfg, make_mesh(cfg))
        for cfg in (
            make({**sizes, "lora.rank": 2, "init": str(tmp_path / f"base-{seed}")})
            for seed in (0, 1)
        )
    )
    with Loader(Dataset({"x": np.arange(64)}), 8) as loader, opened(tmp_path) as checkpoints:
        checkpoints.save(3, one.init(), one, loader, {})
        checkpoints.wait()
        checkpoints.restore(3, one, loader)
        with pytest.raises(CheckpointError, match="adapts other weights than init has now"):
            checkpoints.restore(3, other, loader)


@pytest.mark.long
@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"hidden": 16}, r"kernel.* is float32\[8, 8\], here float32\[16, 8\]"),
        ({"layers": 2}, "is not in it, here float32"),
    ],
)
def test_a_changed_model_is_no_damage(saved: Saved, more: dict[str, Any], told: str) -> None:
    sizes = {"width": 8, "layers": 1, "heads": 2, "hidden": 8, "length": 8}
    cfg = make({**sizes, **more})
    with opened(saved.path) as checkpoints, pytest.raises(CheckpointError, match=told) as raised:
        checkpoints.restore(5, make_steps(cfg, make_mesh(cfg)), saved.loader)
    assert "is of another model" in str(raised.value)
    assert not isinstance(raised.value, DamagedCheckpointError)


def test_a_full_disk_is_told_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wait() -> None:
        raise ValueError("RESOURCE_EXHAUSTED: Failed to write 9 bytes [os_error_code='28']")

    with opened(tmp_path) as checkpoints, monkeypatch.context() as patch:
        patch.setattr(checkpoints._orbax, "wait", wait)
        with pytest.raises(OSError, match="No space left on device") as raised:
            checkpoints.wait()
    assert raised.value.errno == errno.ENOSPC


def test_a_full_disk_is_told_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    # the errors that Orbax's threads log, tensorstore's and Python's, beside one of another kind
    logger = absl.get_absl_logger()
    with opened(tmp_path):
        for error in (ValueError("no room [os_error_code='28']"), OSError(28, "full"), KeyError(1)):
            logger.error("thread failed with %s", type(error).__name__, exc_info=error)
    told = [record.getMessage() for record in caplog.records if "thread failed" in record.message]
    assert told == ["thread failed with KeyError"]


def bits_of(state: TrainState) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state)]


@pytest.mark.long
def test_the_command_that_an_error_names_goes_on(workplace: Workplace, run: Path) -> None:
    file = max((run / "checkpoints/40/state").rglob("d/*"), key=lambda p: p.stat().st_size)
    whole = bytearray(file.read_bytes())
    whole[len(whole) // 2] ^= 1
    file.write_bytes(whole)
    shutil.move(run, workplace.path / "flipped")

    def again(*more: str) -> subprocess.CompletedProcess[str]:
        words = ["train", "--run", str(workplace.path / "flipped"), "--steps", "42", *more]
        return subprocess.run(
            [sys.executable, "-m", "harness", *words],
            env=workplace.environment(),
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )

    refused = again()
    assert refused.returncode == 2
    assert "leaf " in refused.stderr
    assert "Traceback" not in refused.stderr
    assert "--from 35" in refused.stderr
    assert again("--from", "35").returncode == 0
    lines = {entry.step: entry for entry in read(workplace.path / "flipped/ledger.jsonl")}
    assert sorted(lines) == list(range(42))
    assert (workplace.path / "flipped/checkpoints/set-aside-40").is_dir()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "bool", "uint32"])
def test_digests_see_every_bit_and_no_mesh(dtype: str) -> None:
    leaf = jnp.asarray(np.arange(6).reshape(2, 3) % 2, dtype)
    mesh = jax.make_mesh((1,), ("x",))
    spread = jax.device_put(leaf, jax.NamedSharding(mesh, jax.P("x")))
    one, other = leaf_digests({"a": leaf}), jax.jit(leaf_digests)({"a": spread})
    assert np.array_equal(one, other)
    raw = np.array(leaf)
    for place in range(6):
        flipped = raw.copy().reshape(-1)
        flipped[place] = not flipped[place] if dtype == "bool" else flipped[place] + 1
        now = leaf_digests({"a": jnp.asarray(flipped.reshape(2, 3))})
        assert differing_leaves({"a": one[0].tolist()}, ["a"], now) == ["a"]


def test_names_fit_digests() -> None:
    state = {"b": jnp.ones(2), "a": [jnp.zeros(1), jnp.ones(())]}
    assert len(leaf_names(state)) == len(leaf_digests(state)) == 3


@pytest.mark.long
def test_a_lost_config_is_told_and_written_again(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = json.loads((run / "config.json").read_text())
    (run / "config.json").unlink()
    assert main(["train", "--run", str(run)]) == 2
    told = capsys.readouterr().err
    assert "config.json is gone" in told
    assert "damaged" not in told
    assert not (run / "config.json").exists()
    assert main(["settings", "--run", str(run)]) == 0
    assert json.loads((run / "config.json").read_text()) == whole


@pytest.mark.long
def test_an_empty_checkpoint_folder_is_passed_over(run: Path) -> None:
    (run / "checkpoints/99").mkdir()
    with opened(run) as checkpoints:
        assert checkpoints.steps[-1] == 40


@pytest.mark.parametrize(
    "given",
    [
        {"learning_rate": float("nan")},
        {"learning_rate": -5.0},
        {"learning_rate": 0.0},
        {"learning_rate": float("inf")},
        {"clip": 0.0},
        {"clip": float("nan")},
        {"weight_decay": -1.0},
        {"on_nonfinite": "shrug"},
    ],
)
def test_settings_without_sense_are_refused_by_name(given: dict[str, float | str]) -> None:
    with pytest.raises(ConfigError, match=next(iter(given))):
        Config(**given)  # pyright: ignore[reportArgumentType]


def _tiny(tmp_path: Path, data: Path, *more: str) -> tuple[RunDir, Config]:
    from harness.config import parse

    run = RunDir(tmp_path / "run")
    return run, run.config(parse([*TINY, f"data={data}", *more]))


def _poisoned(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    # the loss of one step is NaN, as a bad kernel or record would make it
    class Poisoned(Language):
        def losses(self, model: Any, batch: Batch, key: Any) -> tuple[jax.Array, jax.Array]:
            loss, weights = super().losses(model, batch, key)
            return jnp.where(batch["tokens"][0, 0] == marked, jnp.nan, loss), weights

    marked = at
    monkeypatch.setattr("harness.assembly.make_task", Poisoned)


@pytest.fixture
def first_token(workplace: Workplace, uninterrupted: Callable[[int], Path]) -> Callable[[int], int]:
    """The first token of a step's batch, which few steps share."""
    from harness.data import prepare, training_data

    uninterrupted(1)
    cfg = RunDir(workplace.path / "whole-1").config()
    data = training_data(prepare(workplace.path / "data", Screen()), cfg)
    with Loader(data, cfg.batch_size) as loader:
        tokens = [int(loader[k]["tokens"][0, 0]) for k in range(20)]
    return tokens.__getitem__


@pytest.mark.long
def test_a_loss_that_is_not_finite_ends_the_run(
    workplace: Workplace,
    first_token: Callable[[int], int],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    token = first_token(7)
    at = next(k for k in range(20) if first_token(k) == token)
    _poisoned(monkeypatch, token)
    run, cfg = _tiny(tmp_path, workplace.path / "data")
    with pytest.raises(NotFiniteError, match=f"step {at}: loss is nan"):
        train(run, cfg, until=20, screen=Screen())
    lines = read(run.ledger)
    assert at <= lines[-1].step <= at + 2
    assert lines[at].loss is None
    assert "NaN" not in run.ledger.read_text()
    with opened(run.path) as checkpoints:
        assert checkpoints.steps[-1] <= at


@pytest.mark.long
def test_steps_that_are_not_finite_are_skipped(
    workplace: Workplace,
    first_token: Callable[[int], int],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    _poisoned(monkeypatch, first_token(7))
    run, cfg = _tiny(tmp_path, workplace.path / "data", "on_nonfinite=skip", "steps=12")
    train(run, cfg, until=12, screen=Screen())
    lines = read(run.ledger)
    assert [entry.step for entry in lines] == list(range(12))
    assert any(entry.loss is None for entry in lines)
    assert lines[-1].loss is not None or first_token(11) == first_token(7)


def test_what_cannot_be_a_run_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("no run")
    assert main(["train", "--run", str(file)]) == 2
    assert "Traceback" not in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["train", "--run", "gs://bucket/run"])
    assert ended.value.code == 2
    assert "local directory" in capsys.readouterr().err


@pytest.mark.long
def test_a_full_disk_is_one_line(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "checkpoints")

    monkeypatch.setattr("harness.train._save", full)
    assert main(["train", "--run", str(run), "--steps", "42"]) == 2
    told = capsys.readouterr().err
    assert "No space left on device" in told
    assert "Traceback" not in told


@pytest.mark.long
@pytest.mark.parametrize("several", [True, False])
def test_a_process_lost_during_restore_is_no_damage(
    run: Path, several: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object, **__: object) -> None:
        raise TimeoutError("timed out") from ValueError("Timeout at barrier 'x'")

    monkeypatch.setattr("harness.distributed.alone", lambda: not several)
    monkeypatch.setattr("harness.checkpoint.ocp.load_checkpointables", load)
    expected = TimeoutError if several else DamagedCheckpointError
    with opened(run) as checkpoints, pytest.raises(expected):
        checkpoints.restore(40, functions_of(run))


@pytest.mark.long
def test_a_checkpoint_of_other_data_is_no_damage(run: Path) -> None:
    from pipeline.errors import MismatchError

    with (
        opened(run) as checkpoints,
        Loader(Dataset({"x": np.arange(64)}), 8) as loader,
        pytest.raises(MismatchError),
    ):
        checkpoints.restore(40, functions_of(run), loader)


@pytest.mark.long
def test_a_seal_waits_for_metadata_that_orbax_writes_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orbax.checkpoint._src.metadata import checkpoint as metadata

    write = metadata._MetadataStoreImpl.write

    def late(store: Any, file: Any, told: Any) -> None:
        time.sleep(0.3)
        Path(file).write_text('{"custom_')  # as found in the middle of a write
        time.sleep(0.3)
        write(store, file, told)

    monkeypatch.setattr(metadata._MetadataStoreImpl, "write", late)
    cfg = make({"width": 8, "layers": 1, "heads": 2, "hidden": 8, "length": 8})
    functions = make_steps(cfg, make_mesh(cfg))
    with Loader(Dataset({"x": np.arange(64)}), 8) as loader:
        with opened(tmp_path) as checkpoints:
            checkpoints.save(5, functions.init(), functions, loader, {"steps": 9})
        with opened(tmp_path) as checkpoints:
            checkpoints.restore(5, functions, loader)
