"""The sorted index of a dataset's documents, kept in a folder, and proofs from it."""

from __future__ import annotations

import base64
import json
import shutil
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.dataset import Dataset
from pipeline.debug.seen.documents import COLUMNS, Documents
from pipeline.debug.seen.proof import (
    HASH,
    KIND,
    MOST_BYTES,
    Entry,
    ProofError,
    canonical,
    check,
    digest_of,
    fold,
    leaf_hash,
    node_hash,
    root_of,
    sealed,
)
from pipeline.errors import ScanError
from pipeline.nodes import Leaf
from pipeline.scan import scan
from pipeline.sources.storage.atomic import written_whole
from pipeline.types import Component

_ENTRY = HASH + 4 + 8  # bytes: digest, component, record
_HEAD, _ENTRIES, _NODES = "head.json", "entries.npy", "nodes.npy"
_SHOWN = 8  # entries of one document that a proof lists


class Index:
    """Documents by digest, and the Merkle tree over them; read from its folder as needed.

    Args:
        folder: holds a finished index.
        documents: how records become documents.

    Attributes:
        head: how many entries there are and what they are of: see `proof.py`.
        root: what a proof is checked against.

    Raises:
        ScanError: it is damaged.
    """

    def __init__(self, folder: Path, documents: Documents) -> None:
        self._folder, self.documents = folder, documents
        try:
            self.head: dict[str, Any] = json.loads((folder / _HEAD).read_bytes())
            self._size = int(self.head["size"])
            self._entries = np.load(folder / _ENTRIES, mmap_mode="r")
            self._nodes = np.load(folder / _NODES, mmap_mode="r")
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise self._damaged(str(e)) from e
        shapes = (self._size, _ENTRY), (sum(_levels(self._size)), HASH)
        if (self._entries.shape, self._nodes.shape) != shapes:
            raise self._damaged(f"its arrays have other lengths than {self._size} documents")
        self.root = root_of(self.head)

    def __len__(self) -> int:
        return self._size

    def _damaged(self, why: str) -> ScanError:
        return ScanError(f"the index at {self._folder} is damaged ({why}). Delete the folder.")

    def entry(self, i: int) -> Entry:
        """The i-th in the order of digests."""
        leaf = self._entries[i].tobytes()
        component, record = leaf[HASH : HASH + 4], leaf[HASH + 4 :]
        return Entry(leaf[:HASH], int.from_bytes(component, "big"), int.from_bytes(record, "big"))

    def place(self, document: bytes) -> range:
        """The entries with this digest; an empty range stands where they would be."""

        def before(bound: bytes) -> int:
            return bisect_left(range(self._size), bound, key=lambda i: self._entries[i].tobytes())

        start = before(document)
        return range(start, before(document + b"\xff" * (_ENTRY - HASH)))

    # ---- proofs

    def proof(self, documents: Sequence[bytes], claims: dict[str, Any]) -> bytes:
        """The proof that one of these digests is in the index, or that none is.

        Args:
            documents: the digests looked for.
            claims: what else to say. It is not covered: what does not fit is left out.

        Raises:
            ScanError: the index is damaged: its own proof does not hold.
        """
        places = [self.place(document) for document in documents]
        shown = [i for place in places for i in place][:_SHOWN]
        if not shown:
            edges = {i for place in places for i in (place.start - 1, place.start)}
            shown = sorted(edges & set(range(self._size)))
        nodes: list[bytes] = []

        def missing(low: int, high: int) -> bytes:
            nodes.append(self._node(low, high))
            return nodes[-1]

        shown = sorted(shown)
        entries = {i: self.entry(i) for i in shown}
        fold(self._size, {i: leaf_hash(e.leaf) for i, e in entries.items()}, missing)
        statement = {
            "kind": KIND,
            "head": self.head,
            "documents": [document.hex() for document in documents],
            "entries": [[i, e.digest.hex(), e.component, e.record] for i, e in entries.items()],
            "nodes": base64.b64encode(b"".join(nodes)).decode(),
        }
        written = _fitting(statement, claims)
        try:
            check(written, self.root)
        except ProofError as e:
            raise self._damaged(f"its proof does not hold: {e}") from e
        return written

    def _node(self, low: int, high: int) -> bytes:
        level = (high - low - 1).bit_length()
        return self._nodes[self._starts[level] + (low >> level)].tobytes()

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *np.cumsum(_levels(self._size)).tolist()]


def _fitting(statement: dict[str, Any], claims: dict[str, Any]) -> bytes:
    # claims as far as they fit: their steps go first, the last ones before all
    claims = dict(claims)
    while True:
        written = sealed({**statement, "claims": claims})
        if len(written) <= MOST_BYTES or not claims:
            return written
        if claims.get("steps"):
            claims["steps"] = claims["steps"][:-1]
        else:
            claims.popitem()


