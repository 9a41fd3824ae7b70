"""What several indexed datasets become together: one after another, or side by side."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pipeline.block import Block, Columns, Int64s, Origin, Segments
from pipeline.chain import Chain, Path
from pipeline.errors import ChainError
from pipeline.sampling.interleave import Turns
from pipeline.types import ENDLESS, At, Component


def seeded(chain: Chain) -> bool:
    """Whether a scan of shuffled rows ties the chain to its place: shuffles differ by path."""
    own = [chain.root, *chain.stages]
    return any(getattr(x, "seeded", False) for x in own) or any(map(seeded, chain.parts.values()))


class Joined:
    """Named chains under one root: their components, paths and fingerprints.

    Attributes:
        deals: whether rows of counted chains are dealt, lane by lane, so that they have no
            positions.
    """

    kind = ""
    deals = False

    def __init__(self, chains: Mapping[str, Chain]) -> None:
        if not chains:
            raise ChainError(f"{self.kind} of no datasets: give at least one")
        for name, chain in chains.items():
            if chain.counted and not self.deals:
                raise ChainError(
                    f"{self.kind} needs rows by position, but {chain.counting} of "
                    f"dataset {name!r} counts rows as they come. Move it after the {self.kind}."
                )
            if seeded(chain):
                raise ChainError(
                    f"{self.kind}: dataset {name!r} uses a scan of shuffled rows, and its shuffles "
                    f"would differ as a part of the {self.kind}. Scan beneath them, or scan the "
                    f"{self.kind}."
                )
        self.chains = dict(chains)
        counts = [len(chain.root.components(())) for chain in self.chains.values()]
        self._firsts = dict(zip(self.chains, np.cumsum([0, *counts])[:-1].tolist(), strict=True))

    def components(self, path: Path) -> tuple[Component, ...]:
        parts = [c.root.components((*path, name)) for name, c in self.chains.items()]
        return tuple(component for part in parts for component in part)

    def fingerprint(self) -> dict[str, str]:
        parts = {f"{n}.{k}": v for n, c in self.chains.items() for k, v in c.fingerprint().items()}
        return {"root": f"{self.kind} {' '.join(self.chains)}", **parts}

    @property
    def cycle(self) -> int:
        """Rows after which nothing new comes but by chance, of an endless root."""
        return max(chain.cycle for chain in self.chains.values())

    def _gathered(
        self,
        which: Int64s,
        at: At,
        path: Path,
        get: Callable[[Chain, At, Path], Any],
        concat: Callable[[list[Any]], Any],
    ) -> Any:
        # row i is the which[i]-th dataset's, at[i] in it: each is asked once for all of its rows,
        # which then go where they were asked for
        names, chains = list(self.chains), list(self.chains.values())
        order = np.argsort(which, kind="stable")
        asked, starts = np.unique(which[order], return_index=True)
        parts: list[Any] = []
        for c, here in zip(asked.tolist(), np.split(order, starts[1:]), strict=False):
            part = At(at.epoch[here], at.order[here], at.index[here])
            parts.append(self.above(names[c], get(chains[c], part, (*path, names[c]))))
        if not parts:
            return self.above(names[0], get(chains[0], at, (*path, names[0])))
        if len(parts) == 1:
            return parts[0]
        places = np.empty_like(order)
        places[order] = np.arange(len(order))
        return concat(parts).take(places)

    def above(self, name: str, rows: Any) -> Any:
        """A component's Block or Origin with its sources counted as this root counts them."""
        if isinstance(rows, Block):
            return Block(rows.values, self.above(name, rows.origin))
        inside: dict[str, Segments] = {
            kind: replace(segments, origin=self.above(name, segments.origin))
            for kind in ("segments", "beside")
            if (segments := getattr(rows, kind)) is not None
        }
        return replace(rows, component=rows.component + self._firsts[name], **inside)


