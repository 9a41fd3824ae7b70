"""Writing the loop's steps to the journal, and stopping at values that are not finite."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any

from harness.errors import NotFiniteError
from pipeline.debug.journal import Journal, Line

Alarm = Callable[[Line], None]


class Scribe:
    """Writes steps to the run's journal, each one step late, so that nobody waits for the device.

    Args:
        journal: of this process.
        stops: whether a loss or gradient norm that is not finite ends the run, once it is written.
        alarm: gets each line once it is written; may raise.

    Attributes:
        news: the newest loss, in words.
    """

    def __init__(self, journal: Journal, *, stops: bool, alarm: Alarm | None = None) -> None:
        self._journal, self._stops, self._alarm = journal, stops, alarm
        self._seen: Line | None = None
        self.news = ""

    def dispatched(self, step: int, told: Mapping[str, Any]) -> None:
        """Note that a step was dispatched, and write the line of the step before it."""
        self._journal.log(step=step, loss=told["loss"], grad_norm=told["grad_norm"])
        self._look()

    def flush(self) -> None:
        """Write the lines that are due, and sync the ledger to disk."""
        self._journal.flush()
        self._look()

    @contextmanager
    def saving(self) -> Generator[None]:
        """Wrap a checkpoint: a step that is saved before its line is written never gets one."""
        self.flush()
        with self._journal.saving():
            yield

    def _look(self) -> None:
        line = self._journal.last
        if line is None or line is self._seen:
            return
        self._seen = line
        self.news = f"loss {line.loss_value:.3f}"
        if self._alarm is not None:
            self._alarm(line)
        odd = [name for name in ("loss", "grad_norm") if getattr(line, name) is None]
        if odd and self._stops:
            value = line.loss_value if odd[0] == "loss" else "not finite"
            raise NotFiniteError(
                f"step {line.step:,}: {odd[0]} is {value}. Nothing after it was saved. To see "
                f"its records: replay --steps {line.step}:{line.step + 1} --show. To pass over "
                "such steps: --set on_nonfinite=skip."
            )
