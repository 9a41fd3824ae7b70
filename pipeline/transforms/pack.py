"""Packs documents of any length into rows of one length, with segment ids and positions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from pipeline.block import Block, Columns, Int64s, Origin, Segments
from pipeline.checks import shown, whole
from pipeline.errors import ChainError, CollateError
from pipeline.seeds import Name
from pipeline.transforms.defaults import TransformDefaults
from pipeline.transforms.documents import Describe, Marks, check_marks, documents, filled, values_of
from pipeline.transforms.packers import HOWS, LONGER, Layout, plan
from pipeline.tree import map_leaves
from pipeline.types import Site

_BARE = "tokens"  # the name of rows that are token arrays


@final
@dataclass(frozen=True)
class Pack(TransformDefaults):
    """Documents of a block laid into rows of fixed length, as columns; padding is 0.

    A row has the field itself `[n, length]`, `segment_ids` int32 (1, 2, … along the row; 0 is
    padding) and `positions` int32 (from 0 within each segment). With several fields they are called
    `{field}_segment_ids` and `{field}_positions`, and segment k is the same document in all of
    them. Where a document is cut, its next piece is a new segment: positions start again at 0.

    A row's provenance is its first segment's, with one more place: the token at which that segment
    starts in its document, counted with BOS. `origin.segments` has the spans of all of them (of the
    first field, in the document as it was, without BOS and EOS).

    Attributes:
        lengths: tokens of a packed row: an int where rows are token arrays (then called "tokens"),
            else {field: length} for all fields to pack.
        how: "split" joins documents end to end and cuts at row borders; "first_fit" puts each into
            the first row with room in all fields, "best_fit" into the one that it fills best; both
            cut only what is longer than a row.
        block: approximate number of documents packed together.
        name: what messages and the fingerprint call it.
        cross, longest_first, max_segments, longer: see `packers.plan`. Documents longer than a row
            are cut ("split"), lose what exceeds it, EOS included ("truncate"), or are an error
            ("refuse").
        bos, eos: tokens put before and after each document that has any, counted in lengths; an int
            for all fields or {field: int}.
        meta: fields that are not packed: a row has one value of them for each segment. With
            max_segments they are padded, `[n, max_segments, ...]` (by 0, or None for strings and
            other objects); else they are objects `[n]`, each an array with a value per segment.

    Raises:
        ChainError: an option is not one of these.
    """

    lengths: int | Mapping[str, int]
    how: str = "split"
    block: int = 256
    name: str = "pack"
    cross: bool = True
    longest_first: bool = True
    max_segments: int | None = None
    longer: str = "split"
    bos: int | Mapping[str, int] | None = None
    eos: int | Mapping[str, int] | None = None
    meta: Sequence[str] = ()
    kind = "pack"
    counted = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for option, value, known in (("how", self.how, HOWS), ("longer", self.longer, LONGER)):
            if value not in known:
                raise ChainError(f"pack({option}={value!r}): choose one of {', '.join(known)}")
        if self.max_segments is not None:
            whole("pack max_segments", self.max_segments, 1)
        for option in ("lengths", "bos", "eos"):
            value = getattr(self, option)
            if isinstance(value, Mapping):
                object.__setattr__(self, option, dict(value))
        if isinstance(self.meta, str):
            raise ChainError(f"pack(meta={self.meta!r}): give names, as in meta=[{self.meta!r}]")
        object.__setattr__(self, "meta", tuple(self.meta))
        _check_lengths(self.lengths, self.fields, self.how == "split" and self.cross)
        _check_marks(self.fields, bos=self.bos, eos=self.eos)
        _check_meta(tuple(self.meta), self.lengths, self.fields)

    @property
    def fields(self) -> dict[str, int]:
        """Tokens of a packed row, by field."""
        return dict(self.lengths) if isinstance(self.lengths, Mapping) else {_BARE: self.lengths}

    def apply(self, block: Block, site: Site) -> Block:
        """The block's documents, packed."""
        return self.laid(block, site, self.plan)

    def laid(self, block: Block, site: Site, plan: Callable[[Int64s], Layout]) -> Block:
        """The block's documents, laid out as a plan says.

        Args:
            block: the documents.
            site: for messages.
            plan: makes the layout from lengths int64[n, fields], marks included.

        Raises:
            ChainError: rows have other fields than `lengths` and `meta`, or a dtype of tokens that
                cannot hold `bos` or `eos`.
            CollateError: a field is not an array of numbers with one axis, its dtype varies, a
                document must be cut but its fields differ in length, or one is longer than a row
                and that is refused.
        """
        names, limits = tuple(self.fields), np.array(list(self.fields.values()), np.int64)

        def describe(i: int) -> str:
            return site.describe(block.origin, i)

        try:
            bare = not isinstance(self.lengths, Mapping)
            docs, meta = documents(block, names, bare, describe, tuple(self.meta))
            for name in names:
                check_marks(self.marks(name), name, docs[name])
            own = [np.fromiter(map(len, docs[name]), np.int64, len(block)) for name in names]
            sizes = self.with_marks(np.stack(own, 1))
            self._check_sizes(sizes, limits, describe)
        except (ChainError, CollateError) as error:
            error.add_note(f"in {site.stage}")
            raise
        layout = plan(sizes)
        origin = packed_origin(self, block.origin, layout, own[0])
        if not layout.rows:
            return Block([], origin)
        columns: dict[str, Any] = {}
        for i, (name, limit) in enumerate(self.fields.items()):
            arrays = filled(docs[name], layout, i, limit, self.marks(name))
            columns.update(zip(_outputs(name, len(names)), arrays, strict=True))
        kept = map_leaves(lambda a: values_of(a, layout, self.max_segments), meta)
        return Block(Columns({**columns, **kept}), origin)

    def plan(self, sizes: Int64s) -> Layout:
        """The layout for documents of these lengths: int64[n, fields], marks included."""
        names = ("how", "cross", "longest_first", "max_segments", "longer")
        rule: dict[str, Any] = {name: getattr(self, name) for name in names}
        return plan(sizes, np.array(list(self.fields.values()), np.int64), **rule)

    @property
    def end_to_end(self) -> bool:
        """Whether all documents are laid end to end and cut into rows, however long they are."""
        plain = self.max_segments is None and self.longer == "split"
        return self.how == "split" and self.cross and plain

    def marks(self, name: str) -> Marks:
        """The tokens before and after each document of a field."""
        bos, eos = (m.get(name) if isinstance(m, Mapping) else m for m in (self.bos, self.eos))
        return bos, eos

    def with_marks(self, own: Int64s) -> Int64s:
        """Lengths int64[n, fields] plus the number of marks, for documents that have any tokens."""
        extra = [sum(m is not None for m in self.marks(name)) for name in self.fields]
        return own + np.array(extra) * own.any(1, keepdims=True)

    def _check_sizes(self, sizes: Int64s, limits: Int64s, describe: Describe) -> None:
        long = (sizes > limits).any(1)
        if self.longer == "refuse" and long.any():
            raise CollateError(
                f"cannot pack {self._shown(sizes, int(long.argmax()), describe)}, and "
                "longer='refuse'. Shorten or filter it beneath, or choose longer='split' or "
                "'truncate'."
            )
        if self.longer == "truncate":
            sizes, long = np.minimum(sizes, limits), np.zeros_like(long)
        # split may cut any document, other ways those longer than a row; fields are cut alike
        alike = (sizes == sizes[:, :1]).all(1) & bool((limits == limits[0]).all())
        apart = ~alike if self.how == "split" and self.cross else ~alike & long
        if apart.any():
            raise CollateError(
                f"cannot pack {self._shown(sizes, int(apart.argmax()), describe)}, and "
                f"how={self.how!r} would cut its fields at different tokens. Make them equally "
                "long, or use how='first_fit' and longer='truncate', or drop or shorten what "
                "exceeds a row."
            )

    def _shown(self, sizes: Int64s, i: int, describe: Describe) -> str:
        found = dict(zip(self.fields, sizes[i].tolist(), strict=True))
        return f"{describe(i)}: it has {found} tokens for rows of {self.fields}"

    def written(self) -> str:
        return self.written_with()

    def written_with(self, *more: str) -> str:
        """The call as a user writes it, with `more` options, which are not this transform's."""
        name = [] if self.name == self.how else [f"name={self.name!r}"]
        options = [shown(self.lengths, 60), *more, *self.chosen("lengths", "name"), *name]
        return f".pack({', '.join(options)})"

    def depends(self) -> tuple[Name, ...]:
        lengths = tuple((name, int(limit)) for name, limit in self.fields.items())
        bare = int(not isinstance(self.lengths, Mapping))
        options = tuple(f"{name}={value}" for name, value in self._options().items())
        shown = (options,) if options else ()
        return self.how, int(self.block), lengths, bare, *shown

    def _options(self) -> dict[str, Any]:
        # options that decide data, unless at the value that held before they existed: old
        # fingerprints stay as they are
        split = self.how == "split"
        options: dict[str, tuple[Any, Any]] = {
            "cross": (self.cross or not split, True),
            "longest_first": (self.longest_first and not split, False),
            "max_segments": (self.max_segments, None),
            "longer": (self.longer, "split"),
            "marks": (
                [self.marks(name) for name in self.fields],
                [(None, None)] * len(self.fields),
            ),
            "meta": (self.meta, ()),
        }
        return {name: value for name, (value, plain) in options.items() if value != plain}


