"""Rows that fail under `on_error("skip")` are looked at once, and logged as ranges."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

from pipeline import Dataset, Loader, concatenate
from pipeline.errors import RecordError

N, BAD = 3000, range(1000, 2000)


class Corrupt:
    """Numbers of which a run cannot be read, as of a damaged row group."""

    def __init__(self, bad: range = BAD) -> None:
        self.bad, self.failed = bad, 0

    def __len__(self) -> int:
        return N

    def read(self, indices: Any) -> list[int]:
        if np.isin(indices, self.bad).any():
            self.failed += 1
            raise RecordError("a page's checksum does not match")
        return indices.tolist()


@pytest.mark.parametrize("passes", [1, 3])
def test_a_run_of_bad_records_is_walked_once(passes: int, caplog: pytest.LogCaptureFixture) -> None:
    source = Corrupt()
    loader = Loader(Dataset(source).on_error("skip"), 100)
    with caplog.at_level(logging.WARNING, logger="pipeline"):
        for _ in range(passes):
            rows = np.concatenate([*loader]).tolist()
            good = [*range(1000), *range(2000, N)]
            assert rows == [*range(1000), *[2000] * 1000, *range(2000, N)]
            assert set(rows) == set(good)
    assert source.failed <= passes * 2.5 * len(BAD)
    assert len(caplog.messages) <= 12 * passes
    assert " records, record 1000 of Corrupt" in "".join(caplog.messages)


def test_a_batch_that_wraps_round_the_end_goes_on_at_the_start() -> None:
    ds = Dataset(Corrupt(range(2900, N))).on_error("skip")
    assert ds.read([2950, 2899, 2999]).rows() == [0, 2899, 0]
    joined = concatenate([ds, ds])
    assert joined.read([2950, N + 2950]).rows() == [0, 0]


def test_an_epoch_of_bad_records_raises_their_error() -> None:
    ds = Dataset(Corrupt(range(N)))[:50].on_error("skip")
    for _ in range(2):
        with pytest.raises(RecordError, match="checksum"):
            ds.read([7])
