"""Whether a document was trained on in a run. In the embedded corpus, records have a header."""

from __future__ import annotations

from pathlib import Path

from harness.config import Config
from harness.data import open_data, training_data, unpack_record
from harness.errors import ConfigError
from harness.metrics import Screen
from harness.rundir import RunDir
from pipeline import Dataset
from pipeline.debug.journal import Run
from pipeline.debug.seen import Documents, index_of, seen_in_run


def text_of(record: bytes) -> bytes:
    """The text of a record of the embedded corpus, without its header line.

    It can be given to `python -m pipeline seen --document harness.seen:text_of`.
    """
    return unpack_record(record)[1]


def seen(run: RunDir, screen: Screen, *, cfg: Config, file: Path, proof: Path | None) -> int:
    """Print when a run was trained on a file, and write the proof that its data hold it or do not.

    The index of the data is kept in the run's `seen/`.

    Returns:
        The exit status: 0 if the run was trained on it, 1 if not.
    """
    text, corpus = file.read_bytes(), open_data(cfg, run.data(cfg), screen)
    data = training_data(corpus, cfg)
    documents = Documents(function=text_of) if corpus.train is None else _own(data, cfg)
    index = index_of(data.components, documents, run.path / "seen", workers=0)
    found = seen_in_run(text, Run(run.path), data, index)
    for line in found.lines():
        screen.say(line)
    if proof is not None:
        proof.write_bytes(found.proof)
        check = f"python -m pipeline seen {file} --check {proof} --root {found.root}"
        screen.say(f"proof written to {proof}; to check it: {check}")
    return 0 if found else 1


def _own(data: Dataset, cfg: Config) -> Documents:
    """What a document of the user's own data is: a record, or its field `data.text`."""
    [record] = Dataset(data.components[0].source).head(1)
    if isinstance(record, dict) and cfg.data.text not in record:
        raise ConfigError(
            f"seen: the run's records have the fields {list(record)} and no {cfg.data.text!r} "
            "(data.text). To name another: python -m pipeline seen FILE --run DIR --data "
            "harness.opened:dataset --field NAME."
        )
    return Documents(field=cfg.data.text if isinstance(record, dict) else None)
