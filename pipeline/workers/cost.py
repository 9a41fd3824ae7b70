"""What rows have cost lately, and how many of them make a piece of work of the right size."""

from __future__ import annotations

FADE = 0.5  # weight of earlier works relative to the latest one
ROWS = 2048  # of one work: reading more at once gains nothing
BYTES = 8 << 20  # of one work: more than this leaves the CPU's caches


class Cost:
    """Seconds and bytes per row, averaged over recent works: datasets change as they go.

    The bytes are those of the last work if it was heavier than the average, so that a budget holds
    when captions give way to images.

    >>> cost = Cost()
    >>> cost.add(rows=1000, nbytes=1000, seconds=0.5)
    >>> cost.add(rows=10, nbytes=8000, seconds=0.5)
    >>> cost.nbytes, round(cost.seconds, 4)
    (800.0, 0.0015)
    """

    def __init__(self) -> None:
        self._rows = self._bytes = self._seconds = self._last = 0.0

    def __bool__(self) -> bool:
        return self._rows > 0

    def add(self, *, rows: int, nbytes: int, seconds: float) -> None:
        """Account for one more work."""
        self._rows = FADE * self._rows + rows
        self._bytes = FADE * self._bytes + nbytes
        self._seconds = FADE * self._seconds + seconds
        self._last = nbytes / max(1, rows)

    @property
    def nbytes(self) -> float:
        """Bytes of a row."""
        return max(self._last, self._bytes / max(1.0, self._rows))

    @property
    def seconds(self) -> float:
        """Seconds that a row takes."""
        return self._seconds / max(1.0, self._rows)

    def batches(self, rows: int, *, seconds: float, nbytes: float) -> int:
        """How many batches of `rows` rows fit into one work of so many seconds and bytes."""
        most = min(BYTES, nbytes) / max(1.0, self.nbytes)
        most = int(min(ROWS, most, seconds / max(1e-9, self.seconds)))
        return max(1, most // max(1, rows))
