"""Which processes and shared memory belong to a run, found in /proc, and what is left of them."""

from __future__ import annotations

import os
import re
import signal
import time

MARK = "LOCKSTEP_DOCTOR"  # in the environment of a run and of all that it starts
_NO_WORKER = (b"resource_tracker", b"forkserver", b"resource_sharer")
_SHARED = re.compile(r"/dev/shm/\S+")


def descendants(pid: int) -> list[int]:
    """Every process below one, children before their own."""
    below: dict[int, list[int]] = {}
    for child in _pids():
        below.setdefault(_parent(child), []).append(child)
    found, wanted = list[int](), [pid]
    while wanted:
        children = below.get(wanted.pop(), [])
        found += children
        wanted += children
    return found


def workers(pid: int) -> list[int]:
    """Descendants that do a loader's work: those that start no others, trackers aside."""
    below = descendants(pid)
    parents = {_parent(p) for p in below}
    commands = {p: _read(f"/proc/{p}/cmdline") for p in below}
    leaves = [p for p in below if p not in parents and commands[p] is not None]
    ray = [p for p in leaves if (commands[p] or b"").startswith(b"ray::")]
    # a server that forks on demand is no worker; what it forked has its command line
    served = [p for p in leaves if _parent(p) != pid]
    direct = [p for p in leaves if not any(w in (commands[p] or b"") for w in _NO_WORKER)]
    return sorted(ray or {*served, *direct})


def shared_memory(pid: int) -> set[str]:
    """Files of /dev/shm that a process has mapped or open and that still have their names."""
    maps = (_read(f"/proc/{pid}/maps") or b"").decode(errors="replace")
    found = set(_SHARED.findall(maps.replace("(deleted)", "")))
    folder = f"/proc/{pid}/fd"
    for fd in _listed(folder):
        try:
            found.add(os.readlink(f"{folder}/{fd}"))
        except OSError:
            continue  # closed meanwhile
    return {path for path in found if path.startswith("/dev/shm/") and os.path.exists(path)}


def marked(token: str) -> list[int]:
    """Processes that a run started, however far away."""
    sign = f"{MARK}={token}".encode()
    ours = os.getpid()
    return [
        p
        for p in _pids()
        if p != ours and sign in (_read(f"/proc/{p}/environ") or b"") and _lives(p)
    ]


def left(token: str, seconds: float) -> list[int]:
    """Processes of a run that still live after so many seconds."""
    until = time.monotonic() + seconds
    while (found := marked(token)) and time.monotonic() < until:
        time.sleep(0.1)
    return found


def end(pids: list[int]) -> None:
    """Kill them, if they still live."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def name_of(pid: int) -> str:
    """What a process runs, in short."""
    program, _, rest = (_read(f"/proc/{pid}/cmdline") or b"").partition(b"\0")
    command = os.path.basename(program) + b" " + rest.replace(b"\0", b" ")
    return f"process {pid} ({command.decode(errors='replace').strip()[:60]})"


def _pids() -> list[int]:
    return [int(name) for name in _listed("/proc") if name.isdecimal()]


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None


def _stat(pid: int) -> list[bytes]:
    return (_read(f"/proc/{pid}/stat") or b"").rpartition(b")")[2].split()


def _parent(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def _lives(pid: int) -> bool:
    fields = _stat(pid)
    return bool(fields) and fields[0] != b"Z"
