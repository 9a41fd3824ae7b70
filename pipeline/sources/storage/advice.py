"""Which bytes of local files will be read soon: the kernel is told, so that a disk has them ready.

One read after another keeps one request in flight. Told of a thousand ranges, a disk works on all
of them at once.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from functools import cached_property
from typing import ClassVar

import numpy as np

from pipeline.block import Int64s
from pipeline.errors import PipelineError
from pipeline.sources.storage.files import Files
from pipeline.sources.storage.storage import is_url

RECORDS = 4096  # told of at once, at most
BYTES = 64 << 20  # the same
PROBES = 8  # places of the files that are looked at to tell whether they are in memory
AGAIN = 0.1  # seconds until they are looked at again
_DICE = random.Random(0)  # not the program's own, whose numbers others count on


def can_tell() -> bool:
    """Whether this system has the calls."""
    return hasattr(os, "posix_fadvise") and hasattr(os, "RWF_NOWAIT")


def is_absent(handle: int, place: int) -> bool:
    """Whether a byte of an open file would have to come from the disk; False if unknown."""
    try:
        os.preadv(handle, [bytearray(1)], place, os.RWF_NOWAIT)
    except BlockingIOError:
        return True
    except OSError:  # this file system cannot tell
        return False
    return False


def tell(handle: int, start: Int64s, stop: Int64s) -> None:
    """Tell the kernel that bytes `[start, stop)` of an open file will be read, int64[n] each."""
    for a, size in zip(start.tolist(), (stop - start).tolist(), strict=True):
        os.posix_fadvise(handle, a, size, os.POSIX_FADV_WILLNEED)


Locate = Callable[[Int64s], tuple[Int64s, Int64s, Int64s] | None]


class Advice:
    """Tells the kernel of records to come, as long as their files are not in memory.

    Telling it of what is there costs half of what reading that takes, so some places are looked at
    first. It says nothing of URLs, nor where the system has no such calls.

    Args:
        files: that hold the records.
        locate: file, start and stop of records, int64[n] each; None where that is not known.

    Attributes:
        alone: whether this process reads all that is read. Workers, of whom each would tell of
            what another one reads, tell of no records to come: that measured slower than saying
            nothing. What they read `now` they tell of.
    """

    alone: ClassVar[bool] = True

    def __init__(self, files: Files, locate: Locate) -> None:
        self._files, self._locate = files, locate
        self._told = np.zeros(0, np.int64)
        self._looked, self._cold = 0.0, False

    @property
    def horizon(self) -> int:
        """How many records to come are worth knowing now; 0 while their files are in memory."""
        if not self.alone or not self.cold:
            return 0
        return min(RECORDS, int(BYTES / self._each))

    @cached_property
    def _each(self) -> float:
        # bytes of a record
        return max(1.0, sum(self._files.sizes) / max(1, len(self._files)))

    @cached_property
    def _some(self) -> list[int]:
        # the files that can be looked at
        if not can_tell():
            return []
        local = [i for i, path in enumerate(self._files.paths) if not is_url(path)]
        return [i for i in local if self._files.sizes[i]]

    def tell(self, indices: Int64s) -> None:
        """Tell the kernel of the records among these that it was not told of the last time."""
        new, self._told = indices[~np.isin(indices, self._told)], indices
        self._tell(new)

    def now(self, indices: Int64s) -> None:
        """Tell the kernel of records that are about to be read at once, if any are absent.

        Of a mapped file each page is otherwise asked for when it is touched, one after another.
        """
        if self.cold:
            self._tell(indices[~np.isin(indices, self._told)])

    def _tell(self, indices: Int64s) -> None:
        try:
            found = self._locate(indices) if len(indices) else None
        except (OSError, PipelineError):  # reading it says why, when that row's turn has come
            return
        if found is not None:
            self.tell_spans(*found)

    def tell_spans(self, file: Int64s, start: Int64s, stop: Int64s) -> None:
        """Tell the kernel that bytes `[start, stop)` of files will be read: int64[n] each."""
        for number in np.unique(file).tolist():
            if not is_url(self._files.paths[number]):
                mine = file == number
                self._advise(self._files.paths[number], start[mine], stop[mine])

    @property
    def cold(self) -> bool:
        """Whether some place of the files, of a few looked at, would have to come from a disk."""
        now = time.monotonic()
        if self._some and (not self._looked or now - self._looked > AGAIN):
            self._looked = now
            self._cold = any(self._absent(_DICE.choice(self._some)) for _ in range(PROBES))
        return self._cold

    def _advise(self, path: str, start: Int64s, stop: Int64s) -> None:
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # reading it says why
            return
        try:
            tell(handle, start, stop)
        finally:
            os.close(handle)

    def _absent(self, number: int) -> bool:
        # whether a place of a file would have to come from the disk
        try:
            handle = os.open(self._files.paths[number], os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            return is_absent(handle, _DICE.randrange(self._files.sizes[number]))
        finally:
            os.close(handle)
