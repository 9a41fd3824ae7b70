"""Unnamed shared memory in which a worker process writes its results; none is ever left over."""

from __future__ import annotations

import mmap
import os
from bisect import bisect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

PAGE = 4096
SMALL = 4096  # bytes; up to here, sending a buffer is cheaper than placing it
ALIGN = 64  # alignment of buffers in an extent
SEGMENT = 1 << 34  # bytes of address space; memory is allocated page by page when written


class ArenaError(Exception):
    """This system provides no (more) shared memory. Results must be sent through the socket."""


class Extent(NamedTuple):
    """Bytes `[start, start + size)` of a segment of the arena."""

    segment: int
    start: int
    size: int


class Slice(NamedTuple):
    """A buffer: `size` bytes from `start` on in the extent of this index."""

    extent: int
    start: int
    size: int


class _Segment:
    def __init__(self, size: int) -> None:
        self.fd = os.memfd_create("lockstep", os.MFD_CLOEXEC)
        try:
            os.ftruncate(self.fd, size)
            self.map = mmap.mmap(self.fd, size)
        except BaseException:
            os.close(self.fd)
            raise
        self.bytes = np.frombuffer(self.map, np.uint8)
        self.address = self.bytes.__array_interface__["data"][0]
        self.free: list[tuple[int, int]] = [(0, size)]  # (start, size), ascending and not adjacent

    def take(self, size: int) -> int | None:
        # first fit, so that pages used before, which are warm, are used again
        for i, (start, room) in enumerate(self.free):
            if room >= size:
                self.free[i : i + 1] = [(start + size, room - size)] if room > size else []
                return start
        return None

    def give(self, start: int, size: int) -> None:
        i = bisect(self.free, (start, size))
        end, first, last = start + size, i, i
        if i and sum(self.free[i - 1]) == start:
            first, start = i - 1, self.free[i - 1][0]
        if i < len(self.free) and self.free[i][0] == end:
            last, end = i + 1, sum(self.free[i])
        self.free[first:last] = [(start, end - start)]


class Arena:
    """A worker's memory that is shared with the parent. The parent says when it releases an extent.

    Args:
        share: sends a new segment's number, file descriptor and size to the parent.

    Raises:
        ArenaError: this system provides no shared memory; also raised later, when more is needed.
    """

    def __init__(self, share: Callable[[int, int, int], None]) -> None:
        self._share = share
        self._segments: list[_Segment] = []
        self._used: dict[tuple[int, int], int] = {}  # (segment, start) -> size
        self._fresh: set[tuple[int, int]] = set()
        self._held = self._peak = self._touched = 0
        self._grow(SEGMENT)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """An uninitialised array in shared memory; an ordinary one if small or of objects."""
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if dtype.hasobject or size <= SMALL:
            return np.empty(shape, dtype)
        return self._view(self._place(size)).view(dtype).reshape(shape)

    def locate(self, buffers: Sequence[memoryview]) -> tuple[list[Extent], list[Slice]]:
        """Extents and slices that hold these buffers. A buffer from elsewhere is copied in."""
        extents: dict[Extent, int] = {}
        slices: list[Slice | None] = []
        for data in buffers:
            found = self._find(data)
            number = None if found is None else extents.setdefault(found, len(extents))
            slices.append(None if number is None else Slice(number, 0, data.nbytes))
        absent = [i for i, found in enumerate(slices) if found is None]
        if absent:
            sizes = [-(-buffers[i].nbytes // ALIGN) * ALIGN for i in absent]
            placed = self._place(sum(sizes))
            extents[placed], start, view = len(extents), 0, self._view(placed)
            for i, size in zip(absent, sizes, strict=True):
                data = buffers[i]
                view[start : start + data.nbytes] = np.frombuffer(data, np.uint8)
                slices[i] = Slice(extents[placed], start, data.nbytes)
                start += size
        for extent in extents:
            self._fresh.discard(extent[:2])
        return list(extents), [found for found in slices if found is not None]

    def settle(self) -> None:
        """Release extents that were made since the last call and never located."""
        for key in list(self._fresh):
            self.release(*key)
        self._peak = max(self._peak, self._held)

    def release(self, segment: int, start: int) -> None:
        """Make the extent at `start` free: the parent no longer uses it."""
        size = self._used.pop((segment, start))
        self._fresh.discard((segment, start))
        self._segments[segment].give(start, size)
        self._held -= size

    def trim(self) -> None:
        """Return free memory to the system if the peak use since the last call was far lower."""
        if self._touched > 2 * self._peak + (64 << 20):
            for segment in self._segments:
                for start, size in segment.free:
                    segment.map.madvise(mmap.MADV_REMOVE, start, size)
            self._touched = self._held
        self._peak = self._held

    def _find(self, data: memoryview) -> Extent | None:
        address = np.frombuffer(data, np.uint8).__array_interface__["data"][0]
        for number, segment in enumerate(self._segments):
            start = address - segment.address
            if self._used.get((number, start), -1) >= data.nbytes:
                return Extent(number, start, data.nbytes)
        return None

    def _view(self, extent: Extent) -> NDArray[np.uint8]:
        whole = self._segments[extent.segment].bytes
        return whole[extent.start : extent.start + extent.size]

    def _place(self, size: int) -> Extent:
        whole = -(-size // PAGE) * PAGE
        number, start = self._room(whole)
        self._used[number, start] = whole
        self._fresh.add((number, start))
        self._held += whole
        self._touched = max(self._touched, start + whole)
        return Extent(number, start, size)

    def _room(self, whole: int) -> tuple[int, int]:
        for number, segment in enumerate(self._segments):
            start = segment.take(whole)
            if start is not None:
                return number, start
        self._grow(max(SEGMENT, whole))
        return self._room(whole)

    def _grow(self, size: int) -> None:
        try:
            segment = _Segment(size)
        except (OSError, ValueError, AttributeError) as error:
            raise ArenaError(str(error)) from error
        self._segments.append(segment)
        self._share(len(self._segments) - 1, segment.fd, size)
        os.close(segment.fd)
