"""Saving and restoring a run: parameters, optimizer, data state and metadata of one step.

All use of Orbax's checkpoints is here. Checkpoint K holds the state after K steps; it gets its name
only once it is complete.

A few lines of our own decide when to save and what to keep. Orbax's continuous policy would let the
clock choose the steps. Its preemption policy needs a service of several processes that takes
SIGTERM from `stop.Stop`. Its preservation policies delete a checkpoint file by file, so a kill
would leave half of one under its name; we rename it first.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint
from absl import logging as absl
from orbax.checkpoint.experimental import v1 as ocp

from harness.config import changes, flat, settle
from harness.distributed import is_loss
from harness.edits import FILE, lineage_of
from harness.errors import CheckpointError, DamagedCheckpointError
from harness.files import read_json
from harness.leaves import FILE as DIGESTS
from harness.leaves import DigestFile, differing_leaves, leaf_names, named_leaves
from harness.rundir import RunDir
from harness.seal import METADATA, await_metadata, changed_files, seal, sealed_files
from harness.step import StepFunctions, TrainState
from harness.stop import greatest
from pipeline.errors import MismatchError

# of tensorstore's messages
_LEAF = re.compile(r'Error reading "([^"]+?)/[^"/]*" in')
_OS_ERROR = re.compile(r"os_error_code='(\d+)'")


def _is_news(record: logging.LogRecord) -> bool:
    # each of Orbax's threads logs a traceback of what `_writing` tells in one line
    error = record.exc_info[1] if record.exc_info else None
    return error is None or not (isinstance(error, OSError) or _OS_ERROR.search(str(error)))


class Checkpoints:
    """The checkpoints of one run, to be closed, as `with` does.

    Args:
        path: their directory.
        keep: how many of the newest are kept.
        keep_every: checkpoints of steps 0, keep_every, 2 keep_every, ... are kept too.
        clean: remove old ones, and the remains of killed saves; only for the process that trains.
    """

    def __init__(
        self, path: Path, *, keep: int = 1, keep_every: int = 1, clean: bool = False
    ) -> None:
        self._path, self._keep, self._keep_every = path.resolve(), keep, keep_every
        self.best: int | None = None  # the step of one that is kept whatever its age
        self._prunes = clean and jax.process_index() == 0
        if self._prunes:
            _remove_trash(self._path)
        self._saving: int | None = None
        absl.get_absl_logger().addFilter(_is_news)
        context = ocp.Context()
        # a lambda: Orbax copies its options deeply
        context.asynchronous.post_finalization_callback = lambda: self._seal()
        self._orbax = ocp.training.Checkpointer(
            str(self._path),
            context=context,
            cleanup_tmp_directories=clean,
            lightweight_initialize=True,  # reads no metadata, which may be damaged
        )

    @property
    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, rising; a folder that holds none is passed over."""
        return complete_steps(self._path)

    def find(self, step: int | None) -> int:
        """A checkpoint's step: the one asked for, or that of the newest.

        Raises:
            CheckpointError: it is not there.
        """
        known = self.steps
        found = max(known, default=None) if step is None else step
        if found is None or found not in known:
            there = f"no checkpoint {step}; there are {known}" if known else "no checkpoint at all"
            raise CheckpointError(f"there is {there} in {self._path}.")
        return found

    def save(
        self, step: int, state: TrainState, functions: StepFunctions, loader: Any, config: Any
    ) -> None:
        """Begin to save, unless that step is there; it goes on in the background.

        The state may be donated and the loader advanced as soon as this returns. A save still
        under way is waited for first.
        """
        self.wait()
        if step in self.steps:
            return
        told: Any = {"config": config, "step": step, "versions": versions()}
        told |= {"lineage": lineage_of(self._path.parent), "base": functions.base()}
        told["leaves"] = _described(functions.abstract)
        digests = DigestFile(
            leaf_names(state), functions.digest(state), primary=jax.process_index() == 0
        )
        self._saving = step
        with self._writing():
            self._orbax.save_checkpointables_async(
                step,
                {_STATE: state, "data": loader, _DIGESTS: digests},
                force=True,
                overwrite=True,  # what is no checkpoint; else Orbax would read the metadata of all
                custom_metadata=told,
            )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        # tensorstore tells of a full disk in the text of a ValueError
        try:
            yield
        except ValueError as e:
            if code := _OS_ERROR.search(str(e)):
                place = str(self._path / str(self._saving))
                raise OSError(int(code[1]), os.strerror(int(code[1])), place) from e
            raise

    def restore(self, step: int, functions: StepFunctions, loader: Any | None = None) -> TrainState:
        """Load the state onto the devices of `functions`, and set the loader if there is one.

        The shardings need not be those that it was saved with: another mesh will do.

        Raises:
            DamagedCheckpointError: its files hold other bits than were saved.
            MismatchError: it was saved over another dataset.
            CheckpointError: the run's `config.json` or `fork.json`, or the weights that LoRA
                adapts, are others now.
        """
        changed = self._changed(step)
        if changed and "/d/" not in changed:  # no file of arrays, which the leaf tells more of
            raise self._damaged(step, f"file {changed}: other bits than were saved")
        told = self._told(step)
        self._check_files(step, told)
        self._check_model(step, told, functions)
        with self._reading(step, changed):
            if loader is not None:
                with RunDir(self._path.parent).same_data():
                    self._load(step, "data", loader)
            state = self._load(step, _STATE, functions.abstract)
            saved = self._digests(step)
        if saved is not None:  # None: from before there were digests
            wrong = differing_leaves(saved, leaf_names(state), functions.digest(state))
            if wrong:
                more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
                raise self._damaged(step, f"leaf {wrong[0]}{more}: other bits than were saved")
        if changed:  # bits that no decoder looks at
            raise self._damaged(step, f"file {changed}: other bits than were saved")
        return state

    def _seal(self) -> None:
        # of Orbax's background thread, when all is written and has not got its name yet
        if jax.process_index() == 0:
            [folder] = self._path.glob(f"{self._saving}.orbax-checkpoint-tmp*")
            await_metadata(folder, self._saving)
            seal(folder)

    def _changed(self, step: int) -> str | None:
        """A file of a checkpoint that is not as it was written; all processes get one answer."""
        folder, n = self._path / str(step), jax.process_count()
        names = sealed_files(folder)
        mine = changed_files(folder, names[jax.process_index() :: n])
        number = names.index(mine[0]) + 1 if mine else 0
        if n > 1:
            number = int(np.asarray(greatest(number)))
        return names[number - 1] if number else None

    def config(self, step: int) -> dict[str, Any] | None:
        """The settings that a checkpoint was saved under; None where it does not tell."""
        return self._told(step).get("config")

    def digests(self, step: int) -> dict[str, list[int]] | None:
        """The digest of each leaf that was saved, by its name; None in a checkpoint without."""
        self._look(step, f"{_DIGESTS}/{DIGESTS}")
        with self._reading(step):
            return self._digests(step)

    def _told(self, step: int) -> dict[str, Any]:
        # Orbax's own reading of it warns of each part that has no metadata
        self._look(step, METADATA)
        with self._reading(step):
            told = json.loads((self._path / str(step) / METADATA).read_bytes())
        return told.get("custom_metadata") or {}

    def _look(self, step: int, name: str) -> None:
        if changed_files(self._path / str(step), [name]):
            raise self._damaged(step, f"file {name}: other bits than were saved")

    def _check_files(self, step: int, told: dict[str, Any]) -> None:
        # fork.json and config.json are those that the checkpoint was saved under
        run, saved = self._path.parent, told.get("lineage") or {}
        if json.dumps(saved) != json.dumps(lineage_of(run)):
            raise CheckpointError(
                f"{run / FILE} does not say what checkpoint {step} was saved under: "
                f"{json.dumps(saved) if saved else 'no fork'}. Put that back into the file."
            )
        settings, now = told.get("config"), read_json(run / "config.json")
        if settings and now and (changed := changes(settings, flat(settle(now, {})))):
            raise CheckpointError(
                f"{run / 'config.json'} has other settings than checkpoint {step} was saved under: "
                f"{'; '.join(changed)}. Put them back, or remove the file and write it again: "
                f"python -m harness settings --run {run}. Other settings are for another run."
            )

    def _check_model(self, step: int, told: dict[str, Any], functions: StepFunctions) -> None:
        # older checkpoints tell neither leaves nor base
        there, here = told.get("leaves"), _described(functions.abstract)
        others = [k for k in {**there, **here} if there.get(k) != here.get(k)] if there else []
        if there and others:
            raise CheckpointError(
                f"checkpoint {self._path / str(step)} is of another model: {others[0]} is "
                f"{there.get(others[0], 'not in it')}, here {here.get(others[0], 'none')}; "
                f"{len(others)} in all. The settings, the model's code or a library changed since: "
                "go back to what they were, or begin another run."
            )
        if told.get("base") not in (None, functions.base()):
            raise CheckpointError(
                f"checkpoint {self._path / str(step)} adapts other weights than init has now. Give "
                "--set init= the folder that the run was begun with, as it was then."
            )

    def set_aside(self, after: int) -> list[int]:
        """Take the checkpoints after a step out of the way, as folders named `set-aside-K`."""
        later = [step for step in _numbered(self._path) if step > after]
        for step in later if jax.process_index() == 0 else ():
            target = self._path / f"{_ASIDE}{step}"
            shutil.rmtree(target, ignore_errors=True)
            (self._path / str(step)).rename(target)
        np.asarray(greatest(0))  # no process goes on before all are moved
        self._orbax.reload()
        return later

    def _digests(self, step: int) -> dict[str, list[int]] | None:
        if not (self._path / str(step) / _DIGESTS).is_dir():
            return None
        file = DigestFile(())
        self._load(step, _DIGESTS, file)
        return file.saved

    def _load(self, step: int, name: str, as_what: Any) -> Any:
        return ocp.load_checkpointables(str(self._path / str(step)), {name: as_what})[name]

    @contextlib.contextmanager
    def _reading(self, step: int, changed: str | None = None) -> Iterator[None]:
        # Orbax and tensorstore raise what they like of damaged files, and asyncio logs it too
        log = logging.getLogger("asyncio")
        level = log.level
        log.setLevel(logging.CRITICAL + 1)  # asyncio logs late: after errors too
        try:
            yield
            log.setLevel(level)
        except (MismatchError, MemoryError):
            raise
        except Exception as e:
            if is_loss(e):  # the files are as they were
                raise
            # Orbax's own message lists its registry; the cause is what went wrong
            why = str(e.__cause__ or e)
            leaf = _LEAF.search(why)
            first = why.splitlines()[0][:300] if why else type(e).__name__
            known = f"file {changed}: " if changed else ""
            named = f"leaf {leaf[1].replace('.', '/')}: " if leaf else known
            raise self._damaged(step, f"{named}{first}") from e

    def _damaged(self, step: int, why: str) -> DamagedCheckpointError:
        before = [s for s in self.steps if s < step]
        run = self._path.parent
        remedy = (
            f"sample --at {before[-1]} and export --step {before[-1]} read the one before. To go "
            f"on from there: python -m harness train --run {run} --from {before[-1]}"
            if before
            else f"None stands before it: begin again in another directory than {run}."
        )
        return DamagedCheckpointError(
            f"checkpoint {self._path / str(step)} is damaged: {why}. {remedy}"
        )

    def wait(self) -> None:
        """Until the save under way, if any, is whole on disk; then remove what it made old."""
        with self._writing():
            self._orbax.wait()
        old = expendable(self.steps, keep=self._keep, keep_every=self._keep_every, best=self.best)
        if not old or not self._prunes:
            return
        # Orbax would remove file by file: a kill then leaves half a checkpoint under its name
        for step in old:
            (self._path / str(step)).rename(self._path / f"{_TRASH}{step}")
        _remove_trash(self._path)
        self._orbax.reload()

    def close(self) -> None:
        """Wait, and end Orbax's threads."""
        self.wait()
        self._orbax.close()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_STATE, _DIGESTS = "state", "digests"
