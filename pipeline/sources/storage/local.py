"""How a range of an open local file is read."""

from __future__ import annotations

import os


def pread(handle: int, start: int, stop: int) -> bytes:
    """Bytes `[start, stop)` of an open file, fewer where it ends before; threads may share it.

    >>> handle = os.open(os.devnull, os.O_RDONLY)
    >>> pread(handle, 0, 10)
    b''
    >>> os.close(handle)
    """
    data = os.pread(handle, stop - start, start)
    while len(data) < stop - start:  # one call gives 2 GiB at most
        more = os.pread(handle, stop - start - len(data), start + len(data))
        if not more:
            break
        data += more
    return data
