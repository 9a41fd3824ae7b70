"""Golden digests pin the data of fixed datasets; changed data means changed JSON, in one commit.

`python -m tests.test_golden` writes it anew; CHANGELOG then says "Data changed".
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from pipeline import Loader
from tests.datasets import Files, Op, build, run

GOLDEN = Path(__file__).parent / "golden" / "batches.json"
RECIPES: dict[str, tuple[Any, int, int, list[Op]]] = {
    "columns, shuffled": ("columns", 1000, 0, [("shuffle",)]),
    "columns, a large shuffle": ("columns", 100_003, 5, [("shuffle",)]),
    "array_record, random_map": ("array_record", 40, 1, [("shuffle",), ("random_map",)]),
    "parquet, split stability": (
        "parquet",
        50,
        2,
        [("shuffle",), ("slice", 5, 30, 2), ("repeat", 3), ("map_with_index",)],
    ),
    "parquet, chunk shuffle": ("parquet", 50, 2, [("chunks", 3, None), ("random_map",)]),
    "columns, chunk shuffle of runs": ("columns", 1000, 0, [("batched",), ("chunks", 4, 7)]),
    "list, chosen and in turn": (
        "list",
        20,
        1,
        [("shuffle",), ("interleave", 7, 2, 2), ("select", [5, 3, 5, 25]), ("random_map",)],
    ),
    "list, pinned": ("list", 30, 3, [("pinned",), ("batched",), ("repeat", 2)]),
    "filter and flat_map in lanes": (
        "columns",
        200,
        4,
        [("shuffle",), ("filter", 8), ("flat_map", 16), ("random_map",), ("lanes", 4)],
    ),
    "random_map above two flat_maps": (
        "list",
        60,
        4,
        [("flat_map", 16), ("flat_map", 16), ("random_map",), ("lanes", 2)],
    ),
    "packed by splitting": ("list", 100, 0, [("shuffle",), ("split", 16), ("lanes", 2)]),
    "an indexed mix": (
        (
            "mix",
            [
                ("columns", 40, 1, [("shuffle",), ("random_map",)]),
                (("concatenate", [("list", 9, 0, []), ("parquet", 12, 0, [])]), 0, 0, []),
            ],
            [(0, [2, 1]), (50, [0.3, 0.7])],
            "all",
        ),
        0,
        2,
        [("random_map",)],
    ),
    "a counted mix in lanes, with a schedule": (
        (
            "mix",
            [
                ("columns", 80, 1, [("shuffle",), ("filter", 8)]),
                ("list", 30, 0, [("shuffle",), ("random_map",)]),
                ("array_record", 25, 0, [("flat_map", 4)]),
            ],
            [(0, [2, 1, 0]), (24, [1, 1, 5])],
            "never",
        ),
        0,
        2,
        [("random_map",), ("first_fit", 16), ("lanes", 2)],
    ),
    "filtered by a scan": ("columns", 1000, 3, [("kept",), ("shuffle",), ("random_map",)]),
    "split by a scan": ("columns", 300, 3, [("shuffle",), ("packed", "split", 32), ("shuffle",)]),
    "fitted by a scan": ("columns", 300, 3, [("packed", "best_fit", 32), ("shuffle",)]),
    "packed by first fit": ("array_record", 100, 7, [("shuffle",), ("first_fit", 32)]),
    "packed longest first": ("list", 100, 7, [("shuffle",), ("longest_first", 32)]),
    "packed by best fit": ("list", 100, 7, [("shuffle",), ("best_fit", 32), ("lanes", 2)]),
    "packed whole": ("list", 100, 7, [("shuffle",), ("whole", 32)]),
    "bucketed": ("columns", 100, 7, [("shuffle",), ("bucket", 32), ("lanes", 2)]),
}


STATES = Path(__file__).parent / "golden" / "states.json"
KEPT = (
    "columns, shuffled",
    "parquet, split stability",
    "packed by first fit",
    "an indexed mix",
    "a counted mix in lanes, with a schedule",
)


def saved(files: Files) -> dict[str, Any]:
    """States of some datasets as they are written, and the digest of the batch after each."""
    out: dict[str, Any] = {}
    for name in KEPT:
        loader = Loader(build(files, RECIPES[name]), 4)
        run(loader, 3)
        loader.skip(range(5, 7))
        out[name] = {"state": loader.state_dict(), "next": run(loader, 4)}
    return out


def current(files: Files) -> dict[str, list[str]]:
    """Digests of the first batches, over the end of an epoch, of each dataset."""
    return {name: run(Loader(build(files, r), 8), 14) for name, r in RECIPES.items()}


@pytest.fixture(scope="module")
def digests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    return current(Files(tmp_path_factory.mktemp("golden")))


@pytest.mark.parametrize("name", RECIPES)
def test_data_is_as_it_was(name: str, digests: dict[str, list[str]]) -> None:
    assert digests[name] == json.loads(GOLDEN.read_text())[name]


@pytest.mark.parametrize("name", KEPT)
def test_states_of_earlier_versions_are_read(name: str, tmp_path: Path) -> None:
    kept = json.loads(STATES.read_text())[name]
    loader = Loader(build(Files(tmp_path), RECIPES[name]), 4)
    # code digests depend on the Python version, what files hold on their writer's
    functions = {k for k in loader.state_dict()["dataset"] if k == "source"}
    functions |= {k for k in kept["state"]["dataset"] if k.endswith("source")}
    functions |= {f"stages.{i}" for i in range(len(RECIPES[name][3]) + 2)}
    parts = ("c0", "c1", "c1.0", "c1.1", "c2")
    functions |= {f"{part}.stages.{i}" for part in parts for i in range(3)}
    loader.load_state_dict(kept["state"], allow=functions)
    assert run(loader, 4) == kept["next"]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        files = Files(Path(folder))
        GOLDEN.write_text(json.dumps(current(files), indent=1) + "\n")
        STATES.write_text(json.dumps(saved(files), indent=1) + "\n")
