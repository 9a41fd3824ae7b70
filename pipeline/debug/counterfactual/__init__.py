"""What limits a loader, found by taking each suspect away and running it again.

Begin with `explain`; standins.py has the stages that cost nothing, measure.py the clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.block import Block, Columns
from pipeline.dataset import Dataset, of_part
from pipeline.debug.counterfactual.measure import LONGEST, Step, run
from pipeline.debug.counterfactual.picture import page_of
from pipeline.debug.counterfactual.standins import Kept, ReadyStage, Recording
from pipeline.loader import Loader
from pipeline.transforms import Map
from pipeline.tree import leaves
from pipeline.workers.stats import Stats

__all__ = ["Counterfactual", "Explained", "Step", "explain"]

MOST = 6  # stages that are looked at, the slowest
_LITTLE = 0.02  # of the stages' time: a stage below it is not looked at
_GAIN = 1.1  # less is noise
_ROUNDS = 2  # the better of them counts
_KNOB = 1.2, 0.7  # an option that gains so much, and so much of the best, is named before it
LOOP, AHEAD = "the loop", "ahead="


@dataclass(frozen=True, slots=True)
class Counterfactual:
    """What was changed, and what came of it.

    Attributes:
        name: the stage, as errors call it; "the loop", "ahead=" or "workers=4".
        change: in words: "with an infinitely fast stage 0: map 'decode'".
        rate: rows a second.
        gain: over the loader as it is.
    """

    name: str
    change: str
    rate: float
    gain: float


@dataclass(frozen=True)
class Explained:
    """A profile with what each change would bring, measured; it prints as tables.

    Attributes:
        stats: of the loader as it is.
        rate: its rows a second.
        counterfactuals: stages, loop and options, in this order.
        limit: the name of the one that limits the rate; "nothing" where none does.
        advice: what to do, a sentence each.
        failed: changes that could not be run, with the reason.
        drawing: the dataset as SVG.
    """

    stats: Stats
    rate: float
    counterfactuals: tuple[Counterfactual, ...]
    limit: str
    advice: tuple[str, ...]
    failed: tuple[str, ...] = ()
    drawing: str = ""

    def __repr__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> Iterator[str]:
        """For people."""
        yield from self.stats.table(self.limit)
        yield f"measured: {self.rate:,.0f} rows/s as it is"
        width = max((len(c.change) for c in self.counterfactuals), default=0)
        for c in self.counterfactuals:
            mark = "  <- the limit" if c.name == self.limit else ""
            yield f"  {c.change:{width}} {c.gain:5.2f} x  {c.rate:>12,.0f} rows/s{mark}"
        yield from (f"  not measured: {text}" for text in self.failed)
        yield from self.advice

    def html(self) -> str:
        """A page with bars: the time of each stage, and what each change would bring."""
        return page_of(self)

    def as_json(self) -> dict[str, Any]:
        """All of it as plain data: the stats' fields, and those of this."""
        own = {"rate": self.rate, "limit": self.limit, "advice": list(self.advice)}
        found = [asdict(c) for c in self.counterfactuals]
        return {**asdict(self.stats), **own, "counterfactuals": found, "failed": list(self.failed)}


def explain(
    data: Dataset | Loader,
    *,
    seconds: float = 5.0,
    batch: int = 128,
    workers: Any = 0,
    step: Step | None = None,
) -> Explained:
    """What limits a loader: each stage in turn costs nothing, and it runs again.

    Stages that cost nothing give rows that were made before, from memory; all others do their
    work. Nothing is modelled.

    Args:
        data: a Loader, of which another one with its options is run from step 0; or a Dataset.
        seconds: of the first run; each of the others, two a suspect, takes a tenth of it.
        batch, workers: for a Dataset.
        step: what the loop does with a batch, or how many seconds that takes; nothing by default.

    >>> slow = Dataset(range(64)).map(lambda x: sum(range(20_000)) + x, name="sum").repeat()
    >>> found = explain(slow, seconds=0.5, batch=8)
    >>> found.limit
    "stage 0: map 'sum'"
    """
    loader = Loader(data, batch, workers=workers) if isinstance(data, Dataset) else data
    return _Trial(loader, seconds, step).explained()


