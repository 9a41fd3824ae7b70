"""How far each mix of a dataset has been drawn: from there on its schedule may still be edited."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.chain import Chain, as_order
from pipeline.mixes import CountedMix, Mix
from pipeline.roots import Concatenation, Zip
from pipeline.sampling.cursor import Cursor, Lane, Place
from pipeline.types import ENDLESS, Order

SCHEDULE = "schedule"
Frontiers = dict[str, int]


def frontiers(chain: Chain, cursor: Cursor) -> Frontiers:
    """The first row of each mix that nothing before a cursor has touched, by its fingerprint key.

    ENDLESS where a pass has ended: where it did, and where the next began, hangs on all rows.
    """
    found: Frontiers = {}
    if chain.counted:
        _of_lanes(chain, cursor.lanes, chain.lanes, 0, "", found)
    else:
        _of_rows(chain, cursor.rows, "", found)
    return found


def _of_rows(chain: Chain, rows: int, head: str, found: Frontiers) -> None:
    # rows of the chain's indexed part, from its first one on
    for i in reversed(range(chain.split)):
        order = as_order(chain.stages[i])
        if order is not None and rows:
            rows = _touched(order, rows, chain.lengths[i])
    root = chain.root
    if isinstance(root, Mix):
        _of_mix(root, rows, head, found)
    elif isinstance(root, Zip):
        for name, below in root.chains.items():
            _of_rows(below, rows, f"{head}{name}.", found)
    elif isinstance(root, Concatenation):
        drawn = root.drawn(rows)
        for name, below in root.chains.items():
            part = below.length + 1 if rows > root.length() else drawn[name]
            _of_rows(below, part, f"{head}{name}.", found)


def _of_mix(mix: Mix, rows: int, head: str, found: Frontiers) -> None:
    n, deal = mix.length(), mix.schedule.pattern
    found[head + SCHEDULE] = rows if rows < n else ENDLESS
    given = deal.counts(rows if rows < n else n) * (1 if rows < n else -(-rows // n) + 1)
    for (name, below), part in zip(mix.chains.items(), given.tolist(), strict=True):
        _of_rows(below, part, f"{head}{name}.", found)


def _touched(order: Order, rows: int, n: int) -> int:
    # rows beneath an order that its first rows touch; all of them, unless it knows better
    known = getattr(order, "touched", None)
    return known(rows, n) if known else max(rows, n)


def _of_lanes(
    chain: Chain, places: Sequence[Lane], lanes: int, more: int, head: str, found: Frontiers
) -> None:
    # `more` rows of each lane may have been drawn than the places say
    if not chain.dealt:
        cut = chain.cut(lanes)
        stops = [cut.bounds(lane, n - (not rest))[1] for lane, (n, rest) in places if n or rest]
        _of_rows(chain, ENDLESS if more else max(stops, default=0), head, found)
        return
    assert isinstance(chain.root, CountedMix)
    if chain.unit < len(chain.stages):
        more += chain.block if any(given for _, (_, given) in places) else 0
        places = [(lane, at) for lane, (at, _) in places]
    row = max((row for _, (_, row, _) in places), default=0) + more
    again = any(turns for _, (turns, _, _) in places)
    found[head + SCHEDULE] = ENDLESS if again else row * lanes
    for name, below in chain.root.chains.items():
        inside = [(lane, at) for lane, (_, _, parts) in places for at in _within(parts, name)]
        _of_lanes(below, inside, lanes, more, f"{head}{name}.", found)


def _within(parts: Place, name: str) -> list[Place]:
    return [part[2] for known, part in parts if known == name]
