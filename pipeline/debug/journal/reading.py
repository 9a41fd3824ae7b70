"""A run as its journal tells it: the steps that led to where it stands, whatever hosts they had."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.checkpoint.state import differences
from pipeline.dataset import Dataset
from pipeline.debug.journal.columns import numbers
from pipeline.debug.journal.digests import KIND, chained, of_step, written
from pipeline.debug.journal.files import Files, hosts_in
from pipeline.debug.journal.hosts import Digests, Hosts
from pipeline.debug.journal.launches import no_launch, read_launches
from pipeline.debug.journal.ledger import LedgerFile
from pipeline.debug.journal.line import Line
from pipeline.debug.journal.states import Noted, States, read_states
from pipeline.debug.journal.tap import Rows, rows_at
from pipeline.debug.journal.whole import WholeStates
from pipeline.errors import JournalError, MismatchError, StateError
from pipeline.loader import Loader


class Run:
    """A run's folder, to be asked; nothing in it is changed, and it may be written meanwhile.

    Args:
        folder: of the run.

    Attributes:
        ledger: of the first process.

    Raises:
        JournalError: there is no run, or its files are damaged.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        hosts = hosts_in(self.folder)
        if 0 not in hosts:
            others = f"; it has those of processes {hosts}, so copy that one here" if hosts else ""
            raise JournalError(
                f"there is no run in {self.folder}: no ledger.jsonl{others}. A Journal writes it."
            )
        self._files = {h: Files(self.folder, h) for h in hosts}
        self._ledgers = {h: LedgerFile(f.ledger) for h, f in self._files.items()}
        self._launches = {h: read_launches(f.launches) for h, f in self._files.items()}
        self.ledger = self._ledgers[0]
        self._hosts = Hosts(self.folder, self._ledgers, self._launches, lambda h: self._states[h])
        self._loaders: dict[tuple[int, int, bool], Loader] = {}

    @property
    def launches(self) -> list[dict[str, Any]]:
        """What each start of the run noted, in order."""
        return [self._launches[0][n] for n in sorted(self._launches[0])]

    def launch(self, line: Line) -> dict[str, Any]:
        """What the start that did a step noted; {} where nothing was."""
        return self._launches[0].get(line.launch, {})

    def proves(self, line: Line) -> bool:
        """Whether the line's digest is of rows, which anybody can make again.

        Raises:
            JournalError: what its launch noted was lost.
        """
        if not self.launch(line) and len(line.digest) == len(written(0)):  # of older kinds: 16
            raise no_launch(self._files[0].launches, line.launch)
        return self.launch(line).get("digest") == KIND

    def line(self, step: int) -> Line:
        """The line of a step: the one that led to where the run stands, else that written last.

        Raises:
            JournalError: it has none.
        """
        found = self.ledger.latest(step)
        if found is None:
            steps = self.steps
            span = (
                f"they are from {steps.start:,} to {steps.stop - 1:,}" if steps else "it has none"
            )
            raise JournalError(f"{self.folder} has no line for step {step:,}: {span}.")
        return found

    @property
    def steps(self) -> range:
        """From the first step that led to where the run stands to behind the last."""
        return self.ledger.steps

    def path(self, start: int = 0, stop: int = 1 << 62) -> Iterator[Line]:
        """Lines of the steps [start, stop) that led to where the run stands, in their order."""
        return self.ledger.path(start, stop)

    # ---- digests

    def digest(self, line: Line) -> str:
        """Of the step's batches, all hosts' numbers added up: 32 hex digits.

        Raises:
            JournalError: the file of a host is not here, or lacks the step.
        """
        return self._hosts.digest(line)

    def digests(self) -> Digests:
        """The digests of all steps that led to where the run stands, as `digest` gives them.

        Raises:
            JournalError: a process's file is not here, or digests are of an older kind.
        """
        return self._hosts.digests()

    def verify(self, until: int = 1 << 62) -> int:
        """Hold the chain of each line, up to a step, against the digests; how many were checked.

        Raises:
            JournalError: a line was changed after it was written.
        """
        return self._hosts.verify(until)

    def chain(self, step: int) -> str:
        """chain(N): one number that vouches for the digests of a step and of all before it.

        Of a run of one process it stands in its line; of several it is made of all lines.

        Raises:
            JournalError: the step has no line, or that of a host is not here.
        """
        line = self.line(step)
        if self.alone:
            return line.chain
        steps, digests, _ = self.digests()
        chain = ""
        for digest in digests[steps <= step].tolist():
            chain = chained(chain, digest)
        return chain

    @property
    def alone(self) -> bool:
        """Whether every start of the run had one process, and digests of rows."""
        return all(x.get("hosts", 1) == 1 and x.get("digest") == KIND for x in self.launches)

    # ---- its data

    @property
    def data(self) -> str | None:
        """The "module:name" under which the newest start's dataset can be imported, if noted."""
        return self.launches[-1].get("data") if self.launches else None

    def check(self, dataset: Dataset, line: Line) -> None:
        """Refuse a dataset that is not the one of a step.

        Raises:
            MismatchError: it is another; lists what differs.
            JournalError: the run did not note its dataset.
        """
        launch = self.launch(line)
        if not launch:
            raise no_launch(self._files[0].launches, line.launch)
        if "dataset" not in launch or "batch_size" not in launch:
            raise JournalError(
                f"the start of {self.folder} that did step {line.step:,} noted no dataset: its "
                "ledger is older than the journal. Runs of the harness: python -m harness replay."
            )
        found = differences(launch, dataset.top.fingerprint())
        if found:
            raise MismatchError(
                f"{self.folder} was trained on another dataset. {'; '.join(found.values())}. "
                "Give --data the dataset of the run, as it was then."
            )

    def loader(self, dataset: Dataset, line: Line) -> Loader:
        """A loader of all rows that stands shortly before a step's batches.

        Raises:
            MismatchError, JournalError: see `check`.
        """
        self.check(dataset, line)
        launch, state = self.launch(line), self._state(line)
        key = id(dataset), line.launch, state is None  # without one, it is left at the start
        loader = self._loaders.get(key)
        if loader is None:
            sizes = launch["batch_size"]
            loader = self._loaders[key] = Loader(
                dataset,
                sizes if isinstance(sizes, int) else [(a, b) for a, b in sizes],
                remainder=launch["remainder"],
                steps=launch["steps"],
            )
        if state is not None:
            try:
                loader.load_state_dict(state)
            except StateError as e:
                raise JournalError(
                    f"{self._files[0].states}: the state of step {state['step']:,} is damaged. "
                    f"Remove its line; steps behind it are reached from the state before. {e}"
                ) from e
        return loader

    def loader_of(self, line: Line) -> tuple[int, int, int]:
        """Which loader gave a line's batches, of all that the run had: these rise along the path.

        Returns:
            Its launch, the number of its move, and the data step from which on it left out what it
            did (in journals of before, moves have no number).
        """
        steps, _ = self._states[0].changes(line.launch, line.move)
        return line.launch, line.move, bisect_right(steps, line.data_step)

    def rows(self, dataset: Dataset, line: Line) -> list[Rows]:
        """The rows of a step's batches, made again.

        Raises:
            MismatchError, JournalError: see `check`.
        """
        loader = self.loader(dataset, line)
        return [rows_at(loader, step) for step in data_steps(loader, line)]

    def remade(self, dataset: Dataset, line: Line) -> str:
        """The digest that a step's batches have when they are made again."""
        return written(of_step([rows.digest for rows in self.rows(dataset, line)]))

    def states(self, first: Line, last: Line) -> list[tuple[int, dict[str, Any]]]:
        """The states from which lines of a stretch are reached, (data step, state) each; they rise.

        Of several processes, those of the data steps at which all noted one.

        Args:
            first, last: of a stretch, see `pipeline.debug.find.stretches`.
        """
        found = self._states[0].of(first.launch, first.move)
        known = [(x.step, self._whole.of(x, first.launch)) for x in found if x.step < last.data_end]
        whole = [(step, state) for step, state in known if state]
        start = bisect_right(whole, first.data_step, key=lambda x: x[0]) - 1
        return whole[max(start, 0) :]

    def _state(self, line: Line) -> dict[str, Any] | None:
        # the state that the step is soonest reached from
        states = self._states[0].of(line.launch, line.move, led=self._led(line))
        at = bisect_right(states, line.data_step, key=lambda x: x.step)
        found = (self._whole.of(x, line.launch) for x in reversed(states[:at]))
        return next((state for state in found if state), None)

    def _led(self, line: Line) -> bool:
        return bool(self.ledger.lineage.leads_on(np.array([line.number]))[0])

    @property
    def noted(self) -> list[Noted]:
        """What the first process noted of its loader every so many steps."""
        return self._states[0].noted

    @cached_property
    def _states(self) -> dict[int, States]:
        return {h: States(read_states(f.states)) for h, f in self._files.items()}

    @cached_property
    def _whole(self) -> WholeStates:
        return WholeStates(self._launches, self._states)

    def close(self) -> None:
        for loader in self._loaders.values():
            loader.close()

    # ---- numbers

    def columns(self, *, every: int = 1) -> dict[str, np.ndarray[Any, Any]]:
        """The numbers of the steps that led to where the run stands, field by field.

        Args:
            every: read only one of so many stretches of 256 steps: for runs of millions.

        Returns:
            "step", "launch", "data_step", "data_end", "rows" int64[n]; "loss", "grad_norm", "data",
            "step_seconds", "save" and each told scalar float64[n], NaN where not told or not
            finite; "loss_told", "grad_norm_told" bool[n].
        """
        found = numbers(self.ledger, every=every)
        return {name: column for name, column in found.items() if name != "number"}


def data_steps(loader: Loader, line: Line) -> list[int]:
    """The loader's steps that a training step took."""
    if line.data_stop < 0:
        return list(range(line.data_step, line.data_step + line.batches))
    steps = [line.data_step] if line.batches else []
    while len(steps) < line.batches:
        steps.append(loader._skips_to(steps[-1] + 1))
    return steps
