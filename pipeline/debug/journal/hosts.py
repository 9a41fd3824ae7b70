"""The digests of a run's steps: each process wrote its own rows' number, and they are added up."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.debug.journal import columns
from pipeline.debug.journal.digests import KIND, add_up, follows, written
from pipeline.debug.journal.files import Files
from pipeline.debug.journal.launches import no_launch
from pipeline.debug.journal.ledger import LedgerFile
from pipeline.debug.journal.line import Line
from pipeline.debug.journal.states import States
from pipeline.errors import JournalError

Launches = Mapping[int, Mapping[int, dict[str, Any]]]  # process -> launch -> what it noted
Rows = tuple[tuple[int, int], ...]  # of the global batch, [start, stop) each
# what the batches of a line are: step, processes then, numbers (`_PLACE`), what was left out
Key = tuple[int, int, tuple[int, ...], str | None]


class Digests(NamedTuple):
    """The digests of the steps that led to where a run stands.

    Attributes:
        step: int64[n], rising.
        digest: of each step's batches, all processes' numbers added up: 32 hex digits.
        lacking: a process whose file ends before; steps from there on are left out.
    """

    step: NDArray[np.int64]
    digest: NDArray[Any]
    lacking: int | None = None


class Hosts:
    """The ledgers of all processes of a run.

    Args:
        folder: of the run.
        ledgers: process -> its ledger.
        launches: process -> launch -> what it noted.
        states: gives what a process noted of its loader.
    """

    def __init__(
        self,
        folder: Path,
        ledgers: Mapping[int, LedgerFile],
        launches: Launches,
        states: Callable[[int], States],
    ) -> None:
        self._folder, self._ledgers, self._launches = folder, ledgers, launches
        self._states = states

    def digest(self, line: Line) -> str:
        """The digest of one step; see `Run.digest`."""
        launch = self._launches[0].get(line.launch, {})
        hosts = launch.get("hosts", 1)
        if hosts == 1 or launch.get("digest") != KIND:
            return line.digest
        lines = [line, *(self._line_of(host, line, hosts) for host in range(1, hosts))]
        shares = self._shares(tuple(each.launch for each in lines))
        return _sum({share: each.digest for share, each in zip(shares, lines, strict=True)})

    def _line_of(self, host: int, line: Line, hosts: int) -> Line:
        # a process's line of the batches that a line of the first one has
        mine, found = self._states(0).left_out(line), list[Line]()
        for each in self._ledger(host, hosts).of_step(line.step):
            same = all(
                getattr(each, x) == getattr(line, x) for x in ("data_step", "batches", "rows")
            )
            if same and self._hosts(host, each.launch) == hosts:
                its = self._states(host).left_out(each)
                found += [each] if its == mine or not (its and mine) else []
        if not found:
            raise JournalError(
                f"process {host} of {hosts} has no line for step {line.step:,} in {self._folder}: "
                "it ended before. Only the steps before it can be compared."
            )
        return found[-1]

    def _ledger(self, host: int, hosts: int) -> LedgerFile:
        if host not in self._ledgers:
            name = Files(self._folder, host).ledger.name
            raise JournalError(
                f"{self._folder} is a run of {hosts} processes, and the file of process {host} is "
                f"not there: {name}. Copy it here."
            )
        return self._ledgers[host]

    def _hosts(self, host: int, launch: int) -> int:
        if launch not in self._launches[host]:
            raise no_launch(Files(self._folder, host).launches, launch)
        return self._launches[host][launch].get("hosts", 1)

    def _shares(self, launches: tuple[int, ...]) -> list[Rows]:
        # each process's rows; those that have the same, as where a mesh splits tensors, count once
        noted = [self._launches[h].get(n, {}).get("share", []) for h, n in enumerate(launches)]
        shares = [tuple((a, b) for a, b in share) for share in noted]
        rows = sorted(span for share in {*shares} for span in share)
        if any(one[1] > other[0] for one, other in pairwise(rows)):
            raise JournalError(
                f"the processes of {self._folder} had parts of batches that overlap: {rows}. Their "
                "digests cannot be added up."
            )
        return shares

    # ---- all of them

    def digests(self) -> Digests:
        """The digests of all steps that led to where the run stands.

        Raises:
            JournalError: a process's file is not here, or some digests are of batches on devices.
        """
        mine = self._proved(0)
        for launch in np.unique(mine["launch"]).tolist():
            self._hosts(0, launch)
            if self._launches[0][launch].get("digest") != KIND:
                raise JournalError(
                    f"{self._folder} has digests of batches on devices, from before the journal: "
                    "they say nothing about another framework or mesh."
                )
        most = max((self._hosts(0, n) for n in np.unique(mine["launch"]).tolist()), default=1)
        if most == 1:
            return Digests(mine["step"], mine["digest"])
        others = [self._by_key(host, most) for host in range(1, most)]
        known: dict[tuple[int, ...], list[Rows]] = {}
        found: list[str] = []
        for key, line in self._keyed(0, mine):
            hosts = key[1]
            lines = [line, *(_same_of(each, key) for each in others[: hosts - 1])]
            if None in lines:
                return Digests(mine["step"][: len(found)], np.array(found), lines.index(None))
            launches = tuple(line[0] for line in lines if line)
            if launches not in known:
                known[launches] = self._shares(launches)
            parts = zip(known[launches], (line[1] for line in lines if line), strict=True)
            found.append(_sum(dict(parts)))
        return Digests(mine["step"], np.array(found))

    def _proved(self, host: int, hosts: int = 1) -> columns.Arrays:
        return self._kept(host, columns.digests(self._ledger(host, hosts)))

    def _kept(self, host: int, found: columns.Arrays) -> columns.Arrays:
        # of the first process the lines that led to where the run stands; of others all, as they
        # may have ended on an attempt that the first one gave up
        if host:
            return found
        led = self._ledgers[0].lineage.leads_on(found["number"])
        return {name: column[led] for name, column in found.items()}

    def _keyed(self, host: int, found: columns.Arrays) -> Iterator[tuple[Key, tuple[int, str]]]:
        # of each line what its batches were, and its launch and digest; the last written holds
        pairs = {pair: i for i, pair in enumerate(zip(*map(_listed(found), _LOADER), strict=True))}
        changes = {pair: self._states(host).changes(*pair) for pair in pairs}
        hosts = {launch: self._hosts(host, launch) for launch, _ in pairs}
        for launch, move, step, digest, *place in zip(
            *map(_listed(found), (*_LOADER, "step", "digest", *_PLACE)), strict=True
        ):
            steps, texts = changes[launch, move]
            at = bisect_right(steps, place[0]) - 1
            text = texts[at] if at >= 0 else ""
            yield (step, hosts[launch], tuple(place), text), (launch, digest)

    def _by_key(self, host: int, hosts: int) -> dict[Key, tuple[int, str]]:
        # with None for what was left out: whatever that was
        lines = [*self._keyed(host, self._proved(host, hosts))]
        return dict([((*key[:3], None), line) for key, line in lines] + lines)

    # ---- what vouches for them

    def verify(self, until: int) -> int:
        """Hold each line's chain against its digest and the chain of the line that it follows.

        Args:
            until: steps after it are left out.

        Returns:
            How many lines were checked, of all processes.

        Raises:
            JournalError: a line was changed after it was written.
        """
        checked = 0
        for host, ledger in self._ledgers.items():
            whole, parents = columns.digests(ledger), ledger.lineage.parents()
            chains, found = whole["chain"], self._kept(host, whole)
            part = found["step"] <= until
            for number, step, digest, chain in zip(
                *(found[k][part].tolist() for k in ("number", "step", "digest", "chain")),
                strict=True,
            ):
                before = str(chains[parents[number]]) if parents[number] >= 0 else ""
                if chain and not follows(before, digest, chain):
                    raise JournalError(
                        f"the line of step {step:,} in {ledger.file}, or that before it, was "
                        "changed after it was written: its chain does not follow from its digest. "
                        "Take the file from a copy; python -m pipeline replay tells whether the "
                        "digest is that of the data."
                    )
                checked += 1
        return checked


_LOADER = ("launch", "move")
_PLACE = ("data_step", "batches", "first_row", "end_row")


def _listed(found: columns.Arrays) -> Callable[[str], list[Any]]:
    return lambda name: found[name].tolist()


def _same_of(lines: Mapping[Key, tuple[int, str]], key: Key) -> tuple[int, str] | None:
    # where one of the two did not note what it left out, that is not compared
    return lines.get(key) or lines.get((*key[:3], "" if key[3] else None))


def _sum(parts: Mapping[Rows, str]) -> str:
    return written(add_up(int(part, 16) for part in parts.values()))
