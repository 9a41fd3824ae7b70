"""Merges the states of all hosts into one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.checkpoint.state import FULL, decode, frontiers_of, lane_of, short, thaw
from pipeline.errors import StateError


def merge(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Merge the states of all hosts, taken after the same step, into one.

    Hosts that split a batch by rows have equal states; hosts that split it by lanes know only
    their own lanes.

    Raises:
        StateError: no state is given, that of a host is missing or given twice, or they are of
            different steps or datasets.

    >>> from pipeline import Dataset, Loader
    >>> ds = Dataset(range(100)).filter(lambda x: x % 3 > 0).lanes(2).repeat()
    >>> hosts = [Loader(ds, 4, host=h, hosts=2) for h in range(2)]
    >>> _ = [next(loader) for loader in hosts]
    >>> merge([loader.state_dict() for loader in hosts])["lanes"]
    [[0, [0, 2]], [1, [0, 2]]]
    """
    if not states:
        raise StateError("merge needs the state of each host, got none")
    for state in states:
        decode(state)
    apart = ("lanes", "frontiers", "packages")
    common = [{k: v for k, v in s.items() if k not in apart} for s in states]
    for i, other in enumerate(common):
        differing = [k for k in {*common[0], *other} if common[0].get(k) != other.get(k)]
        if differing:
            shown = {k: (common[0].get(k), other.get(k)) for k in sorted(differing)}
            raise StateError(
                f"the states of hosts 0 and {i} were not taken together: {short(shown)}. "
                "Merge states of one step."
            )
    merged = _copy(states[0])
    if any("frontiers" in s for s in states):
        known = [frontiers_of(s) for s in states]
        merged["frontiers"] = [
            [k[0][0], max(row for _, row in k)] for k in zip(*known, strict=True)
        ]
    if any("lanes" in s for s in states):
        lanes = [lane_of(lane) for s in states for lane in s.get("lanes", ())]
        _check_lanes([lane for lane, _ in lanes], merged["dataset"])
        full = merged["version"] == FULL
        merged["lanes"] = [[lane, thaw(place, lists=full)] for lane, place in sorted(lanes)]
    return merged


def _check_lanes(found: list[int], dataset: Any) -> None:
    every = range(int(dataset["lanes"])) if isinstance(dataset, Mapping) else range(0)
    missing = sorted({*every} - {*found})
    twice = sorted({lane for lane in found if found.count(lane) > 1})
    if missing or twice:
        shown = f"{short(missing)} are missing" if missing else f"{short(twice)} stand twice"
        raise StateError(
            f"these are not the states of all hosts, each once: of {len(every)} lanes, {shown}. "
            "Give merge the state_dict() of each host."
        )


def _copy(state: Any) -> Any:
    if isinstance(state, Mapping):
        return {k: _copy(v) for k, v in state.items()}
    return [_copy(v) for v in state] if isinstance(state, list | tuple) else state
