"""Is what a source's `read` returned a record for each index?"""

from __future__ import annotations

from typing import Any

from pipeline.block import Columns
from pipeline.errors import SourceError


def records_of(answer: Any, n: int, source: str) -> list[Any] | Columns:
    """The records that a source of class `source` returned for n indices.

    Raises:
        SourceError: they are no sequence, or not as many as were asked for.

    >>> records_of(range(2), 2, "Mine")
    [0, 1]
    >>> records_of(None, 2, "Mine")
    Traceback (most recent call last):
    pipeline.errors.SourceError: Mine.read gave a NoneType for 2 indices. A source must return a
    list of records, or Columns, with one record an index.
    """
    listed = hasattr(answer, "__len__") and hasattr(answer, "__getitem__")
    listed = listed and not isinstance(answer, dict | str | bytes)
    if not listed and not isinstance(answer, Columns):
        raise SourceError(
            f"{source}.read gave a {type(answer).__name__} for {n} indices. A source must return a "
            "list of records, or Columns, with one record an index."
        )
    if len(answer) != n:
        raise SourceError(
            f"{source}.read gave {len(answer)} records for {n} indices. A source must return one "
            "record an index."
        )
    return answer if isinstance(answer, Columns) else list(answer)
