"""I/O errors are tried again, then raised and never skipped; any other is raised at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline import Dataset, Loader
from pipeline.nodes import faults


class Shaky:
    """Ten records; the first `failures` reads fail."""

    def __init__(self, failures: int, error: Exception) -> None:
        self.left, self.error, self.reads = failures, error, 0

    def __len__(self) -> int:
        return 10

    def read(self, indices: Any) -> list[int]:
        self.reads += 1
        if self.left:
            self.left -= 1
            raise self.error
        return np.asarray(indices).tolist()


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "PAUSES", (0.0, 0.0))


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_passing_fault_is_never_seen(on_error: Any) -> None:
    source = Shaky(2, TimeoutError("no answer"))
    assert next(Loader(Dataset(source).on_error(on_error), 10)).tolist() == list(range(10))
    assert source.reads == 3


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_lasting_fault_is_raised_never_skipped_and_nothing_is_lost(on_error: Any) -> None:
    source = Shaky(3, TimeoutError("no answer"))
    loader = Loader(Dataset(source).on_error(on_error), 10)
    with pytest.raises(TimeoutError, match="no answer") as caught:
        next(loader)
    assert any("source Shaky, records [0, 1, 2]" in note for note in caught.value.__notes__)
    assert loader.step == 0
    assert next(loader).tolist() == list(range(10))


@pytest.mark.parametrize("error", [FileNotFoundError("gone"), ValueError("bad")])
def test_what_will_not_pass_is_raised_at_once(error: Exception) -> None:
    source = Shaky(1, error)
    with pytest.raises(type(error)):
        next(Loader(Dataset(source), 10))
    assert source.reads == 1


def test_functions_of_the_user_are_tried_again_too() -> None:
    tries: list[int] = []

    def fetch(row: int) -> int:
        tries.append(row)
        if len(tries) == 2:
            raise ConnectionResetError("by peer")
        return row

    assert next(Loader(Dataset(range(3)).map(fetch), 3)).tolist() == [0, 1, 2]
    assert tries == [0, 1, 0, 1, 2]
