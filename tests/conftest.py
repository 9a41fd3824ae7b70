"""What every test session leaves behind: nothing."""

from __future__ import annotations

import gc
import logging
import os
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# deadlines measure the machine, not the code; the database would be a leftover
settings.register_profile(
    "lockstep",
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
settings.register_profile("thorough", settings.get_profile("lockstep"), max_examples=300)
settings.load_profile("lockstep")

# files that are about torch alone; others skip their tests with it
_OF_TORCH = ["transforms/test_layout.py", "transforms/test_pickled.py"]
collect_ignore = [] if find_spec("torch") else _OF_TORCH
collect_ignore += [] if find_spec("torchtitan") else ["compat/torchtitan_state.py"]
collect_ignore += [] if find_spec("transformers") else ["compat/trainings.py"]


def _children() -> set[str]:
    found: set[str] = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, rest = stat.parent.name, stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        if rest[1] == str(os.getpid()):
            found.add(pid)
    return found


def _threads() -> set[str]:
    return {t.name for t in threading.enumerate() if not t.daemon}


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    children, threads = _children(), _threads()
    shared = set(os.listdir("/dev/shm"))
    yield
    gc.collect()
    for _ in range(40):  # what is ending may take its two seconds
        if not (_children() - children or _threads() - threads):
            break
        time.sleep(0.05)
    assert not _children() - children
    assert not _threads() - threads
    mine = {name for name in set(os.listdir("/dev/shm")) - shared if "lockstep" in name}
    assert not mine


@pytest.fixture(autouse=True)
def _messages_are_heard() -> Iterator[None]:
    yield
    logger = logging.getLogger("pipeline")
    heard = (logger.disabled, logger.propagate, logger.level, logging.root.manager.disable)
    assert heard == (False, True, logging.NOTSET, logging.NOTSET), heard


@pytest.fixture(scope="module", autouse=True)
def _what_is_there_stays() -> None:
    """Collected tests and imported modules last: `gc.collect()` need not look at them."""
    gc.collect()
    gc.freeze()
