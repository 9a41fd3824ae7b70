"""Mutated files of every kind: an error of ours that names the file, or records; never a second."""

from __future__ import annotations

import contextlib
import os
import random
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline import parse_example
from pipeline.errors import PipelineError, RecordError
from pipeline.sources.storage.advice import Advice
from tests.fuzz.files import KINDS, Kind, example
from tests.fuzz.mutations import mutated

SEED = os.environ.get("LOCKSTEP_FUZZ_SEED", "0")  # others look at other mutations
COUNTS = [560, pytest.param(50_000, marks=pytest.mark.long)]  # over all kinds together
SECONDS = 1.0


def exercise(kind: Kind, path: str) -> str:
    """What is wrong with how a damaged file was handled; "" if nothing is."""
    source = None
    try:
        source = kind.open(path)
        every = np.arange(min(len(source), 1000))
        if getattr(source, "horizon", 0):
            source.ahead(every)
        try:
            source.read(every)
        except RecordError as e:
            if "fuzz" not in str(e):
                return f"no path in {e}"
            for i in every[:8]:
                try:
                    source.read(np.array([i]))
                except RecordError:
                    continue
        source.where(every[:1])
    except PipelineError as e:
        if "fuzz" not in str(e):
            return f"no path in {type(e).__name__}: {e}"
    except Exception as e:
        return f"{type(e).__name__}: {e}"
    finally:
        if source is not None:
            source.close()
    return ""


def timed(kind: Kind, path: str) -> tuple[str, float]:
    """What `exercise` says, and its seconds of CPU."""
    start = time.process_time()
    return exercise(kind, path), time.process_time() - start


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
def test_damaged_files(
    tmp_path: Path,
    kind: Kind,
    count: int,
    monkeypatch: pytest.MonkeyPatch,
    recwarn: pytest.WarningsRecorder,
) -> None:
    monkeypatch.setenv("LOCKSTEP_CACHE", str(tmp_path / "fuzz-cache"))
    monkeypatch.setattr(Advice, "_absent", lambda *_: True)  # so that what is to come is told
    folder = tmp_path / "fuzz"
    folder.mkdir()
    path = folder / kind.name
    kind.write(path)
    assert exercise(kind, str(path)) == ""
    target = folder / (kind.damaged or kind.name)
    whole, wrong = target.read_bytes(), list[str]()
    for number in range(-(-count // len(KINDS))):
        rng = random.Random(f"{SEED} {kind.name} {number}")
        target.write_bytes(mutated(whole, rng))
        said, seconds = timed(kind, str(path))
        if seconds > SECONDS:  # what takes long takes long again; what others delayed does not
            said, again = timed(kind, str(path))
            seconds = min(seconds, again)
        if seconds > SECONDS:
            said += f" took {seconds:.1f} s"
        if said:
            wrong.append(f"{kind.name}, mutation {number}: {said[:300]}")
    assert not wrong, f"{len(wrong)} of them:\n" + "\n".join(wrong[:20])


@pytest.mark.parametrize("count", COUNTS)
def test_damaged_examples(count: int) -> None:
    whole = example()
    assert set(parse_example(whole)) == {"id", "t", "f"}
    for number in range(count // 10):
        data = mutated(whole, random.Random(f"{SEED} example {number}"))
        start = time.process_time()
        with contextlib.suppress(ValueError):
            parse_example(data)
        assert time.process_time() - start < SECONDS
