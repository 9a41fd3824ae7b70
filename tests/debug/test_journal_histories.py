"""Runs with any past: what the journal tells is what was trained, kept by hand beside it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline import Dataset, Loader
from pipeline.checkpoint import merge
from pipeline.debug.diff import compare
from pipeline.debug.find import steps_of
from pipeline.debug.journal import Journal, JournalWarning, Run
from pipeline.debug.replay import replay
from pipeline.debug.seen.history import in_run
from pipeline.errors import PositionError
from tests.examples import examples

RECORDS = 48
CHAINS = {
    "indexed": Dataset(range(RECORDS), seed=1).shuffle().repeat(),
    "streamed": Dataset(range(RECORDS), seed=2)
    .shuffle()
    .filter(lambda x: x % 7 > 0, block=4)
    .lanes(4)
    .repeat(),
}


class Step(NamedTuple):
    """The data step at which a training step began, and the records of its batches."""

    data_step: int
    records: list[int]


Trained = list[Step]


@dataclass(frozen=True)
class Save:
    """A checkpoint: the loader's state, and what the model had learned from."""

    state: Any
    trained: Trained


@dataclass
class Past:
    """A run that is trained, and what was truly trained of it."""

    folder: Path
    dataset: Dataset
    batches: int  # of a step
    trained: Trained = field(default_factory=list[Step])
    saves: list[Save] = field(default_factory=list[Save])
    loaders: list[Loader] = field(default_factory=list[Loader])
    journals: list[Journal] = field(default_factory=list[Journal])

    def begin(self, rows: int, hosts: int, save: Save | None = None) -> None:
        """A new start of the run, at a checkpoint."""
        self.end()
        self.loaders = [Loader(self.dataset, rows, host=h, hosts=hosts) for h in range(hosts)]
        if save is not None:
            self.restore(save)
        self.journals = [Journal(self.folder, each, states_every=3) for each in self.loaders]

    def restore(self, save: Save) -> None:
        """Go to a checkpoint, in the same process or another."""
        for loader in self.loaders:
            loader.load_state_dict(save.state)
        self.trained = [*save.trained]

    def end(self) -> None:
        """End the process."""
        for each in (*self.journals, *self.loaders):
            each.close()

    def train(self) -> None:
        """One step."""
        found, at = list[int](), self.loaders[0].step
        for _ in range(self.batches):
            found += [int(x) for loader in self.loaders for x in next(loader)]
        for journal in self.journals:
            journal.log(loss=1.0)
        self.trained.append(Step(at, found))

    def save(self) -> None:
        """A checkpoint of now."""
        states = [json.loads(json.dumps(loader.state_dict())) for loader in self.loaders]
        state = merge(states) if "lanes" in states[0] else states[0]
        self.saves.append(Save(state, [*self.trained]))

    def back(self, steps: int) -> None:
        """Go back so many steps, in the same process."""
        kept = self.trained[:-steps]
        at = self.trained[len(kept)].data_step if self.trained else 0
        try:
            for loader in self.loaders:
                loader.seek(at)
        except PositionError:  # batches had another size then
            return
        self.trained = kept

    def skip(self, *steps: range, records: Any = ()) -> None:
        """Leave something out from here on."""
        for loader in self.loaders:
            loader.skip(*steps, records=records)


def act(past: Past, what: str, a: int, b: int) -> None:
    """One event of a history; `a` and `b` say which."""
    save = past.saves[a % len(past.saves)] if past.saves else None
    if what == "train":
        for _ in range(1 + a % 4):
            past.train()
    elif what == "save":
        past.save()
    elif what == "skip steps":
        at = past.loaders[0].step + a % 3
        past.skip(range(at, at + 1 + b % 3))
    elif what == "skip records":
        past.skip(records=range(a % RECORDS, min(RECORDS, a % RECORDS + 1 + b % 4)))
    elif what == "back":
        past.back(1 + a % 6)
    elif what == "restore" and save:  # an attempt is given up
        try:
            past.restore(save)
        except PositionError:
            return
    elif what == "restart" and save:
        past.begin((4, 8)[b % 2], (1, 2, 4)[b % 3], save)


