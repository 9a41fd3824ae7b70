"""How a chain is evaluated: orders resolve positions downwards, transforms carry values upwards."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np

from pipeline.block import Block, Int64s, Origin
from pipeline.errors import StreamEndError
from pipeline.faults import Skips, patiently, survivors
from pipeline.meter import METER
from pipeline.sampling.lanes import Blocks
from pipeline.sources.answers import records_of
from pipeline.types import ENDLESS, At, Component, Order, Root, Site, Source, Transform

Stage = Order | Transform
Path = tuple[str, ...]
BLOCK = 64  # rows of a block where no stage counts
HINTS = 1024  # positions of those to come that a source is told


class Leaf:
    """The root of a plain chain: one source."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def length(self) -> int:
        return len(self.source)

    def components(self, path: Path) -> tuple[Component, ...]:
        return (Component(path, self.source),)

    @property
    def horizon(self) -> int:
        return getattr(self.source, "horizon", 0)

    def ahead(self, at: At) -> None:
        cast(Any, self.source).ahead(at.index)

    def origin(self, at: At, path: Path) -> Origin:
        return Origin.of_records(0, at.epoch, at.index)

    def read(self, at: At, path: Path) -> Block:
        try:
            values = patiently(self.source.read, at.index)
        except Exception as error:
            epochs = sorted(set(at.epoch.tolist()))
            some = f"{at.index[:3].tolist()}{'…' if len(at.index) > 3 else ''}"
            error.add_note(
                f"in source {type(self.source).__name__}, records {some}, epochs {epochs}"
            )
            raise
        values = records_of(values, len(at.index), type(self.source).__name__)
        return Block(values, self.origin(at, path))

    def fingerprint(self) -> dict[str, str]:
        own = getattr(self.source, "fingerprint", None)
        text = own() if own else f"{type(self.source).__name__} {len(self.source)}"
        return {"source": hashlib.blake2b(text.encode(), digest_size=6).hexdigest()}


