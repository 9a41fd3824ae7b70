"""Merges the states of all hosts into one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.checkpoint.state import decode, frontiers_of, lane_of, plain, short, thaw, unfold
from pipeline.errors import StateError
from pipeline.sampling.cursor import Lane


def merge(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Merge the states of all hosts, taken after the same step, into one.

    Hosts that split a batch by rows have equal states. Hosts that split it by lanes know their own
    lanes, or all of them if a feed gathered them. Equal states may be given as often as there are
    hosts.

    Raises:
        StateError: none given, lanes are missing or stand at two places, or the states were taken
            at different steps or of different datasets.

    >>> from pipeline import Dataset, Loader
    >>> ds = Dataset(range(100)).filter(lambda x: x % 3 > 0).lanes(2).repeat()
    >>> hosts = [Loader(ds, 4, host=h, hosts=2) for h in range(2)]
    >>> _ = [next(loader) for loader in hosts]
    >>> merge([loader.state_dict() for loader in hosts])["lanes"]
    [[0, [0, 2]], [1, [0, 2]]]
    """
    if isinstance(states, Mapping):
        raise StateError("merge needs a list with the state of each host, got one state")
    if not states:
        raise StateError("merge needs the state of each host, got none")
    apart = ("lanes", "frontiers", "packages")
    states = [plain(state) for state in states]
    first = {repr(state): i for i, state in reversed([*enumerate(states)])}  # equal ones once
    given = {i: states[i] for i in sorted(first.values())}
    for state in given.values():
        decode(state)
    common = {i: {k: v for k, v in s.items() if k not in apart} for i, s in given.items()}
    for i, other in common.items():
        differing = [k for k in {*common[0], *other} if common[0].get(k) != other.get(k)]
        if differing:
            shown = {k: (common[0].get(k), other.get(k)) for k in sorted(differing)}
            raise StateError(
                f"the states of hosts 0 and {i} were not taken together: {short(shown)}. "
                "Merge states of one step."
            )
    merged = dict(states[0])
    if any("frontiers" in s for s in given.values()):
        known = [frontiers_of(s) for s in given.values()]
        merged["frontiers"] = [
            [k[0][0], max(row for _, row in k)] for k in zip(*known, strict=True)
        ]
    if any(s.get("lanes") for s in given.values()):
        lanes = [lane_of(lane) for s in given.values() for lane in s.get("lanes", ())]
        _check_lanes(lanes, merged["dataset"])
        merged["lanes"] = [
            [lane, thaw(place, lists="anchor" in merged)]
            for lane, place in dict(sorted(lanes)).items()
        ]
    return merged


def _check_lanes(found: list[Lane], dataset: Any) -> None:
    every = range(int(unfold(dataset)["lanes"]))
    known = dict(found)
    missing = sorted({*every} - {*known})
    apart = sorted({lane for lane, place in found if known[lane] != place})
    if missing or apart:
        shown = (
            f"{short(missing)} are missing" if missing else f"{short(apart)} stand at two places"
        )
        raise StateError(
            f"these are not the states of all hosts at one step: of {len(every)} lanes, {shown}. "
            "Give merge the state_dict() of each host."
        )
