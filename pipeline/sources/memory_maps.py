"""Arrays that are views of memory-mapped files: references to them, and digests of a sample."""

from __future__ import annotations

import hashlib
import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SAMPLE, _PAGE = 64, 4096  # places that are sampled, and bytes at each
_MOST = 1 << 20  # bytes of one row that are sampled at most


class MapReference:
    """A reference to a memory-mapped array, with which another process can map it again.

    Args:
        path: the file.
        offset: the offset of the first element in the file.
        like: the array, of which dtype, shape and strides are stored.
    """

    def __init__(self, path: str, offset: int, like: NDArray[Any]) -> None:
        self.path, self.offset = path, offset
        self.dtype, self.shape, self.strides = like.dtype, like.shape, like.strides

    def open(self) -> NDArray[Any]:
        """The array, mapped read-only."""
        file = np.memmap(self.path, np.uint8, "r")
        return np.ndarray(self.shape, self.dtype, file, self.offset, self.strides)


def mapping(a: Any) -> np.memmap[Any, Any] | None:
    """The memory map that an array is a view of, or None.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/a"
    >>> np.arange(9, dtype=np.uint16).tofile(path)
    >>> view = np.lib.stride_tricks.sliding_window_view(np.memmap(path, np.uint16), 4)[::2]
    >>> mapping(view) is not None, mapping(view.copy()) is None
    (True, True)
    """
    found = None
    while a is not None:
        if isinstance(a, np.memmap) and isinstance(a.base, mmap.mmap):
            found = a
        a = getattr(a, "base", None)
    return found


def described(a: NDArray[Any]) -> MapReference | None:
    """A reference to a mapped array; None if it maps no named file, or a private copy of one."""
    root: Any = mapping(a)
    if root is None or not root.filename or root.mode == "c" or a.dtype.hasobject:
        return None
    offset = root.offset + a.ctypes.data - root.ctypes.data
    return MapReference(str(root.filename), offset, a)


def sample_digest(a: NDArray[Any]) -> str:
    """32 hex digits from dtype, shape and 64 evenly spaced places: the array may be a large file.

    >>> sample_digest(np.arange(9)) == sample_digest(np.arange(9).copy())
    True
    """
    digest = hashlib.blake2b(f"{a.dtype.str} {a.shape}".encode(), digest_size=16)
    rows = max(1, _PAGE // max(1, a[:1].nbytes))
    for k in range(_SAMPLE):
        at = k * max(0, len(a) - rows) // (_SAMPLE - 1)
        part = a[at : at + rows]
        some = part if part.nbytes <= _MOST else part.flat[: _MOST // a.dtype.itemsize]
        digest.update(np.ascontiguousarray(some).tobytes())
    return digest.hexdigest()
