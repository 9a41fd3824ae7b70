"""One line of a run's ledger: what a step did."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import JournalError


def float_bits(value: Any) -> str:
    """The eight hex digits of a float32.

    >>> float_bits(1.0), float_bits(np.float32("nan"))
    ('3f800000', '7fc00000')
    """
    return f"{int(np.float32(value).view(np.uint32)):08x}"


def finite(value: Any) -> float | None:
    """A float that JSON can hold, or None.

    >>> finite(np.float32(0.5)), finite(float("inf"))
    (0.5, None)
    """
    return float(value) if math.isfinite(value) else None


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of the ledger.

    Attributes:
        step: training step, from 0: with checkpoints, it turned `step` into `step + 1`.
        launch: number of the process start that did it; a step done twice stands there twice.
        loss, grad_norm: None where not finite, as JSON has no name for such, or not told.
        loss_bits: the loss as a float32, eight hex digits; None where not told.
        digest: of this host's rows of the step's batches: 32 hex digits, which hosts add up; 16 in
            runs of before there was a journal, of the whole batch.
        data_step: the loader's step; it leaves `step` behind once batches were skipped.
        rows: [start, stop) of the batch in the dataset's stream.
        seconds: waiting for data ("data"), standing still for a checkpoint just before this step
            ("save"), and all else since the last line ("step").
        chain: vouches for the digests of this and all steps before; "" in older runs.
        batches: how many batches the step took: more than 1 with gradient accumulation.
        scalars: what else was told; None where not finite.
        told: what was odd about the step, as a gap before it; "" if nothing.
        norm_told: whether there was a gradient norm, finite or not.
        after: launch, move and step of the line that it follows, or () where it follows none; None
            where that is the line above it, and in older journals.
        move: how often its launch had moved its loader, or left something out, before it.
        number: of the line in its file, from 0; it is not written. -1 where it is in none.
    """

    step: int
    launch: int
    loss: float | None
    loss_bits: str | None
    grad_norm: float | None
    digest: str
    data_step: int
    rows: tuple[int, int]
    seconds: dict[str, float]
    chain: str = ""
    batches: int = 1
    data_stop: int = -1
    scalars: dict[str, float | None] = field(default_factory=dict[str, "float | None"])
    told: str = ""
    norm_told: bool = True
    after: tuple[int, ...] | None = None
    move: int = 0
    number: int = field(default=-1, compare=False)

    @property
    def data_end(self) -> int:
        """The loader's step behind the last batch of this training step."""
        return self.data_stop if self.data_stop >= 0 else self.data_step + self.batches

    @property
    def name(self) -> tuple[int, int, int]:
        """Which line it is: a launch does a step once between two moves of its loader."""
        return self.launch, self.move, self.step

    @property
    def loss_value(self) -> float:
        """The loss that its bits say, finite or not; NaN where none was told."""
        bits = self.loss_bits
        return float(np.uint32(int(bits, 16)).view(np.float32)) if bits else math.nan

    def as_json(self) -> dict[str, Any]:
        """The line, without what says nothing."""
        plain = {name: getattr(self, name) for name in _WRITTEN}
        return {k: v for k, v in plain.items() if k not in _USUAL or v != _USUAL[k]}


_WRITTEN = tuple(f.name for f in dataclasses.fields(Line) if f.name != "number")
_KNOWN = frozenset(_WRITTEN)
_USUAL: dict[str, Any] = {
    **{"chain": "", "told": "", "after": None, "move": 0, "batches": 1, "data_stop": -1},
    **{"scalars": {}, "norm_told": True},
}


def line_of(path: Path, found: dict[str, Any], number: Any, at: int = -1) -> Line:
    """A parsed line as a `Line`; fields that this version does not know are left out.

    Args:
        path, found: the file, and the parsed line.
        number: gives the line's number, from 1, for the error.
        at: its number, from 0.

    Raises:
        JournalError: it is no ledger line.
    """
    try:
        known: dict[str, Any] = {k: v for k, v in found.items() if k in _KNOWN}
        start, stop = found["rows"]
        if type(found["step"]) is not int or type(found["data_step"]) is not int:
            raise TypeError("steps are whole numbers")
        known["rows"] = (start, stop)
        if known.get("after") is not None:
            known["after"] = tuple(int(x) for x in known["after"])
        return Line(**known, number=at)
    except (TypeError, KeyError, ValueError) as e:
        raise JournalError(
            f"line {number()} of {path} is not a ledger entry: it has the fields {sorted(found)}. "
            f"Repair it; or remove it, and that step is lost: sed -i {number()}d {path}"
        ) from e
