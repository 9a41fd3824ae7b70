"""Chooses a row for each document: the first, or the best, of those with room for it."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.block import Int64s


def weights(limits: Int64s) -> NDArray[Any]:
    """The weight of a token of each field, such that all fields' full rows weigh the same: exact.

    >>> weights(np.array([512, 128])).tolist()
    [1, 4]
    """
    common = math.lcm(*limits.tolist())
    exact = np.int64 if len(limits) * common < 1 << 62 else object
    return np.array([common // limit for limit in limits.tolist()], exact)


def _first_fit(needs: Int64s, limits: Int64s, most: int) -> list[int]:
    # a tree of maxima over the rows' room: the first row with enough is found in log2(rows) steps
    leaves = 1 << max(0, len(needs) - 1).bit_length()
    room = [int(limits[0])] * (2 * leaves)
    held = [0] * leaves
    rows: list[int] = []
    for need in needs[:, 0].tolist():
        node = 1
        while node < leaves:
            node *= 2
            if room[node] < need:
                node += 1
        row = node - leaves
        rows.append(row)
        held[row] += 1
        room[node] = room[node] - need if held[row] < most else 0
        while node > 1:
            left, right = room[node & ~1], room[node | 1]
            node >>= 1
            most_room = left if left > right else right
            if room[node] == most_room:
                break
            room[node] = most_room
    return rows


def _best_fit(needs: Int64s, limits: Int64s, most: int) -> list[int]:
    # rows with room, sorted by (room, row) in one number each: the best is found by bisection
    limit, base = int(limits[0]), len(needs) + 1
    open_rows: list[int] = []
    held: list[int] = []
    rows: list[int] = []
    for need in needs[:, 0].tolist():
        at = bisect_left(open_rows, need * base)
        if at < len(open_rows):
            room, row = divmod(open_rows.pop(at), base)
        else:
            room, row = limit, len(held)
            held.append(0)
        rows.append(row)
        held[row] += 1
        if room > need and held[row] < most:
            insort(open_rows, (room - need) * base + row)
    return rows


def _fields_fit(needs: Int64s, limits: Int64s, most: int, *, best: bool) -> list[int]:
    # one row beyond the open ones is empty, and everything fits into it
    room = np.repeat(limits[:, None], len(needs) + 1, 1)
    held = np.zeros(len(needs) + 1, np.int64)
    weight = weights(limits)
    rows: list[int] = []
    opened = 0
    for need in needs:
        fits = (room[:, : opened + 1] >= need[:, None]).all(0) & (held[: opened + 1] < most)
        if best and fits[:opened].any():
            candidates = np.flatnonzero(fits[:opened])
            row = int(candidates[(weight @ room[:, candidates]).argmin()])
        else:
            row = int(fits.argmax())
        room[:, row] -= need
        held[row] += 1
        rows.append(row)
        opened = max(opened, row + 1)
    return rows


def _first_fit_fields(needs: Int64s, limits: Int64s, most: int) -> list[int]:
    return _fields_fit(needs, limits, most, best=False)


def _best_fit_fields(needs: Int64s, limits: Int64s, most: int) -> list[int]:
    return _fields_fit(needs, limits, most, best=True)


CHOOSERS: dict[tuple[str, bool], Callable[[Int64s, Int64s, int], list[int]]] = {
    ("first_fit", True): _first_fit,
    ("first_fit", False): _first_fit_fields,
    ("best_fit", True): _best_fit,
    ("best_fit", False): _best_fit_fields,
}
"""Each takes needs in the order in which they choose, int64[m, fields], limits, and how many a row
holds at most; and gives each need's row, numbered as they are opened."""
