"""However the parent ends, its workers end; what they import is what the dataset needs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest

from pipeline import Dataset, Loader, Processes, Threads

_HEAD = """
import os, sys, time, signal
import numpy as np
from pipeline import Dataset, Loader, Processes, Threads
ds = Dataset({"x": np.arange(100_000)}).map(lambda r: (time.sleep(0.0005), r)[1]).repeat()
loader = Loader(ds, 64, workers=Processes(2, parent=False))
next(loader)
def pids():
    nursery = [int(p) for t in os.listdir("/proc/self/task")
               for p in open(f"/proc/self/task/{t}/children").read().split()]
    return nursery + [int(p) for n in nursery
                      for p in open(f"/proc/{n}/task/{n}/children").read().split()]
print(*pids(), flush=True)
"""


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _gone(pids: list[int], seconds: float = 2.0) -> bool:
    deadline = time.monotonic() + seconds
    while any(map(_alive, pids)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _start(tail: str) -> tuple[subprocess.Popen[str], list[int]]:
    process = subprocess.Popen(
        [sys.executable, "-c", _HEAD + tail],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    pids = [int(p) for p in process.stdout.readline().split()]
    assert len(pids) == 3
    return process, pids


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tail", "says"),
    [
        ("", ""),
        ("sys.exit(3)", ""),
        ("raise ValueError('in the loop')", "in the loop"),
        ("del loader; import gc; gc.collect(); time.sleep(0.5); print(*pids() or '')", ""),
        ("loader.close()", ""),
        ("os._exit(0)", ""),
    ],
    ids=["exit", "sys.exit", "error", "collected", "close", "os._exit"],
)
def test_no_end_of_the_parent_leaves_workers(tail: str, says: str) -> None:
    process, pids = _start(tail)
    out, err = process.communicate(timeout=20)
    assert _gone(pids)
    assert out.strip() == ""
    assert says in err
    assert "nursery" not in err
    assert "worker" not in err
    if not says:
        assert err == ""


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGKILL"])
def test_signals_to_the_parent_leave_no_workers(name: str) -> None:
    before = set(os.listdir("/dev/shm"))
    for _ in range(20 if name == "SIGKILL" else 2):
        process, pids = _start("for batch in loader: pass")
        process.send_signal(getattr(signal, name))
        _, err = process.communicate(timeout=20)
        assert _gone(pids)
        assert err.count("Traceback") == (1 if name == "SIGINT" else 0)
    assert set(os.listdir("/dev/shm")) == before


def test_workers_import_only_what_the_dataset_needs() -> None:
    def modules(_: Any) -> Any:
        return " ".join(sys.modules)

    with Loader(Dataset(range(2)).map(modules), 2, workers=Processes(1, parent=False)) as loader:
        found = set(next(loader)[0].split())
    heavy = {"jax", "jaxlib", "torch", "orbax", "ray", "pyarrow", "fsspec", "multiprocessing"}
    assert not {name for name in found if name.split(".")[0] in heavy}
    assert "pipeline.workers.child" in found


def test_workers_have_one_thread_each_for_linear_algebra() -> None:
    def threads(_: Any) -> Any:
        a = np.ones((200, 200))
        return {"n": len(os.listdir("/proc/self/task")) + int(0 * (a @ a)[0, 0])}

    with Loader(Dataset(range(2)).map(threads), 2, workers=Processes(1, parent=False)) as loader:
        assert next(loader)["n"].tolist() == [1, 1]


_MAIN = """
import dataclasses
import numpy as np
from pipeline import Dataset, Loader

@dataclasses.dataclass
class Row:
    x: object

class Shift:
    def __init__(self, by):
        self.by = by
    def __call__(self, row):
        return Row(helper(row) + self.by)

def helper(x):
    return x * SCALE

SCALE = 3
class Bad(Exception):
    pass
def fail(row):
    raise Bad("of main")
loader = Loader(Dataset(range(6)).map(Shift(2)), 3, workers=2)
batch = next(loader)
assert type(batch) is Row, type(batch)
assert batch.x.tolist() == [2, 5, 8]
raw = next(Loader(Dataset(range(6)).map(Shift(2)), 3, workers=1, collate=lambda rows: rows))
assert all(type(row) is Row for row in raw), raw
try:
    next(Loader(Dataset(range(6)).map(fail), 3, workers=1))
except Bad as error:
    print("caught", error)
"""


def test_what_main_defines_can_be_sent_and_needs_no_guard() -> None:
    done = subprocess.run(
        [sys.executable, "-"], input=_MAIN, capture_output=True, text=True, timeout=30
    )
    assert (done.stdout, done.stderr) == ("caught of main\n", "")


def test_batches_stay_as_they_are_while_anybody_sees_them() -> None:
    ds = Dataset({"x": np.arange(400_000).reshape(400, 1000)}).map(lambda row: row)
    with Loader(ds.repeat(), 4, workers=Processes(2, parent=False)) as loader:
        kept = [next(loader)["x"][1] for _ in range(50)]
        for _ in range(200):
            assert next(loader)["x"].flags.writeable
    # and after the workers are gone
    for i, row in enumerate(kept):
        assert np.array_equal(row, np.arange(1000) + 1000 * (4 * i + 1))


def test_batches_are_seen_where_the_worker_wrote_them() -> None:
    ds = Dataset({"x": np.zeros((64, 64, 64), np.float32)}).map(lambda row: row)
    with Loader(ds, 8, workers=Processes(1, parent=False)) as loader:
        x = next(loader)["x"]
        base: Any = x
        while isinstance(getattr(base, "base", None), np.ndarray):
            base = base.base
        assert not base.flags.owndata
        maps = _mapping_of(x.__array_interface__["data"][0])
        assert "memfd:lockstep" in maps
        del x, base


def _mapping_of(address: int) -> str:
    with open("/proc/self/maps") as file:
        for line in file:
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            if start <= address < end:
                return line
    return ""


_NO_MEMORY = """
import resource, warnings
import numpy as np
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
from pipeline import Dataset, Loader, Processes
ds = Dataset({"x": np.arange(40_000).reshape(8, 5000)}).map(lambda row: row)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    with Loader(ds, 4, workers=Processes(2, parent=False)) as loader:
        for want, got in zip(Loader(ds, 4), loader, strict=True):
            assert np.array_equal(got["x"], want["x"])
            got["x"][:] = 0
print(len(caught), caught[0].message)
"""


def test_without_shared_memory_batches_come_all_the_same_with_a_warning() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _NO_MEMORY], capture_output=True, text=True, timeout=30
    )
    assert done.stderr == ""
    assert done.stdout.startswith("1 no shared memory")
    assert "ulimit" in done.stdout


def test_memory_is_used_again() -> None:
    ds = Dataset({"x": np.zeros((64, 1 << 16), np.uint8)}).map(lambda row: row).repeat()
    with Loader(ds, 16, workers=Processes(1, parent=False), ahead="4MiB") as loader:
        sizes: list[int] = []
        for _ in range(300):
            next(loader)
            sizes.append(_shared())
    assert max(sizes) < 40 << 20  # 300 batches are 300 MiB


def _shared() -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("RssShmem"))


@pytest.mark.long
@pytest.mark.parametrize("workers", [Threads(2), Processes(2, parent=False)], ids=str)
def test_a_loader_that_is_dropped_ends_its_workers(workers: Any) -> None:
    loader = Loader(Dataset(range(100)), 4, workers=workers)
    next(loader)
    del loader  # the room's fixture looks at what is left
