"""A batch of one work is handed out as it was stacked; nobody else may then refer to its memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline import Dataset, Loader, Processes, Threads

LARGE = 3000  # numbers of a row: a batch of it is a work of its own


def _image(i: int) -> dict[str, Any]:
    return {"image": np.full(LARGE, i, np.float32), "label": i}


@pytest.mark.parametrize("workers", [0, Threads(2), Processes(1)], ids=str)
def test_writing_into_batches_changes_no_other(workers: Any) -> None:
    dataset = Dataset(range(400)).shuffle().map(_image)
    with Loader(dataset, 64, workers=workers) as loader, Loader(dataset, 64) as other:
        kept: list[Any] = []
        for step, batch in enumerate(loader):
            expected = other[step]
            for key, column in expected.items():
                np.testing.assert_array_equal(batch[key], column)
                batch[key][:] = -1  # the batch is the loop's own
            kept.append(batch)
        assert all((batch["image"] == -1).all() for batch in kept)
        again = loader[2]
    np.testing.assert_array_equal(again["image"], other[2]["image"])


def test_rows_that_a_user_keeps_are_copied() -> None:
    kept = {i: np.full(LARGE, i, np.float32) for i in range(256)}
    shared = [["a", "b"] for _ in range(256)]
    rows = Dataset(range(256)).map(lambda i: {"x": kept[i], "words": shared[i]})
    for batch in Loader(rows, 64):
        batch["x"][:] = -1
        for words in batch["words"]:
            words[:] = ["changed"]
    assert all((a == i).all() for i, a in kept.items())
    assert shared[0] == ["a", "b"]
