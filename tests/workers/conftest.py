"""Every test of this room leaves nothing: no process, thread, descriptor or shared memory."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import time
from collections.abc import Iterator

import cloudpickle
import pytest

from tests import datasets

# recipes travel by value: workers need not import what builds them
cloudpickle.register_pickle_by_value(datasets)


def children(pid: int) -> set[int]:
    """Processes that descend from one."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as file:
                    parents[int(entry)] = int(file.read().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


def standing() -> dict[str, set[str]]:
    """What this process holds of the system."""
    fds: set[str] = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            continue  # the one that listed them
        if "/cache/" not in target:  # row caches stay open, within the process's bound
            fds.add(f"{fd} {target}")
    return {
        "processes": {str(child) for child in children(os.getpid())},
        "threads": {thread.name for thread in threading.enumerate()},
        "descriptors": fds,
        "shared memory": set(os.listdir("/dev/shm")),
    }


def of_others() -> set[str]:
    """Shared memory that processes have mapped which are none of ours: other tests run beside."""
    ours, found = {os.getpid(), *children(os.getpid())}, set[str]()
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) not in ours:
            with contextlib.suppress(OSError), open(f"/proc/{entry}/maps") as file:
                found |= {
                    line.split("/dev/shm/")[1].split()[0] for line in file if "/dev/shm/" in line
                }
    return found


def left_over(before: dict[str, set[str]], seconds: float = 2.0) -> dict[str, set[str]]:
    """What is there now and was not before, once it had two seconds to go."""
    deadline = time.monotonic() + seconds
    while True:
        gc.collect()
        now = standing()
        more = {kind: now[kind] - before[kind] for kind in now if now[kind] - before[kind]}
        if "shared memory" in more:
            more["shared memory"] -= of_others()
            more = {kind: names for kind, names in more.items() if names}
        if not more or time.monotonic() > deadline:
            return more
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    before = standing()
    yield
    assert left_over(before) == {}
