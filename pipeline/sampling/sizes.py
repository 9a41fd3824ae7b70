"""The batch size of each step: a single one, or a schedule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.checks import whole
from pipeline.errors import BatchError

Sizes = tuple[tuple[int, int], ...]  # (first step, rows in a batch), ascending from step 0
Rule = tuple[Sizes, str, int | None]  # batch sizes, remainder, steps in a pass
MOST_ROWS = 1 << 30  # rows of one batch


def sizes_of(batch_size: Any) -> Sizes:
    """A batch size as a schedule, or a schedule, checked.

    Args:
        batch_size: an int, or [(from_step, int), …].

    Raises:
        BatchError: a size is not a positive int, or the steps do not ascend from 0.

    >>> sizes_of(64), sizes_of([(0, 64), (1000, 128)])
    (((0, 64),), ((0, 64), (1000, 128)))
    """
    if not isinstance(batch_size, list | tuple):
        return ((0, whole("batch_size", batch_size, 1, BatchError, MOST_ROWS)),)
    parts: list[tuple[int, int]] = []
    for part in batch_size:
        if not isinstance(part, Sequence) or isinstance(part, str) or len(part) != 2:
            raise BatchError(
                f"batch_size={batch_size!r}: give pairs (from_step, rows), not {part!r}"
            )
        since = whole("batch_size from_step", part[0], 0, BatchError)
        parts.append((since, whole("batch_size", part[1], 1, BatchError, MOST_ROWS)))
    steps = [since for since, _ in parts]
    if not parts or steps[0] != 0 or steps != sorted(set(steps)):
        raise BatchError(
            f"batch_size={batch_size!r}: the steps of a schedule rise from 0, as in "
            "[(0, 64), (1000, 128)]"
        )
    return tuple(p for i, p in enumerate(parts) if i == 0 or p[1] != parts[i - 1][1])


def size_at(sizes: Sizes, step: int) -> int:
    """Rows in a full batch at a step."""
    return next(size for since, size in reversed(sizes) if since <= step)


def agree(one: Sizes, other: Sizes, start: int, stop: int) -> bool:
    """Whether two schedules have the same batch sizes in steps [start, stop).

    >>> short, long = ((0, 4),), ((0, 4), (9, 8))
    >>> agree(short, long, 0, 9), agree(short, long, 0, 10), agree(((0, 8),), long, 9, 99)
    (True, False, True)
    """
    return _between(one, start, stop) == _between(other, start, stop)


def _between(sizes: Sizes, start: int, stop: int) -> list[tuple[int, int]]:
    if start >= stop:
        return []
    later = [part for part in sizes if start < part[0] < stop]
    return [(start, size_at(sizes, start)), *later]