# ---- making one


def index_of(
    components: Sequence[Component],
    documents: Documents,
    folder: Path,
    *,
    workers: Any = "auto",
    progress: bool = True,
) -> Index:
    """The index of all records of a dataset's sources, made where the folder has none.

    Args:
        components: of the dataset. Stages, orders and seeds do not matter.
        documents: how a record becomes a document.
        folder: holds indexes, each in a folder named by what it is of.
        workers: who reads the records, as in a Loader.
        progress: show how far it is.

    Raises:
        ScanError: an index there is damaged, or none can be kept there.
        ChainError: a record is neither text nor bytes, and neither a field nor a function says
            what its document is.
    """
    sources = [
        ["/".join(c.path), len(c.source), Leaf(c.source).fingerprint()["source"]]
        for c in components
    ]
    of = {"document": documents.described, "sources": digest_of(canonical(sources)).hex()[:32]}
    own = folder / digest_of(canonical(of)).hex()[:16]
    if not (own / _HEAD).exists():
        _make(own, components, documents, of, workers, progress)
    return Index(own, documents)


def _make(
    folder: Path,
    components: Sequence[Component],
    documents: Documents,
    of: dict[str, str],
    workers: Any,
    progress: bool,
) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise ScanError(f"an index cannot be kept in {folder}: {e}. Give --index FOLDER") from e
    parts = [
        _scanned(folder / f"scan-{i}", i, c, documents, workers, progress)
        for i, c in enumerate(components)
        if len(c.source)
    ]
    entries = _sorted(np.concatenate([np.zeros((0, _ENTRY), np.uint8), *parts]))
    nodes = _tree(entries)
    tree = nodes[-1].tobytes().hex() if len(nodes) else digest_of(b"").hex()
    head = {"digest": "blake2b-256", "size": len(entries), "tree": tree, **of}
    for name, array in ((_ENTRIES, entries), (_NODES, nodes)):
        with written_whole(str(folder / name), durable=True) as f:
            np.save(f, array)
    with written_whole(str(folder / _HEAD), durable=True) as f:  # the last: says that all is whole
        f.write(canonical(head))
    for i in range(len(components)):
        shutil.rmtree(folder / f"scan-{i}", ignore_errors=True)


def _scanned(
    folder: Path, i: int, component: Component, documents: Documents, workers: Any, progress: bool
) -> NDArray[np.uint8]:
    found = scan(
        Dataset(component.source),
        documents.columns,
        path=folder,
        workers=workers,
        progress=progress,
        name="digests",
        fingerprint=documents.described,
    )
    n = len(component.source)
    digests = np.stack([found[name].values for name in COLUMNS], 1).astype(">i8")
    entries = np.empty((n, _ENTRY), np.uint8)
    entries[:, :HASH] = digests.view(np.uint8).reshape(n, HASH)
    entries[:, HASH : HASH + 4] = np.full(n, i, ">u4").view(np.uint8).reshape(n, 4)
    entries[:, HASH + 4 :] = np.arange(n, dtype=">u8").view(np.uint8).reshape(n, 8)
    return entries


def _sorted(entries: NDArray[np.uint8]) -> NDArray[np.uint8]:
    # components and records rise already, and lexsort is stable
    keys = np.ascontiguousarray(entries[:, :HASH]).view(">u8").astype(np.uint64)
    return entries[np.lexsort(keys.T[::-1])]


def _levels(size: int) -> list[int]:
    # nodes of each level, leaves first: the last one of a level goes up alone if it has no sibling
    found = [size] if size else []
    while found and found[-1] > 1:
        found.append(-(-found[-1] // 2))
    return found


def _tree(entries: NDArray[np.uint8]) -> NDArray[np.uint8]:
    # the hashes of all levels end to end
    levels = [_rows(map(leaf_hash, map(bytes, entries)), len(entries))]
    while len(levels[-1]) > 1:
        below = levels[-1]
        pairs = below[: len(below) // 2 * 2].reshape(-1, 2 * HASH)
        joined = (node_hash(p[:HASH], p[HASH:]) for p in map(bytes, pairs))
        above = _rows(joined, len(pairs))
        levels.append(np.concatenate([above, below[2 * len(pairs) :]]))
    return np.concatenate(levels)


def _rows(hashes: Iterator[bytes], n: int) -> NDArray[np.uint8]:
    found = np.empty((n, HASH), np.uint8)
    for start in range(0, n, 1 << 16):  # few Python objects at a time
        some = np.frombuffer(b"".join(islice(hashes, 1 << 16)), np.uint8).reshape(-1, HASH)
        found[start : start + len(some)] = some
    return found
