"""Documents in token files, separated by an end-of-document token."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import DTypeLike

from pipeline.checks import whole
from pipeline.errors import SourceError
from pipeline.sources.storage.arrays import Arrays
from pipeline.sources.storage.files import Paths
from pipeline.sources.storage.gather import pieces
from pipeline.sources.storage.side_index import indexed
from pipeline.sources.storage.storage import Stat, Storage
from pipeline.sources.token_files import TokenFile, one_type, stored, token_file
from pipeline.sources.token_records import TokenRecords


class TokenDocumentSource(TokenRecords):
    """Documents of raw token files, each an array of tokens that ends with `eos`.

    The tokens after a file's last `eos` are a document too; no document extends over two files.
    Where documents begin is found once, and kept in the cache folder.

    Args:
        paths, dtype, storage: as for `TokenSource`.
        eos: the token that ends a document.

    Raises:
        SourceError: a file is missing, truncated or compressed, its dtype is unknown, dtypes
            differ, or no token can be `eos`.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/a.bin"
    >>> np.array([5, 6, 0, 7, 0, 8], np.uint16).tofile(path)
    >>> [d.tolist() for d in TokenDocumentSource(path, "uint16", eos=0).read(np.array([2, 0]))]
    [[8], [5, 6, 0]]
    """

    _scanned = True

    def __init__(
        self,
        paths: Paths,
        dtype: DTypeLike | None = None,
        *,
        eos: int,
        storage: Storage | None = None,
    ) -> None:
        self._eos = whole("eos", eos, 0, SourceError)
        kind, storage = None if dtype is None else stored(dtype), storage or Storage()
        # without a dtype the count may depend on a sidecar file, which a manifest does not track
        counted = f"documents of {kind} to {self._eos} 1" if kind else ""
        load = functools.partial(_documents, kind, self._eos)
        super().__init__(paths, counted, load, storage, ())
        files = self._files
        stats = [files.stat(i) for i in range(len(files.paths))]
        self._dtype = one_type(files.paths, [token_file(s, storage, kind) for s in stats])
        if self._eos > np.iinfo(self._dtype).max:
            raise SourceError(
                f"eos={self._eos} is no {self.dtype}, of which the tokens in {files.paths[0]} are. "
                "Give the token that ends documents there."
            )
        self._identity = ("token documents", f"{self._dtype} {self._eos}")


def _documents(dtype: str | None, eos: int, stat: Stat, storage: Storage) -> Arrays:
    found = token_file(stat, storage, dtype)
    kind = f"tokens {found.dtype} from {found.offset} to {eos} 1"
    return indexed(stat, storage, kind, functools.partial(_ends, found, eos))


def _ends(found: TokenFile, eos: int, stat: Stat, storage: Storage) -> Arrays:
    size = np.dtype(found.dtype).itemsize if found.dtype else 1
    ends, done, left = [np.zeros(0, np.int64)], -found.offset, b""
    for piece in pieces(stat, storage):
        # the bytes before the tokens are skipped; a token may extend over two pieces
        data, done = (piece[-done:], 0) if done < 0 else (left + piece, done)
        whole_bytes = len(data) // size * size
        tokens = np.frombuffer(data, found.dtype, whole_bytes // size)
        ends.append(done + (np.flatnonzero(tokens == eos) + 1) * size)
        done, left = done + whole_bytes, data[whole_bytes:]
    stop = np.concatenate(ends).astype(np.int64)
    if done > (stop[-1] if len(stop) else 0):
        stop = np.append(stop, done)
    stop = stop + found.offset
    start = np.concatenate([[found.offset], stop[:-1]])[: len(stop)]
    return {"start": start.astype(np.int64), "stop": stop}
