"""How ragged rows become one batch: padded, with a mask; and how much of a batch is padding."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from pipeline.checks import whole
from pipeline.errors import BatchError, CollateError
from pipeline.transforms.collate import collate
from pipeline.tree import children, leaves

_BARE = "tokens"  # what rows that are arrays are called, as in pack


def _holds_numbers(value: Any) -> bool:
    try:
        a = np.asarray(value)
    except ValueError:  # a list whose parts differ in length
        return False
    return a.ndim > 0 and a.dtype.kind in "biufc"


@final
@dataclass(frozen=True)
class PadTo:
    """A collate that pads ragged fields along their first axis; made by `pad_to`."""

    length: int | Mapping[str, int] | None
    multiple: int
    fields: tuple[str, ...] | None
    value: Any
    ragged = True  # a Loader with remainder="pad" lets it collate first

    def __call__(self, rows: list[Any]) -> dict[str, Any]:
        named = [
            {_BARE: row} if children(row) is None else dict(children(row) or ()) for row in rows
        ]
        first = named[0] if named else {}
        padded = [name for name in first if self._pads(name, first[name])]
        self._check(padded, first)
        rest = [{k: v for k, v in row.items() if k not in padded} for row in named]
        batch: dict[str, Any] = collate(rest) if rest and rest[0] else {}
        for name in padded:
            batch[name], batch[f"{name}_mask"] = self._padded(
                name, [row.get(name) for row in named]
            )
        order = [k for name in first for k in (name, f"{name}_mask") if k in batch]
        return {name: batch[name] for name in dict.fromkeys(order)}

    def _pads(self, name: str, value: Any) -> bool:
        if self.fields is not None:
            return name in self.fields
        return isinstance(value, np.ndarray | list) and _holds_numbers(value)

    def _check(self, padded: list[str], first: Mapping[str, Any]) -> None:
        missing = [name for name in self.fields or () if name not in padded]
        if missing or not padded:
            raise CollateError(
                f"pad_to finds no fields {missing or 'that are arrays'}: rows have {list(first)}. "
                "Name some that they have in fields=."
            )
        clash = [name for name in padded if f"{name}_mask" in first]
        if clash:
            raise CollateError(
                f"pad_to adds a mask to each of {clash}, but rows have one. Rename it in .map."
            )

    def _padded(self, name: str, column: list[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        arrays = [np.asarray(value) for value in column]
        full = [a for a in arrays if a.size] or arrays[:1]
        kinds = {(a.dtype, a.shape[1:]) for a in full}
        if len(kinds) > 1 or full[0].ndim < 1 or full[0].dtype.kind not in "biufc":
            shown = sorted({f"{a.dtype}{list(a.shape)}" for a in arrays})[:3]
            raise CollateError(
                f"cannot pad field {name!r}: rows have {', '.join(shown)}. Only the first axis may "
                "differ, of numbers of one dtype: convert them in .map, or leave it out of fields=."
            )
        sizes = np.fromiter(map(len, arrays), np.int64, len(arrays))
        width = self._width(name, sizes)
        mask = np.arange(width) < sizes[:, None]
        value = self.value.get(name, 0) if isinstance(self.value, Mapping) else self.value
        out = np.full((len(arrays), width, *full[0].shape[1:]), value, full[0].dtype)
        out[mask] = np.concatenate([a for a in arrays if a.size] or [out[:0, 0]])
        return out, mask

    def _width(self, name: str, sizes: NDArray[np.int64]) -> int:
        longest = int(sizes.max())
        length = self.length.get(name) if isinstance(self.length, Mapping) else self.length
        if length is not None and longest > length:
            raise CollateError(
                f"cannot pad field {name!r} to {length}: row {int(sizes.argmax())} has "
                f"{longest}. Shorten or filter it in the dataset, or give a larger length."
            )
        if length is not None:
            return length
        return max(1, -(-longest // self.multiple)) * self.multiple


def pad_to(
    length: int | Mapping[str, int] | None = None,
    *,
    multiple: int = 1,
    fields: Collection[str] | None = None,
    value: Any = 0,
) -> PadTo:
    """A collate for ragged rows: `Loader(ds, 32, collate=pad_to(multiple=64))`.

    Each padded field becomes `[rows, width, ...]`, and gets a bool `{field}_mask` `[rows, width]`
    that is true where there was data; other fields stack as they always do. Rows that are arrays
    themselves are called "tokens". Layout only: with `multiple`, the width is that of this host's
    rows, so several hosts or devices that share a global batch want `length`.

    Args:
        length: the width, or {field: width} for the fields to pad; longer rows are an error.
        multiple: if no length is given, the longest row's rounded up to a multiple of this: few
            widths mean few compilations.
        fields: names of those to pad; by default all that are arrays or lists of numbers.
        value: what to pad with, or {field: value}; 0 by default.

    Raises:
        BatchError: length or multiple is no number from 1 on.

    >>> batch = pad_to(multiple=4)([{"x": np.arange(5), "y": 1}, {"x": np.arange(2), "y": 2}])
    >>> batch["x"].tolist(), batch["x_mask"].sum(1).tolist(), batch["y"].tolist()
    ([[0, 1, 2, 3, 4, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0, 0]], [5, 2], [1, 2])
    """
    if isinstance(length, list):
        raise BatchError(
            "collate=pad_to makes no collate: call it, as in collate=pad_to(multiple=64)"
        )
    named = dict(length) if isinstance(length, Mapping) else {}
    for width in named.values() if named else [length]:
        if width is not None:
            whole("pad_to length", width, 1, BatchError)
    chosen = tuple(named) or None if fields is None else tuple(fields)
    return PadTo(named or length, whole("pad_to multiple", multiple, 1, BatchError), chosen, value)


def padding_share(batch: Any) -> float:
    """The share of a batch's tokens that is padding, from its segment ids or masks; 0.0 of none.

    Args:
        batch: what a Loader gives of packed rows, or of rows collated by `pad_to`.

    Raises:
        CollateError: it has neither `segment_ids` nor a mask `[rows, width]`.

    >>> padding_share({"tokens": np.ones((2, 4)), "segment_ids": np.array([[1, 1, 2, 0], [1] * 4])})
    0.125
    """
    used = [
        np.asarray(leaf) > 0
        for name, leaf in leaves(batch)
        if name.endswith(("segment_ids", "_mask")) and np.ndim(leaf) == 2
    ]
    if not used:
        raise CollateError(
            f"no field tells padding apart: {[name for name, _ in leaves(batch)]} are neither "
            "segment_ids nor masks. Pack, or collate with pad_to."
        )
    room = sum(u.size for u in used)
    return 1 - sum(int(u.sum()) for u in used) / room if room else 0.0