class Concatenation(Joined):
    """Datasets one after another; an epoch is one epoch of each."""

    kind = "concatenate"

    def __init__(self, chains: Mapping[str, Chain]) -> None:
        super().__init__(chains)
        for name, chain in self.chains.items():
            if chain.length == ENDLESS:
                raise ChainError(f"{self.kind}: dataset {name!r} never ends. Repeat the whole.")
        self._ends = np.cumsum([chain.length for chain in self.chains.values()])

    def length(self) -> int:
        return int(self._ends[-1])

    def origin(self, at: At, path: Path) -> Origin:
        return self._gathered(*self._below(at), path, Chain.origin, Origin.concat)

    def read(self, at: At, path: Path) -> Block:
        return self._gathered(*self._below(at), path, Chain.read, Block.concat)

    def _below(self, at: At) -> tuple[Int64s, At]:
        which, index = self._locate(at.index)
        return which, At(at.epoch, at.order, index)

    def position(self, name: str, index: Int64s) -> Int64s:
        """Where rows of one dataset stand."""
        j = list(self.chains).index(name)
        return index + (int(self._ends[j - 1]) if j else 0)

    def drawn(self, rows: int) -> dict[str, int]:
        """How many rows of each dataset stand among the first rows of an epoch."""

        def row(name: str, index: int) -> int:
            return int(self.position(name, np.array([index], np.int64))[0])

        return {
            name: bisect_left(range(chain.length), rows, key=lambda i, name=name: row(name, i))
            for name, chain in self.chains.items()
        }

    def _locate(self, position: Int64s) -> tuple[Int64s, Int64s]:
        """Which dataset gives the row at each position, and where in that dataset it stands."""
        which = np.searchsorted(self._ends, position, side="right").astype(np.int64)
        starts = np.concatenate([[0], self._ends])
        return which, position - starts[which]


class Interleaving(Concatenation):
    """Datasets in turn; an epoch is one epoch of each."""

    kind = "interleave"

    def __init__(self, chains: Mapping[str, Chain], cycle: int, run: int) -> None:
        super().__init__(chains)
        self._turns = Turns([chain.length for chain in self.chains.values()], cycle, run)
        self._text = f"cycle={min(cycle, len(self.chains))} run={run}"

    def fingerprint(self) -> dict[str, str]:
        parts = super().fingerprint()
        return {**parts, "root": f"{parts['root']} {self._text}"}

    def position(self, name: str, index: Int64s) -> Int64s:
        return self._turns.position(list(self.chains).index(name), index)

    def _locate(self, position: Int64s) -> tuple[Int64s, Int64s]:
        return self._turns.locate(position)


class Zip(Joined):
    """Datasets side by side: row i is {name: row i of each}; its provenance is the first's, the
    others' records stand beside it.
    """

    kind = "zip"

    def __init__(self, chains: Mapping[str, Chain]) -> None:
        super().__init__(chains)
        lengths = {name: chain.length for name, chain in self.chains.items()}
        if len(set(lengths.values())) > 1:
            raise ChainError(f"zip needs equal lengths, got {lengths}. Slice the longer ones.")
        for name, chain in self.chains.items():
            if chain.skips:
                raise ChainError(
                    f"zip: dataset {name!r} skips rows that fail, which would set others beside "
                    'the wrong ones. Put .on_error("skip") after the zip.'
                )

    def length(self) -> int:
        return next(iter(self.chains.values())).length

    def origin(self, at: At, path: Path) -> Origin:
        parts = {name: c.origin(at, (*path, name)) for name, c in self.chains.items()}
        return self._beside(parts)

    def _beside(self, parts: Mapping[str, Origin]) -> Origin:
        return Origin.side_by_side([self.above(name, part) for name, part in parts.items()])

    def read(self, at: At, path: Path) -> Block:
        blocks = {name: chain.read(at, (*path, name)) for name, chain in self.chains.items()}
        origin = self._beside({name: block.origin for name, block in blocks.items()})
        values = {name: block.values for name, block in blocks.items()}
        if all(isinstance(v, Columns) for v in values.values()):
            return Block(
                Columns({n: v.tree for n, v in values.items() if isinstance(v, Columns)}), origin
            )
        rows = [block.rows() for block in blocks.values()]
        return Block(
            [dict(zip(values, row, strict=True)) for row in zip(*rows, strict=True)], origin
        )


def numbered(chains: Sequence[Chain]) -> dict[str, Chain]:
    """Chains by their place: "0", "1", …"""
    return {str(i): chain for i, chain in enumerate(chains)}
