"""The journal of a run, whatever its loop: which rows made each step, and what came of it."""

from __future__ import annotations

import atexit
import contextlib
import os
import time
import warnings
from collections.abc import Collection, Generator, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from pipeline.checkpoint.state import differences
from pipeline.checks import whole
from pipeline.debug.journal.before import Before, led_to
from pipeline.debug.journal.digests import KIND, chained, of_step, written
from pipeline.debug.journal.files import Files, local, lock
from pipeline.debug.journal.ledger import Ledger, LedgerFile
from pipeline.debug.journal.line import Line, finite, float_bits
from pipeline.debug.journal.lines import LineLog, read_lines
from pipeline.debug.journal.naming import checked, found_name
from pipeline.debug.journal.states import StateLog
from pipeline.debug.journal.tap import Came, Drawn, Tap, facts, place_of
from pipeline.debug.journal.values import held, number
from pipeline.errors import JournalError, MismatchError
from pipeline.loader import Loader

_OPEN: dict[Path, Journal] = {}  # of this process, by ledger


class JournalWarning(UserWarning):
    """Steps and batches do not follow one another: see what the message names."""


class Journal:
    """Notes each step of a training loop, in a few lines of any loop.

    A folder holds one run. Opened again, its journal goes on where the loader stands: a step that
    is done twice, after a crash, stands there twice. Nobody waits for a device: what a step told is
    read as the next is logged. Each process of several makes a journal of the same folder.

    Args:
        folder: of the run; it is made.
        loader: whose batches the steps take.
        data: "module:name" under which the dataset or loader can be imported again; found by itself
            where it is a global of an imported module.
        states_every: data steps between two states of the loader that are kept: what it costs, at
            most, to come to any past step of a dataset whose rows are counted as they come.
        allow: fields of the dataset's fingerprint that are meant to differ from before.
        facts: plain data to keep with this start of the run.

    Raises:
        MismatchError: the folder holds a run over another dataset; it lists what differs.
        JournalError: the folder's files are damaged, or another process writes to them.

    A plain loop; in torch or JAX it is the same:

    >>> import tempfile, numpy as np
    >>> from pipeline import Dataset, Loader
    >>> ds = Dataset({"x": np.arange(8.0)}, seed=1).shuffle()
    >>> folder = tempfile.mkdtemp()
    >>> with Journal(folder, loader := Loader(ds, 2)) as journal:
    ...     for batch in loader:
    ...         loss = batch["x"].mean()
    ...         journal.log(loss=loss, grad_norm=1.0)
    >>> [(line.step, line.rows, line.loss) for line in LedgerFile(Path(folder) / "ledger.jsonl")]
    [(0, (0, 2), 3.5), (1, (2, 4), 4.0), (2, (4, 6), 4.0), (3, (6, 8), 2.5)]
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        loader: Loader,
        *,
        data: str | None = None,
        states_every: int = 100,
        allow: Collection[str] = (),
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(loader, Loader):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise JournalError(f"a Journal wants a Loader, not {type(loader).__name__}: Loader(…)")
        whole("states_every", states_every, 1, JournalError)
        self._data = checked(data) if data is not None else None
        self._folder, self._loader = local(folder), loader
        host = place_of(loader)[0]
        self._files = Files(self._folder, host)
        self._first = Files(self._folder, 0) if host else None
        self._about = dict(facts or {})
        self._key = self._files.ledger.resolve()
        if self._key in _OPEN:  # of this process: as when a notebook's cell is run again
            _OPEN[self._key].close()
        self._launch = self._number(allow)
        self._ledger = Ledger(self._files.ledger)
        lock(self._ledger, self._folder)
        self._states = StateLog(self._files.states, self._launch, states_every)
        self._tap = Tap(loader)
        self._begun = self._closed = False
        self._owed: tuple[Line, dict[str, Any]] | None = None
        self._newest: Line | None = None  # owed or written
        self.last: Line | None = None  # the last that was written
        self._lap, self._saved = time.perf_counter(), 0.0
        _OPEN[self._key] = self
        atexit.register(self.close)

    @property
    def launch(self) -> int:
        """This start's number among all starts of the run that came to a step: 0, 1, …"""
        return self._launch

    def _number(self, allow: Collection[str]) -> int:
        # of this launch; the last one's dataset must be this one
        launches = read_lines(self._files.launches)
        last = launches[-1] if launches else {}
        if "dataset" in last:
            now = self._loader._dataset.top.fingerprint()
            found = differences({**last, **_frontiers(self._loader)}, now, allow)
            if found:
                names = ", ".join(map(repr, found))
                raise MismatchError(
                    f"{self._folder} is a run over another dataset. {'; '.join(found.values())}. "
                    f"Give this one a folder of its own; or Journal(…, allow={{{names}}}) if the "
                    "run is meant to go on with it."
                )
        # the ledger may know a launch whose line was lost: its number is not given again
        line = LedgerFile(self._files.ledger).last
        numbers = [known.get("launch", i) for i, known in enumerate(launches)]
        return max([*numbers, line.launch if line else -1, -1]) + 1

    # ---- a step

    def log(self, *, step: int | None = None, **scalars: Any) -> None:
        """Note a step: once it is under way, so that its batches are those drawn since the last.

        Args:
            step: its number; by default it follows from where the loader stands.
            scalars: numbers, or arrays and tensors of one element, on any device; `loss` and
                `grad_norm` have fields of their own.

        Raises:
            JournalError: the journal is closed, or the step before told what is no number.
        """
        if self._closed:
            raise JournalError(f"the journal of {self._folder} is closed: make another.")
        told = {name: held(value) for name, value in scalars.items() if value is not None}
        drawn = self._tap.take()
        given = None if step is None else whole("step", step, 0, JournalError)
        line = self._line(drawn, given)
        if not self._begun:
            self._begin(line.step)
        self._note_moves()
        if drawn and self._states.is_due(drawn[-1].end):
            self._note()
        self._write()
        self._owed, self._newest = (self._timed(line, drawn), told), line

    def _note_moves(self) -> None:
        # the states from which the loader went on after it was moved
        for move in sorted(self._tap.states):
            self._states.append(self._tap.states.pop(move), self._tap.stats(), move)

    def _note(self) -> None:
        self._states.append(self._tap.state(), self._tap.stats(), self._tap.move)

    def _line(self, drawn: list[Drawn], given: int | None) -> Line:
        before, odd = self._before(drawn)
        at = drawn[0].step if drawn else 0
        step = self._following(before.line, at)
        if given is not None:
            if given != step and (before.line is not None or at):
                what = "a gap" if given > step else "a step back"
                odd = odd or f"{what}: log(step={given}), where the loader's batches are of {step}"
            step = given
        for one, other in pairwise(drawn):
            if not self._tap.skips_all(one.end, other.step):
                odd = odd or f"a gap: data step {other.step} was drawn after {one.step}"
        if odd:
            text = f"step {step}: {odd}. The journal goes on."
            warnings.warn(text, JournalWarning, stacklevel=3)
        elif self._newest is None and (last := LedgerFile(self._files.ledger).last) is not None:
            odd = f"again: the run had come to step {last.step}" if step <= last.step else ""
        return self._describe(step, drawn, before, odd)

    def _following(self, before: Line | None, at: int) -> int:
        # the step behind a line; of data steps without a line, as many batches as that had are one
        end, batches = (before.data_end, before.batches) if before else (0, 1)
        gap = 0 if self._tap.skips_all(end, at) else (at - end) // max(1, batches)
        return gap + (before.step + 1 if before else 0)

    def _before(self, drawn: list[Drawn]) -> tuple[Before, str]:
        # the line that this one follows, and what is odd about that
        newest = self._newest
        if not drawn:
            last = newest or LedgerFile(self._files.ledger).last
            return Before(last), "no batch was drawn for it"
        at, came = drawn[0].step, drawn[0].came
        if came is None and newest is not None and newest.data_end <= at:
            before = Before(newest)
        else:
            self._write()  # what is owed is to be found too
            before = led_to(self._files, self._first, self._tap, came or Came(at, drawn[0].rows[0]))
        known = before.line
        if not self._tap.skips_all(known.data_end if known else 0, at):
            behind = f"{known.data_end} to {at - 1}" if known else f"before {at}"
            return before, f"a gap: the loader's steps {behind} have no line"
        back = newest is not None and known is not None and known.step < newest.step
        return before, f"a step back, from {newest.step}" if back and newest else ""

    def _describe(self, step: int, drawn: list[Drawn], before: Before, odd: str) -> Line:
        digest = written(of_step([d.digest for d in drawn]))
        start = before.line.rows[1] if before.line else 0
        at = before.line.data_end if before.line else 0
        stop = drawn[-1].end if drawn else at
        usual = drawn and stop == drawn[0].step + len(drawn)
        number = len(self._ledger) + (self._owed is not None)
        parent = self._parent(before, step)
        chain = parent.chain if parent else ""
        above = parent.number if parent else -1
        return Line(
            step=step,
            launch=self._launch,
            loss=None,
            loss_bits=None,
            grad_norm=None,
            digest=digest,
            data_step=drawn[0].step if drawn else at,
            rows=(drawn[0].rows[0], drawn[-1].rows[1]) if drawn else (start, start),
            seconds={},
            chain=chained(chain, digest),
            batches=len(drawn),
            data_stop=-1 if usual else stop,
            told=odd,
            after=None if above == number - 1 else parent.name if parent else (),
            move=drawn[0].move if drawn else self._tap.move,
            number=number,
        )

    def _parent(self, before: Before, step: int) -> Line | None:
        # the line of this process that is to vouch for those before
        if before.own and (before.line is None or before.line.step < step):
            return before.line
        self._write()
        known = LedgerFile(self._files.ledger)
        line = before.line if before.own else known.last
        number = known.lineage.ancestor(line.number, step) if line else -1
        return known.at(number) if number >= 0 else None

    def _timed(self, line: Line, drawn: list[Drawn]) -> Line:
        now = time.perf_counter()
        data, save = sum(d.waited for d in drawn), self._saved
        rest = max(0.0, now - self._lap - data - save)
        self._lap, self._saved = now, 0.0
        seconds = {"data": round(data, 6), "step": round(rest, 6), "save": round(save, 6)}
        return replace(line, seconds=seconds)

    # ---- what is written

    def _begin(self, step: int) -> None:
        # the launch's line, once there is a step: a start that does nothing leaves no trace
        names = self._loader._dataset, self._loader
        log = LineLog(self._files.launches)
        log.append(
            {
                "launch": self._launch,
                "step": step,
                "unix_time": round(time.time(), 3),
                "digest": KIND,
                "data": self._data or found_name(*names),
                **facts(self._loader),
                **self._about,
            }
        )
        log.sync()  # without it, nothing tells what the launch's steps were made of
        log.close()
        self._begun = True

    def _write(self) -> None:
        if self._owed is None:
            return
        (line, told), self._owed = self._owed, None
        values = {name: number(name, value) for name, value in told.items()}
        loss, norm = values.pop("loss", None), values.pop("grad_norm", None)
        self.last = replace(
            line,
            loss=None if loss is None else finite(loss),
            loss_bits=None if loss is None else float_bits(loss),
            grad_norm=None if norm is None else finite(norm),
            norm_told=norm is not None,
            scalars={name: finite(value) for name, value in values.items()},
        )
        self._ledger.append(self.last)

    def flush(self) -> None:
        """Write what is owed, and bring all of it to the disk.

        A checkpoint calls for it: a step that is saved and has no line would never get one.
        """
        self._write()
        self._ledger.sync()
        self._states.sync()

    @contextlib.contextmanager
    def saving(self) -> Generator[None]:
        """Around what saves a checkpoint: flushes, and tells the time it takes from the step's.

        >>> import tempfile
        >>> from pipeline import Dataset, Loader
        >>> journal = Journal(tempfile.mkdtemp(), Loader(Dataset(range(4)), 2))
        >>> with journal.saving():
        ...     pass  # save the model, the optimizer and loader.state_dict()
        >>> journal.close()
        """
        self.flush()
        started = time.perf_counter()
        try:
            yield
        finally:
            self._saved += time.perf_counter() - started

    def close(self) -> None:
        """Write what is owed, and listen to the loader no longer."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        _OPEN.pop(self._key, None)
        try:
            if self._begun:
                self._note_moves()
                self._note()
            self.flush()
        finally:
            self._tap.close()
            self._ledger.close()
            self._states.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        at = "empty" if self._newest is None else f"at step {self._newest.step}"
        return f"Journal({str(self._folder)!r}, {at})"


def _frontiers(loader: Loader) -> dict[str, Any]:
    state = loader._own_state()
    return {"frontiers": state["frontiers"]} if "frontiers" in state else {}
