"""Golden digests pin the data of fixed datasets; changed data means changed JSON, in one commit.

`python -m tests.test_golden` writes it anew; CHANGELOG then says "Data changed".
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest

from pipeline import Loader
from tests.datasets import Files, Op, build, run

GOLDEN = Path(__file__).parent / "golden" / "batches.json"
RECIPES: dict[str, tuple[str, int, int, list[Op]]] = {
    "columns, shuffled": ("columns", 1000, 0, [("shuffle",)]),
    "columns, a large shuffle": ("columns", 100_003, 5, [("shuffle",)]),
    "array_record, random_map": ("array_record", 40, 1, [("shuffle",), ("random_map",)]),
    "parquet, split stability": (
        "parquet",
        50,
        2,
        [("shuffle",), ("slice", 5, 30, 2), ("repeat", 3), ("map_with_index",)],
    ),
    "list, pinned": ("list", 30, 3, [("pinned",), ("batched",), ("repeat", 2)]),
    "filter and flat_map in lanes": (
        "columns",
        200,
        4,
        [("shuffle",), ("filter", 8), ("flat_map", 16), ("random_map",), ("lanes", 4)],
    ),
    "packed by splitting": ("list", 100, 0, [("shuffle",), ("split", 16), ("lanes", 2)]),
    "packed by first fit": ("array_record", 100, 7, [("shuffle",), ("first_fit", 32)]),
}


def current(files: Files) -> dict[str, list[str]]:
    """Digests of the first batches, over the end of an epoch, of each dataset."""
    return {name: run(Loader(build(files, r), 8), 14) for name, r in RECIPES.items()}


@pytest.fixture(scope="module")
def digests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    return current(Files(tmp_path_factory.mktemp("golden")))


@pytest.mark.parametrize("name", RECIPES)
def test_data_is_as_it_was(name: str, digests: dict[str, list[str]]) -> None:
    assert digests[name] == json.loads(GOLDEN.read_text())[name]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        GOLDEN.write_text(json.dumps(current(Files(Path(folder))), indent=1) + "\n")
