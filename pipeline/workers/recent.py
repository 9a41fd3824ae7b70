"""What a row has cost of late: datasets change as they go, from captions to images."""

from __future__ import annotations

FADE = 0.5  # how much earlier works count beside the last one


class Recent:
    """Seconds and bytes of a row, the last works foremost; of bytes, the last one if it had more.

    >>> cost = Recent()
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
        """One more work."""
        self._rows = FADE * self._rows + rows
        self._bytes = FADE * self._bytes + nbytes
        self._seconds = FADE * self._seconds + seconds
        self._last = nbytes / max(1, rows)

    @property
    def nbytes(self) -> float:
        return max(self._last, self._bytes / max(1.0, self._rows))

    @property
    def seconds(self) -> float:
        return self._seconds / max(1.0, self._rows)
