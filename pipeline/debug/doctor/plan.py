"""Which runs tell whether a loader keeps the laws: where they are cut, saved and resumed."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import NamedTuple

from pipeline.debug.doctor.compare import difference
from pipeline.debug.doctor.launch import Launcher, Seen
from pipeline.debug.doctor.watch import Job
from pipeline.errors import PipelineError

_PAST = 4  # batches to see of the pass after the first
_FURTHEST = 10  # times the batches asked for, to find where a pass ends
_FIRST = 3  # times the limit: the first run imports all for the first time
_SLOWER = 6  # times as long as it did may other runs take, as far as the limit goes
_LEAST = 2  # times as long as it did may they take in any case
_SHORTEST = 15.0  # seconds that each of them has
_HOST_STEPS = 8  # steps of several hosts to see after a cut


class DoctorError(PipelineError, RuntimeError):
    """The loader cannot be examined: make what the message names work by itself first."""


@dataclass(frozen=True)
class Options:
    """What is asked of an examination; see `examine`."""

    workers: Sequence[int]
    hosts: Sequence[int]
    key: str | None
    batches: int
    shuffled: bool
    seed: int
    seconds: float


class Group(NamedTuple):
    """Hosts that ran together; see `Runs.groups`."""

    words: str
    whole: Seen
    skip: int
    ranks: list[Seen]


@dataclass
class Runs:
    """All runs of an examination.

    Attributes:
        base: the uninterrupted run.
        first: the step after which states are kept, `then` the step of a second cut.
        edge: the step at which the first pass ends, if it was seen to.
        by_name: the other runs.
        groups: of several hosts: what they did, in words; the run that they should go on as; how
            many records were handed out before; each one's run.
        leftovers: what stayed behind.
    """

    base: Seen
    options: Options
    first: int
    then: int
    edge: int | None
    by_name: dict[str, Seen] = field(default_factory=dict[str, Seen])
    groups: list[Group] = field(default_factory=list["Group"])
    leftovers: Sequence[str] = ()

    @property
    def saved(self) -> Seen:
        """The run whose states were kept: resumes go on as it did, whatever another run gives."""
        saved = self.by_name["saved"]
        return self.base if saved.failure else saved

    def named(self, prefix: str) -> list[Seen]:
        """The runs whose names begin so, in the order in which they were done."""
        return [run for name, run in self.by_name.items() if name.startswith(prefix)]


def examined(launcher: Launcher, options: Options, tell: Callable[[str], None]) -> Runs:
    """Do all runs.

    Args:
        launcher: starts them.
        options: what is asked.
        tell: is told in a word what is done now.

    Raises:
        DoctorError: the factory or its loader fails by itself.
    """
    return _Plan(launcher, options, tell).runs


class _Plan:
    def __init__(self, launcher: Launcher, options: Options, tell: Callable[[str], None]) -> None:
        self._launcher, self._options, self._tell = launcher, options, tell
        arguments = {"workers": options.workers[0], "host": 0, "hosts": 1}
        self._job = Job("base", arguments, key=options.key, seed=options.seed)
        self._base = self._uninterrupted()
        launcher.heavy = self._base.facts.get("heavy", [])
        self._keeps: bool = self._base.facts["keeps"]
        self._total = len(self._base.batches)
        self.runs = self._cut()
        self._save()
        for future in self._side_by_side():
            self._add(future)
        self._hosts()
        self.runs.leftovers = sorted(set(launcher.leftovers))

    # ---- one after the other

    def _uninterrupted(self) -> Seen:
        self._tell("an uninterrupted run")
        n, limit, started = self._options.batches, self._options.seconds, time.monotonic()
        job = replace(self._job, least=n, past=_PAST, most=n * _FURTHEST, seconds=_FIRST * limit)
        base = self._start(job).result()[0]
        # how long the others may take depends on how busy the machine is, and how slow the loader
        took = time.monotonic() - started
        others = min(limit, max(_SHORTEST, _SLOWER * took))
        others = others if "hung" in base.facts else max(others, _LEAST * took)
        self._job = replace(self._job, seconds=others)
        self._launcher.importing = max(self._launcher.importing, _SLOWER * took)
        if "early" in base.facts:
            raise DoctorError(base.facts["error"])
        if base.failure and not base.batches:
            raise DoctorError(f"the loader fails by itself: {base.failure}")
        if not base.batches:
            raise DoctorError("the loader gives no batch: there is nothing to compare")
        # one that is merely slow is examined as far as it came
        silent = base.facts.get("silent")
        if base.failure and (silent is None or silent > limit / 2):
            done = len(base.batches)
            failure = base.failure if silent is None else f"nothing more within {silent:.0f} s"
            raise DoctorError(f"the loader fails by itself at step {done}: {failure}")
        return base

    def _cut(self) -> Runs:
        edge = next(iter(self._base.edges), None)
        first = min(edge or self._total, self._total)
        inside = range(3, first) if first > 4 else range(1, first)
        rng = random.Random(self._options.seed)
        some = sorted(rng.sample(inside, min(2, len(inside)))) or [1]
        then = some[1] if len(some) > 1 else some[0] + 1
        return Runs(self._base, self._options, some[0], then, edge)

    def _save(self) -> None:
        # in the first pass, in a later one, and at the edge, before the pass ends and after
        self._tell("a run whose states are kept")
        runs, edges = self.runs, self._base.edges
        later = [k for k in range((runs.edge or self._total) + 1, self._total) if k not in edges]
        picked = [runs.first, runs.then, *later[len(later) // 2 :][:1]]
        self._cuts = sorted({k for k in picked if 0 < k < self._total and k != runs.edge})
        ends = (runs.edge,) if runs.edge else ()
        cuts = (*{*self._cuts, self._host_cut}, *ends) if self._keeps else ()
        self._add(self._start(replace(self._whole("saved"), cuts=cuts, ends=ends if cuts else ())))
        if self._keeps and difference(self._base, runs.by_name["saved"]):
            self._add(self._start(self._whole("again")))

    def _side_by_side(self) -> list[Future[list[Seen]]]:
        self._tell("resumes, other worker counts, kills")
        pending = [self._start(*self._resumes())] if self._keeps and self._cuts else []
        pending.append(self._start(*self._kills()))
        if "workers" in self._base.facts["named"]:
            _, *others = dict.fromkeys(self._options.workers)
            pending += [self._start(*self._with_workers(count)) for count in others]
        return pending

    def _hosts(self) -> None:
        named, torch = set(self._base.facts["named"]), self._base.facts["torch"]
        counts = [h for h in dict.fromkeys(self._options.hosts) if h > 1]
        if not counts or len(named & {"host", "hosts"}) < (1 if torch else 2):
            return
        self._tell("other host counts")
        cut = self._host_cut
        before, skip, was = [f"saved-{cut}"], self._rows_before(cut), 1
        whole = self.runs.saved
        for count in counts:
            ranks = self._launcher.start_ranks(
                [self._rank(r, count, before, skip) for r in range(count)]
            ).result()
            words = f"{count} hosts from the start"
            scratch = self._group(ranks, f"hosts{count}.", words, self._base, 0)
            if self._keeps:
                together, taken = joined(scratch), sum(map(len, joined(scratch).batches[:cut]))
                words = f"saved and restored on {count} hosts"
                self._group(ranks, f"hosts{count}-own", words, together, taken)
                words = f"saved on {was} host(s), restored on {count}"
                self._group(ranks, f"hosts{count}-from", words, whole, skip)
                before, skip = [f"hosts{count}.{r}-{cut}" for r in range(count)], taken
                whole = together
            was = count
        if self._keeps:
            back = self._resumed_on_hosts(0, 1, "hosts1-back", before, skip)
            words = f"saved on {was} hosts, restored on 1"
            self._group(self._start(back).result(), "hosts1-back", words, whole, skip)

    # ---- jobs

    @property
    def _host_cut(self) -> int:
        # inside of the first pass, whoever's batches are a host's or all hosts'
        steps = (self.runs.edge or self._total) // max(self._options.hosts)
        return max(min(self.runs.first, steps - 1), 1)

    @property
    def _chain_end(self) -> int:
        return max(self.runs.then, self._cuts[0] + 1)

    def _whole(self, name: str) -> Job:
        return replace(self._job, name=name, least=self._total, most=self._total)

    def _from(self, step: int, name: str, *states: str) -> Job:
        left = max(self._total - step, 1)
        epoch = sum(edge <= step for edge in self._base.edges)
        job = replace(self._job, name=name, start=step, epoch=epoch, load=states)
        return replace(job, least=left, most=left)

    def _resumes(self) -> list[Job]:
        jobs = [self._from(k, f"resumed{i}", f"saved-{k}") for i, k in enumerate(self._cuts)]
        jobs[0] = replace(jobs[0], name="resumed", cuts=(self._chain_end,))
        jobs.insert(1, self._from(self._chain_end, "second", f"resumed-{self._chain_end}"))
        if edge := self.runs.edge:
            jobs.append(self._from(edge, "edge-inside", f"saved-{edge}"))
            jobs.append(self._from(edge, "edge-after", f"saved-{edge}-end"))
        if self._base.facts["plain"]:
            first = self._cuts[0]
            jobs.append(replace(self._from(first, "json", f"saved-{first}"), text=True))
        return jobs

    def _with_workers(self, count: int) -> list[Job]:
        arguments = self._job.arguments | {"workers": count}
        name, step = f"workers{count}", self.runs.first
        scratch = replace(self._whole(name), arguments=arguments, cuts=(step,))
        if not self._keeps:
            return [replace(scratch, cuts=())]
        own = self._from(step, f"{name}-own", f"{name}-{step}")
        restored = self._from(step, f"{name}-restored", f"saved-{step}")
        back = self._from(step, f"{name}-back", f"{name}-{step}")
        return [scratch, *(replace(job, arguments=arguments) for job in (own, restored)), back]

    def _kills(self) -> list[Job]:
        arguments = self._job.arguments | {"workers": max(self._options.workers)}
        job = replace(self._whole("killed"), arguments=arguments)
        first = self.runs.first
        return [replace(job, kill=first), replace(job, name="orphans", die=first)]

    def _rank(self, rank: int, count: int, before: list[str], skip: int) -> list[Job]:
        scratch = self._on_host(self._whole(f"hosts{count}"), rank, count)
        if not self._keeps:
            return [scratch]
        own = [f"hosts{count}.{r}-{self._host_cut}" for r in range(count)]
        return [
            replace(scratch, cuts=(self._host_cut,)),
            self._resumed_on_hosts(rank, count, f"hosts{count}-own", own, 0),
            self._resumed_on_hosts(rank, count, f"hosts{count}-from", before, skip),
        ]

    def _resumed_on_hosts(
        self, rank: int, count: int, name: str, states: list[str], skip: int
    ) -> Job:
        edges = [self._rows_before(edge) for edge in self._base.edges]
        job = self._from(self._host_cut, name, *states)
        job = replace(job, epoch=sum(edge <= skip for edge in edges))
        return self._on_host(job, rank, count)

    def _on_host(self, job: Job, rank: int, count: int) -> Job:
        least = max(min(self._total - job.start, self._host_cut + _HOST_STEPS), 1)
        place = {"host": rank, "hosts": count}
        store = str(self._launcher.folder / f"{job.name}.store")
        use = self._base.facts["torch"] and count > 1
        job = replace(job, name=f"{job.name}.{rank}", arguments=self._job.arguments | place)
        job = replace(job, rank=rank, world=count, store=store if use else None)
        return replace(job, least=least, most=least)

    # ---- helpers

    def _rows_before(self, step: int) -> int:
        lengths = accumulate(map(len, self._base.batches), initial=0)
        return list(lengths)[step]

    def _start(self, *jobs: Job) -> Future[list[Seen]]:
        return self._launcher.start(*jobs)

    def _add(self, future: Future[list[Seen]]) -> None:
        self.runs.by_name |= {run.job.name: run for run in future.result()}

    def _group(
        self, ranks: list[Seen], prefix: str, words: str, whole: Seen, skip: int
    ) -> list[Seen]:
        mine = [run for run in ranks if run.job.name.startswith(prefix)]
        self.runs.groups.append(Group(words, whole, skip, mine))
        return mine


def joined(ranks: list[Seen]) -> Seen:
    """What several hosts handed out, as if by one."""
    steps = min(len(rank.batches) for rank in ranks)
    batches = [[row for rank in ranks for row in rank.batches[k]] for k in range(steps)]
    return Seen(ranks[0].job, batches, ranks[0].edges)
