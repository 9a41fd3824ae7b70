"""A user's script type-checks: a Loader's batches have the type that Python can carry."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = """
from collections.abc import Iterator
import numpy as np
from pipeline import Dataset, Loader, pad_to

ds = Dataset({"x": np.arange(10)}).shuffle().map(lambda row: row)

def joined(rows: list[dict[str, int]]) -> tuple[int, ...]:
    return tuple(row["x"] for row in rows)

reveal_type(next(Loader(ds, 4, collate=joined)))
reveal_type(Loader(ds, 4, collate=pad_to(8))[0])
for batch in Loader(ds, 4):
    reveal_type(batch)
own = Loader[dict[str, np.ndarray]](ds, 4, workers=2)
for batch in own.once():
    reveal_type(batch)
first: Iterator[tuple[int, ...]] = iter(Loader(ds, 4, collate=joined))
wrong: Iterator[str] = iter(Loader(ds, 4, collate=joined))  # the one error
"""


@pytest.mark.long
def test_a_script_type_checks(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "pyrightconfig.json").write_text(
        f'{{"extraPaths": ["{ROOT}"], "typeCheckingMode": "strict"}}'
    )
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    found = [line.split(" is ")[1] for line in done.stdout.splitlines() if "Type of" in line]
    assert found == [
        '"tuple[int, ...]"',
        '"dict[str, Any]"',
        '"Any"',
        '"dict[str, ndarray[tuple[Any, ...], dtype[Any]]]"',
    ], done.stdout
    assert done.stdout.count("- error:") == 1, done.stdout
    assert "script.py:19" in done.stdout


def test_packages_ship_their_types() -> None:
    assert all((ROOT / package / "py.typed").exists() for package in ("pipeline", "harness"))
