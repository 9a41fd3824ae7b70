"""The corpus: cut, split, converted once, whatever kills or races the conversion."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from harness.config import Config
from harness.data import (
    NAME,
    Corpus,
    documents,
    held_out_data,
    prepare,
    training_data,
    unpack_record,
)
from harness.metrics import Screen
from harness.tokens import BOS
from pipeline import ArrayRecordSource, Dataset, Loader
from pipeline.debug.digest import digest
from tests.harness.runs import LIMIT, outcomes, wait_until

GOLDEN = {  # by lanes
    1: ["73b6f0632d299091", "58a1b121f0fbbbce", "8fb2956154a820f0"],
    4: ["6ccc2262c2f86a3a", "c8a0ef333645faec", "eadbb2f1f52e2905"],
}
CONVERT = (
    "import sys, pathlib; from harness.data import prepare; from harness.metrics import Screen;"
    "prepare(pathlib.Path(sys.argv[1]), Screen())"
)


def quiet() -> Screen:
    return Screen(quiet=True)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return prepare(tmp_path_factory.mktemp("corpus"), quiet())


def records(corpus: Corpus, part: str) -> list[bytes]:
    source = ArrayRecordSource(str(corpus.path / f"{part}-*.arrayrecord"))
    return list(source.read(np.arange(len(source))))


def test_documents_lose_nothing_but_spaces() -> None:
    text = "One. Two?  Three! " * 200
    assert "".join("".join(documents(text)).split()) == "".join(text.split())
    assert all(600 <= len(d) < 640 for d in list(documents(text))[:-1])


def held_out(corpus: Corpus, lanes: int = 1) -> Dataset:
    data = held_out_data(corpus, Config(lanes=lanes))
    assert data is not None
    return data


def test_whole_speeches_are_held_out(corpus: Corpus) -> None:
    train = {unpack_record(r)[0]["id"] for r in records(corpus, "train")}
    held_out = {unpack_record(r)[0]["id"] for r in records(corpus, "held-out")}
    assert (len(train), len(held_out), len(train & held_out)) == (224, 9, 0)


def test_facts_are_those_of_the_files(corpus: Corpus) -> None:
    train = [unpack_record(r)[1] for r in records(corpus, "train")]
    held_out = [unpack_record(r)[1] for r in records(corpus, "held-out")]
    assert (len(train), len(held_out)) == (corpus.train_documents, corpus.held_out_documents)
    assert sum(len(t) + 1 for t in held_out) == corpus.held_out_tokens
    p = np.bincount(np.frombuffer(b"".join(train), np.uint8)) / sum(map(len, train))
    assert corpus.unigram_entropy == pytest.approx(-np.sum(p[p > 0] * np.log(p[p > 0])))


@pytest.mark.parametrize("lanes", [1, 4])
def test_evaluation_sees_each_token_exactly_once(corpus: Corpus, lanes: int) -> None:
    loader = Loader(held_out(corpus, lanes), 8, remainder="pad")
    text = b"".join(unpack_record(r)[1] for r in records(corpus, "held-out"))
    seen: list[np.ndarray] = []
    for batch in loader.once():
        real = (batch["segment_ids"] > 0) & batch["mask"][:, None]
        seen.append(batch["tokens"][real])
    tokens = np.concatenate(seen)
    assert len(tokens) == corpus.held_out_tokens
    found = bytes(tokens[tokens != BOS].astype(np.uint8))
    assert found == text if lanes == 1 else sorted(found) == sorted(text)


def test_lanes_change_no_count(corpus: Corpus) -> None:
    loader = Loader(held_out(corpus, lanes=2), 8, remainder="pad")
    real = [np.sum((b["segment_ids"] > 0) & b["mask"][:, None]) for b in loader.once()]
    assert sum(real) == corpus.held_out_tokens


def test_training_rows_are_full(corpus: Corpus) -> None:
    batch = next(Loader(training_data(corpus, Config()), 16))
    assert {k: (v.shape, v.dtype) for k, v in batch.items()} == {
        k: ((16, 256), np.dtype(np.int32)) for k in ("tokens", "segment_ids", "positions")
    }
    assert np.all(batch["segment_ids"] > 0)
    assert np.all((batch["tokens"] == BOS) <= (batch["positions"] == 0))


@pytest.mark.long
def test_a_killed_conversion_leaves_nothing_that_counts(tmp_path: Path, corpus: Corpus) -> None:
    process = subprocess.Popen([sys.executable, "-c", CONVERT, str(tmp_path)], text=True)
    wait_until(lambda: bool(list(tmp_path.glob(f".{NAME}.*/train-00001*"))), [process])
    process.send_signal(signal.SIGKILL)
    process.wait(LIMIT)
    assert not (tmp_path / NAME).exists()
    again = prepare(tmp_path, quiet())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["lock", NAME]
    for file in corpus.path.iterdir():
        assert (again.path / file.name).read_bytes() == file.read_bytes(), file.name


@pytest.mark.long
def test_two_processes_convert_once(tmp_path: Path) -> None:
    both = [
        subprocess.Popen(
            [sys.executable, "-c", CONVERT, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    found = outcomes(both)
    assert [status for status, _ in found] == [0, 0]
    assert sum("convert 233/233" in out for _, out in found) == 1
    assert json.loads((tmp_path / NAME / "corpus.json").read_text())["train_documents"] > 10_000


@pytest.mark.parametrize("lanes", GOLDEN)
def test_the_first_batches_are_as_they_were(corpus: Corpus, lanes: int) -> None:
    # golden: the corpus, its cut, its order and its packing; losses differ by machine, data never
    cfg = Config(length=128, lanes=lanes)
    loader = Loader(training_data(corpus, cfg), 8)
    assert [digest(next(loader)) for _ in range(3)] == GOLDEN[lanes]
