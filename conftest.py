"""Examples in docstrings that need an optional package are skipped where it is missing."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

pytest_plugins = ["tests.emulators.fixtures"]


@pytest.fixture(autouse=True)
def _names(doctest_namespace: dict[str, object]) -> None:
    doctest_namespace["np"] = np


NEEDS = {"pipeline/feed/jax.py": "jax", "pipeline/feed/torch.py": "torch"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        extra = NEEDS.get(item.path.relative_to(config.rootpath).as_posix())
        if extra is not None and find_spec(extra) is None:
            reason = f"needs the extra: pip install 'lockstep-data[{extra}]'"
            item.add_marker(pytest.mark.skip(reason=reason))