def _outputs(name: str, fields: int) -> tuple[str, str, str]:
    prefix = "" if fields == 1 else f"{name}_"
    return name, f"{prefix}segment_ids", f"{prefix}positions"


def _check_lengths(lengths: object, fields: dict[str, int], one: bool) -> None:
    for length in fields.values():
        number = isinstance(length, int | np.integer) and not isinstance(length, bool)  # pyright: ignore[reportUnnecessaryIsInstance]
        if not number or not 1 <= length < 2**31:
            raise ChainError(f"pack({lengths}): {length!r} is no number of tokens from 1 on")
    if not fields:
        raise ChainError("pack({}): name at least one field, as in {'tokens': 2048}")
    if one and len(set(fields.values())) > 1:
        raise ChainError(
            f"pack({lengths}, how='split') cuts all fields at the same token, so they need one "
            "length. Give one, or use cross=False or how='first_fit'."
        )
    outputs = [output for name in fields for output in _outputs(name, len(fields))]
    if len(set(outputs)) < len(outputs):
        raise ChainError(f"pack({lengths}) would make fields {outputs}: rename those that collide")


def _check_marks(fields: dict[str, int], **given: int | Mapping[str, int] | None) -> None:
    for option, mark in given.items():
        named = mark if isinstance(mark, Mapping) else {}
        strange = [name for name in named if name not in fields]
        if strange:
            raise ChainError(
                f"pack({option}={mark}): {strange} are not packed, only {list(fields)} are"
            )
        for token in named.values() if named else [mark]:
            if token is not None and named is not mark:
                whole(f"pack {option}", token, -(1 << 62))