KINDS = ["train"] * 3 + ["save", "restart"] * 2 + ["skip steps", "skip records", "back", "restore"]
event = st.tuples(st.sampled_from(KINDS), st.integers(0, 60), st.integers(0, 11))
events = st.lists(event, min_size=3, max_size=25)


def lived(past: Past, history: list[tuple[str, int, int]]) -> None:
    """The run, from its beginning to its end."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", JournalWarning)
        warnings.filterwarnings("ignore", "step .* a step back", JournalWarning)
        past.begin(4, 1)
        past.train()
        for each in history:
            act(past, *each)
        past.train()  # a journal hears of a move as the next step is logged
        past.end()


def steps_with(trained: Trained, record: int) -> Iterator[tuple[int, int]]:
    """The steps whose batches held a record, and how often."""
    for number, step in enumerate(trained):
        if record in step.records:
            yield number, step.records.count(record)


def check(past: Past) -> None:
    """Everything that the journal tells."""
    run, dataset, trained = Run(past.folder), past.dataset, past.trained
    path = list(run.path())
    assert [line.step for line in path] == list(range(len(trained)))
    assert run.steps == range(len(trained))
    assert run.columns()["step"].tolist() == [*range(len(trained))]
    assert run.digests().digest.tolist() == [run.digest(line) for line in path]
    proof = replay(run, dataset, range(len(trained)))
    assert proof.ok, proof.differs
    run.verify()
    assert compare(run, Run(past.folder)).ok
    for record in range(0, RECORDS, 3):
        expected = [*steps_with(trained, record)]
        assert steps_of(run, dataset, record) == [step for step, _ in expected]
        seen = in_run(run, dataset, [("", record)], 1000)
        assert [(step, len(places)) for step, places in seen.items()] == expected
    run.close()


MORE, BEHIND, WITHOUT = ("train", 3, 0), ("skip steps", 0, 2), ("skip records", 7, 3)
SAVE, TWO = ("save", 0, 0), ("train", 1, 0)


def start(save: int, rows: int = 4, hosts: int = 1) -> tuple[str, int, int]:
    """A start at a checkpoint, as an event."""
    kinds = [((4, 8)[b % 2], (1, 2, 4)[b % 3]) for b in range(6)]
    return "restart", save, kinds.index((rows, hosts))


@pytest.mark.parametrize("chain", ["indexed", "streamed"])
@given(events, st.integers(1, 2))
@example([MORE, WITHOUT, BEHIND, MORE], 1)  # left out while a start runs
@example([SAVE, MORE, MORE, start(0)], 1)  # it stands earlier than it once did
@example([MORE, SAVE, MORE, start(0), BEHIND, MORE], 1)  # back, and steps skipped from there
@example([MORE, SAVE, MORE, ("back", 4, 0), BEHIND, SAVE, start(1), MORE], 1)
@example([MORE, BEHIND, MORE, SAVE, start(0, 8, 2), MORE], 2)  # on more hosts
@example([SAVE, start(0, 4, 2), MORE, SAVE, MORE, start(1, 4, 2), WITHOUT, MORE, MORE], 1)
@example([SAVE, start(0, 4, 2), MORE, MORE, ("back", 5, 0), WITHOUT, MORE], 1)
@example([SAVE, MORE, MORE, SAVE, start(0), WITHOUT, MORE, start(1), MORE], 1)  # given up
@example([SAVE, start(0, 4, 2), MORE, SAVE, start(0, 4, 2), WITHOUT, MORE, start(1), MORE], 1)
@example([MORE, SAVE, start(0), MORE, ("back", 5, 0), WITHOUT, MORE], 1)  # before its own start
@example([MORE, SAVE, start(0, 8), MORE, MORE], 2)  # another batch size
@example([SAVE, start(0, 8, 2), TWO, SAVE, start(0, 4, 2), TWO, ("restore", 1, 0)], 2)
@examples(5)
def test_a_journal_tells_what_was_trained(
    tmp_path_factory: pytest.TempPathFactory,
    chain: str,
    history: list[tuple[str, int, int]],
    batches: int,
) -> None:
    past = Past(tmp_path_factory.mktemp("run"), CHAINS[chain], batches)
    lived(past, history)
    check(past)
