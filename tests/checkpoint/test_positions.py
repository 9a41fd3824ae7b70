"""States that an earlier version wrote, of every kind of dataset and position, still restore.

The files in tests/golden/positions were written once, by the code before datasets became trees of
nodes: `python -m tests.checkpoint.test_positions` run with that code. They are never written anew.
A case says which dataset a loader read, what was done to it before its state was saved, and which
loader goes on from there; its file holds the state and the digests of what then came.
"""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest

from pipeline import Loader, merge
from pipeline.debug.digest import digest
from tests.datasets import Files, build, run

FOLDER = Path(__file__).parents[1] / "golden" / "positions"
WEIGHTS = [(0, [2, 1]), (50, [1, 3])]
SOURCES: dict[str, tuple[Any, int, int, list[Any]]] = {
    "indexed": ("columns", 50, 1, [("shuffle",), ("random_map",)]),
    "endless": ("list", 23, 1, [("shuffle",), ("random_map",), ("repeat", None)]),
    "pinned": ("columns", 50, 2, [("shuffle",), ("slice", 5, 45, 2), ("repeat", 3)]),
    "window": ("parquet", 40, 2, [("window",), ("map_with_index",)]),
    "selected": ("list", 30, 3, [("pinned",), ("select", [5, 3, 25, 9, 9]), ("repeat", 4)]),
    "concatenated": (
        ("concatenate", [("list", 19, 0, [("shuffle",)]), ("columns", 12, 0, [])]),
        0,
        1,
        [("shuffle",), ("random_map",)],
    ),
    "mix": (
        (
            "mix",
            [("columns", 40, 1, [("shuffle",)]), ("list", 21, 0, [("random_map",)])],
            WEIGHTS,
            "all",
        ),
        0,
        2,
        [("random_map",)],
    ),
    "endless mix": (
        (
            "mix",
            [("columns", 40, 1, [("shuffle",)]), ("list", 21, 0, [("shuffle",)])],
            WEIGHTS,
            "never",
        ),
        0,
        2,
        [],
    ),
    "nested mix": (
        (
            "mix",
            [
                (
                    (
                        "mix",
                        [("list", 17, 0, [("shuffle",)]), ("list", 8, 1, [("shuffle",)])],
                        [(0, [1, 1])],
                        "all",
                    ),
                    0,
                    0,
                    [("map",)],
                ),
                ("columns", 21, 0, [("shuffle",)]),
            ],
            [(0, [1, 1])],
            "never",
        ),
        0,
        2,
        [("random_map",)],
    ),
    "filter": ("columns", 90, 4, [("shuffle",), ("filter", 8), ("random_map",)]),
    "lanes": (
        "columns",
        200,
        4,
        [("shuffle",), ("filter", 8), ("flat_map", 16), ("lanes", 4), ("repeat", None)],
    ),
    "finite lanes": ("columns", 90, 4, [("shuffle",), ("filter", 8), ("lanes", 4)]),
    "packed": ("list", 100, 7, [("shuffle",), ("first_fit", 16), ("repeat", None)]),
    "packed in lanes": ("list", 100, 7, [("shuffle",), ("split", 16), ("lanes", 2)]),
    "packed by a scan": ("columns", 80, 3, [("shuffle",), ("packed", "split", 32)]),
    "filtered by a scan": ("columns", 90, 3, [("kept",), ("shuffle",)]),
    "counted mix": (
        (
            "mix",
            [
                ("columns", 80, 1, [("shuffle",), ("filter", 8)]),
                ("list", 30, 0, [("shuffle",), ("random_map",)]),
            ],
            [(0, [2, 1]), (24, [1, 1])],
            "never",
        ),
        0,
        2,
        [("random_map",), ("lanes", 2)],
    ),
    "finite counted mix": (
        (
            "mix",
            [
                ("columns", 40, 1, [("shuffle",), ("filter", 8)]),
                ("list", 20, 0, [("shuffle",), ("flat_map", 8)]),
            ],
            [(0, [2, 1])],
            "all",
        ),
        0,
        2,
        [("random_map",)],
    ),
    "nested counted mix, packed": (
        (
            "mix",
            [
                (
                    (
                        "mix",
                        [
                            ("columns", 80, 1, [("shuffle",), ("filter", 8)]),
                            ("list", 30, 0, [("shuffle",)]),
                        ],
                        [(0, [1, 1])],
                        "never",
                    ),
                    0,
                    0,
                    [("filter", 8)],
                ),
                ("list", 25, 0, [("flat_map", 4)]),
            ],
            [(0, [2, 1])],
            "never",
        ),
        0,
        2,
        [("random_map",), ("first_fit", 16), ("lanes", 2)],
    ),
}

PLAN = [(0, 4), (3, 8), (9, 4)]
# name: (dataset, the loader that saves, what is done with it, the loader that restores)
Case = tuple[str, dict[str, Any], list[tuple[Any, ...]], dict[str, Any]]
CASES: dict[str, Case] = {}
for _name in SOURCES:
    CASES[f"{_name}, at the start"] = _name, {}, [], {}
    CASES[f"{_name}, on the way"] = _name, {}, [("run", 3)], {}
    CASES[f"{_name}, in a later pass"] = _name, {}, [("run", 21)], {}
    CASES[f"{_name}, steps skipped"] = _name, {}, [("run", 3), ("steps", 5, 7), ("run", 1)], {}
    CASES[f"{_name}, records left out"] = _name, {}, [("run", 2), ("records", 3), ("run", 2)], {}
    CASES[f"{_name}, padded"] = _name, {"remainder": "pad"}, [("run", 9)], {"remainder": "pad"}
    CASES[f"{_name}, schedule"] = _name, {"batch_size": PLAN}, [("run", 5)], {"batch_size": PLAN}
    CASES[f"{_name}, another batch size"] = _name, {}, [("run", 3)], {"batch_size": 8}
