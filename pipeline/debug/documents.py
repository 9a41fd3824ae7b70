"""The documents in a batch, and loss weights that leave some of them out."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.provenance.where import RowOrigin

Record = tuple[str, int]  # component, number in its source
MOST_PERIOD, FEWEST_REPEATS = 13, 8


class Piece(NamedTuple):
    """Part of a document in a row: its tokens `[start, stop)`, where segment_ids is `segment`.

    A row that is not packed has one piece, of segment 0.
    """

    row: int
    segment: int
    start: int
    stop: int


@dataclass(frozen=True)
class Document:
    """A record in a batch.

    Attributes:
        component, record: the record's component, and its index there.
        epoch: how often the record had been drawn before.
        file, file_record: where it is stored.
        pieces: where its tokens are in the batch, row by row.
    """

    component: str
    record: int
    epoch: int
    file: str
    file_record: int
    pieces: tuple[Piece, ...]

    @property
    def name(self) -> str:
        """The document as `--without` takes it: file name and index in the file, else its index."""
        file = self.file.rpartition("/")[2]
        if "." in file:  # else it is the name of a source without files
            return f"{file}:{self.file_record}"
        return f"{self.component}:{self.record}" if self.component else f"{self.record}"


def documents_of(rows: Sequence[RowOrigin]) -> list[Document]:
    """The documents of a batch, in the order in which they begin; one that spans rows comes once.

    >>> from pipeline import Dataset, Loader
    >>> data = Dataset([np.arange(3), np.arange(2)]).pack(4)
    >>> [[tuple(p) for p in d.pieces] for d in documents_of(Loader(data, 2).where(0))]
    [[(0, 1, 0, 3)], [(0, 2, 0, 1), (1, 1, 1, 2)]]
    """
    pieces: dict[tuple[str, int, int], list[Piece]] = {}
    origins: dict[tuple[str, int, int], RowOrigin] = {}
    for i, row in enumerate(rows):
        here = [(s.row, k, s.start, s.stop) for k, s in enumerate(row.segments, 1)]
        for origin, segment, start, stop in here or [(row, 0, 0, 0)]:
            key = origin.component, origin.record, origin.epoch
            origins[key] = origin
            pieces.setdefault(key, []).append(Piece(i, segment, start, stop))
    return [
        Document(*key, origins[key].file, origins[key].file_record, tuple(found))
        for key, found in pieces.items()
    ]


def chosen(documents: Iterable[Document], records: Container[Record]) -> list[Document]:
    """The documents whose record is one of `records`."""
    return [d for d in documents if (d.component, d.record) in records]


def weights_without(
    shape: Sequence[int], documents: Iterable[Document], segment_ids: Any = None
) -> NDArray[np.float32]:
    """Weights for a batch, float32: 0 for the tokens or rows of some documents, else 1.

    Args:
        shape: [B, L], or [B] if each row has one weight.
        documents: the ones to leave out.
        segment_ids: int32[B, L] of a packed batch.

    >>> out = Document("", 0, 0, "", 0, (Piece(0, 2, 0, 1),))
    >>> weights_without((1, 3), [out], np.array([[1, 1, 2]])).tolist()
    [[1.0, 1.0, 0.0]]
    """
    weights = np.ones(shape, np.float32)
    for row, segment, *_ in (piece for document in documents for piece in document.pieces):
        weights[row] = np.where(segment_ids[row] == segment, 0, weights[row]) if segment else 0
    return weights


def repetition(
    tokens: NDArray[Any], show: Callable[[NDArray[Any]], str] = lambda gram: str(gram.tolist())
) -> str:
    """The n-gram of at most 13 tokens with the longest stretch of repetitions; "" if there is none.

    Fewer than 8 successive repetitions count as language. Runs of n-grams of 1 to 13 tokens caused
    loss spikes in OLMo 2 (2024, section 3.1).

    Args:
        tokens: of a document, int[n].
        show: formats an n-gram for people.

    >>> repetition(np.frombuffer(b"so " * 20 + b"much", np.uint8), lambda gram: str(bytes(gram)))
    "b'so ' 20 times"
    """
    longest, found = 0, ""
    for period in range(1, min(MOST_PERIOD, len(tokens) - 1) + 1):
        same = np.concatenate([[False], tokens[period:] == tokens[:-period], [False]])
        edges = np.flatnonzero(np.diff(same.astype(np.int8))).reshape(-1, 2)
        for start, stop in edges[np.argsort(edges[:, 0] - edges[:, 1])][:1].tolist():
            times = (stop - start) // period + 1
            if times >= FEWEST_REPEATS and stop - start > longest:
                longest = stop - start
                found = f"{show(tokens[start : start + period])} {times} times"
    return found
