"""random_map(seed_globals=True): global generators depend on the row alone, and are left alone."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipeline import Dataset, Loader
from pipeline.errors import ChainError

rand: Callable[[], float] = np.random.rand


def noisy(row: Any, rng: np.random.Generator) -> Any:
    return {"id": row["id"], "v": (random.random(), float(rand()), float(rng.random()))}


def noise(seed: int = 0, **options: Any) -> Dataset:
    ds = Dataset({"id": np.arange(12)}, seed=seed)
    return ds.random_map(noisy, seed_globals=True, **options)


def values(ds: Dataset) -> dict[int, Any]:
    return {int(row["id"]): row["v"] for row in ds}


def test_rows_depend_on_provenance_alone() -> None:
    whole = values(noise())
    assert len({v for row in whole.values() for v in row}) == 36
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    assert values(noise()) == whole
    shuffled = Dataset({"id": np.arange(12)}).shuffle().random_map(noisy, seed_globals=True)
    assert values(shuffled) == whole
    assert {i: noise()[i]["v"] for i in (7, 3)} == {i: whole[i] for i in (7, 3)}
    for other in (noise(seed=1), noise(name="other")):
        assert not {r[0] for r in values(other).values()} & {r[0] for r in whole.values()}


def test_epochs_differ() -> None:
    loader = Loader(noise(), 12)
    first, second = (next(loader)["v"][0].tolist() for _ in range(2))
    assert not set(first) & set(second)


@pytest.mark.parametrize("fails", [False, True])
def test_the_generators_go_on_where_they_were(fails: bool) -> None:
    def draw(row: Any, rng: Any) -> Any:
        noisy(row, rng)
        if fails:
            raise ValueError("bad row")
        return row

    def drawn(between: Callable[[], Any]) -> tuple[float, float]:
        random.seed(5)
        np.random.seed(5)  # noqa: NPY002
        between()
        return random.random(), float(rand())

    ds = Dataset({"id": np.arange(3)}).random_map(draw, seed_globals=True)

    def read() -> None:
        try:
            assert len(list(ds)) == 3
        except ValueError:
            assert fails

    assert drawn(read) == drawn(lambda: None)


def test_seeding_is_part_of_the_data() -> None:
    plain = Dataset({"id": np.arange(12)}).random_map(noisy)
    assert plain.fingerprint() != noise().fingerprint()
    # data of the plain kind must not change because the other kind exists
    assert values(plain)[0][2] == values(plain)[0][2] != values(noise())[0][2]


def test_threads_are_refused() -> None:
    caught: list[Exception] = []

    def read() -> None:
        try:
            list(noise())
        except ChainError as e:
            caught.append(e)

    thread = threading.Thread(target=read, name="lockstep-0")
    thread.start()
    thread.join()
    assert "stage 0: random_map 'noisy' seeds the global generators" in str(caught[0])
    assert "'lockstep-0'" in str(caught[0])


_IMPORTS_LATE = """
import json, sys
from pipeline import Dataset

def late(row, rng):
    import torch
    return torch.rand(2).tolist() + [float(rng.random())]

assert "torch" not in sys.modules
first = list(Dataset(range(3)).random_map(late, seed_globals=True))
import torch
went_on = torch.rand(1).item()
torch.manual_seed(0)
again = list(Dataset(range(3)).random_map(late, seed_globals=True))
after = torch.rand(1).item()
torch.manual_seed(0)
print(json.dumps([first, again, after == torch.rand(1).item(), went_on]))
"""


@pytest.mark.long
@pytest.mark.slow
def test_torch_is_seeded_even_if_the_function_imports_it() -> None:
    torch = pytest.importorskip(
        "torch", reason="needs the extra: pip install 'lockstep-data[torch]'"
    )
    command = [sys.executable, "-c", _IMPORTS_LATE]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    first, again, kept, went_on = json.loads(out)
    assert first == again
    assert len({x for row in first for x in row}) == 9
    assert kept
    assert went_on == torch.rand(1, generator=torch.Generator()).item()
