"""How a run is saved and restored: parameters, optimizer, data state and metadata in one step.

All that we ask of Orbax is asked here. A checkpoint K holds the state after K steps; it appears
under its name only when it is whole.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint
from orbax.checkpoint.experimental import v1 as ocp

from harness.errors import CheckpointError
from harness.step import TrainState
from pipeline.errors import MismatchError, StateError


class Checkpoints:
    """The checkpoints of one run.

    Args:
        path: their directory.
        keep: how many of the newest survive.
        keep_every: those of steps 0, keep_every, 2 keep_every, ... survive too.
        clean: remove old ones and what killed saves left behind; only for the job that trains.
    """

    def __init__(self, path: Path, *, keep: int, keep_every: int, clean: bool) -> None:
        self._path, self._keep, self._keep_every = path.resolve(), keep, keep_every
        self._prunes = clean and jax.process_index() == 0
        if self._prunes:
            _remove_trash(self._path)
        self._orbax = ocp.training.Checkpointer(str(self._path), cleanup_tmp_directories=clean)

    @property
    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, rising."""
        return [c.step for c in self._orbax.checkpoints]

    def save(self, step: int, state: TrainState, loader: Any, metadata: dict[str, Any]) -> None:
        """Begin to save, unless that step is there; it goes on in the background.

        The state may be donated and the loader advanced as soon as this returns. A save still
        under way is waited for first.
        """
        if step in self.steps:
            return
        self.wait()
        told: Any = {**metadata, "step": step, "versions": versions()}
        self._orbax.save_checkpointables_async(
            step, {"state": state, "data": loader}, force=True, custom_metadata=told
        )

    def restore(self, step: int, abstract: TrainState, loader: Any | None = None) -> TrainState:
        """Load the state with the shardings of `abstract`, and set the loader if there is one.

        The shardings need not be those that it was saved with: another mesh will do.

        Raises:
            CheckpointError: the checkpoint is damaged.
            MismatchError: it was saved over another dataset.
        """
        try:
            if loader is not None:
                self._orbax.load_checkpointables(step, {"data": loader})
            return self._orbax.load_checkpointables(step, {"state": abstract})["state"]
        except MismatchError:
            raise
        except (OSError, KeyError, StateError) as e:
            # Orbax's own message lists its registry; the cause is what went wrong
            why = str(e.__cause__ or e).splitlines()[0]
            raise CheckpointError(
                f"checkpoint {self._orbax.directory / str(step)} is damaged: {why}. "
                "Remove that directory to go on from the one before."
            ) from e

    def wait(self) -> None:
        """Until the save under way, if any, is whole on disk; then remove what it made old."""
        self._orbax.wait()
        old = expendable(self.steps, keep=self._keep, keep_every=self._keep_every)
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


_TRASH = ".removed-"


def _remove_trash(path: Path) -> None:
    for old in path.glob(f"{_TRASH}*"):
        shutil.rmtree(old)


def expendable(steps: Sequence[int], *, keep: int, keep_every: int) -> list[int]:
    """Of rising steps, those that are neither among the newest nor kept for good.

    >>> expendable([0, 50, 100, 150, 200, 250], keep=2, keep_every=100)
    [50, 150]
    """
    return [step for step in steps[:-keep] if step % keep_every]


def versions() -> dict[str, str]:
    """What computed the bits: library versions and the platform."""
    return {
        "jax": jax.__version__,
        "orbax": orbax.checkpoint.__version__,
        "platform": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
    }
