"""Corpora with bad documents planted in them, for testing the search for a spike's cause."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from harness.config import Config
from harness.data import NAME, Corpus, training_data
from pipeline import ArrayRecordSource, Loader
from pipeline.debug.documents import Document, documents_of

KINDS = ("constant", "ngrams", "shuffled")


def poisoned(text: bytes, kind: str, seed: int) -> bytes:
    """A bad text of the same length: one rare byte, a repeated rare n-gram, or shuffled bytes.

    >>> len(poisoned(b"In the beginning", "ngrams", 0)), len(set(poisoned(b"abc", "constant", 0)))
    (16, 1)
    """
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    rare = rng.permutation(np.arange(128, 256, dtype=np.uint8))  # rare in the corpus, or absent
    if kind == "shuffled":  # the text's bytes are replaced one for one, and shuffled
        return rng.permutation(rng.permutation(256).astype(np.uint8)[list(text)]).tobytes()
    period = 1 if kind == "constant" else int(rng.integers(2, 14))
    return np.resize(rare[:period], len(text)).tobytes()


def plant(corpus: Corpus, folder: Path, kinds: Mapping[int, str], seed: int = 0) -> Path:
    """A copy of a corpus in which some training records are bad.

    Texts keep their lengths, so all other documents keep their places in the batches.

    Args:
        corpus: the original.
        folder: where the copy goes; usable as a run's setting `data`.
        kinds: for each record that becomes bad, its kind.
        seed: of the bad texts.

    Returns:
        The copy's directory.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    copy = folder / NAME
    shutil.copytree(corpus.path, copy)
    for file in sorted({file for file, _ in _places(corpus, kinds).values()}):
        source = ArrayRecordSource(str(corpus.path / file))
        records = list(source.read(np.arange(len(source))))
        for record, (here, number) in _places(corpus, kinds).items():
            if here == file:
                head, _, text = records[number].partition(b"\n")
                records[number] = head + b"\n" + poisoned(text, kinds[record], seed + record)
        writer = ArrayRecordWriter(str(copy / file), "group_size:1")
        for record in records:
            writer.write(record)
        writer.close()
    return copy


def _places(corpus: Corpus, kinds: Mapping[int, str]) -> dict[int, tuple[str, int]]:
    source = ArrayRecordSource(str(corpus.path / "train-*.arrayrecord"))
    wanted = np.array(sorted(kinds), np.int64)
    found = zip(wanted.tolist(), source.where(wanted), strict=True)
    return {record: (Path(file).name, int(number)) for record, (file, number) in found}


def document_at(corpus: Corpus, cfg: Config, step: int) -> Document:
    """The document with the most tokens in a step's batch, preferably one that begins in it."""
    with Loader(training_data(corpus, cfg), cfg.batch_size) as loader:
        documents = documents_of(loader.where(step))
    return max(documents, key=lambda d: (d.pieces[0].start == 0, _tokens(d)))


def _tokens(document: Document) -> int:
    return sum(piece.stop - piece.start for piece in document.pieces)
