"""Windows over a stream of tokens or frames as records. Where each begins is computed."""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.block import Columns, Int64s, as_int64
from pipeline.checks import numeric, shown, whole
from pipeline.errors import ChainError
from pipeline.sources.exact import exact, objects
from pipeline.sources.indices import inside
from pipeline.sources.memory import MemorySource
from pipeline.sources.memory_maps import MapReference, described, sample_digest
from pipeline.tree import children, fresh_elements, map_leaves, rebuild
from pipeline.types import Source, fingerprint_of, unseen


class _Stream(Protocol):
    """A sequence of tokens from which windows are cut."""

    def __len__(self) -> int: ...
    def cut(self, starts: Int64s, length: int) -> list[Any] | Columns:
        """Windows, as copies: `[n, length, ...]`, or a tree of these; or a list of n windows."""
        ...

    def places(self, starts: Int64s) -> list[tuple[str, int]] | None: ...
    def fingerprint(self) -> str: ...
    def unseen(self) -> tuple[str, ...]: ...
    def chunk_bounds(self) -> Int64s | None: ...
    def close(self) -> None: ...


class _Array:
    """An array, in memory or mapped. A mapped one is pickled as a reference to its file."""

    def __init__(self, tokens: NDArray[Any]) -> None:
        self._tokens, self._digest = tokens, ""

    def __len__(self) -> int:
        return len(self._tokens)

    def cut(self, starts: Int64s, length: int) -> Columns:
        views = np.lib.stride_tricks.sliding_window_view(self._tokens, length, 0)
        return Columns(fresh_elements(np.moveaxis(views, -1, 1)[starts]))

    def places(self, starts: Int64s) -> list[tuple[str, int]] | None:
        a = self._tokens  # a slice of a mapped array does not know where it begins
        known = isinstance(a, np.memmap) and isinstance(a.base, mmap.mmap)
        file = described(a) if known else None
        return None if file is None else [(file.path, start) for start in starts.tolist()]

    def fingerprint(self) -> str:
        if not self._digest:
            mapped = isinstance(self._tokens, np.memmap)
            self._digest = sample_digest(self._tokens) if mapped else _hashed(self._tokens)
        return self._digest

    def unseen(self) -> tuple[str, ...]:
        return MemorySource(self._tokens).unseen if self._tokens.dtype.hasobject else ()

    def chunk_bounds(self) -> Int64s | None:
        return None

    def close(self) -> None:
        pass

    def __getstate__(self) -> dict[str, Any]:
        return {"tokens": described(self._tokens) or self._tokens, "digest": self._digest}

    def __setstate__(self, state: dict[str, Any]) -> None:
        tokens = state["tokens"]
        self._digest = state["digest"]
        self._tokens = tokens.open() if isinstance(tokens, MapReference) else tokens


