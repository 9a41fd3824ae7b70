"""A run on 2, 4, then 1 ranks in somebody's trainer: what each rank was given, step by step."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.doctor_peers.environments import variables
from pipeline import Dataset, Loader, mix

ROOT = Path(__file__).parents[2]
BATCH, STEPS, PASS, LENGTH = 8, 3, 12, 16
RANKS = (2, 4, 1)


def dataset() -> Dataset:
    """Two packed components, mixed, in lanes that four ranks can share."""

    def part(seed: int) -> Dataset:
        documents = [np.full(1 + i % 7, i, np.int32) for i in range(300)]
        return Dataset(documents, seed=seed).shuffle().pack(LENGTH + 1)

    return mix({"a": part(1), "b": part(2)}, {"a": 2, "b": 1}, stop="never").lanes(4)


def expected() -> list[Any]:
    """The global batches of all stages, by one Loader: tokens of each row."""
    loader = Loader(dataset(), BATCH, steps=PASS)
    return [next(loader)["tokens"].tolist() for _ in range(STEPS * len(RANKS))]


def peer(name: str, *folders: str | Path) -> dict[str, str]:
    """The environment of a peer's interpreter; skips the test where it does not install."""
    try:
        return variables(name, *folders)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"needs {name}, which does not install: {error}")


def global_batches(trainer: str, folder: Path, env: dict[str, str]) -> list[Any]:
    """What the ranks of all stages were given, joined: `tests.compat.trainers` runs in each."""
    joined: list[Any] = []
    for stage, ranks in enumerate(RANKS):
        running = [_rank(trainer, folder, env, stage, rank) for rank in range(ranks)]
        try:
            said = [process.communicate(timeout=240)[1] for process in running]
        finally:
            for process in running:
                process.kill()  # one that failed or hangs leaves the others waiting
        failed = [text[-3000:] for p, text in zip(running, said, strict=True) if p.returncode]
        assert not failed, failed[0]
        seen = [json.loads((folder / f"{stage}.{r}.json").read_text()) for r in range(ranks)]
        assert {len(s) for s in seen} == {STEPS}, [len(s) for s in seen]
        joined += [list(chain(*parts)) for parts in zip(*seen, strict=True)]
    return joined


def _rank(trainer: str, folder: Path, env: dict[str, str], stage: int, rank: int) -> Any:
    port = folder / f"{stage}.port"
    if not port.exists():
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port.write_text(str(free.getsockname()[1]))
    place = {
        **{"RANK": rank, "LOCAL_RANK": 0, "GROUP_RANK": rank, "WORLD_SIZE": RANKS[stage]},
        **{"LOCAL_WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port.read_text()},
        **{"TORCHELASTIC_RUN_ID": "test", "OMP_NUM_THREADS": 1, "ACCELERATE_USE_CPU": "true"},
    }
    return subprocess.Popen(
        [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "tests.compat.trainers",
            trainer,
            folder,
            str(stage),
        ],
        cwd=ROOT,
        env=env | {name: str(value) for name, value in place.items()},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
