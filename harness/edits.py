"""What a run leaves out of its data (masked documents, unused batches), and where it is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import DamageError
from harness.files import read_json
from pipeline import Loader
from pipeline.debug.documents import Record, chosen, documents_of, weights_without

FILE = "fork.json"


@dataclass(frozen=True)
class Edits:
    """How a run's steps differ from those of a run that uses all of its data.

    Attributes:
        masked: (component, start, stop) of records whose tokens have weight 0.
        unused: [start, stop) of data steps whose batches are read but not trained on.
    """

    masked: tuple[tuple[str, int, int], ...] = ()
    unused: tuple[tuple[int, int], ...] = ()

    def uses(self, data_step: int) -> bool:
        """Whether the batch of a data step is trained on."""
        return not any(start <= data_step < stop for start, stop in self.unused)

    def weights(
        self, loader: Loader, data_step: int, shape: Sequence[int], segment_ids: Any
    ) -> NDArray[np.float32] | None:
        """Weights of this process's rows, in the given shape; None if nothing in them is masked."""
        if not self.masked:
            return None
        out = chosen(documents_of(loader.where(data_step)), self._records)
        return weights_without(shape, out, segment_ids) if out else None

    @cached_property
    def _records(self) -> set[Record]:
        return {(name, i) for name, start, stop in self.masked for i in range(start, stop)}


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """The origin of a fork, as stored in `fork.json` and in the metadata of each checkpoint.

    Attributes:
        parent: directory of the run that was forked.
        checkpoint: the parent's checkpoint that the fork began with.
        how: "jump" over data steps, "consume" them without update, "mask" or "substitute" records.
        skipped: [start, stop) of data steps that are left out.
        without: (component, start, stop) of records that are left out.
        before: the parent's own lineage.
    """

    parent: str
    checkpoint: int
    how: str
    skipped: tuple[tuple[int, int], ...] = ()
    without: tuple[tuple[str, int, int], ...] = ()
    before: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def edits(self) -> Edits:
        """The edits of this run, preceded by those of its ancestors."""
        earlier = _parsed(self.before).edits if self.before else Edits()
        masked = self.without if self.how == "mask" else ()
        unused = self.skipped if self.how == "consume" else ()
        return Edits(earlier.masked + masked, earlier.unused + unused)


def lineage_of(run: Path) -> dict[str, Any]:
    """The contents of a run's `fork.json`; {} if the run is not a fork."""
    return read_json(run / FILE) or {}


def edits_of(run: Path) -> Edits:
    """What a run leaves out of its data.

    Raises:
        DamageError: its `fork.json` is damaged.
    """
    kept = lineage_of(run)
    try:
        return _parsed(kept).edits if kept else Edits()
    except (TypeError, ValueError, KeyError) as e:
        raise DamageError(
            f"{run / FILE} is damaged ({e}): each checkpoint's metadata holds it under 'lineage'."
        ) from e


def _parsed(kept: Mapping[str, Any]) -> Lineage:
    pairs = tuple((int(a), int(b)) for a, b in kept["skipped"])
    records = tuple((str(name), int(a), int(b)) for name, a, b in kept["without"])
    return Lineage(**{**kept, "skipped": pairs, "without": records})