class _Trial:
    # runs of one loader, each with something changed
    def __init__(self, loader: Loader, seconds: float, step: Step | None) -> None:
        self._loader, self._seconds, self._step = loader, seconds, step
        self._each = max(0.2, seconds / 10)
        first = run(loader.like(), seconds, step, one_pass=True)
        self.stats, self._rate = first.stats, first.rate
        self._changes: dict[str, tuple[str, dict[str, Any]]] = {}
        self._failed: dict[str, str] = {}

    def explained(self) -> Explained:
        if not self.stats.rows:
            return Explained(self.stats, 0.0, (), "nothing", ("There is no batch to look at.",))
        self._stages()
        self._collate()
        if self._step is not None:
            self._try(LOOP, "with an infinitely fast loop", step=None)
        if self.stats.workers:
            more = max(1 << 30, 16 * self.stats.ahead)
            self._try(AHEAD, f"with ahead={more >> 20:,} MiB", ahead=more)
        for n in self._workers():
            self._try(f"workers={n}", f"with {n} workers", workers=n)
        found = tuple(self._measured())
        limit = self._limit(found)
        own = self._loader._options["collate"] is not None
        advice, failed = tuple(_advice(limit, found, own)), tuple(self._failed.values())
        drawing = self._loader.dataset.visualize().svg()
        return Explained(self.stats, self._rate, found, limit, advice, failed, drawing)

    def _try(self, name: str, change: str, **options: Any) -> None:
        self._changes[name] = change, options

    def _measured(self) -> Iterator[Counterfactual]:
        # round by round, beside the loader as it is: other programs come and go
        best = dict.fromkeys(["", *self._changes], 0.0)
        for name in [*best] * _ROUNDS:
            change, options = self._changes.get(name, ("as it is", {}))
            step = options.get("step", self._step)
            options = {k: v for k, v in options.items() if k != "step"}
            try:
                found = run(self._loader.like(**options), self._each, step)
                if found.steady:
                    best[name] = max(best[name], found.rate)
            except Exception as error:
                self._failed[change] = f"{change}: {type(error).__name__}: {str(error)[:200]}"
        self._rate = best[""] or self._rate
        for name, (change, _) in self._changes.items():
            if change not in self._failed and not best[name]:
                self._failed[change] = (
                    f"{change}: it cannot be told, as the rate had not settled after {LONGEST:g} s"
                )
            if change not in self._failed:
                yield Counterfactual(name, change, best[name], best[name] / self._rate)

    def _stages(self) -> None:
        recording = Recording(self._loader.dataset)
        with self._loader.like(dataset=recording.dataset, workers=0, feed=None) as loader:
            run(loader, self._each)
        for name in self._slowest():
            if name in recording.names:
                ready = recording.without(name)
                self._try(name, f"with an infinitely fast {name}", dataset=ready)
            elif name == "feed":
                self._try(name, "with an infinitely fast feed", feed=None)
            elif name != "collate":
                why = "a join's own work, or beneath a cache or a pack by lengths"
                self._failed[name] = f"{name}: {why}, it cannot be taken away"

    def _slowest(self) -> list[str]:
        total = sum(s.seconds for s in self.stats.stages)
        slow = sorted(self.stats.stages, key=lambda s: -s.seconds)[:MOST]
        names = {s.name for s in slow if s.seconds > _LITTLE * total}
        return [s.name for s in self.stats.stages if s.name in names]

    def _collate(self) -> None:
        if "collate" not in self._slowest():
            return
        top, kept = self._loader.dataset.top, Kept()
        with self._loader.like(workers=0, feed=None, collate=None, remainder="keep") as loader:
            batch = next(loader, None)
            columns = Columns(batch) if leaves(batch) else None
            if columns is None or top.streamed:
                return
            kept.add(Block(columns, loader.where().origin))
        stage: Any = ReadyStage(Map(_same, "collated"), kept)
        ready = of_part(top.transformed(stage))
        self._try("collate", "with an infinitely fast collate", dataset=ready, collate=None)

    def _workers(self) -> list[int]:
        now = self.stats.workers
        return [4] if now < 4 else [2 * now]

    def _limit(self, found: Iterable[Counterfactual]) -> str:
        # an option costs nothing to change, so it is named before a stage that gains more
        causes = [c for c in found if not c.name.startswith("workers=")]
        best = max((c.gain for c in causes), default=0.0)
        if best < _GAIN:
            return "nothing" if self._step is not None else self.stats.limit
        named = [c for c in causes if c.name == AHEAD and c.gain >= max(_KNOB[0], _KNOB[1] * best)]
        return (named or [c for c in causes if c.gain == best])[0].name


def _same(row: Any) -> Any:
    return row


def _advice(limit: str, found: Iterable[Counterfactual], own: bool) -> Iterator[str]:
    # `own`: collate is a function of the user's
    gains = {c.name: c.gain for c in found}
    more = max((c for c in found if c.name.startswith("workers=")), key=_gain, default=None)
    if limit == "nothing":
        yield "Nothing here limits the rate by more than a tenth."
    elif gains.get(limit, 0.0) < _GAIN:
        yield f"{limit} takes most of the time, but little would be gained without it."
    elif limit == LOOP:
        yield f"The loop limits the rate: {gains[limit]:.1f} x without it. Data comes fast enough."
        return
    elif limit == AHEAD:
        yield f"Results wait for room: a larger ahead= brings {gains[limit]:.1f} x."
        return
    else:
        yield f"{limit} limits the rate: {gains[limit]:.1f} x if it cost nothing. {_do(limit, own)}"
    if more is not None and more.gain >= _GAIN:
        yield f"{more.name} brings {more.gain:.1f} x."


def _gain(c: Counterfactual) -> float:
    return c.gain


def _do(limit: str, own: bool) -> str:
    if limit.endswith("source"):
        return (
            "Read larger pieces (shuffle(chunks=), batched reads), convert to a format that reads "
            "faster, or copy the files nearer."
        )
    if limit == "feed":
        return "Send less: narrower dtypes, and no field that the step leaves unused."
    if limit == "collate" and own:
        return "collate= runs in the loop: make it faster, or do its work in a .map, for workers."
    if limit == "collate":
        return "Let stages give arrays of one shape and dtype, or use map(batched=True)."
    return "Make it faster, use map(batched=True), or keep its rows with cache()."
