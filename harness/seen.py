"""Was a document trained on in a run? Of the embedded corpus, the text behind a record's header."""

from __future__ import annotations

from pathlib import Path

from harness.config import Config
from harness.data import open_data, training_data, unpack_record
from harness.metrics import Screen
from harness.rundir import RunDir
from pipeline.debug.journal import Run
from pipeline.debug.seen import Documents, index_of, seen_in_run


def text_of(record: bytes) -> bytes:
    """The document of a record of the embedded corpus: its text, without the line before it.

    `python -m pipeline seen --document harness.seen:text_of` takes it, too.
    """
    return unpack_record(record)[1]


def seen(run: RunDir, cfg: Config, file: Path, proof: Path | None, screen: Screen) -> bool:
    """Say when a run was trained on a file, and write the proof that it is in the data, or is not.

    The index of the data is kept in the run's `seen/`.

    Returns:
        Whether it was trained on it.
    """
    corpus = open_data(cfg, run.data(cfg), screen)
    data = training_data(corpus, cfg)
    documents = Documents(function=text_of) if corpus.train is None else Documents()
    index = index_of(data.components, documents, run.path / "seen", workers=0)
    found = seen_in_run(file.read_bytes(), Run(run.path), data, index)
    for line in found.lines():
        screen.say(line)
    if proof is not None:
        proof.write_bytes(found.proof)
        check = f"python -m pipeline seen {file} --check {proof} --root {found.root}"
        screen.say(f"proof written to {proof}; to check it: {check}")
    return bool(found)
