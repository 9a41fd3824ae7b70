"""Which line of a run's journal led to where its loader came to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pipeline.debug.journal.files import Files
from pipeline.debug.journal.ledger import LedgerFile
from pipeline.debug.journal.line import Line
from pipeline.debug.journal.states import States, left_out, read_states
from pipeline.debug.journal.tap import Came, Tap
from pipeline.errors import JournalError


class Before(NamedTuple):
    """The line that led somewhere.

    Attributes:
        line: it, or None.
        own: whether it is of this process, and not of the first one.
    """

    line: Line | None
    own: bool = True


class _Found(NamedTuple):
    """A line, and what speaks for it, the weightiest first: a later one wins where all is equal."""

    fits: bool  # the loader left out the same until there, and its rows end where the loader is
    number: int
    line: Line


def led_to(files: Files, first: Files | None, tap: Tap, came: Came) -> Before:
    """The line after which a loader stands where it came to, whatever came later in the journal.

    The same data step may have been reached more than once, as in an attempt that was given up.
    What the loader leaves out, and its row of the stream, tell which of them it is.

    Args:
        files: of this process.
        first: of the first process, if it is another: a process that joins the run later learns
            from it which step comes next.
        tap: of the loader.
        came: where it came to.
    """
    every = [files] if first is None else [files, first]
    state = tap.state()
    best = [_best(each, tap, came, state) for each in every]
    for found, each in zip(best, every, strict=True):
        if found and found.fits:
            return Before(found.line, each is files)
    if tap.skips_all(0, came.step):  # none fits, and none is needed: all before is skipped
        return Before(None)
    for found, each in zip(best, every, strict=True):
        if found:
            return Before(found.line, each is files)
    known = [LedgerFile(each.ledger).ending_at(came.step) for each in every]
    ends = [line.data_end if line else -1 for line in known]
    nearest = ends.index(max(ends))
    return Before(known[nearest], nearest == 0)


def _best(files: Files, tap: Tap, came: Came, state: Mapping[str, Any]) -> _Found | None:
    lines = LedgerFile(files.ledger).ending_in(tap.skipped_from(came.step), came.step)
    states = _noted(files) if lines else States()
    return max((_weighed(line, states, came, state) for line in lines), default=None)


def _weighed(line: Line, states: States, came: Came, state: Mapping[str, Any]) -> _Found:
    noted, end = states.nearest(line, led=False), line.data_end
    same = noted is None or left_out(noted.state, end) == left_out(state, end)
    there = end < came.step or line.rows[1] == came.row
    return _Found(same and there, line.number, line)


def _noted(files: Files) -> States:
    try:
        return States(read_states(files.states))
    except JournalError:  # a run goes on all the same; whoever reads it is told
        return States()
