"""Batches of an indexed dataset: arithmetic, then one read."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from pipeline import Dataset, mix
from pipeline.errors import BatchError
from tests.batches.checks import check_hosts, check_stream, opened, walked

SIZES: list[Any] = [1, 5, 8, [(0, 3), (4, 7)]]


@pytest.mark.parametrize(
    ("n", "size", "remainder"), list(product([8, 21], SIZES, ["keep", "drop", "pad"]))
)
def test_an_indexed_stream(n: int, size: Any, remainder: str) -> None:
    check_stream(Dataset(range(n), seed=1).shuffle().map(lambda x: {"x": x}), size, remainder)


@pytest.mark.parametrize("steps", [1, 3, 9])
def test_with_so_many_steps_a_pass(steps: int) -> None:
    check_stream(Dataset(range(17), seed=1).shuffle().repeat(), 4, steps=steps)


def test_of_what_never_ends_and_of_joins() -> None:
    parts = {name: Dataset(range(9), seed=i).shuffle() for i, name in enumerate("ab")}
    check_stream(mix(parts, {"a": 2, "b": 1}, "never"), 5)
    check_stream(Dataset(range(7), seed=1).shuffle().repeat(), 6)


@pytest.mark.parametrize(("hosts", "remainder"), list(product([2, 3, 4], ["drop", "pad"])))
def test_hosts_share_it_by_rows(hosts: int, remainder: str) -> None:
    check_hosts(Dataset(range(50), seed=1).shuffle(), 12, hosts, remainder=remainder)


def test_a_pass_is_cut_as_its_remainder_says() -> None:
    def sizes(remainder: str) -> list[int]:
        stream = opened(Dataset(range(10)), 4, remainder)
        return [len(take.block) for _, take in walked(stream, 1)]

    assert [sizes(r) for r in ("keep", "drop", "pad")] == [[4, 4, 2], [4, 4], [4, 4, 2]]
    assert walked(opened(Dataset(range(10)), 4, "pad"), 1)[-1][1].total == 4


@pytest.mark.parametrize(("n", "steps"), [(3, None), (10, 3)])
def test_a_pass_without_its_batches_is_refused(n: int, steps: int | None) -> None:
    with pytest.raises(BatchError):
        opened(Dataset(range(n)), 4, "drop", steps=steps)