for _name in ("indexed", "mix", "lanes", "packed in lanes", "counted mix"):
    CASES[f"{_name}, twice another batch size"] = (
        _name,
        {"batch_size": 8},
        [("run", 3), ("reopen", {"batch_size": 4}), ("run", 2)],
        {},
    )
    CASES[f"{_name}, steps skipped after another batch size"] = (
        _name,
        {"batch_size": 8},
        [("run", 3), ("reopen", {"batch_size": 4}), ("run", 1), ("steps", 6, 8)],
        {},
    )
    CASES[f"{_name}, both kinds of skips"] = (
        _name,
        {},
        [("run", 2), ("records", 3), ("run", 1), ("records", 4), ("steps", 5, 9)],
        {},
    )
    CASES[f"{_name}, of two hosts"] = (
        _name,
        {"hosts": 2, "steps": 5},
        [("run", 3), ("steps", 7, 8)],
        {"steps": 5},
    )
    CASES[f"{_name}, for two hosts"] = (
        _name,
        {"steps": 5},
        [("run", 6), ("records", 5)],
        {"hosts": 2, "steps": 5},
    )
CASES["indexed, drop"] = "indexed", {"remainder": "drop"}, [("run", 13)], {"remainder": "drop"}
CASES["filter, drop"] = "filter", {"remainder": "drop"}, [("run", 16)], {"remainder": "drop"}
CASES["indexed, keep to drop"] = "indexed", {}, [("run", 12)], {"remainder": "drop"}
CASES["filter, keep to drop"] = "filter", {}, [("run", 15)], {"remainder": "drop"}
CASES["indexed, fewer steps"] = "indexed", {}, [("run", 4)], {"steps": 3}
CASES["finite lanes, padded hosts"] = (
    "finite lanes",
    {"remainder": "pad"},
    [("run", 9)],
    {"remainder": "pad", "hosts": 2},
)
CASES["endless, sought far"] = "endless", {}, [("seek", 10**9)], {}


def opened(files: Files, source: str, options: dict[str, Any]) -> list[Loader]:
    """The loaders of all hosts."""
    options = {"batch_size": 4, **options}
    hosts = options.pop("hosts", None)
    kind, n, seed, ops = SOURCES[source]
    ds = build(files, (kind, n, seed, [op for op in ops if op != ("repeat", None)]))
    ds = ds.repeat() if ("repeat", None) in ops else ds
    if hosts is None:
        return [Loader(ds, **options)]
    ds = ds.lanes(hosts) if ds.counted and ds.top.lanes < hosts else ds
    return [Loader(ds, host=host, hosts=hosts, **options) for host in range(hosts)]


def done(files: Files, source: str, options: dict[str, Any], doing: list[Any]) -> dict[str, Any]:
    """The state after what is to be done."""
    loaders = opened(files, source, options)
    for what, *args in doing:
        if what == "reopen":
            state = merge([loader.state_dict() for loader in loaders])
            loaders = opened(files, source, args[0])
            for loader in loaders:
                loader.load_state_dict(state)
            continue
        for loader in loaders:
            if what == "run":
                run(loader, *args)
            elif what == "seek":
                loader.seek(*args)
            elif what == "steps":
                loader.skip(range(*args))
            else:
                component = "/".join(loader._dataset.components[0].path)
                loader.skip(records=(component, args[0]))
    return merge([loader.state_dict() for loader in loaders])


def seen(loaders: list[Loader]) -> dict[str, Any]:
    """What comes next."""
    back = [
        digest(loader[loader.step + 1]) if loader.step < 10**6 else "" for loader in loaders[:1]
    ]
    return {
        "step": [loader.step for loader in loaders],
        "epoch": [loader.epoch for loader in loaders],
        "peeked": back,
        "next": [run(loader, 9) for loader in loaders],
        "then": [[loader.step, loader.epoch] for loader in loaders],
    }


def restored(files: Files, case: Case, state: dict[str, Any]) -> list[Loader]:
    source, _, _, options = case
    loaders = opened(files, source, options)
    for loader in loaders:
        # digests of code depend on the Python version, those of files on who wrote them
        allow = {k for k in loader._dataset.fingerprint() if re.search(r"source$|stages\.\d+$", k)}
        loader.load_state_dict(state, allow={*allow, *_flat(state["dataset"])})
    return loaders


def _flat(dataset: dict[str, Any]) -> set[str]:
    stages = {f"{k}.{i}" for k, v in dataset.items() if k.endswith("stages") for i in range(len(v))}
    return {k for k in dataset if k.endswith("source")} | stages


def path_of(name: str) -> Path:
    return FOLDER / f"{re.sub('[^a-z0-9]+', '-', name)}.json"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("positions"))


@pytest.mark.parametrize("name", CASES)
def test_a_state_of_an_earlier_version_restores(name: str, files: Files) -> None:
    kept = json.loads(path_of(name).read_text())
    loaders = restored(files, CASES[name], kept["state"])
    assert seen(loaders) == kept["seen"]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        made = Files(Path(folder))
        FOLDER.mkdir(exist_ok=True)
        for name, case in CASES.items():
            state = json.loads(json.dumps(done(made, *case[:3])))
            kept = {"state": state, "seen": seen(restored(made, case, state))}
            path_of(name).write_text(json.dumps(kept) + "\n")
