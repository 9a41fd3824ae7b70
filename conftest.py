"""Examples in docstrings that need an optional package are skipped where it is missing."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

pytest_plugins = ["tests.emulators.fixtures"]


@pytest.fixture(autouse=True)
def _names(doctest_namespace: dict[str, object]) -> None:
    doctest_namespace["np"] = np


# each of these is for a trainer that it imports
TRAINERS = {
    "accelerate": "torch",
    "huggingface": "transformers",
    "lightning": "lightning",
    "ray_train": "ray",
    "torch_dataloader": "torch",
    "torchtitan": "torchtitan",
    "tunix": "tunix",
}
collect_ignore = [f"pipeline/compat/{k}.py" for k, v in TRAINERS.items() if find_spec(v) is None]
NEEDS = {"pipeline/feed/jax.py": "jax", "pipeline/feed/torch.py": "torch"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        extra = NEEDS.get(item.path.relative_to(config.rootpath).as_posix())
        if extra is not None and find_spec(extra) is None:
            reason = f"needs the extra: pip install 'lockstep-data[{extra}]'"
            item.add_marker(pytest.mark.skip(reason=reason))
