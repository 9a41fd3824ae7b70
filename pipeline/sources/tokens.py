"""Token files as single tokens, or as rows of a fixed length."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pipeline.block import Columns, Int64s
from pipeline.checks import whole
from pipeline.errors import SourceError
from pipeline.sources.file_source import FileSource
from pipeline.sources.indices import inside
from pipeline.sources.storage.advice import Advice, can_tell
from pipeline.sources.storage.files import Files, Paths
from pipeline.sources.storage.gather import read_spans
from pipeline.sources.storage.lru import OpenFiles
from pipeline.sources.storage.storage import Stat, Storage, is_url
from pipeline.sources.token_files import (
    TokenFile,
    as_tokens,
    from_manifest,
    one_type,
    stored,
    token_file,
)


class TokenSource(FileSource):
    """Tokens of raw files as `Columns` of one array: each token is a record, or each row of them.

    It reads plain files (`.bin`, as nanoGPT and others write them), `.npy` arrays, and llm.c's
    files with their header. Files are end to end in the order given; no row extends over two files.
    Local files are memory-mapped: do not truncate one while it is read.

    Args:
        paths: a path, a glob, or a list of these; globs are sorted.
        dtype: of plain files, little-endian. None: given by a suffix such as `.u16` or
            `.uint16.bin`, or by `{"dtype": "uint16"}` in a file of the same name that ends in
            `.json`.
        length: tokens in a row. None: each token is a record; or each row, if `.npy` arrays have
            two dimensions. An incomplete row at a file's end is left out.
        stride: tokens from the start of one row to the next, `length` if None.
        storage: how URLs are read.

    Raises:
        SourceError: a file is missing, truncated or compressed, its dtype is unknown, or dtypes
            differ.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/a.bin"
    >>> np.arange(10, dtype=np.uint16).tofile(path)
    >>> TokenSource(path, "uint16", length=4, stride=3).read(np.array([2, 0])).tree
    array([[6, 7, 8, 9],
           [0, 1, 2, 3]], dtype=uint16)
    >>> TokenSource(path, "uint16").read(np.array([3, 4])).tree
    array([3, 4], dtype=uint16)
    """

    _not_pickled = frozenset({"_maps", "_remote", "_advice"})

    def __init__(
        self,
        paths: Paths,
        dtype: DTypeLike | None = None,
        *,
        length: int | None = None,
        stride: int | None = None,
        storage: Storage | None = None,
    ) -> None:
        self._length = None if length is None else whole("length", length, 1, SourceError)
        if stride is not None and length is None:
            raise SourceError(f"{stride=} is the distance of rows: give length= as well")
        kind, storage = None if dtype is None else stored(dtype), storage or Storage()

        def count(stat: Stat) -> tuple[int, TokenFile]:
            held = token_file(stat, storage, kind)
            return held.tokens, held

        # without a dtype the count may depend on a sidecar file, which a manifest does not track
        counted = f"tokens of {kind} 1" if kind else ""
        tokens = Files.counted(paths, count, storage, kind=counted, empty=True)
        found = [
            from_manifest(tokens.stat(i), n, facts)
            for i, (n, facts) in enumerate(zip(tokens.counts.tolist(), tokens.more, strict=True))
        ]
        self._dtype = one_type(tokens.paths, found)
        self._offsets = np.array([f.offset for f in found], np.int64)
        if length is None:
            self._length = _width(tokens.paths, found)
        step = (self._length or 1) if stride is None else stride
        self._stride = whole("stride", step, 1, SourceError)
        rows = np.maximum(0, (tokens.counts - (self._length or 1)) // self._stride + 1)
        self._files = Files(tokens.paths, tokens.sizes, rows, storage, tokens.tags)
        what = f"{self._dtype} {self._length} {self._stride}"
        self._identity = ("tokens", what, str(self._offsets.tolist()))
        self._open_nothing()

    def _open_nothing(self) -> None:
        self._remote = any(map(is_url, self._files.paths))
        self._maps = OpenFiles[int, NDArray[Any]]()
        if self._length is not None:  # single tokens are less than what a disk brings
            self._advice = Advice(self._files, self._where_to_come)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open_nothing()

    def __repr__(self) -> str:
        files = self._files.paths
        what = "tokens" if self._length is None else f"rows of {self._length} tokens"
        return (
            f"TokenSource({len(files)} files from {files[0]!r}, {len(self)} {what}, {self.dtype})"
        )

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of a token, in this machine's byte order."""
        return np.dtype(self._dtype).newbyteorder("=")

    def read(self, indices: Int64s) -> Columns:
        """Records by index, in the order given, repeats included: `[n]`, or `[n, length]`.

        Raises:
            PositionError: an index is negative or beyond the end.
            SourceError: a file was removed, truncated or replaced.
        """
        wanted = inside(indices, len(self))
        file, local = self._split(wanted)
        if self._remote:
            return Columns(self._fetch(wanted))
        if self._advice is not None:
            self._advice.now(wanted)
        numbers = np.unique(file).tolist()
        if len(numbers) == 1:
            return Columns(self._mapped(numbers[0])[local].astype(self.dtype, copy=False))
        shape = (len(wanted),) if self._length is None else (len(wanted), self._length)
        found = np.empty(shape, self.dtype)
        for number in numbers:
            here = file == number
            found[here] = self._mapped(number)[local[here]]
        return Columns(found)

    def _split(self, indices: Int64s) -> tuple[Int64s, Int64s]:
        # the file that holds each record, and the record's index in it
        file = np.searchsorted(self._files.bounds, indices, side="right") - 1
        return file, indices - self._files.bounds[file]

    def _where_to_come(self, indices: Int64s) -> tuple[Int64s, Int64s, Int64s]:
        file, local = self._split(indices)
        size = np.dtype(self._dtype).itemsize
        start = self._offsets[file] + local * (self._stride * size)
        return file, start, start + (self._length or 1) * size

    def _mapped(self, file: int) -> NDArray[Any]:
        # touching a mapping beyond its file's end kills the process, so check the size first
        self._files.check_unchanged(file)
        return self._maps.get(file, self._map)

    def _map(self, file: int) -> NDArray[Any]:
        self._files.check_unchanged(file)
        with open(self._files.paths[file], "rb") as f:
            data = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
        if self._advice is not None and can_tell():  # which tells what is needed, and no more
            data.madvise(mmap.MADV_RANDOM)
        offset, size = int(self._offsets[file]), np.dtype(self._dtype).itemsize
        tokens = np.frombuffer(data, self._dtype, (len(data) - offset) // size, offset)
        if self._length is None:
            return tokens
        rows = np.lib.stride_tricks.sliding_window_view(tokens, self._length)
        return rows[:: self._stride]

    def _fetch(self, wanted: Int64s) -> NDArray[Any]:
        file, start, stop = self._where_to_come(wanted)
        if self._length is not None:
            tokens = as_tokens(read_spans(self._files, file, start, stop), self._dtype)
            return tokens.reshape(len(wanted), self._length)
        # consecutive tokens are read as one span
        cut = np.flatnonzero((np.diff(wanted) != 1) | (np.diff(file) != 0)) + 1
        first = np.concatenate([[0], cut])[: len(wanted)]
        last = np.concatenate([cut, [len(wanted)]])[: len(wanted)] - 1
        spans = read_spans(self._files, file[first], start[first], stop[last])
        return as_tokens(spans, self._dtype)

    def layout(self) -> list[dict[str, Any]]:
        """Facts about each file: path, bytes, records, dtype, tokens in a record."""
        files = self._files
        return [
            {"path": path, "bytes": size, "records": n, "dtype": str(self.dtype),
             "tokens": self._length or 1}
            for path, size, n in zip(files.paths, files.sizes, files.counts.tolist(), strict=True)
        ]  # fmt: skip

    def close(self) -> None:
        """Drop all mappings; reading opens them again."""
        self._maps.clear()


def _width(paths: tuple[str, ...], found: list[TokenFile]) -> int | None:
    """Tokens in a row, the same for all files; None if arrays have one dimension."""
    known = {f.shape[1] if len(f.shape) == 2 else None: path
             for path, f in zip(paths, found, strict=True) if f.dtype and f.tokens}  # fmt: skip
    if len(known) > 1:
        (a, first), (b, second) = list(known.items())[:2]
        raise SourceError(
            f"{first} holds {f'rows of {a} tokens' if a else 'no rows'}, {second} "
            f"{f'rows of {b}' if b else 'none'}. Give length=, or build two sources."
        )
    return next(iter(known), None)
