"""Finds the records that a user names by numbers, by rows of `where`, or by files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import Any

import numpy as np

from pipeline.block import Int64s
from pipeline.errors import PositionError
from pipeline.provenance.where import RowOrigin, SegmentOrigin
from pipeline.types import Component, Source

_PROBES = 1 << 12


def records_of(components: Sequence[Component], given: Any) -> list[tuple[str, int, int]]:
    """The records that a user names, as (component, first record, end).

    Args:
        components: the dataset's components.
        given: a row of `where` or all of them (of a packed row every segment counts), a number or
            range of a source, a pair (component, number or range) or (file, number or range in
            it), or several of these.

    Raises:
        PositionError: there is no such record or component.

    >>> from pipeline import Dataset
    >>> records_of(Dataset(range(9)).components, [3, range(5, 7)])
    [('', 3, 4), ('', 5, 7)]
    """
    found = list(_named(components, given))
    lengths = {"/".join(c.path): len(c.source) for c in components}
    for name, start, stop in found:
        if not 0 <= start < stop <= lengths[name]:
            what = f"record {start}" if stop == start + 1 else f"range({start}, {stop})"
            raise PositionError(f"{what} lies outside of 0..{lengths[name] - 1}, its source")
    return found


def _named(components: Sequence[Component], given: Any) -> Iterator[tuple[str, int, int]]:
    if isinstance(given, RowOrigin):
        for row in (*(segment.row for segment in given.segments), *given.beside):
            yield from _named(components, row)
        if not given.segments:
            yield given.component, given.record, given.record + 1
    elif isinstance(given, SegmentOrigin):
        yield from _named(components, given.row)
    elif isinstance(given, tuple) and len(given) == 2 and isinstance(given[0], str):
        yield _paired(components, given[0], *_span(given[1]))
    elif isinstance(given, range | int | np.integer):
        if len(components) > 1:
            raise PositionError(
                f"record {given} of which component? Give (component, record). "
                f"{_choices(components)}"
            )
        yield "/".join(components[0].path), *_span(given)
    elif isinstance(given, Iterable) and not isinstance(given, str | bytes):
        for each in given:
            yield from _named(components, each)
    else:
        raise PositionError(
            f"{given!r} names no record: give its number, (component, number) or a row of where()"
        )


def _paired(
    components: Sequence[Component], name: str, start: int, stop: int
) -> tuple[str, int, int]:
    if name in ["/".join(c.path) for c in components]:
        return name, start, stop
    files = records_in(components, name, f"no component {name!r}, and ")
    if len(files) > 1 or not 0 <= start < stop <= files[0][2] - files[0][1]:
        held = ", ".join(f"{path or 'records'} {a}..{b - 1}" for path, a, b in files[:3])
        raise PositionError(f"{(name, start)} names no one record: {name!r} holds {held}")
    path, begin, _ = files[0]
    return path, begin + start, begin + stop


def _span(given: Any) -> tuple[int, int]:
    if isinstance(given, range) and given.step == 1:
        return given.start, given.stop
    if isinstance(given, int | np.integer) and not isinstance(given, bool):
        return int(given), int(given) + 1
    raise PositionError(f"{given!r} names no records: give a number, or range(a, b)")


def _choices(components: Sequence[Component]) -> str:
    names = ["/".join(c.path) for c in components]
    return f"components are {names[:8]}{' …' if len(names) > 8 else ''}"


def records_in(
    components: Sequence[Component], given: Any, besides: str = ""
) -> list[tuple[str, int, int]]:
    """The records of the files that a user names, as (component, first record, end).

    Args:
        components: the dataset's components.
        given: names of files as `where` shows them, their last parts, or patterns.
        besides: what else was not found, as the beginning of the message.

    Raises:
        PositionError: no such file holds records of the dataset.
    """
    if not isinstance(given, str | os.PathLike | Iterable):
        raise PositionError(f"files={given!r}: give names or patterns of files")
    wanted = [given] if isinstance(given, str | os.PathLike) else list(given)
    found: list[tuple[str, int, int]] = []
    if not wanted:
        return found
    runs = [("/".join(c.path), run) for c in components for run in file_runs(c.source)]
    for name in (os.fspath(w) for w in wanted):
        here = [(path, start, stop) for path, (file, start, stop) in runs if _is(file, name)]
        if not here:
            files = sorted({file for _, (file, _, _) in runs})
            some = f"files are {', '.join(files[:3])}{' …' if len(files) > 3 else ''}"
            raise PositionError(
                f"{besides}no file {name!r} holds records of this dataset. {_choices(components)}, "
                f"{some if files else 'none has files'}"
            )
        found += here
    return found


def _is(file: str, name: str) -> bool:
    return file == name or file.endswith("/" + name) or fnmatchcase(file, name)


def file_runs(source: Source) -> list[tuple[str, int, int]]:
    """(File, first record, end) of each file of a source, in the order of records.

    >>> from pipeline import MemorySource
    >>> file_runs(MemorySource([1, 2]))
    []
    """
    known = getattr(source, "where", None)
    n = len(source)
    if known is None or n == 0:
        return []
    # each answer tells where its file begins; the record before that lies in another file
    found: dict[int, str] = {}
    probes = np.unique(np.linspace(0, n - 1, min(n, _PROBES)).astype(np.int64))
    while len(probes):
        starts = {int(at) - int(inner): str(file) for at, (file, inner) in _zip(known, probes)}
        new = [start for start in starts if start not in found]
        found |= starts
        probes = np.array([start - 1 for start in new if start > 0], np.int64)
    ends = [*sorted(found), n]
    return [(found[start], start, stop) for start, stop in pairwise(ends)]


def _zip(known: Any, probes: Int64s) -> Iterable[tuple[int, tuple[Any, Any]]]:
    return zip(probes.tolist(), known(probes), strict=True)
