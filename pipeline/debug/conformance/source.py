"""Whether a source keeps the promises of `Source`: for those of the library and for yours."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from typing import Any

import cloudpickle
import numpy as np

from pipeline.block import Columns, Int64s
from pipeline.checks import whole
from pipeline.debug.conformance.records import same, scribble
from pipeline.tree import leaves
from pipeline.types import Source


def check_source(
    source: Source, *, samples: int = 64, seed: int = 0, most_pickled: int | None = 1 << 20
) -> None:
    """Check everything that a Source promises, on records chosen by `seed`.

    Args:
        source: it is read, pickled, and, if it has `close`, closed and read again.
        samples: number of records to examine.
        seed: chooses them.
        most_pickled: largest size of its pickle in bytes; None if the pickle holds the data.

    Raises:
        AssertionError: what was promised, and the values that break it.

    >>> from pipeline.sources.memory import MemorySource
    >>> check_source(MemorySource(["a", "b"]))
    >>> check_source(MemorySource(["a", "b"]), most_pickled=10)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    AssertionError: the pickle takes ... bytes, more than 10. Leave handles and caches out in
    __getstate__.
    """
    case = _Case(source, samples, seed)
    _check_length(case)
    _check_orders(case)
    _check_range(case)
    _check_independence(case)
    _check_threads(case)
    _check_pickle(case, most_pickled)
    _check_where(case)
    _check_chunk_bounds(case)
    _check_fingerprint(case)
    _check_close(case)


class _Case:
    """A source, the records to examine, and what each was when it was read alone."""

    def __init__(self, source: Source, samples: int, seed: int) -> None:
        self.source = source
        self.n = len(source)
        self.pickled = len(cloudpickle.dumps(source))  # before anything is read
        self.rng = np.random.default_rng(whole("seed", seed, 0))
        chosen = np.arange(self.n)
        if self.n > samples:
            chosen = self.rng.choice(self.n, samples, replace=False)
            chosen[:2] = [0, self.n - 1]
        self.chosen: Int64s = np.unique(chosen).astype(np.int64)
        self.known: dict[int, Any] = {}

    def read(self, indices: Any, source: Source | None = None) -> list[Any]:
        """Read rows as Python objects, and check their number."""
        wanted = np.asarray(indices, np.int64)
        kept = wanted.copy()
        got = (source or self.source).read(wanted)
        _need(np.array_equal(wanted, kept), f"read changed its indices {kept} to {wanted}.")
        _need(
            isinstance(got, Columns) or hasattr(got, "__getitem__"),
            f"read gave a {type(got).__name__}. Return Columns, or a sequence of records.",
        )
        if len(got) != len(wanted):
            raise AssertionError(
                f"read({wanted}) gave {len(got)} records, not {len(wanted)}. "
                "One for each index, in order."
            )
        return _rows(got)

    def compare(self, indices: Any, what: str, source: Source | None = None) -> None:
        """Read records, and compare each with what it was when it was read alone."""
        for i, record in zip(indices, self.read(indices, source), strict=True):
            known = self.known[int(i)]
            _need(
                same(record, known),
                f"{what}: record {int(i)} is {_short(record)}, but alone it is {_short(known)}.",
            )


def _check_length(case: _Case) -> None:
    _need(
        type(case.n) is int and case.n == len(case.source),
        f"len is {case.n!r}, then {len(case.source)!r}. It must stay the same.",
    )
    case.read([])


def _check_orders(case: _Case) -> None:
    chosen = case.chosen
    if case.n:
        case.read(np.repeat(chosen, 2))
    for i in chosen.tolist():
        case.known[i] = copy.deepcopy(case.read([i])[0])
    orders = {
        "read in order": chosen,
        "read in reverse": chosen[::-1],
        "read at random": case.rng.permutation(chosen),
        "read twice each": np.repeat(chosen, 2),
        "read at random with repeats": case.rng.choice(chosen, 2 * len(chosen))
        if len(chosen)
        else chosen,
        "read one by one again": chosen[:1],
    }
    for what, order in orders.items():
        case.compare(order, what)
    _check_layout(case)


def _check_layout(case: _Case) -> None:
    def layout(indices: Int64s) -> Any:
        got = case.source.read(indices)
        if not isinstance(got, Columns):
            return "a sequence"
        return sorted((name, str(a.dtype), a.shape[1:]) for name, a in leaves(got.tree))

    none = layout(case.chosen[:0])
    for indices in (case.chosen[:1], case.chosen[-1:], case.chosen):
        _need(
            layout(indices) == none,
            f"read([]) is {none} but read({indices}) is {layout(indices)}. "
            "Fields, dtypes and shapes must not depend on which rows are read.",
        )


def _check_range(case: _Case) -> None:
    n = case.n
    for indices in ([-1], [n], [n + 5], [-n - 1], [*range(min(n, 1)), n], [*range(min(n, 1)), -1]):
        try:
            got = case.source.read(np.array(indices, np.int64))
        except IndexError:
            continue
        raise AssertionError(
            f"read({indices}) of {n} records gave {_short(got)}. Raise IndexError (PositionError)."
        )
    case.compare(case.chosen, "read after an IndexError")


def _check_independence(case: _Case) -> None:
    if not case.n:
        return
    got = case.source.read(case.chosen)
    arrays = [a for _, a in leaves(got.tree)] if isinstance(got, Columns) else []
    for a, b in combinations(arrays, 2):
        _need(not np.shares_memory(a, b), "two columns of one read share memory. Copy them.")
    for value in arrays if isinstance(got, Columns) else _rows(got):
        scribble(value)
    case.compare(case.chosen, "writing into what read returned changed the source")
    for i in case.chosen[:8].tolist():
        first, second = case.read([i, i])
        scribble(first)
        _need(
            same(second, case.known[i]),
            f"read([{i}, {i}]): writing into the first changed the second to {_short(second)}.",
        )
    case.compare(case.chosen, "writing into a record changed the source")


def _check_threads(case: _Case) -> None:
    if not case.n:
        return
    orders = [case.rng.choice(case.chosen, len(case.chosen)) for _ in range(16)]
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(case.compare, o, "read in 4 threads") for o in orders]:
            done.result()


def _check_pickle(case: _Case, most: int | None) -> None:
    data = cloudpickle.dumps(case.source)
    _need(
        most is None or len(data) <= most,
        f"the pickle takes {len(data)} bytes, more than {most}. "
        "Leave handles and caches out in __getstate__.",
    )
    twin = cloudpickle.loads(data)
    _need(len(twin) == case.n, f"the pickled copy has {len(twin)} records, not {case.n}.")
    case.compare(case.chosen, "read from a pickled copy", twin)
    _close(twin)
    _need(
        len(data) <= case.pickled + 256,
        f"the pickle took {case.pickled} bytes, then {len(data)}: it carries what was read.",
    )


def _check_where(case: _Case) -> None:
    known = getattr(case.source, "where", None)
    if known is None:
        return
    asked = case.rng.permutation(case.chosen)
    places = known(asked)
    _need(len(places) == len(asked), f"where({asked}) gave {len(places)} places.")
    seen: dict[tuple[str, int], int] = {}
    for i, place in zip(asked.tolist(), places, strict=True):
        good = len(place) == 2 and isinstance(place[0], str) and int(place[1]) >= 0
        _need(good, f"where([{i}]) is {place!r}, not (file, index in that file).")
        _need(known(np.array([i])) == [place], f"where([{i}]) depends on what else is asked.")
        other = seen.setdefault((place[0], int(place[1])), i)
        _need(
            same(case.known[i], case.known[other]),
            f"where says that records {other} and {i} are both {place!r}, but they differ.",
        )


def _check_chunk_bounds(case: _Case) -> None:
    bounds = getattr(case.source, "chunk_bounds", None)
    if bounds is None:
        return
    good = isinstance(bounds, np.ndarray) and bounds.dtype == np.int64 and len(bounds) > 0
    _need(good, f"chunk_bounds is {bounds!r}, not an int64 array.")
    rises = bounds[0] == 0 and bounds[-1] == case.n and bool((np.diff(bounds) >= 0).all())
    _need(rises, f"chunk_bounds {bounds} must rise from 0 to {case.n}.")


def _check_fingerprint(case: _Case) -> None:
    known: Callable[[], str] | None = getattr(case.source, "fingerprint", None)
    if known is None:
        return
    first = known()
    _need(isinstance(first, str) and bool(first), f"fingerprint is {first!r}, not a string.")  # pyright: ignore[reportUnnecessaryIsInstance]
    case.read(case.chosen)
    twin = cloudpickle.loads(cloudpickle.dumps(case.source)).fingerprint()
    _need(first == known() == twin, f"fingerprint is {first}, then {known()}, pickled {twin}.")


def _check_close(case: _Case) -> None:
    if hasattr(case.source, "close"):
        _close(case.source)
        _close(case.source)
        case.compare(case.chosen, "read after close")
        _close(case.source)


def _close(source: Any) -> None:
    getattr(source, "close", lambda: None)()


def _rows(got: Sequence[Any] | Columns) -> list[Any]:
    return got.rows() if isinstance(got, Columns) else [got[i] for i in range(len(got))]


def _need(good: bool, message: str) -> None:
    if not good:
        raise AssertionError(message)


def _short(value: Any) -> str:
    text = repr(value.tree if isinstance(value, Columns) else value)
    return text if len(text) <= 120 else text[:117] + "..."
