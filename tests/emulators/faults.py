"""Which request goes wrong, and how: rules as plain dicts, decided by seed and number."""

from __future__ import annotations

import random
import re
import threading
from typing import Any

KINDS = ("status", "drop", "truncate", "short", "corrupt", "slow", "hang")
# answers about a range that are not what was asked for
KINDS += ("elsewhere", "unsaid", "grown", "retagged", "whole")


class Faults:
    """Rules in order; the first that applies to a request decides.

    A rule is a dict: `kind` (one of KINDS), `match` (a regex searched in "GET /path"), `rate` (of
    the matching requests, drawn from `seed`) or `every` (each n-th of them), `times` (at most),
    `status` (for kind "status") and `seconds` (for kind "slow"; "hang" never answers).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.set([])

    def set(self, rules: list[dict[str, Any]]) -> None:
        """Replace all rules; their counts begin anew."""
        for rule in rules:
            assert rule["kind"] in KINDS, f"unknown kind in {rule}"
        with self._lock:
            self._rules = [dict(rule) for rule in rules]
            self._seen = [0] * len(rules)
            self._done = [0] * len(rules)
            self._draws = [random.Random(rule.get("seed", 0)) for rule in rules]

    def decide(self, line: str) -> dict[str, Any] | None:
        """The rule that a request "GET /path" falls to, if any."""
        with self._lock:
            for i, rule in enumerate(self._rules):
                if re.search(rule.get("match", ""), line) and self._hit(i, rule):
                    return rule
        return None

    def _hit(self, i: int, rule: dict[str, Any]) -> bool:
        self._seen[i] += 1
        if self._done[i] >= rule.get("times", 1 << 60):
            return False
        chance = self._draws[i].random() < rule.get("rate", 1.0)
        hit = chance and self._seen[i] % rule.get("every", 1) == 0
        self._done[i] += hit
        return hit
