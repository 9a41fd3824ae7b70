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
    state = tap.state()
    own = _best(files, tap, came, state)
    if first is None or (own and own.fits):
        return Before(own.line) if own else Before(LedgerFile(files.ledger).ending_at(came.step))
    other = _best(first, tap, came, state)
    if other and (other.fits or not own):
        return Before(other.line, own=False)
    if own:
        return Before(own.line)
    known = [LedgerFile(each.ledger).ending_at(came.step) for each in (files, first)]
    own_is_nearer = known[1] is None or (known[0] and known[0].data_end >= known[1].data_end)
    return Before(known[0]) if own_is_nearer else Before(known[1], own=False)


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
