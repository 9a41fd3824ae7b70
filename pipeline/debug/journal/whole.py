"""The states of a run's loader, put together of what each process noted of its own lanes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.checkpoint.merging import merge
from pipeline.debug.journal.states import Noted, States

Moment = tuple[int, str]  # processes then, and what all their states have in common


class WholeStates:
    """States of all lanes.

    Args:
        launches: process -> launch -> what it noted.
        states: process -> what it noted of its loader.
    """

    def __init__(
        self,
        launches: Mapping[int, Mapping[int, dict[str, Any]]],
        states: Mapping[int, States],
    ) -> None:
        self._launches = launches
        others = {host: found for host, found in states.items() if host}
        self._known = {host: dict(self._moments(host, found)) for host, found in others.items()}

    def of(self, noted: Noted, launch: int) -> dict[str, Any] | None:
        """The state of all lanes at the moment of one that the first process noted.

        Args:
            noted: by the first process.
            launch: the number of its launch.

        Returns:
            A state, or None unless all processes noted one at that moment.
        """
        about = self._launches[0].get(launch, {})
        hosts = about.get("hosts", 1) if noted.state.get("lanes") else 1
        moment = hosts, _common(noted)
        others = [self._known.get(host, {}).get(moment) for host in range(1, hosts)]
        if None in others:
            return None
        parts = [noted.state, *(each for each in others if each)]
        lanes = {repr(part.get("lanes")): {**part, "dataset": about["dataset"]} for part in parts}
        return merge([*lanes.values()]) if len(lanes) > 1 else next(iter(lanes.values()))

    def _moments(self, host: int, found: States) -> Iterator[tuple[Moment, dict[str, Any]]]:
        for each in found.noted:
            hosts = self._launches[host].get(each.launch, {}).get("hosts", 1)
            yield (hosts, _common(each)), each.state


def _common(noted: Noted) -> str:
    common = {k: v for k, v in noted.state.items() if k not in ("lanes", "frontiers")}
    return json.dumps(common, sort_keys=True)
