"""What a journal needs of a Loader beside its batches: their rows, and where it stands."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pipeline.batches.run import Made
from pipeline.batches.stream import Take
from pipeline.block import Int64s
from pipeline.checkpoint.position import Position
from pipeline.debug.journal.digests import batch_digest, row_digests
from pipeline.loader import Loader


class Came(NamedTuple):
    """Where a loader came to as it was moved: the data step, and the row of the stream."""

    step: int
    row: int


class Drawn(NamedTuple):
    """A batch that was handed out.

    Attributes:
        step, end: the loader's step of it, and behind it.
        rows: [start, stop) in the dataset's stream.
        digest: of this host's rows.
        waited: seconds from when it was asked for until it was there.
        move: how often the loader had been moved, or left something out, since the tap listens.
        came: where the loader came to just before, if it was made to stand elsewhere.
    """

    step: int
    end: int
    rows: tuple[int, int]
    digest: int
    waited: float
    move: int
    came: Came | None


@dataclass(frozen=True)
class Rows:
    """This host's rows of a batch, as their stages made them."""

    take: Take

    @property
    def positions(self) -> Int64s:
        """int64[n], in the global batch."""
        return self.take.rows[self.take.slots]

    @property
    def digests(self) -> list[bytes]:
        return row_digests(self.take.block.values)

    @property
    def digest(self) -> int:
        """Of the batch, this host's part."""
        return batch_digest(self.digests, self.positions)


class Tap:
    """Listens to what a Loader hands out.

    Args:
        loader: one at a time has one tap; another takes its place.

    Attributes:
        move: how often the loader was moved, or left something out, and went on from there.
        states: the state after each move, by its number, for those who write them down.
    """

    def __init__(self, loader: Loader) -> None:
        self.loader, self.move, self.states = loader, 0, dict[int, dict[str, Any]]()
        self._drawn: list[Drawn] = []
        self._went_on, self._came = False, None
        loader._observe(self)
        self.moved(elsewhere=True)

    # ---- called by the loader

    def made(self, take: Take) -> int:
        """The digest of a batch, before anything is done to its rows."""
        return Rows(take).digest

    def handed_out(self, start: Position, made: Made, waited: float) -> None:
        """A batch was handed out."""
        step, came, self._came = made.after.step - 1, self._came, None
        if self._drawn and self._drawn[-1].step == step:  # an interrupt took it back
            came = came or self._drawn.pop().came
        rows = start.cursor.rows, made.after.rows
        drawn = Drawn(step, made.after.step, rows, made.told, waited, self.move, came)
        self._drawn.append(drawn)
        self._went_on = True

    def moved(self, *, elsewhere: bool) -> None:
        """The loader stands elsewhere, or leaves out other records, from its next batch on."""
        if elsewhere:  # asked first: to tell its state, a loader goes past steps that it skips
            cursor = self.loader._position.cursor
            self._came = Came(cursor.step, cursor.rows)
        self.move += self._went_on
        self._went_on = False
        self.states[self.move] = self.state()

    # ---- asked by the journal

    def take(self) -> list[Drawn]:
        """The batches since the last call."""
        drawn, self._drawn = self._drawn, []
        return drawn

    def state(self) -> dict[str, Any]:
        """Where the loader stands, as far as this process knows: nothing is gathered."""
        return self.loader._own_state()

    def stats(self) -> dict[str, Any]:
        """What the data has cost so far, in seconds; plain data."""
        stats = self.loader.stats()
        stages = [[stage.name, round(stage.seconds, 6)] for stage in stats.stages]
        sums = {k: round(getattr(stats, k), 6) for k in ("seconds", "wait", "busy")}
        return {"stages": stages, **sums, "workers": stats.workers, "batches": stats.batches}

    def skipped_from(self, step: int) -> int:
        """The first step from which on the loader skips all up to this one."""
        return self.loader._skips_from(step)

    def close(self) -> None:
        """Listen no longer."""
        if self.loader._observer is self:
            self.loader._observe(None)

    def skips_all(self, start: int, stop: int) -> bool:
        """Whether the loader skips every step of [start, stop)."""
        return start >= stop or self.skipped_from(stop) <= start


def rows_at(loader: Loader, step: int) -> Rows:
    """This host's rows of a data step, skipped or not; the loader stays where it is.

    Raises:
        PositionError: there is no such step.
    """
    return Rows(loader._taken(step))


def place_of(loader: Loader) -> tuple[int, int]:
    """This process's number among those that read the same batches, and how many there are."""
    share, library = loader._share, getattr(loader._feed, "library", None)
    jax: Any = sys.modules.get("jax") if library == "jax" else None
    torch: Any = sys.modules.get("torch.distributed") if library == "torch" else None
    if jax is not None:
        return jax.process_index(), jax.process_count()
    if torch is not None and torch.is_available() and torch.is_initialized():
        return torch.get_rank(), torch.get_world_size()
    return getattr(share, "host", 0), getattr(share, "hosts", 1)


def facts(loader: Loader) -> dict[str, Any]:
    """What a run notes of its loader, to open one like it later: plain data."""
    sizes, remainder, steps = loader._rule
    host, hosts = place_of(loader)
    state = loader._own_state()
    return {
        "batch_size": sizes[0][1] if len(sizes) == 1 else [list(s) for s in sizes],
        "remainder": remainder,
        "steps": steps,
        "host": host,
        "hosts": hosts,
        "share": _runs(loader._share.rows(sizes[0][1])),  # of the first batch size
        # as mappings, which states of a feed have as their items
        **{k: dict(state[k]) for k in ("dataset", "packages") if state.get(k)},
        **({"frontiers": state["frontiers"]} if state.get("frontiers") else {}),
    }


def _runs(rows: Int64s) -> list[list[int]]:
    if not len(rows):
        return []
    parts = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
    return [[int(part[0]), int(part[-1]) + 1] for part in parts]
