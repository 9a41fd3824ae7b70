"""What training does by itself when the loss spikes, if asked to: go back, and skip the data."""

from __future__ import annotations

import signal
from collections import deque
from dataclasses import dataclass

from harness.config import Config
from harness.errors import ConfigError, HarnessError
from harness.fork import rewind
from harness.ledger import Entry, read
from harness.metrics import Screen
from harness.rundir import RunDir
from harness.spikes import FIELDS, latest
from harness.train import train
from pipeline.debug.spikes import WINDOW, robust_scores


class SpikeError(HarnessError):
    """A step spiked, and the run is asked not to go on from there."""

    def __init__(self, step: int, field: str, score: float) -> None:
        super().__init__(f"step {step:,}: {field} stands out with z {score:.1f}")
        self.step = step


@dataclass(frozen=True)
class Policy:
    """What to do on a spike.

    Attributes:
        z: the score above which a step is one.
        back: steps to go back from it.
        skip: steps whose data is left out, the spike's the last of them.
        times: how often, at most; the next spike is trained through.

    >>> Policy.parse("z=8,back=50")
    Policy(z=8.0, back=50, skip=10, times=3)
    """

    z: float = 8.0
    back: int = 100
    skip: int = 10
    times: int = 3

    @staticmethod
    def parse(text: str) -> Policy:
        """From the command line's words.

        Raises:
            ConfigError: a word is unknown, or a number makes no sense.
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
    """Sees each ledger line as it is written, and raises at a spike."""

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
    run: RunDir, cfg: Config, policy: Policy, *, until: int, screen: Screen
) -> tuple[RunDir, signal.Signals | None]:
    """Train; at each spike go on in a fork of the run that skips its data.

    Each fork is a directory beside the run, named RUN-1, RUN-2, ...; the run itself ends at its
    spike, and keeps what led to it.

    Returns:
        The run that got furthest, and what `train` returned.
    """
    here = run
    for turn in range(1, policy.times + 1):
        target = RunDir(run.path.with_name(f"{run.path.name}-{turn}"))
        if (target.path / "config.json").exists():  # resumed: this spike was dealt with
            here, cfg = target, target.config()
            continue
        try:
            alarm = Alarm(here, policy.z)
            return here, train(here, cfg, until=until, screen=screen, alarm=alarm)
        except SpikeError as spike:
            screen.say(f"{spike}: {policy.back} steps back, {policy.skip} skipped")
            skip = range(max(0, spike.step - policy.skip + 1), spike.step + 1)
            to = max(0, min(spike.step - policy.back, skip.start))
            rewind(here, cfg, target, screen, to=to, skip=skip)
            here, cfg = target, target.config()
    return here, train(here, cfg, until=until, screen=screen)
