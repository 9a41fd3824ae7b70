"""Where records live: in another library's dataset, read many at a time where it can."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.block import Columns, Int64s
from pipeline.errors import RecordError, SourceError
from pipeline.sources import arrow
from pipeline.sources.indices import inside
from pipeline.sources.memory import MemorySource
from pipeline.tree import fresh

_SAMPLE = 64
_PLAIN = {"Value", "ClassLabel", "List", "LargeList", "Sequence"}  # stored as they are read


class SequenceSource:
    """Records of an object with a length and `__getitems__` (many at once) or `[i]`.

    A Hugging Face dataset of numbers, strings, lists and dicts, without a format or with "numpy",
    is read through Arrow: `Columns` of the types that `ParquetSource` gives. Another format, a
    transform and features that decode (images, audio) are kept: its rows come as a list. So do
    those of TFDS data sources and map-style PyTorch datasets.

    Args:
        values: the object. It pickles as it pickles itself; reading it must not change it, and
            must be right in threads if you use them.

    Raises:
        SourceError: it has no length or no `[i]`.

    >>> class Squares:
    ...     def __len__(self):
    ...         return 5
    ...     def __getitems__(self, indices):
    ...         return [i * i for i in indices]
    >>> SequenceSource(Squares()).read(np.array([3, 0, 3]))
    [9, 0, 9]
    """

    def __init__(self, values: Any) -> None:
        readable = hasattr(values, "__getitems__") or hasattr(values, "__getitem__")
        if not (hasattr(values, "__len__") and readable):
            raise SourceError(
                f"a {type(values).__name__} has no length and no [i]. Is it a stream? Write it to "
                "files first, or give a list."
            )
        self._values = values
        self._open()

    def _open(self) -> None:
        self._table = _as_arrow(self._values)
        self._digest: str | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"values": self._values}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._values = state["values"]
        self._open()

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"SequenceSource({type(self._values).__name__}, {len(self)} records)"

    def read(self, indices: Int64s) -> list[Any] | Columns:
        """Records by index, in the order asked, repeats included: `Columns`, or a list.

        Raises:
            PositionError: an index below 0 or past the end.
            RecordError: a record holds a null integer or boolean where columns are read.
            SourceError: the object gave another number of records.
        """
        wanted = inside(indices, len(self))
        if self._table is not None:
            return self._columns(wanted)
        some = wanted.tolist()
        if not some or not hasattr(self._values, "__getitems__"):
            return [fresh(self._values[i]) for i in some]
        rows = self._values.__getitems__(some)
        if len(rows) != len(some):
            raise SourceError(
                f"{type(self._values).__name__}.__getitems__ gave {len(rows)} records for "
                f"{len(some)} indices. It must return a list of one record an index."
            )
        return [fresh(row) for row in rows]

    def _columns(self, wanted: Int64s) -> Columns:
        table = arrow.plain_table(self._table[wanted])
        tree, rows = arrow.columns_of(table, table.schema), np.arange(len(wanted))
        found = arrow.room(tree, len(wanted))
        try:
            arrow.put(tree, found, rows, rows)
        except arrow.Unusable as e:
            raise RecordError(
                f"column {e.column!r} of record {int(wanted[e.row])} of this "
                f"{type(self._values).__name__} {e.why}. {e.remedy}, or skip such records with "
                '.on_error("skip").'
            ) from None
        return Columns(found)

    def fingerprint(self) -> str:
        """What Hugging Face says of its dataset; else the object's own, or 64 records' digest."""
        if self._digest is None:
            known = getattr(self._values, "_fingerprint", None)
            own = getattr(self._values, "fingerprint", None)
            own = own() if callable(own) else known if isinstance(known, str) else self._sample()
            self._digest = f"sequence {len(self)} {own}"
        return self._digest

    def _sample(self) -> str:
        some = np.linspace(0, len(self) - 1, min(len(self), _SAMPLE)).astype(np.int64)
        return MemorySource(self.read(some)).fingerprint()


def batched(values: Any) -> bool:
    """Whether an object says that it reads many records at once.

    >>> batched([1, 2])
    False
    """
    return hasattr(values, "__len__") and hasattr(values, "__getitems__")


def _as_arrow(values: Any) -> Any:
    """A Hugging Face dataset that gives Arrow tables, where that keeps its records' meaning."""
    said, features = getattr(values, "format", None), getattr(values, "features", None)
    if not isinstance(said, dict) or features is None or not hasattr(values, "with_format"):
        return None
    plain = said.get("type") in (None, "numpy", "arrow") and not said.get("format_kwargs")
    columns = said.get("columns") or []
    if not plain or not columns or not all(_is_plain(features[name]) for name in columns):
        return None
    return values.with_format("arrow", columns=columns)


def _is_plain(feature: Any) -> bool:
    if isinstance(feature, dict):
        return all(map(_is_plain, feature.values()))
    if isinstance(feature, list):
        return all(map(_is_plain, feature))
    inner = getattr(feature, "feature", None)  # of a list
    return type(feature).__name__ in _PLAIN and (inner is None or _is_plain(inner))
