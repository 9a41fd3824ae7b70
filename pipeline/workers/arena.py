"""Where a worker writes its results: shared memory that no file names, so none is left over."""

from __future__ import annotations

import mmap
import os
from bisect import insort
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

PAGE = 4096
SMALL = 4096  # bytes: below, sending is cheaper than placing
SEGMENT = 1 << 34  # bytes of address space; memory is taken page by page as it is written


class Extent(NamedTuple):
    """Some bytes of an arena."""

    segment: int
    start: int
    size: int


class _Segment:
    def __init__(self, size: int) -> None:
        self.fd = os.memfd_create("lockstep", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, size)
        self.map = mmap.mmap(self.fd, size)
        self.bytes = np.frombuffer(self.map, np.uint8)
        self.address = self.bytes.__array_interface__["data"][0]
        self.free: list[tuple[int, int]] = [(0, size)]  # (start, size), rising, never adjacent

    def take(self, size: int) -> int | None:
        # the lowest place: pages used before are used again, and are warm
        for i, (start, room) in enumerate(self.free):
            if room >= size:
                self.free[i : i + 1] = [(start + size, room - size)] if room > size else []
                return start
        return None

    def give(self, start: int, size: int) -> None:
        insort(self.free, (start, size))
        joined: list[tuple[int, int]] = []
        for begin, room in self.free:
            if joined and sum(joined[-1]) == begin:
                joined[-1] = (joined[-1][0], joined[-1][1] + room)
            else:
                joined.append((begin, room))
        self.free = joined


class Arena:
    """Memory shared with the parent, which says when it has no more use for an extent.

    Args:
        share: sends a new segment's number, file descriptor and size to the parent.

    Raises:
        OSError: this system gives no shared memory (now, or later from `empty`).
    """

    def __init__(self, share: Callable[[int, int, int], None]) -> None:
        self._share = share
        self._segments: list[_Segment] = []
        self._used: dict[tuple[int, int], int] = {}  # (segment, start) -> size
        self._fresh: set[tuple[int, int]] = set()
        self._held = self._peak = self._touched = 0
        self._grow(SEGMENT)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """An array in shared memory; an ordinary one if it is small or holds objects."""
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if dtype.hasobject or size <= SMALL:
            return np.empty(shape, dtype)
        return self._place(size).view(dtype).reshape(shape)

    def locate(self, data: memoryview) -> Extent:
        """Where some bytes lie in the arena; copied there if they do not."""
        flat = np.frombuffer(data, np.uint8)
        address = flat.__array_interface__["data"][0]
        for number, segment in enumerate(self._segments):
            start = address - segment.address
            if self._used.get((number, start), -1) >= flat.nbytes:
                self._fresh.discard((number, start))
                return Extent(number, start, flat.nbytes)
        placed = self._place(flat.nbytes)
        placed[:] = flat
        return self.locate(placed.data)

    def settle(self) -> None:
        """Take back what was made since the last time and has not been located."""
        for key in list(self._fresh):
            self.release(*key)
        self._peak = max(self._peak, self._held)

    def release(self, segment: int, start: int) -> None:
        """The parent has no more use for the extent that starts there."""
        size = self._used.pop((segment, start))
        self._fresh.discard((segment, start))
        self._segments[segment].give(start, size)
        self._held -= size

    def trim(self) -> None:
        """Return memory to the system if far less is used now than was before."""
        if self._touched > 2 * self._peak + (64 << 20):
            for segment in self._segments:
                for start, size in segment.free:
                    segment.map.madvise(mmap.MADV_REMOVE, start, size)
            self._touched = self._held
        self._peak = self._held

    def _place(self, size: int) -> NDArray[np.uint8]:
        whole = -(-size // PAGE) * PAGE
        number, start = self._find(whole)
        self._used[number, start] = whole
        self._fresh.add((number, start))
        self._held += whole
        self._touched = max(self._touched, start + whole)
        return self._segments[number].bytes[start : start + size]

    def _find(self, whole: int) -> tuple[int, int]:
        for number, segment in enumerate(self._segments):
            start = segment.take(whole)
            if start is not None:
                return number, start
        self._grow(max(SEGMENT, whole))
        return self._find(whole)

    def _grow(self, size: int) -> None:
        segment = _Segment(size)
        self._segments.append(segment)
        self._share(len(self._segments) - 1, segment.fd, size)
        os.close(segment.fd)