class _Records:
    """A source, each record of which is a token of the stream."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def cut(self, starts: Int64s, length: int) -> list[Any] | Columns:
        flat = self._source.read((starts[:, None] + np.arange(length)).reshape(-1))
        if not isinstance(flat, Columns):  # each window on its own: what is beside it is chance
            return [_window(list(flat[i : i + length])) for i in range(0, len(flat), length)]
        tree = map_leaves(lambda a: a.reshape(len(starts), length, *a.shape[1:]), flat.tree)
        return Columns(tree)

    def places(self, starts: Int64s) -> list[tuple[str, int]] | None:
        known = getattr(self._source, "where", None)
        return None if known is None else known(starts)

    def fingerprint(self) -> str:
        return fingerprint_of(self._source)

    def unseen(self) -> tuple[str, ...]:
        return unseen(self._source)

    def chunk_bounds(self) -> Int64s | None:
        return getattr(self._source, "chunk_bounds", None)

    def close(self) -> None:
        getattr(self._source, "close", lambda: None)()


def _window(records: list[Any]) -> Any:
    """Records as one array, field by field; as objects where they are no numbers of one kind."""
    parts = children(records[0])
    if parts is not None and _alike(records):
        columns = zip(*([v for _, v in children(r) or ()] for r in records), strict=True)
        return rebuild(records[0], [_window(list(column)) for column in columns])
    if len(set(map(type, records))) == 1:
        with contextlib.suppress(ValueError):  # lists of several lengths, or not to be held exactly
            arrays = [exact(record) for record in records]
            if len({(a.dtype, a.shape) for a in arrays}) == 1 and numeric(arrays[0].dtype):
                return np.stack(arrays)
    return objects(records)


def _alike(records: list[Any]) -> bool:
    names = [[name for name, _ in children(r) or ()] for r in records]
    return len(set(map(type, records))) == 1 and all(own == names[0] for own in names)


class WindowSource:
    """Windows of one length over a stream, which may consist of several sequences end to end.

    Record i is tokens `[start, start + length)`, where start grows by `stride`. No window extends
    over two sequences. Tokens are whatever the stream holds: numbers, frames `[height, width]`, or
    rows with fields, which are kept: `{"x": [...]}` gives `{"x": [length, ...]}`.

    Args:
        tokens: an array `[n, ...]`, in memory or a `np.memmap` (which other processes open by its
            path); columns `{field: array}`; or a source with `read(indices)`.
        length: tokens in a window. For next-token targets take one more than the model sees.
        stride: tokens from the start of one window to the next; by default `length`, so that
            windows neither overlap nor leave gaps.
        lengths: int64[sequences], tokens of each sequence; their sum is the stream's length. By
            default the stream is one sequence.
        tail: what to do with the tokens after a sequence's last window: leave them out ("drop"), or
            add one more window that ends where the sequence ends ("overlap"). A sequence shorter
            than a window has no windows.

    Raises:
        ChainError: an argument is none of these, `lengths` do not add up to the stream's length, or
            no window fits.

    >>> windows = WindowSource(np.arange(10), 4, stride=3)
    >>> len(windows), windows.read(np.array([2, 0])).tree.tolist()
    (3, [[6, 7, 8, 9], [0, 1, 2, 3]])
    >>> clips = WindowSource(np.arange(10), 3, lengths=[4, 2, 4], tail="overlap")
    >>> clips.read(np.arange(len(clips))).tree.tolist()
    [[0, 1, 2], [1, 2, 3], [6, 7, 8], [7, 8, 9]]
    >>> clips.where(np.array([3]))
    [('sequence 2', 1)]
    """

    def __init__(
        self,
        tokens: Any,
        length: int,
        stride: int | None = None,
        *,
        lengths: Sequence[int] | Int64s | None = None,
        tail: Literal["drop", "overlap"] = "drop",
    ) -> None:
        self._stream = _stream(tokens)
        self.length = whole("window length", length, 1)
        self.stride = whole("window stride", length if stride is None else stride, 1)
        if tail not in ("drop", "overlap"):
            raise ChainError(f'WindowSource(tail={tail!r}): choose "drop" or "overlap"')
        self.tail = tail
        self._apart = lengths is not None
        self._sizes = _sizes(lengths, len(self._stream))
        self._begins = np.cumsum(self._sizes) - self._sizes
        spare = self._sizes - self.length
        steps = -(-spare // self.stride) if tail == "overlap" else spare // self.stride
        self._first = np.concatenate([[0], np.cumsum(np.where(spare >= 0, steps + 1, 0))])
        if not self._first[-1]:
            raise ChainError(
                f"no window of {self.length} tokens fits: the longest sequence has "
                f"{self._sizes.max(initial=0)}. Take shorter windows, or longer sequences."
            )

    def __len__(self) -> int:
        return int(self._first[-1])

    def __repr__(self) -> str:
        cut = f"length={self.length}, stride={self.stride}, {len(self._sizes)} sequences"
        return f"WindowSource({cut}, {len(self)} windows)"

    def _place(self, indices: Int64s) -> tuple[Int64s, Int64s]:
        # the sequence of each window, and where in it the window starts
        sequence = np.searchsorted(self._first, indices, side="right") - 1
        start = (indices - self._first[sequence]) * self.stride
        return sequence, np.minimum(start, self._sizes[sequence] - self.length)

    def starts(self, indices: Int64s) -> Int64s:
        """Where windows start in the stream: int64[n], computed without reading.

        >>> WindowSource(np.arange(10), 4).starts(np.array([1]))
        array([4])
        """
        sequence, start = self._place(inside(indices, len(self)))
        return self._begins[sequence] + start

    def read(self, indices: Int64s) -> list[Any] | Columns:
        """Windows by index, copied: arrays `[n, length, ...]`.

        If the stream is of records one by one, it is a list of n windows, each of which is stacked
        on its own: numbers of one type or arrays of one shape become an array, others objects.

        Raises:
            PositionError: an index is negative or beyond the end.
        """
        return self._stream.cut(self.starts(indices), self.length)

    def where(self, indices: Int64s) -> list[tuple[str, int]]:
        """Where each window's first token lies: in which file or sequence, and its index there."""
        sequence, start = self._place(inside(indices, len(self)))
        known = self._stream.places(self._begins[sequence] + start)
        if known is not None:
            return known
        names = [f"sequence {s}" if self._apart else "tokens" for s in sequence.tolist()]
        return list(zip(names, start.tolist(), strict=True))

    def fingerprint(self) -> str:
        """A string that identifies the windows: the stream's fingerprint, and how it is cut."""
        sizes = _hashed(self._sizes)
        return (
            f"windows {self.length} {self.stride} {self.tail} {sizes} {self._stream.fingerprint()}"
        )

    @property
    def unseen(self) -> tuple[str, ...]:
        """Which tokens the stream's fingerprint does not look into, in words."""
        return self._stream.unseen()

    @property
    def chunk_bounds(self) -> Int64s | None:
        """int64[k + 1], bounds of windows that begin in the same chunk of the source; or None."""
        below = self._stream.chunk_bounds()
        if below is None:
            return None
        sequence = np.searchsorted(self._begins, below, side="right") - 1
        counts = np.diff(self._first)[sequence]
        steps = -(-(below - self._begins[sequence]) // self.stride)
        bounds = self._first[sequence] + np.minimum(steps, counts)
        bounds[-1] = len(self)
        return bounds.astype(np.int64)

    def close(self) -> None:
        """Close the source beneath; reading opens it again."""
        self._stream.close()


def _stream(tokens: Any) -> _Stream:
    if isinstance(tokens, np.ndarray):
        if tokens.ndim == 0:
            raise ChainError(f"WindowSource({tokens!r}): a stream has an axis of tokens")
        return _Array(tokens)
    if isinstance(tokens, dict | Columns | list | tuple):
        return _Records(
            MemorySource(tokens if isinstance(tokens, dict | Columns) else list(tokens))
        )
    if isinstance(tokens, Source):
        return _Records(tokens)
    raise ChainError(
        f"WindowSource wants an array, columns, or a source with len and read(indices), not "
        f"{type(tokens).__name__}"
    )


def _sizes(lengths: Any, n: int) -> Int64s:
    if lengths is None:
        return np.array([n], np.int64)
    try:
        sizes = as_int64(lengths)
    except TypeError as e:
        raise ChainError(f"WindowSource(lengths={shown(lengths)}): give whole numbers") from e
    if (sizes < 0).any() or sizes.sum() != n:
        raise ChainError(
            f"lengths of {len(sizes)} sequences make up {sizes.sum()} tokens, but the stream has "
            f"{n}. Give the length of every sequence, in the order in which they lie."
        )
    return sizes


def _hashed(a: NDArray[Any]) -> str:
    return MemorySource(a).fingerprint()
