"""A run's directory: settings, launches, ledger, checkpoints, evaluations."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.config import Config, settle
from harness.errors import ConfigError
from harness.files import LineLog, read_json, read_lines, write_json
from pipeline.errors import MismatchError


@dataclass(frozen=True)
class RunDir:
    """The files of one run.

        D/config.json        settings, written by the first launch
        D/launches.jsonl     a line for each launch: the step it began at, its devices
        D/ledger.jsonl       a line for each step; further processes have ledger-00001.jsonl, ...
        D/states.jsonl       the loader's state every 100 steps
        D/checkpoints/K/     the state after K steps
        D/evaluation.json    the held-out loss after the last step
        D/evaluations.jsonl  a line for each evaluation, including those during training
        D/metrics.jsonl      a line every log.every steps: loss, speed, utilisation
        D/goodput.jsonl      where wall time went, a line every few seconds
        D/profile/           an XProf trace, if one was asked for
        D/wandb.id           its name at Weights & Biases, if metrics go there
        D/lock               held while a process trains

    >>> RunDir(Path("runs/a")).ledger.as_posix()
    'runs/a/ledger.jsonl'
    """

    path: Path

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def ledger(self) -> Path:
        return self.path / "ledger.jsonl"

    @property
    def launches(self) -> Path:
        return self.path / "launches.jsonl"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def goodput(self) -> Path:
        return self.path / "goodput.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def data(self, cfg: Config) -> Path:
        """The directory of the converted corpus."""
        return (self.path / cfg.data.source).resolve()

    def config(self, given: Mapping[str, Any] | None = None) -> Config:
        """The run's settings, with those of this launch; see `config.settle` for what may change.

        Raises:
            ConfigError: they differ from those that the run was begun with.
        """
        return settle(self._stored(), given or {})

    def _stored(self) -> dict[str, Any] | None:
        stored = read_json(self.path / "config.json")
        if stored is None and self._has_steps():
            raise ConfigError(
                f"{self.path} holds a run, but its config.json is gone. Each checkpoint holds the "
                f"settings too: python -m harness settings --run {self.path} writes them again."
            )
        return stored

    def _has_steps(self) -> bool:
        ledger = self.ledger.exists() and self.ledger.stat().st_size > 0
        return ledger or any(self.checkpoints.glob("[0-9]*"))

    def begin(self, cfg: Config) -> None:
        """Write the settings, unless the run has them already."""
        if not (self.path / "config.json").exists():
            write_json(self.path / "config.json", dataclasses.asdict(cfg))

    def begun(self) -> RunDir:
        """This run, if it exists.

        Raises:
            ConfigError: there is none, or its settings are lost.
        """
        if self._stored() is None:
            raise ConfigError(
                f"there is no run in {self.path}. Train one: python -m harness train --run "
                f"{self.path}"
            )
        return self

    @contextmanager
    def same_data(self) -> Iterator[None]:
        """Wrap moving a loader to a saved place: that the data are others is said in words of runs.

        Raises:
            MismatchError: the data are not those that the run was begun with.
        """
        try:
            yield
        except MismatchError as e:
            what = str(e).partition("Intended?")[0].removeprefix("the state is of another dataset.")
            steps = any(self.checkpoints.glob("[1-9]*"))
            raise MismatchError(
                f"the data are not those that {self.path} was begun with.{what.rstrip()} Give it "
                "those again; to train on these, give --run another folder"
                + (
                    "."
                    if steps
                    else f", or remove {self.path}: it holds no checkpoint after step 0."
                )
            ) from e

    def all_launches(self) -> list[dict[str, Any]]:
        """The record of each launch: the step it began at, its time, devices and versions."""
        return read_lines(self.launches)

    def evaluation(self) -> dict[str, Any] | None:
        """The held-out loss and the step after which it was measured, or None."""
        return read_json(self.path / "evaluation.json")

    def keep_evaluation(self, result: Mapping[str, Any], *, last: bool) -> None:
        """Append an evaluation. `last`: it is the one after the last step."""
        log = LineLog(self.path / "evaluations.jsonl")
        log.append(dict(result))
        log.close()
        if last:
            write_json(self.path / "evaluation.json", dict(result))

    def drop_evaluation(self) -> None:
        """Forget the one after the last step, as the run goes back to before it."""
        (self.path / "evaluation.json").unlink(missing_ok=True)

    def evaluations(self) -> list[dict[str, Any]]:
        """The last evaluation of each step, by rising steps."""
        found = {line["step"]: line for line in read_lines(self.path / "evaluations.jsonl")}
        return [found[step] for step in sorted(found)]
