"""Pads ragged rows into one batch, with a mask; and tells how much of a batch is padding."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from numbers import Number
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from pipeline.checks import numeric, shown, whole
from pipeline.errors import BatchError, CollateError
from pipeline.sources.exact import InexactError, exact
from pipeline.transforms.collate import collate
from pipeline.tree import children, leaves

Widths = int | tuple[int, ...]
_BARE = "tokens"  # the name of rows that are arrays, as in pack


def _holds_numbers(value: Any) -> bool:
    try:
        a = np.asarray(value)
    except ValueError:  # a list whose parts differ in length
        return False
    return a.ndim > 0 and numeric(a.dtype)


def _is_mask(name: str) -> bool:
    return name == "mask" or name.endswith("_mask")


@final
@dataclass(frozen=True)
class PadTo:
    """A collate that pads ragged fields along their first axis; made by `pad_to`."""

    length: Widths | Mapping[str, Widths] | None
    multiple: int
    fields: tuple[str, ...] | None
    value: Any
    ragged = True  # a Loader with remainder="pad" lets it collate first

    def __call__(self, rows: list[Any]) -> dict[str, Any]:
        named = [
            {_BARE: row} if children(row) is None else dict(children(row) or ()) for row in rows
        ]
        first = named[0] if named else {}
        _check_fields(named)
        padded = [name for name in first if self._pads(name, first[name])]
        self._check(padded, first)
        rest = [{k: v for k, v in row.items() if k not in padded} for row in named]
        batch: dict[str, Any] = collate(rest) if rest and rest[0] else {}
        for name in padded:
            batch[name], mask = self._padded(name, [row.get(name) for row in named])
            if not _is_mask(name):
                batch[f"{name}_mask"] = mask
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
                f"pad_to finds no fields {missing or 'that are arrays'}: rows have "
                f"{shown(list(first))}. Name some that they have in fields=."
            )
        clash = [name for name in padded if f"{name}_mask" in first and not _is_mask(name)]
        if clash:
            raise CollateError(
                f"pad_to adds a mask to each of {clash}, but rows have one. Rename it in .map."
            )

    def _padded(self, name: str, column: list[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        arrays = [_array(value, name, i) for i, value in enumerate(column)]
        # an empty list has no dtype of its own
        full = [a for a in arrays if a.size] or [
            a for a, value in zip(arrays, column, strict=True) if not isinstance(value, list)
        ]
        if not full:
            raise CollateError(
                f"cannot pad field {name!r}: all rows have empty lists, whose dtype is unknown. "
                "Give arrays in .map, such as np.array(x, np.int32)."
            )
        kinds = {(a.dtype, a.shape[1:]) for a in full}
        if len(kinds) > 1 or any(a.ndim < 1 for a in arrays) or not numeric(full[0].dtype):
            shown = sorted({f"{a.dtype}{list(a.shape)}" for a in arrays})[:3]
            raise CollateError(
                f"cannot pad field {name!r}: rows have {', '.join(shown)}. Only the first axis may "
                "differ, of numbers of one dtype: convert them in .map, or leave it out of fields=."
            )
        sizes = np.fromiter(map(len, arrays), np.int64, len(arrays))
        width = self._width(name, sizes)
        mask = np.arange(width) < sizes[:, None]
        value = self.value.get(name, 0) if isinstance(self.value, Mapping) else self.value
        held = _held(value, full[0].dtype, name)
        out = np.full((len(arrays), width, *full[0].shape[1:]), held, full[0].dtype)
        out[mask] = np.concatenate([a for a in arrays if a.size] or [out[:0, 0]])
        return out, mask

    def _width(self, name: str, sizes: NDArray[np.int64]) -> int:
        longest = int(sizes.max())
        widths = self.length.get(name) if isinstance(self.length, Mapping) else self.length
        if widths is None:
            return max(1, -(-longest // self.multiple)) * self.multiple
        widths = (widths,) if isinstance(widths, int) else widths
        if longest > widths[-1]:
            raise CollateError(
                f"cannot pad field {name!r} to {widths[-1]}: row {int(sizes.argmax())} has "
                f"{longest}. Shorten or filter it in the dataset, or give a larger length."
            )
        return next(width for width in widths if width >= longest)


def _check_fields(named: list[dict[str, Any]]) -> None:
    for i, row in enumerate(named):
        if row.keys() != named[0].keys():
            raise CollateError(
                f"cannot pad: row 0 has the fields {shown(list(named[0]))}, row {i} has "
                f"{shown(list(row))}. Return the same fields for every row in .map."
            )


def _array(value: Any, name: str, i: int) -> NDArray[Any]:
    try:
        return exact(value)
    except InexactError as e:
        raise CollateError(f"cannot pad field {name!r}: row {i} has {e}") from None


def _held(value: Any, dtype: np.dtype[Any], name: str) -> NDArray[Any]:
    try:
        with np.errstate(all="ignore"):
            given, held = np.asarray(value), np.asarray(value).astype(dtype)
            # a float that is rounded is near enough, one that becomes infinite is not
            same = held == given if dtype.kind in "biu" else np.isfinite(held) | ~np.isfinite(given)
        if np.all(same):
            return held
    except (TypeError, ValueError, OverflowError):
        pass
    raise CollateError(
        f"cannot pad field {name!r} of {dtype} with {shown(value)}, which it does not hold. "
        "Give another value=, or {field: value}; or convert the field in .map."
    )


def pad_to(
    length: int | Sequence[int] | Mapping[str, int | Sequence[int]] | None = None,
    *,
    multiple: int = 1,
    fields: Collection[str] | None = None,
    value: Any = 0,
) -> PadTo:
    """A collate for ragged rows: `Loader(ds, 32, collate=pad_to(multiple=64))`.

    Each padded field becomes `[rows, width, ...]`, and gets a bool `{field}_mask` `[rows, width]`
    that is true where there was data. Fields that are masks themselves (`mask`, `loss_mask`) are
    padded and get none; other fields stack as they always do. Rows that are arrays themselves are
    called "tokens". Layout only: with `multiple` or several lengths, the width is that of this
    host's rows, so several hosts or devices that share a global batch want one `length`.

    Args:
        length: the width; or rising widths, such as the boundaries of `bucket`, of which each
            batch gets the smallest that fits; or {field: width or widths} for the fields to pad.
            Longer rows are an error.
        multiple: if no length is given, the width is the length of the longest row, rounded up to
            a multiple of this: few widths mean few compilations.
        fields: names of the fields to pad; by default all that are arrays or lists of numbers.
        value: what to pad with, or {field: value}; 0 by default.

    Raises:
        BatchError: length or multiple is not a whole number from 1 on, or lengths do not rise.

    >>> batch = pad_to(multiple=4)([{"x": np.arange(5), "y": 1}, {"x": np.arange(2), "y": 2}])
    >>> batch["x"].tolist(), batch["x_mask"].sum(1).tolist(), batch["y"].tolist()
    ([[0, 1, 2, 3, 4, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0, 0]], [5, 2], [1, 2])
    >>> pad_to([4, 16])([np.arange(5), np.arange(2)])["tokens"].shape
    (2, 16)
    """
    rows = isinstance(length, list) and not all(isinstance(w, Number) for w in length)
    if rows:  # of a Loader that took `pad_to` for a collate
        raise BatchError(
            "collate=pad_to makes no collate: call it, as in collate=pad_to(multiple=64)"
        )
    named = {f: _widths(w) for f, w in length.items()} if isinstance(length, Mapping) else {}
    one = None if length is None or isinstance(length, Mapping) else _widths(length)
    chosen = tuple(named) or None if fields is None else tuple(fields)
    return PadTo(named or one, whole("pad_to multiple", multiple, 1, BatchError), chosen, value)


def _widths(length: Any) -> Widths:
    if not isinstance(length, list | tuple | np.ndarray) or not np.ndim(length):
        return whole("pad_to length", length, 1, BatchError)
    widths = tuple(whole("pad_to length", width, 1, BatchError) for width in length)
    if not widths or sorted(set(widths)) != list(widths):
        raise BatchError(f"pad_to({shown(length)}): give rising lengths, as in pad_to([128, 512])")
    return widths


def padding_share(batch: Any) -> float:
    """The share of a batch's tokens that is padding, by its segment ids or masks; 0.0 if empty.

    Args:
        batch: what a Loader gives of packed rows, or of rows collated by `pad_to`.

    Raises:
        CollateError: it has neither `segment_ids` nor a mask `[rows, width]`.

    >>> padding_share({"tokens": np.ones((2, 4)), "segment_ids": np.array([[1, 1, 2, 0], [1] * 4])})
    0.125
    """
    fields = dict(leaves(batch))
    # only a mask of a field tells padding; others, such as loss_mask, tell something else
    used = [
        np.asarray(leaf) > 0
        for name, leaf in fields.items()
        if np.ndim(leaf) == 2
        and (name.endswith("segment_ids") or (_is_mask(name) and name[:-5] in fields))
    ]
    if not used:
        raise CollateError(
            f"no field tells padding apart: {shown(list(fields))} are neither "
            "segment_ids nor masks. Pack, or collate with pad_to."
        )
    room = sum(u.size for u in used)
    return 1 - sum(int(u.sum()) for u in used) / room if room else 0.0
