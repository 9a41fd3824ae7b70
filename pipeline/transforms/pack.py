"""How documents of any length become rows of one length, with segments and positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from pipeline.block import Block, Columns, Int64s, Origin, Segments
from pipeline.errors import ChainError, CollateError
from pipeline.transforms.calling import check_block, label
from pipeline.transforms.documents import Describe, Tokens, documents
from pipeline.transforms.packers import HOWS, Layout, plan
from pipeline.types import Site

_BARE = "tokens"  # what rows that are token arrays are called


@final
@dataclass(frozen=True)
class Pack:
    """Documents of a block laid into rows of fixed length, as columns; padding is 0.

    A row has the field itself `[n, length]`, `segment_ids` int32 (1, 2, … along the row; 0 is
    padding) and `positions` int32 (from 0 within each segment). With several fields they are called
    `{field}_segment_ids` and `{field}_positions`, and segment k is the same document in all of
    them. Where a document is cut, its next piece is a new segment: positions start again at 0.

    A row's provenance is its first segment's, with one more place: the token at which that segment
    starts in its document. `origin.segments` has the spans of all of them (of the first field).

    Attributes:
        lengths: tokens a row: an int where rows are token arrays (then called "tokens"), else
            {field: length} for all fields of a row.
        how: "split" joins documents end to end and cuts at row borders; "first_fit" puts each into
            the first row with room, rows in the order they were opened, and cuts only what is
            longer than a row.
        block: about how many documents are packed together.
        name: what messages and the fingerprint call it.

    Raises:
        ChainError: lengths, how or block are not of these.
    """

    lengths: int | Mapping[str, int]
    how: str = "split"
    block: int = 256
    name: str = "pack"
    kind: str = field(default="pack", init=False, repr=False)
    random: bool = field(default=False, init=False, repr=False)
    counted: bool = field(default=True, init=False, repr=False)

    def __post_init__(self) -> None:
        check_block(self.kind, self.block)
        if self.how not in HOWS:
            raise ChainError(f"pack(how={self.how!r}): choose one of {', '.join(HOWS)}")
        if isinstance(self.lengths, Mapping):
            object.__setattr__(self, "lengths", dict(self.lengths))
        _check_lengths(self.lengths, self.fields, self.how)

    @property
    def fields(self) -> dict[str, int]:
        """Tokens a row of each field."""
        return dict(self.lengths) if isinstance(self.lengths, Mapping) else {_BARE: self.lengths}

    def apply(self, block: Block, site: Site) -> Block:
        """The block's documents, packed.

        Raises:
            ChainError: rows have other fields than `lengths`.
            CollateError: a field is no array of numbers with one axis, its dtype varies, or a
                document must be cut but its fields differ in length.
        """
        names, limits = tuple(self.fields), np.array(list(self.fields.values()), np.int64)

        def describe(i: int) -> str:
            return site.describe(block.origin, i)

        try:
            docs = documents(block, names, not isinstance(self.lengths, Mapping), describe)
            sizes = np.array([[len(d) for d in docs[name]] for name in names], np.int64).T
            self._check_cuts(sizes, limits, describe)
        except (ChainError, CollateError) as error:
            error.add_note(f"in {site.stage}")
            raise
        layout = plan(sizes, limits, how=self.how, longest_first=False)
        if not layout.rows:
            return Block([], block.origin.take(layout.document).deeper(layout.start))
        columns: dict[str, NDArray[Any]] = {}
        for i, (name, limit) in enumerate(self.fields.items()):
            filled = _fill(docs[name], layout, layout.stop[:, i], limit)
            columns.update(zip(_outputs(name, len(names)), filled, strict=True))
        return Block(Columns(columns), _origin(block.origin, layout))

    def _check_cuts(self, sizes: Int64s, limits: Int64s, describe: Describe) -> None:
        # split may cut any document, first_fit the longer ones: all fields at the same token
        alike = (sizes == sizes[:, :1]).all(1) & (limits == limits[0]).all()
        cut = (sizes > limits).any(1) if self.how != "split" else np.ones(len(sizes), bool)
        for i in np.flatnonzero(cut & ~alike)[:1]:
            found = dict(zip(self.fields, sizes[i].tolist(), strict=True))
            raise CollateError(
                f"cannot pack {describe(i)}: it has {found} tokens for rows of {self.fields}, and "
                f"how={self.how!r} would cut its fields at different tokens. Make them equally "
                "long, or use how='first_fit' and drop or shorten what exceeds a row."
            )

    def fingerprint(self) -> str:
        lengths = tuple((name, int(limit)) for name, limit in self.fields.items())
        bare = int(not isinstance(self.lengths, Mapping))
        return label(self.kind, self.name, self.how, int(self.block), lengths, bare)


def _outputs(name: str, fields: int) -> tuple[str, str, str]:
    prefix = "" if fields == 1 else f"{name}_"
    return name, f"{prefix}segment_ids", f"{prefix}positions"


def _check_lengths(lengths: object, fields: dict[str, int], how: str) -> None:
    for length in fields.values():
        whole = isinstance(length, int | np.integer) and not isinstance(length, bool)  # pyright: ignore[reportUnnecessaryIsInstance]
        if not whole or not 1 <= length < 2**31:
            raise ChainError(f"pack({lengths}): {length!r} is no number of tokens from 1 on")
    if not fields:
        raise ChainError("pack({}): name at least one field, as in {'tokens': 2048}")
    if how == "split" and len(set(fields.values())) > 1:
        raise ChainError(
            f"pack({lengths}, how='split') cuts all fields at the same token, so they need one "
            "length. Give one, or use how='first_fit'."
        )
    outputs = [output for name in fields for output in _outputs(name, len(fields))]
    if len(set(outputs)) < len(outputs):
        raise ChainError(f"pack({lengths}) would make fields {outputs}: rename those that collide")


def _fill(
    docs: list[Tokens], layout: Layout, stop: Int64s, limit: int
) -> tuple[Tokens, NDArray[np.int32], NDArray[np.int32]]:
    """One field's tokens, segment ids and positions, each `[rows, limit]`."""
    bounds, n = layout.bounds, layout.rows
    sizes = stop - layout.start
    pads = limit - np.add.reduceat(sizes, bounds[:-1])
    number = np.arange(len(sizes)) - bounds[layout.row] + 1
    # one more piece at the end of each row, number 0: its padding
    spans = np.insert(sizes, bounds[1:], pads)
    ids = np.repeat(np.insert(number, bounds[1:], 0).astype(np.int32), spans).reshape(n, limit)
    begins = (np.cumsum(spans) - spans) % limit
    positions = np.arange(limit, dtype=np.int32) - np.repeat(
        begins.astype(np.int32), spans
    ).reshape(n, limit)
    positions *= ids > 0
    return _laid(docs, layout, stop, pads).reshape(n, limit), ids, positions


def _laid(docs: list[Tokens], layout: Layout, stop: Int64s, pads: Int64s) -> Tokens:
    """All pieces and paddings end to end: views, copied once."""
    dtype = next((d.dtype for d in docs if d.size), np.dtype(np.int64))
    ends = layout.bounds[1:]
    document = np.insert(layout.document, ends, len(docs))  # one document more: of padding
    pieces = document, np.insert(layout.start, ends, 0), np.insert(stop, ends, pads)
    docs = [*docs, np.zeros(int(pads.max()), dtype)]
    parts = [docs[d][a:b] for d, a, b in zip(*(p.tolist() for p in pieces), strict=True)]
    return np.concatenate(parts, dtype=dtype, casting="unsafe")


def _origin(below: Origin, layout: Layout) -> Origin:
    first = layout.bounds[:-1]
    key = below.take(layout.document[first]).deeper(layout.start[first])
    spans = below.take(layout.document), layout.start, layout.stop[:, 0]
    segments = Segments(layout.bounds, *spans)
    return Origin(key.component, key.epoch, key.record, key.place, segments)
