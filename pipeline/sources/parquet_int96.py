"""Finding 96-bit timestamps that 64-bit nanoseconds since 1970 cannot represent."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.sources.arrow_arrays import one_array
from pipeline.sources.arrow_types import is_ragged, plain

if TYPE_CHECKING:
    import pyarrow as pa


def out_of_nanoseconds(read: Callable[[str], pa.Table]) -> dict[str, NDArray[np.bool_]]:
    """bool[rows] for each column that holds such a timestamp, by name.

    Seconds always fit into int64, nanoseconds may wrap around. Where they did, the two differ.

    Args:
        read: reads the columns of 96-bit timestamps in a unit, "s" or "ns" (pyarrow's
            `coerce_int96_timestamp_unit`).
    """
    found: dict[str, NDArray[np.bool_]] = {}
    seconds, exact = read("s"), read("ns")
    for name in seconds.column_names:
        bad = _bad(*(one_array(t[name], plain(t[name].type)) for t in (seconds, exact)))
        if bad.any():
            found[name] = bad
    return found


def _bad(array: Any, exact: Any) -> NDArray[np.bool_]:
    from pyarrow import types

    kind, n = array.type, len(array)
    if types.is_timestamp(kind) and kind.unit == "s":
        seconds, nanoseconds = (
            a.cast("int64").fill_null(0).to_numpy(zero_copy_only=False) for a in (array, exact)
        )
        return seconds != nanoseconds // 10**9
    bad = np.zeros(n, bool)
    if types.is_struct(kind):
        for parts in zip(array.flatten(), exact.flatten(), strict=True):
            bad |= _bad(*parts)
    elif types.is_fixed_size_list(kind) and kind.list_size:
        bad[array.is_valid().to_numpy(False)] = (
            _bad(array.flatten(), exact.flatten()).reshape(-1, kind.list_size).any(axis=1)
        )
    elif is_ragged(kind) or types.is_map(kind):
        if types.is_map(kind):
            inner = _bad(array.items, exact.items) | _bad(array.keys, exact.keys)
        else:
            inner = _bad(array.values, exact.values)
        before, offsets = np.concatenate([[0], np.cumsum(inner)]), array.offsets.to_numpy()
        bad = before[offsets[1:]] > before[offsets[:-1]]
        bad &= array.is_valid().to_numpy(False)
    return bad
