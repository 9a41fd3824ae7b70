"""What each step did: one line a step, enough to prove a recomputed step equal to it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import DamageError
from harness.files import LineLog, read_lines


def float_bits(value: Any) -> str:
    """The eight hex digits of a float32.

    >>> float_bits(1.0), float_bits(np.float32("nan"))
    ('3f800000', '7fc00000')
    """
    return f"{int(np.float32(value).view(np.uint32)):08x}"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the ledger.

    Attributes:
        step: training step, from 0: it turned checkpoint `step` into checkpoint `step + 1`.
        launch: number of the process start that did it; a step done twice stands there twice.
        loss, grad_norm: None where not finite, as JSON has no name for such.
        loss_bits: the loss as a float32, eight hex digits.
        digest: of the global batch, 16 hex digits.
        data_step: the loader's step; it leaves `step` behind once batches were skipped.
        rows: [start, stop) of the batch in the dataset's stream.
        seconds: waiting for data ("data"), from dispatch until the loss was there ("step"), and
            standing still for a checkpoint just before this step ("save").
    """

    step: int
    launch: int
    loss: float | None
    loss_bits: str
    grad_norm: float | None
    digest: str
    data_step: int
    rows: tuple[int, int]
    seconds: dict[str, float]


def finite(value: Any) -> float | None:
    """A float that JSON can hold, or None.

    >>> finite(np.float32(0.5)), finite(float("inf"))
    (0.5, None)
    """
    return float(value) if math.isfinite(value) else None


class Ledger:
    """The ledger as its one writer sees it; `append` hands each line to the kernel."""

    def __init__(self, path: Path) -> None:
        self._log = LineLog(path)

    def append(self, entry: Entry) -> None:
        self._log.append(dataclasses.asdict(entry))

    def sync(self) -> None:
        """Bring all lines to the disk: before a checkpoint, so that none after it is missing."""
        self._log.sync()

    def close(self) -> None:
        self._log.close()


def read(path: Path) -> list[Entry]:
    """All entries in the order written; a last line torn by a kill is left out.

    Raises:
        DamageError: a line is not JSON, or not an entry.
    """
    return [_entry(path, number, line) for number, line in enumerate(read_lines(path), 1)]


def _entry(path: Path, number: int, line: dict[str, Any]) -> Entry:
    try:
        return Entry(**{**line, "rows": tuple(line["rows"])})
    except (TypeError, KeyError) as e:
        raise DamageError(
            f"line {number} of {path} is not a ledger entry: it has the fields {sorted(line)}. "
            f"Repair it; or remove it, and that step is lost: sed -i {number}d {path}"
        ) from e