def _check_meta(meta: tuple[str, ...], lengths: object, fields: dict[str, int]) -> None:
    if meta and not isinstance(lengths, Mapping):
        raise ChainError(
            f"pack({lengths}, meta={list(meta)}): rows with further fields are dicts, so give the "
            f"field to pack its length by name: pack({{'tokens': {lengths}}}, meta=…)"
        )
    outputs = [output for name in fields for output in _outputs(name, len(fields))]
    clash = [name for name in meta if name in outputs or meta.count(name) > 1]
    if clash:
        raise ChainError(
            f"pack(meta={list(meta)}): {clash} would be there twice. Rename them in .map."
        )


def packed_origin(pack: Pack, below: Origin, layout: Layout, size: Int64s) -> Origin:
    """The provenance of packed rows.

    Args:
        pack: how documents are packed.
        below: the provenance of the documents.
        layout: where the documents go.
        size: int64[n], tokens of each document in the first field, without marks.
    """
    marks = pack.marks(next(iter(pack.fields)))
    first = layout.bounds[:-1]
    key = below.take(layout.document[first]).deeper(layout.start[first])
    # spans are those of the document without marks
    before, most = int(marks[0] is not None), size[layout.document]
    start, stop = ((x - before).clip(0, most) for x in (layout.start, layout.stop[:, 0]))
    segments = Segments(layout.bounds, below.take(layout.document), start, stop)
    return Origin(key.component, key.epoch, key.record, key.place, segments)
