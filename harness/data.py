"""The training data: the embedded corpus as ArrayRecord files, and the datasets over them."""

from __future__ import annotations

import json
import math
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.config import Config
from harness.errors import ConfigError
from harness.files import locked, read_json, write_json
from harness.metrics import Meter, Screen
from harness.named import check_folder, is_named
from harness.own_data import own_data
from harness.tokens import BOS, encode
from pipeline import ArrayRecordSource, Dataset

NAME = "sotu-v1"  # the rules below determine its bytes: if you change a rule, change the name
_SHARDS = 4
_PARAGRAPH = 600  # bytes after which the next end of a sentence ends a document
_HELD_OUT_EVERY = 25
_SENTENCE_END = re.compile(r"(?<=[.?!]) +")


@dataclass(frozen=True)
class Corpus:
    """The corpus that a run trains on.

    Attributes:
        path: directory of the converted corpus.
        train_documents, held_out_documents: number of documents.
        held_out_tokens: bytes and document beginnings of the held-out part.
        unigram_entropy: nats per byte of the training part if bytes were independent: the loss of a
            model that only knows how frequent each byte is.
        train, held_out: rows of the user's own data, for which the other facts are unknown.
    """

    path: Path
    train_documents: int = 0
    held_out_documents: int = 0
    held_out_tokens: int = 0
    unigram_entropy: float | None = None
    train: Dataset | None = None
    held_out: Dataset | None = None


def documents(text: str) -> Iterator[str]:
    """Cut a speech into documents of the size of a paragraph, at ends of sentences.

    >>> [len(d) for d in documents("A sentence of thirty letters. " * 50)]
    [629, 629, 239]
    """
    taken: list[str] = []
    size = 0
    for sentence in _SENTENCE_END.split(text.strip()):
        taken.append(sentence)
        size += len(sentence.encode()) + 1
        if size > _PARAGRAPH:
            yield " ".join(taken)
            taken, size = [], 0
    if taken:
        yield " ".join(taken)


def pack_record(speech: dict[str, Any], part: int, text: str) -> bytes:
    """One document as a record: a line of JSON about its origin, then the text in UTF-8."""
    whence = {k: speech[k] for k in ("id", "year", "president")}
    return json.dumps({**whence, "part": part}).encode() + b"\n" + text.encode()


def unpack_record(record: bytes) -> tuple[dict[str, Any], bytes]:
    """(origin, bytes of the text) of a record that `pack_record` made.

    >>> speech = {"id": "1790_gw", "year": 1790, "president": "George Washington"}
    >>> unpack_record(pack_record(speech, 0, "I embrace"))[1]
    b'I embrace'
    """
    head, _, text = record.partition(b"\n")
    return json.loads(head), text


def tokenize(record: bytes) -> dict[str, NDArray[np.int32]]:
    """A record's text as tokens: int32[n]."""
    return {"tokens": encode(unpack_record(record)[1])}


def training_data(corpus: Corpus, cfg: Config) -> Dataset:
    """The endless training stream: reshuffled each epoch, packed into rows of `length` tokens."""
    if corpus.train is not None:
        return corpus.train
    source = ArrayRecordSource(str(corpus.path / "train-*.arrayrecord"))
    chain = Dataset(source, seed=cfg.seed).shuffle().map(tokenize)
    return chain.pack({"tokens": cfg.length}, how="split").repeat().lanes(cfg.lanes)


def held_out_data(corpus: Corpus, cfg: Config) -> Dataset | None:
    """One pass over the held-out data, in order; None if the user's data holds nothing out."""
    if corpus.train is not None:
        return corpus.held_out
    source = ArrayRecordSource(str(corpus.path / "held-out-*.arrayrecord"))
    chain = Dataset(source).map(tokenize).pack({"tokens": cfg.length}, how="split")
    return chain.lanes(cfg.lanes)


def open_data(cfg: Config, directory: Path, screen: Screen) -> Corpus:
    """The user's own data if the settings name any, else the embedded corpus.

    Raises:
        ConfigError: data is neither a module:name nor a folder, or the data cannot be trained on.
    """
    if not is_named(cfg.data.source) and not (directory / NAME).exists():
        check_folder(cfg.data.source, directory)
    own = own_data(cfg)
    if own is None and cfg.task == "language" and 0 < cfg.model.vocab <= BOS:
        raise ConfigError(
            f"model.vocab={cfg.model.vocab}: the embedded corpus has tokens 0 to {BOS}."
        )
    return (
        prepare(directory, screen)
        if own is None
        else Corpus(directory, train=own[0], held_out=own[1])
    )


def prepare(directory: Path, screen: Screen) -> Corpus:
    """The converted corpus in `directory`; it is converted now if it is missing.

    It may be killed, and may run in two processes at once: the second waits for the first.
    """
    path = directory / NAME
    if not path.exists():
        with locked(directory / "lock", wait=True):
            if not path.exists():
                _convert(path, screen)
    return Corpus(path, **read_json(path / "corpus.json"))  # pyright: ignore[reportCallIssue]


def _convert(path: Path, screen: Screen) -> None:
    for stale in path.parent.glob(f".{NAME}.*"):
        shutil.rmtree(stale)  # we hold the lock, so its writer was killed
    temporary = Path(tempfile.mkdtemp(prefix=f".{NAME}.", dir=path.parent))
    speeches = _speeches()
    with screen.meter("convert", total=len(speeches), unit="speeches") as meter:
        train = Counter[int]()
        members = [s for i, s in enumerate(speeches) if not _is_held_out(i)]
        for i, shard in enumerate(np.array_split(np.arange(len(members)), _SHARDS)):
            file = temporary / f"train-{i:05d}-of-{_SHARDS:05d}.arrayrecord"
            train += _write(file, [members[j] for j in shard], meter)
        file = temporary / "held-out-00000-of-00001.arrayrecord"
        held_out = _write(file, [s for i, s in enumerate(speeches) if _is_held_out(i)], meter)
    facts = {
        "train_documents": train.pop(BOS),
        "held_out_documents": held_out[BOS],
        "held_out_tokens": held_out.total(),
        "unigram_entropy": _entropy(train),
    }
    write_json(temporary / "corpus.json", facts)
    temporary.rename(path)


def _is_held_out(index: int) -> bool:
    return index % _HELD_OUT_EVERY == _HELD_OUT_EVERY // 2


def _speeches() -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    with (
        resources.as_file(resources.files("harness") / "data" / "sotu.parquet") as file,
        open(file, "rb") as f,
    ):
        return pq.read_table(f).to_pylist()


def _write(file: Path, speeches: Iterable[dict[str, Any]], meter: Meter) -> Counter[int]:
    """Write speeches as documents. Returns how often each token occurs in them."""
    from array_record.python.array_record_module import ArrayRecordWriter

    counts = Counter[int]()
    writer = ArrayRecordWriter(str(file), "group_size:1")
    for speech in speeches:
        for part, text in enumerate(documents(speech["text"])):
            writer.write(pack_record(speech, part, text))
            counts.update([BOS])
            counts.update(text.encode())
        meter.advance()
    writer.close()
    return counts


def _entropy(counts: Counter[int]) -> float:
    total = counts.total()
    return math.log(total) - math.fsum(n * math.log(n) for n in counts.values()) / total