class Chain:
    """A root and the stages on it, frozen; what a Dataset describes and any process can evaluate.

    Attributes:
        root: what the chain stands on.
        stages: orders and transforms, from the root up.
        seed: what every random stage's seed is derived from.
        lanes: of a counted chain, L; else 1.
        on_error: "raise", or "skip" what fails: a counted chain leaves the row out, an indexed one
            takes the next good one of the epoch.
        unit: the first counted stage's index.
        split: the stages before it keep one row per position: as `unit`, but on a counted mix only
            repeats stand before it.
        lengths: rows an epoch beneath each stage before `split`; the last is above all of them. On
            a counted mix they count its passes.
        period: rows of one epoch of the indexed part.
    """

    def __init__(
        self,
        root: Root,
        stages: tuple[Stage, ...],
        seed: int,
        lanes: int,
        on_error: str = "raise",
    ) -> None:
        self.root, self.stages, self.seed, self.lanes = root, stages, seed, lanes
        self.on_error, self._skips = on_error, Skips()
        self.unit = _first(stages, lambda s: getattr(s, "counted", False))
        self.split = _first(stages, lambda s: not as_order(s)) if self.dealt else self.unit
        self.lengths, self.period = [root.length()], root.length()
        for stage in stages[: self.split]:
            order = as_order(stage)
            if order is not None:
                self.period = order.period(self.lengths[-1], self.period)
            self.lengths.append(order.length(self.lengths[-1]) if order else self.lengths[-1])
        # stages of this very chain that a cache beneath holds: theirs are the first numbers
        self.before: tuple[Stage, ...] = getattr(root, "stages", ())
        self._sites: dict[Path, tuple[Site, ...]] = {}
        self._known: dict[str, str] | None = None

    def __reduce__(self) -> Any:
        return Chain, (self.root, self.stages, self.seed, self.lanes, self.on_error)

    @property
    def parts(self) -> dict[str, Chain]:
        """The chains that the root is made of, by name; none where it is one source."""
        return getattr(self.root, "chains", {})

    def below(self) -> Iterator[Stage]:
        """The stages of all chains that the root joins: their rows carry the same provenance."""
        for chain in self.parts.values():
            yield from chain.stages
            yield from chain.below()

    def beneath(self, count: int) -> Chain:
        """The chain of the first `count` stages alone."""
        return Chain(self.root, self.stages[:count], self.seed, 1, self.on_error)

    @property
    def dealt(self) -> bool:
        """Whether the root is a counted mix: rows have no positions from there on."""
        return getattr(self.root, "deals", False)

    @property
    def counted(self) -> bool:
        return self.dealt or self.split < len(self.stages)

    @property
    def ends(self) -> bool:
        """Whether a pass over the chain comes to an end."""
        return self.length < ENDLESS

    @property
    def counting(self) -> str:
        """What makes the chain counted, in words."""
        if self.dealt:
            name, chain = next((n, c) for n, c in self.parts.items() if c.counted)
            return f"mix (in it {chain.counting} of dataset {name!r})"
        return f"{self.stages[self.split].kind} '{self.stages[self.split].name}'"

    @property
    def length(self) -> int:
        """Rows an epoch of the indexed part."""
        return self.lengths[-1]

    def cut(self, lanes: int) -> Blocks:
        """How the indexed part is cut for the counting stages, and dealt to lanes."""
        return Blocks(self.length, self.period, self.block, lanes)

    @property
    def block(self) -> int:
        """About how many rows the counting stages see at once."""
        return max((getattr(s, "block", 0) for s in self.stages), default=0) or BLOCK

    @property
    def skips(self) -> bool:
        """Whether a row may be another than arithmetic says."""
        return self.on_error == "skip" or any(chain.skips for chain in self.parts.values())

    def read(self, at: At, path: Path = ()) -> Block:
        """Rows of the indexed part, wherever they stand; bounds are the caller's business."""
        if self.on_error == "raise":
            return self._read(at, path)
        good, bad = self._good(at, path)
        if not bad:
            return good[0][1] if good else self._read(at, path)
        for row, error in bad.items():
            good.append((np.array([row]), self._next_good(_rows(at, [row]), error, path)))
        return _in_order(good)

    def _good(self, at: At, path: Path) -> tuple[list[tuple[Int64s, Block]], dict[int, Exception]]:
        # what can be read, by row; what cannot is logged
        good, bad = survivors(lambda i: self._read(_rows(at, i), path), np.arange(len(at.index)))
        for row, error in bad.items():
            origin = self.origin(_rows(at, [row]), path)
            self._skips.say(self.root.components(path), origin, 0, error)
        return good, bad

    def _next_good(self, at: At, error: Exception, path: Path) -> Block:
        # what stands for a row that cannot be read: the next of its epoch that can
        index = int(at.index[0])
        first = index // self.period * self.period
        rows = min(self.period, self.length - first)
        for ahead in range(1, rows):
            other = np.array([first + (index - first + ahead) % rows])
            good, _ = self._good(At(at.epoch, at.order, other), path)
            if good:
                return good[0][1]
        raise error

    def _read(self, at: At, path: Path) -> Block:
        at, transforms = self._resolve(at, path)
        where = "cache" if getattr(self.root, "kind", "") == "cache" else "source"
        block = METER.timed(_named(where, path), self.root.read, at, path)
        for transform, site in transforms:
            block = METER.timed(_named(site.stage, path), patiently, transform.apply, block, site)
        return block

    def ahead(self, first: int, end: int) -> None:
        """After stream rows first to end: let a source that reads ahead know what comes then.

        Only where they pass a sixteenth of what it wants to know of, and within the epoch.
        """
        horizon = getattr(self.root, "horizon", 0)
        if not horizon or first >= end:
            return
        step = -(-horizon // 16)
        rows = min(horizon, -end % self.length)
        if rows and (first == 0 or first // step != end // step):
            some = end + np.arange(0, rows, -(-rows // HINTS))
            at, _ = self._resolve(At.of_rows(some, self.length), ())
            cast(Leaf, self.root).ahead(at)

    def origin(self, at: At, path: Path = ()) -> Origin:
        """Provenance of rows of the indexed part, by arithmetic alone."""
        return self.root.origin(self._resolve(at, path)[0], path)

    def read_block(
        self, lane: int, number: int, path: Path = (), lanes: int | None = None
    ) -> Block:
        """Block `number` of a lane, of so many lanes: a pure function of these."""
        start, stop = self.cut(lanes or self.lanes).bounds(lane, number)
        at = At.of_rows(np.arange(start, stop), self.length)
        if self.on_error == "raise":
            block = self._read(at, path)
        else:
            good, bad = self._good(at, path)
            block = _in_order(good) if good or bad else self._read(at, path)
        return self.apply(block, slice(self.split, None), path)

    def apply(self, block: Block, stages: slice, path: Path) -> Block:
        """A block through some of the transforms; what fails is left out, if the chain says so."""
        sites = self.sites(path)
        for i in range(*stages.indices(len(self.stages))):
            block = self._counted(cast(Transform, self.stages[i]), block, sites[i], path)
        return block

    def _counted(self, transform: Transform, block: Block, site: Site, path: Path) -> Block:
        def apply(block: Block) -> Block:
            return METER.timed(_named(site.stage, path), patiently, transform.apply, block, site)

        if self.on_error == "raise":
            return apply(block)
        every = np.arange(len(block))
        good, bad = survivors(
            lambda i: apply(block if len(i) == len(block) else block.take(i)), every
        )
        for row, error in bad.items():
            self._skips.say(site.components, block.origin, row, error)
        return Block.concat([part for _, part in good]) if good else apply(block.slice(0, 0))

    def patience(self, cut: Blocks) -> int:
        """Blocks of a lane without a row, beyond two epochs of them, after which none will come."""
        if self.period < ENDLESS:
            return 64 + 2 * cut.per_epoch
        return 64 + 2 * (self.cycle // (cut.block * cut.lanes))

    @property
    def cycle(self) -> int:
        """Rows after which nothing new comes but by chance."""
        return self.period if self.period < ENDLESS else getattr(self.root, "cycle", ENDLESS)

    def barren(self, lane: int, blocks: int, cut: Blocks) -> StreamEndError:
        """The error for a lane that gives nothing any more."""
        return StreamEndError(
            f"lane {lane} of {cut.lanes} gave no row in {blocks} blocks, more than two epochs of "
            f"them ({self.cycle} rows an epoch beneath): do the stages drop everything, or are "
            "there more lanes than rows?"
        )

    def fingerprint(self) -> dict[str, str]:
        """Everything that the data depends on, by name; found once, as it may look into files."""
        if self._known is None:
            self._known = self._fingerprint()
        return dict(self._known)

    def _fingerprint(self) -> dict[str, str]:
        numbered = enumerate(self.stages, len(self.before))
        stages = {f"stages.{i}": s.fingerprint() for i, s in numbered}
        lanes = {"lanes": str(self.lanes)} if self.counted else {}
        skip = {"on_error": self.on_error} if self.on_error != "raise" else {}
        return {"seed": str(self.seed), **lanes, **skip, **self.root.fingerprint(), **stages}

    def _resolve(self, at: At, path: Path) -> tuple[At, list[tuple[Transform, Site]]]:
        sites = self.sites(path)
        transforms: list[tuple[Transform, Site]] = []
        for i in reversed(range(self.split)):
            order = as_order(self.stages[i])
            if order is not None:
                at = order.resolve(at, self.lengths[i], sites[i])
            else:
                s = sites[i]
                site = Site(s.seed, s.path, s.components, s.stage, at.index)
                transforms.append((cast(Transform, self.stages[i]), site))
        return at, transforms[::-1]

    def sites(self, path: Path) -> tuple[Site, ...]:
        """What each stage may know besides its rows."""
        if path not in self._sites:
            components = self.root.components(path)
            self._sites[path] = tuple(
                Site(self.seed, path, components, f"stage {i}: {s.kind} {s.name!r}")
                for i, s in enumerate(self.stages, len(self.before))
            )
        return self._sites[path]


def _rows(at: At, which: Int64s | list[int]) -> At:
    return At(at.epoch[which], at.order[which], at.index[which])


def _in_order(parts: list[tuple[Int64s, Block]]) -> Block:
    if not parts:
        return Block([], Origin.none())
    rows = np.concatenate([rows for rows, _ in parts])
    return Block.concat([block for _, block in parts]).take(np.argsort(rows))


def _first(stages: tuple[Stage, ...], fits: Callable[[Stage], Any]) -> int:
    return next((i for i, stage in enumerate(stages) if fits(stage)), len(stages))


def _named(stage: str, path: Path) -> str:
    return f"{'/'.join(path)}: {stage}" if path else stage


def as_order(stage: Stage) -> Order | None:
    """The stage if it is an order, else None."""
    return cast(Order, stage) if hasattr(stage, "resolve") else None
