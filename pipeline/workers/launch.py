"""How a bare interpreter is started that knows our modules, spares the cores, and heeds us."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

_BOOT = (
    "import sys; sys.path[:] = {path!r}; from pipeline.workers.nursery import main; main(*{args!r})"
)
_ENVIRONMENT = {
    # n workers with a thread for each core would fight over the cores
    **dict.fromkeys(
        (
            "OMP_NUM_THREADS",
            "OPENBLAS_NUM_THREADS",
            "MKL_NUM_THREADS",
            "NUMEXPR_NUM_THREADS",
            "VECLIB_MAXIMUM_THREADS",
            "ARROW_IO_THREADS",
        ),
        "1",
    ),
    # glibc returns what a work frees and takes it anew for the next: half the time of a light one
    "MALLOC_TRIM_THRESHOLD_": str(128 << 20),
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
}


def nursery(fds: tuple[int, ...], sizes: Sequence[int]) -> subprocess.Popen[bytes]:
    """Start `nursery.main` with these descriptors and the sizes of the dataset's parts.

    A process group of its own keeps a terminal's Ctrl-C from it; the working directory and the
    import path are ours, and it reads nothing of our `__main__`.
    """
    code = _BOOT.format(path=sys.path, args=(*fds, list(sizes), os.getpid()))
    return subprocess.Popen(
        [sys.executable, "-c", code],
        pass_fds=fds,
        env={**os.environ, **_ENVIRONMENT},
        stdin=subprocess.DEVNULL,
        process_group=0,
    )
