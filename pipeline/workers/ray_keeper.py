"""Who clears up after a Ray of our own when its process was killed: waits, ends Ray, removes files.

Run by path in a bare interpreter (`python -I -S ray_keeper.py FOLDER`), so it imports little.
"""

import os
import shutil
import signal
import sys
import time

PATIENCE = 10.0  # seconds for processes to be gone


def main(folder: str) -> None:
    """Wait until whoever holds the other end of stdin is gone; then leave nothing of a session.

    Args:
        folder: of the session; Ray's processes name it in their arguments or write logs into it.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # meant for the process that we outlive
    while os.read(0, 1 << 16):
        pass
    deadline = time.monotonic() + PATIENCE
    while os.path.isdir(folder) and time.monotonic() < deadline:
        left = [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and _of(int(pid), folder)]
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue
        if not left:
            shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.02)


def _of(pid: int, folder: str) -> bool:
    # whether a process belongs to the session
    if pid == os.getpid():
        return False
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            if folder.encode() in f.read():
                return True
        fds = f"/proc/{pid}/fd"
        return any(os.readlink(f"{fds}/{fd}").startswith(folder) for fd in os.listdir(fds))
    except OSError:
        return False  # gone, or somebody else's


if __name__ == "__main__":
    main(sys.argv[1])
