"""Checking that indices lie inside a source."""

from __future__ import annotations

from typing import Any

from pipeline.block import Int64s, as_int64
from pipeline.errors import PositionError


def inside(indices: Any, n: int) -> Int64s:
    """Indices as int64[k], each checked to lie in `[0, n)`.

    Raises:
        PositionError: one is negative, or n or more; the message shows the first few.

    >>> inside([2, 0, 2], 3)
    array([2, 0, 2])
    >>> inside([1, 3, -1], 3)
    Traceback (most recent call last):
    pipeline.errors.PositionError: no records at [3, -1]: the source has 3, numbered 0 to 2. Ask
    for indices in that range; negative ones do not count from the end here.
    """
    wanted = as_int64(indices)
    if len(wanted) and not 0 <= wanted.min() <= wanted.max() < n:
        outside = (wanted < 0) | (wanted >= n)
        shown = ", ".join(str(i) for i in wanted[outside][:5])
        more = ", …" if outside.sum() > 5 else ""
        held = f"the source has {n}, numbered 0 to {n - 1}" if n else "the source has none at all"
        raise PositionError(
            f"no records at [{shown}{more}]: {held}. "
            "Ask for indices in that range; negative ones do not count from the end here."
        )
    return wanted
