"""How many examples a law is tried on: few in `make test`, three times as many in test-all."""

from __future__ import annotations

from typing import Any

from hypothesis import settings

# conftest.py has the profiles: 100 examples where nothing is said, 300 if thorough
_THOROUGH = settings().max_examples // 100


def examples(n: int, **more: Any) -> settings:
    """That many examples, or three times as many with `--hypothesis-profile thorough`."""
    return settings(max_examples=n * _THOROUGH, **more)
