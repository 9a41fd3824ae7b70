"""Which differences between two datasets concern only rows of a mix that are not drawn yet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pipeline.sampling.schedule import read_entry

Fingerprint = Mapping[str, str]
Entry = tuple[int, Mapping[str, int]]  # (from_row, the weights that are not 0)


def undrawn(saved: Fingerprint, now: Fingerprint, frontiers: Iterable[tuple[str, int]]) -> set[str]:
    """Names whose values in two fingerprints may differ, as no row drawn so far depends on them.

    These are the entries of a schedule from its frontier on, and everything about a component that
    has no positive weight before the frontier. Of a counted mix with stop="all" they count as drawn
    if a component that was still to be dealt is no more: without it a pass may have ended before
    the frontier, which only reading tells. Of an indexed mix, its length tells.

    Args:
        saved, now: fingerprints of the state's dataset, and of the one that restores it.
        frontiers: (name of a schedule, first row of its mix that was not drawn) of each mix.
    """
    names: set[str] = set()
    for key, row in frontiers:
        old, new = _entries(saved, key), _entries(now, key)
        late = [i for i in {*old, *new} if all(e.get(i, (row, {}))[0] >= row for e in (old, new))]
        head = key.removesuffix("schedule")
        unknown = f"{head}lanes" in saved and saved.get(f"{head}root", "").endswith("stop=all")
        if unknown and row and _ends_earlier(old, new, row):
            continue
        names |= {f"{key}.{i}" for i in late}
        drawn = {n for e in (old, new) for start, w in e.values() if start < row for n in w}
        below = {n for n in {*saved, *now} if n.startswith(head) and "." in n.removeprefix(head)}
        names |= {n for n in below if _component(n, head) not in {*drawn, "stages", "schedule"}}
    return names


def _ends_earlier(old: Mapping[int, Entry], new: Mapping[int, Entry], row: int) -> bool:
    # whether a component that was still to be dealt from `row` on is not dealt there any more
    def dealt(entries: Mapping[int, Entry]) -> set[str]:
        ordered = [entries[i] for i in sorted(entries)]
        last = sum(start < row for start, _ in ordered) - 1  # the entry in force just before
        return {name for _, weights in ordered[max(0, last) :] for name in weights}

    return not dealt(old) <= dealt(new)


def _component(name: str, head: str) -> str:
    return name.removeprefix(head).partition(".")[0]


def _entries(fingerprint: Fingerprint, key: str) -> dict[int, Entry]:
    found: dict[int, Entry] = {}
    for name, text in fingerprint.items():
        head, _, last = name.rpartition(".")
        if head == key and last.isdigit():
            found[int(last)] = read_entry(text)
    return found
