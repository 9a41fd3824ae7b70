"""Makes functions that draw from global generators depend on their row alone."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from pipeline.errors import ChainError

_TORCH_STARTS = 67280421310721  # c10's default_rng_seed_val: where a fresh torch stands


@contextmanager
def kept() -> Generator[None, None, None]:
    """Leave the global generators as they were, however the block ends."""
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    torch = torch_generator()
    state = None if torch is None else torch.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002
        if torch is not None:
            torch.set_state(state)
        elif (imported := torch_generator()) is not None:
            imported.manual_seed(_TORCH_STARTS)


def seed(rng: np.random.Generator) -> None:
    """Set the generators of `random`, `np.random` and (if imported) torch on CPU from raw draws."""
    words = rng.bit_generator.random_raw(4)
    random.seed(int(words[0]))
    np.random.seed(words[1:3].view(np.uint32))  # noqa: NPY002
    torch = torch_generator()
    if torch is not None:
        torch.manual_seed(int(words[3] >> np.uint64(1)))


def torch_generator() -> Any:
    """torch's default generator on CPU; None while nobody has imported torch."""
    # a half-imported torch has no generator yet
    return getattr(sys.modules.get("torch"), "default_generator", None)


def torch_may_come() -> bool:
    """Whether torch is installed, and nobody has imported it yet."""
    return torch_generator() is None and _torch_is_installed()


@cache
def _torch_is_installed() -> bool:
    return find_spec("torch") is not None


def refuse_threads(stage: str) -> None:
    """Refuse to seed the global generators in a thread, as all threads share them.

    Raises:
        ChainError: this is not the process's main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        raise ChainError(
            f"{stage} seeds the global generators (seed_globals=True), which all threads of a "
            f"process share, but runs in thread {threading.current_thread().name!r}. Use "
            "workers=Processes(n) or workers=0 in the main thread, or draw from rng."
        )
