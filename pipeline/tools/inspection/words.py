"""Numbers in words: counts, bytes, ranges, and lists of limited length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

LISTED = 200  # lines of a kind at most


def many(n: int, what: str) -> str:
    """A count with its noun.

    >>> many(1, "file"), many(1200, "record")
    ('1 file', '1,200 records')
    """
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def size(n: int) -> str:
    """Bytes in the largest unit of which there is at least one.

    >>> size(999), size(1_200_000)
    ('999 bytes', '1.2 MB')
    """
    for unit, least in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if n >= least:
            return f"{n / least:,.1f} {unit}"
    return f"{n} bytes"


def span(values: Sequence[int], unit: str) -> str:
    """[least, most] or [least, mean, most] in words.

    >>> span([4, 4], "bytes"), span([1, 2, 4], "bytes")
    ('4 bytes', '1 to 4 bytes (mean 2)')
    """
    if values[0] == values[-1]:
        return f"{values[0]:,} {unit}"
    mean = f" (mean {values[1]:,})" if len(values) == 3 else ""
    return f"{values[0]:,} to {values[-1]:,} {unit}{mean}"


def listed(label: str, what: Sequence[Any], most: int = LISTED) -> Iterator[str]:
    """A line for each element; if there are too many, a last line counts the others.

    >>> list(listed("BAD", ["a", "b", "c"], 2))
    ['BAD a', 'BAD b', 'BAD … and 1 more: --json lists all']
    """
    yield from (f"{label} {one}" for one in what[:most])
    if len(what) > most:
        yield f"{label} … and {len(what) - most:,} more: --json lists all"
