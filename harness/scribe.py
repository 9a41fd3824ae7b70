"""When a step's ledger line is written: once the next step is under way, so that nobody waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.errors import NotFiniteError
from harness.ledger import Entry, Ledger, finite, float_bits
from harness.sharding import host_arrays
from pipeline import Loader
from pipeline.debug.digest import digest

Watch = Callable[[Entry], None]


@dataclass
class Stopwatch:
    """Seconds since the last lap."""

    last: float = 0.0

    def __post_init__(self) -> None:
        self.last = time.perf_counter()

    def lap(self) -> float:
        before, self.last = self.last, time.perf_counter()
        return round(self.last - before, 6)


class Scribe:
    """Turns steps into ledger lines, in order, each one step late.

    Reading a loss waits for the device; done while the next step runs, it costs nothing.

    Args:
        ledger: where lines go; None on all processes but the first.
        launch: this process start's number.
        loader: whose batches the steps take.
        stops: whether a loss or gradient norm that is not finite ends the run, once it is written.
        watch: sees each entry once it is written, and may raise.
    """

    def __init__(
        self,
        ledger: Ledger | None,
        launch: int,
        loader: Loader,
        *,
        stops: bool,
        watch: Watch | None = None,
    ) -> None:
        self._watch_entry = watch
        self._ledger, self._launch, self._loader, self._stops = ledger, launch, loader, stops
        self._at = loader.state_dict()
        self._watch = Stopwatch()
        self._owed: dict[str, Any] | None = None
        self._data = self._save = 0.0
        self.news = ""

    def has_data(self) -> None:
        """The batch of this step is there."""
        self._data = self._watch.lap()

    def dispatched(self, step: int, batch: Mapping[str, Any], told: Mapping[str, Any]) -> None:
        """The step is under way; write the line of the one before."""
        owed, at = self._owed, self._at
        self._at = self._loader.state_dict()
        line = {
            "step": step,
            "told": told,
            "digest": digest(host_arrays(batch)),
            "data_step": at["step"],
            "rows": (at["rows"], self._at["rows"]),
        }
        self._write(owed)
        seconds = {"data": self._data, "step": self._watch.lap(), "save": self._save}
        self._owed = {**line, "seconds": seconds}
        self._save = 0.0

    def flush(self) -> None:
        """Write what is owed, and bring the ledger to the disk.

        A checkpoint calls for it: a step that is saved and has no line would never get one.
        """
        self._write(self._owed)
        self._owed = None
        if self._ledger is not None:
            self._ledger.sync()

    def saved(self) -> None:
        """A checkpoint is under way; the next line says how long the loop stood still for it."""
        self._save = self._watch.lap()

    def _write(self, owed: dict[str, Any] | None) -> None:
        if owed is None:
            return
        told = {k: host_arrays(v) for k, v in owed.pop("told").items()}
        self.news = f"loss {float(told['loss']):.3f}"
        entry = Entry(
            **owed,
            launch=self._launch,
            loss=finite(told["loss"]),
            loss_bits=float_bits(told["loss"]),
            grad_norm=finite(told["grad_norm"]),
        )
        if self._ledger is not None:
            self._ledger.append(entry)
        if self._watch_entry is not None:
            self._watch_entry(entry)
        odd = [k for k in ("loss", "grad_norm") if finite(told[k]) is None]
        if odd and self._stops:
            raise NotFiniteError(
                f"step {owed['step']:,}: {odd[0]} is {float(told[odd[0]])}. Nothing after it was "
                f"saved. To see its records: replay --steps {owed['step']}:{owed['step'] + 1} "
                "--show. To pass over such steps: --set on_nonfinite=skip."
            )
