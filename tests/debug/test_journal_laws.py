"""A journal of random datasets is the same whoever evaluates, and is made again from states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline import Loader, Threads
from pipeline.debug.journal import Journal, Run
from pipeline.debug.replay import replay
from pipeline.errors import BatchError, HostsError, LanesError, StreamEndError
from tests.datasets import Files, anything, build
from tests.examples import examples

STEPS = 7
REMAINDERS = st.sampled_from(["keep", "drop", "pad"])


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("files"))


def journaled(folder: Path, loader: Loader) -> None:
    """A few steps, over ends of passes."""
    with loader, Journal(folder, loader, states_every=3) as journal:
        for _ in range(STEPS):
            try:
                next(loader)
            except StopIteration:
                return
            journal.log(loss=0.0)


@pytest.mark.long
@pytest.mark.slow
@given(anything(), REMAINDERS, st.booleans())
@examples(25)
def test_digests_do_not_depend_on_who_evaluates(
    files: Files,
    tmp_path_factory: pytest.TempPathFactory,
    recipe: Any,
    remainder: Any,
    threads: bool,
) -> None:
    folder = tmp_path_factory.mktemp("runs")
    try:
        journaled(folder / "one", Loader(build(files, recipe), 4, remainder=remainder))
        for host in range(2):
            loader = Loader(build(files, recipe), 4, remainder=remainder, host=host, hosts=2)
            journaled(folder / "two", loader)
    except (BatchError, HostsError, LanesError, StreamEndError):  # not for two hosts, or no batch
        assume(False)
    workers = Threads(2) if threads else 0
    journaled(folder / "x", Loader(build(files, recipe), 4, remainder=remainder, workers=workers))
    assume((folder / "one" / "ledger.jsonl").stat().st_size)
    runs = [Run(folder / name) for name in ("one", "two", "x")]
    digests = [[run.digest(line) for line in run.path()] for run in runs]
    assert digests[0] == digests[1] == digests[2]
    assert runs[0].chain(len(digests[0]) - 1) == runs[1].chain(len(digests[0]) - 1)
    for run in runs[:2]:
        assert replay(run, build(files, recipe), range(len(digests[0]))).ok
