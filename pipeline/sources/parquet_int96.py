"""Which rows hold 96-bit timestamps that no nanoseconds since 1970 can express."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.sources.arrow_arrays import one_array
from pipeline.sources.arrow_types import is_ragged, plain

if TYPE_CHECKING:
    import pyarrow as pa

_SECONDS = (2**63 - 1) // 10**9  # of an int64 of nanoseconds; pyarrow wraps around beyond


def out_of_nanoseconds(in_seconds: pa.Table) -> dict[str, NDArray[np.bool_]]:
    """bool[rows] of each column that holds such a timestamp.

    Args:
        in_seconds: the columns read with `coerce_int96_timestamp_unit="s"`.
    """
    found: dict[str, NDArray[np.bool_]] = {}
    for name, column in zip(in_seconds.column_names, in_seconds.columns, strict=True):
        bad = _bad(one_array(column, plain(column.type)))
        if bad.any():
            found[name] = bad
    return found


def _bad(array: Any) -> NDArray[np.bool_]:
    from pyarrow import types

    kind, n = array.type, len(array)
    if types.is_timestamp(kind) and kind.unit == "s":
        seconds = array.cast("int64").fill_null(0).to_numpy(zero_copy_only=False)
        return np.abs(seconds) > _SECONDS
    bad = np.zeros(n, bool)
    if types.is_struct(kind):
        for part in array.flatten():
            bad |= _bad(part)
    elif types.is_fixed_size_list(kind) and kind.list_size:
        bad[array.is_valid().to_numpy(False)] = (
            _bad(array.flatten()).reshape(-1, kind.list_size).any(axis=1)
        )
    elif is_ragged(kind) or types.is_map(kind):
        inner = _bad(array.values if is_ragged(kind) else array.items)
        if types.is_map(kind):
            inner |= _bad(array.keys)
        before, offsets = np.concatenate([[0], np.cumsum(inner)]), array.offsets.to_numpy()
        bad = before[offsets[1:]] > before[offsets[:-1]]
        bad &= array.is_valid().to_numpy(False)
    return bad
