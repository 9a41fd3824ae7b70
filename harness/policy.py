"""`--on-spike`: going back and skipping data when the loss spikes."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from harness.edits import lineage_of
from harness.errors import ConfigError, HarnessError
from harness.fork import rewind
from harness.ledger import Entry, read
from harness.metrics import Screen
from harness.rundir import RunDir
from harness.spikes import FIELDS, latest
from harness.train import train
from pipeline.debug.spikes import WINDOW, robust_scores


class SpikeError(HarnessError):
    """A step spiked, and the run must not go on from there."""

    def __init__(self, step: int, field: str, score: float) -> None:
        super().__init__(f"step {step:,}: {field} stands out with z {score:.1f}")
        self.step = step


@dataclass(frozen=True)
class Policy:
    """What to do on a spike.

    Attributes:
        z: the score above which a step is a spike.
        back: how many steps to go back from it.
        skip: how many steps' data to leave out, with the spike in their middle: its cause may be in
            an earlier batch, and a document may go on in the next one.
        times: how often at most; later spikes are trained through.

    >>> Policy.parse("z=8,back=50")
    Policy(z=8.0, back=50, skip=10, times=3)
    """

    z: float = 8.0
    back: int = 100
    skip: int = 10
    times: int = 3

    @staticmethod
    def parse(text: str) -> Policy:
        """The policy in the command line's words, such as "z=8,back=50".

        Raises:
            ConfigError: a word is unknown, or a number is out of range.
        """
        known = {"z": float, "back": int, "skip": int, "times": int}
        found: dict[str, float] = {}
        for word in filter(None, text.split(",")):
            name, _, value = word.partition("=")
            try:
                found[name] = known[name](value)
            except (KeyError, ValueError) as e:
                raise ConfigError(
                    f"--on-spike {word!r}: give z, back, skip and times, as z=8,back=100,skip=10."
                ) from e
        policy = Policy(**found)  # pyright: ignore[reportArgumentType]
        if not (policy.z > 0 and policy.back >= 0 and policy.skip >= 1 and policy.times >= 1):
            raise ConfigError(f"--on-spike {text}: z, skip and times must be above 0, back from 0.")
        return policy


class Alarm:
    """Gets each ledger line as it is written, and raises SpikeError at a spike."""

    def __init__(self, run: RunDir, z: float) -> None:
        self._z = z
        self._recent = deque(latest(read(run.ledger)).values(), maxlen=WINDOW)

    def __call__(self, entry: Entry) -> None:
        for name in FIELDS:
            values = [getattr(e, name) for e in (*self._recent, entry)]
            score = robust_scores([float("nan") if v is None else v for v in values])[0][-1]
            if score > self._z:
                raise SpikeError(entry.step, name, float(score))
        self._recent.append(entry)


def train_on(
    run: RunDir, given: Mapping[str, Any], policy: Policy, *, until: int, screen: Screen
) -> tuple[RunDir, signal.Signals | None]:
    """Train. At each spike, go on in a fork of the run that skips the spike's data.

    Forks are directories beside the run, named RUN-1, RUN-2, ... The run itself ends at its spike,
    and keeps everything up to it. The settings given hold for the run and for its forks.

    Returns:
        The run that got furthest, and what `train` returned.

    Raises:
        ConfigError: there are several processes, or a folder with a fork's name is none.
    """
    if jax.process_count() > 1:
        raise ConfigError(
            "--on-spike goes back in one process. Leave it out here, and at a spike rewind by hand."
        )
    here = run
    for turn in range(1, policy.times + 1):
        target = RunDir(run.path.with_name(f"{run.path.name}-{turn}"))
        if target.path.exists() and any(target.path.iterdir()):  # this spike has been dealt with
            _check_fork(target, here)
            here = target
            continue
        cfg = here.config(given)
        try:
            alarm = Alarm(here, policy.z)
            return here, train(here, cfg, until=until, screen=screen, alarm=alarm)
        except SpikeError as spike:
            screen.say(f"{spike}: {policy.back} steps back, {policy.skip} skipped")
            first = max(0, spike.step - policy.skip // 2)
            skip = range(first, first + policy.skip)
            to = max(0, min(spike.step - policy.back, skip.start))
            rewind(here, cfg, target, screen, to=to, skip=skip)
            here = target
    return here, train(here, here.config(given), until=until, screen=screen)


def _check_fork(target: RunDir, parent: RunDir) -> None:
    found = Path(lineage_of(target.path).get("parent", "")).name  # its folder may have moved
    if found != parent.path.resolve().name:
        raise ConfigError(
            f"{target.path} is there and is no fork of {parent.path}; --on-spike goes on in a fork "
            "of that name. Rename it, or begin a run of another name."
        )