_TRASH, _ASIDE = ".removed-", "set-aside-"


def _described(state: TrainState) -> dict[str, str]:
    """Type and shape of each leaf, by its name."""
    return {name: f"{x.dtype}{list(x.shape)}" for name, x in named_leaves(state).items()}


def complete_steps(path: Path) -> list[int]:
    """Steps of the complete checkpoints in a folder, rising; none if there is no folder."""
    return [step for step in _numbered(path) if (path / str(step) / _STATE).is_dir()]


def _numbered(path: Path) -> list[int]:
    return sorted(int(p.name) for p in path.glob("[0-9]*") if p.name.isdigit())


def _remove_trash(path: Path) -> None:
    for old in path.glob(f"{_TRASH}*"):
        shutil.rmtree(old)


def expendable(
    steps: Sequence[int], *, keep: int, keep_every: int, best: int | None = None
) -> list[int]:
    """Of rising steps, those that are neither among the newest nor the best nor kept for good.

    >>> expendable([0, 50, 100, 150, 200, 250], keep=2, keep_every=100)
    [50, 150]
    """
    return [step for step in steps[:-keep] if step % keep_every and step != best]


def versions() -> dict[str, str]:
    """What computed the bits: library versions and the platform."""
    return {
        "jax": jax.__version__,
        "orbax": orbax.checkpoint.__version__,
        "platform": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
    }
