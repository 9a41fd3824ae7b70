"""The digests of a run's steps: each process wrote its own rows' number, and they are added up."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.debug.journal import columns
from pipeline.debug.journal.digests import KIND, add_up, chained, written
from pipeline.debug.journal.files import Files
from pipeline.debug.journal.ledger import LedgerFile
from pipeline.debug.journal.line import Line
from pipeline.errors import JournalError

Launches = Mapping[int, Mapping[int, dict[str, Any]]]  # process -> launch -> what it noted
Rows = tuple[tuple[int, int], ...]  # of the global batch, [start, stop) each


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
    """

    def __init__(self, folder: Path, ledgers: Mapping[int, LedgerFile], launches: Launches) -> None:
        self._folder, self._ledgers, self._launches = folder, ledgers, launches

    def digest(self, line: Line) -> str:
        """The digest of one step; see `Run.digest`."""
        launch = self._launches[0].get(line.launch, {})
        hosts = launch.get("hosts", 1)
        if hosts == 1 or launch.get("digest") != KIND:
            return line.digest
        lines = [line, *(self._line_of(host, line.step, hosts) for host in range(1, hosts))]
        shares = self._shares(tuple(each.launch for each in lines))
        return _sum({share: each.digest for share, each in zip(shares, lines, strict=True)})

    def _line_of(self, host: int, step: int, hosts: int) -> Line:
        lines = self._ledger(host, hosts).of_step(step)
        same = [x for x in lines if self._hosts(host, x.launch) == hosts]
        if not same:
            raise JournalError(
                f"process {host} of {hosts} has no line for step {step:,} in {self._folder}: "
                "it ended before. Only the steps before it can be compared."
            )
        return same[-1]

    def _ledger(self, host: int, hosts: int) -> LedgerFile:
        if host not in self._ledgers:
            name = Files(self._folder, host).ledger.name
            raise JournalError(
                f"{self._folder} is a run of {hosts} processes, and the file of process {host} is "
                f"not there: {name}. Copy it here."
            )
        return self._ledgers[host]

    def _hosts(self, host: int, launch: int) -> int:
        return self._launches[host].get(launch, {}).get("hosts", 1)

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
        mine = columns.digests(self._ledgers[0])
        for launch in np.unique(mine["launch"]).tolist():
            if launch not in self._launches[0]:
                raise JournalError(
                    f"{Files(self._folder, 0).launches} has no line of launch {launch}: nothing "
                    "says of what its digests are. Take it back from a copy."
                )
            if self._launches[0][launch].get("digest") != KIND:
                raise JournalError(
                    f"{self._folder} has digests of batches on devices, from before the journal: "
                    "they say nothing about another framework or mesh."
                )
        most = max((self._hosts(0, n) for n in np.unique(mine["launch"]).tolist()), default=1)
        if most == 1:
            return Digests(mine["step"], mine["digest"])
        others = [self._last_of_steps(host, most) for host in range(1, most)]
        known: dict[tuple[int, ...], list[Rows]] = {}
        found: list[str] = []
        for step, launch, own in zip(*(mine[k].tolist() for k in _FIELDS), strict=True):
            hosts = self._hosts(0, launch)
            lines = [(launch, own), *(each.get((step, hosts)) for each in others[: hosts - 1])]
            if None in lines:
                return Digests(mine["step"][: len(found)], np.array(found), lines.index(None))
            launches = tuple(line[0] for line in lines if line)
            if launches not in known:
                known[launches] = self._shares(launches)
            parts = zip(known[launches], (line[1] for line in lines if line), strict=True)
            found.append(_sum(dict(parts)))
        return Digests(mine["step"], np.array(found))

    def _last_of_steps(self, host: int, hosts: int) -> dict[tuple[int, int], tuple[int, str]]:
        # (step, processes then) -> launch and digest; the last that was written holds
        lines = columns.digests(self._ledger(host, hosts), path=False)
        rows = zip(*(lines[k].tolist() for k in _FIELDS), strict=True)
        return {(step, self._hosts(host, n)): (n, digest) for step, n, digest in rows}

    # ---- what vouches for them

    def verify(self, until: int) -> int:
        """Hold each line's chain against its digest and the chain before it.

        Args:
            until: steps after it are left out.

        Returns:
            How many lines were checked, of all processes.

        Raises:
            JournalError: a line was changed after it was written.
        """
        checked = 0
        for ledger in self._ledgers.values():
            found = columns.digests(ledger)
            part = found["step"] <= until
            before = ""
            for step, digest, chain in zip(
                *(found[k][part].tolist() for k in ("step", "digest", "chain")), strict=True
            ):
                if chain and not _follows(before, digest, chain):
                    raise JournalError(
                        f"the line of step {step:,} in {ledger.file}, or that before it, was "
                        "changed after it was written: its chain does not follow from its digest. "
                        "Take the file from a copy; python -m pipeline replay tells whether the "
                        "digest is that of the data."
                    )
                before, checked = chain, checked + 1
        return checked


_FIELDS = ("step", "launch", "digest")


def _sum(parts: Mapping[Rows, str]) -> str:
    return written(add_up(int(part, 16) for part in parts.values()))


def _follows(before: str, digest: str, chain: str) -> bool:
    try:
        return chained(before, digest) == chain
    except ValueError:  # no hex digits
        return False
