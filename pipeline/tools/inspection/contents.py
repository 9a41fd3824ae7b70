"""What files hold: number of records, their fields, the layout, and advice that follows from it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline.block import Columns
from pipeline.checks import whole
from pipeline.dataset import Dataset
from pipeline.errors import LengthError, PipelineError
from pipeline.nodes.faults import survivors
from pipeline.sources import Storage
from pipeline.sources.storage.files import ListedPath
from pipeline.tools.inspection.fields import Field, fields_of, fields_of_columns
from pipeline.tools.inspection.layout import advice, layout_lines, summary
from pipeline.tools.inspection.opening import Broken, Sources, files_of, format_of, opened
from pipeline.tools.inspection.preview import preview
from pipeline.tools.inspection.words import listed, many, size
from pipeline.types import Component, Source

_LOOK = 16  # first records whose fields are shown
_LAID = 16  # files whose layout is read
_SHOWN = 100  # fields shown at most


@dataclass(frozen=True)
class SourceContents:
    """What one source holds.

    Attributes:
        name: its path in a mix, zip or concatenation; "" in a plain dataset.
        format: "ArrayRecord", "Parquet", …
        records: in all files.
        files: how many; 0 for a source without files.
        bytes: of all files.
        paths: of the first and last file.
        looked: how many first records were read for `fields`.
        fields: of these records.
        layout: chunks, codecs and sizes, as far as the format has them; plain data.
        laid: how many files the layout was read from.
        advice: about random access.
        bad: errors of first records that cannot be read.
    """

    name: str
    format: str
    records: int
    files: int
    bytes: int
    paths: tuple[str, ...]
    looked: int
    fields: dict[str, Field]
    layout: dict[str, Any]
    laid: int
    advice: tuple[str, ...]
    bad: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """The contents for people."""
        files = f", {many(self.files, 'file')}, {size(self.bytes)}" if self.files else ""
        name = f"{self.name}: " if self.name else ""
        yield f"{name}{self.format}: {many(self.records, 'record')}{files}"
        for i, path in enumerate(self.paths):
            if i and self.files > 2:
                yield f"         … {many(self.files - 2, 'file')} more, and"
            yield f"         {path}"
        for label, text in zip(("fields", *[""] * _SHOWN), self._field_lines(), strict=False):
            yield f"{label:8} {text}"
        if self.fields and not self.looked:
            yield "         (of the columns alone: none of the first records can be read)"
        elif self.fields and self.looked < self.records:
            yield f"         (of the first {self.looked} of {self.records:,} records)"
        for label, text in layout_lines(self.layout):
            yield f"{label:8} {text}"
        if 0 < self.laid < self.files:
            yield f"         (layout of {self.laid} of {self.files:,} files)"
        yield from listed("advice  ", self.advice)
        yield from listed("BAD     ", self.bad)

    def _field_lines(self) -> Iterator[str]:
        width = min(24, max(map(len, self.fields), default=0))
        for name, field in list(self.fields.items())[:_SHOWN]:
            yield f"{name[:200]:{width}}  {field}" if name else str(field)
        if len(self.fields) > _SHOWN:
            yield f"… and {len(self.fields) - _SHOWN:,} more: --json lists all"


@dataclass(frozen=True)
class Contents:
    """What a path, a dataset or a source holds.

    Attributes:
        rows: in an epoch; None for a streamed or endless dataset.
        dataset: the stages of a dataset in words; "" for a path.
        sources: what each source holds.
        first: the first rows, as many as were asked for.
        broken: files that cannot be opened.
    """

    rows: int | None
    dataset: str
    sources: tuple[SourceContents, ...]
    first: tuple[Any, ...]
    broken: tuple[Broken, ...]

    @property
    def ok(self) -> bool:
        """Whether all files open, and the first records of each source can be read."""
        return not self.broken and not any(source.bad for source in self.sources)

    def as_json(self) -> dict[str, Any]:
        """The contents as plain data; rows are shortened by `preview`."""
        found = asdict(self)
        fields = [{k: f._asdict() for k, f in one.fields.items()} for one in self.sources]
        for one, named in zip(found["sources"], fields, strict=True):
            one["fields"] = named
        return {
            **found,
            "first": [preview(row) for row in self.first],
            "broken": [b._asdict() for b in self.broken],
            "ok": self.ok,
        }

    def lines(self) -> Iterator[str]:
        """The contents for people."""
        if self.dataset:
            rows = "counted as they come, or endless" if self.rows is None else f"{self.rows:,}"
            yield from (self.dataset, f"rows     {rows}", "")
        for source in self.sources:
            yield from source.lines()
        yield from listed("BAD     ", [b.error for b in self.broken])
        if self.first:
            yield ""
        for i, row in enumerate(self.first):
            yield f"[{i}] {json.dumps(preview(row), ensure_ascii=False)}"
        if self.first and self.rows is not None and len(self.first) < self.rows:
            yield f"… the first {len(self.first):,} of {self.rows:,}"


def inspect(data: Any, *, first: int = 0, storage: Storage | None = None) -> Contents:
    """What a path, URL, glob, dataset or source holds. Reads only little of it.

    Args:
        data: a path or glob, a Dataset, or anything else that `Dataset` takes.
        first: how many first rows to return.
        storage: how URLs are read.

    Raises:
        SourceError: a file does not exist, its suffix is unknown, or files do not fit together.

    >>> found = inspect({"id": np.arange(5), "text": list("abcde")}, first=1)
    >>> found.rows, {name: str(f) for name, f in found.sources[0].fields.items()}
    (5, {'id': 'int64', 'text': 'text of 1'})
    """
    whole("first", first, 0)
    what = opened(data, storage)
    sources = tuple(_contents(component, what) for component in what.components)
    if isinstance(data, Dataset):
        return Contents(_length(data), repr(data), sources, tuple(data.head(first)), ())
    rows = sum(source.records for source in sources)
    if not what.components or not first:
        return Contents(rows, "", sources, (), what.broken)
    good, _ = _first(what.components[0].source, first)
    return Contents(rows, "", sources, tuple(good), what.broken)


def _length(ds: Dataset) -> int | None:
    try:
        return len(ds)
    except LengthError:
        return None


def _first(source: Source, n: int) -> tuple[list[Any], list[str]]:
    # the first rows, and the errors of those that cannot be read
    try:
        good, bad = survivors(Dataset(source).read, np.arange(min(n, len(source))))
    except (OSError, MemoryError) as e:
        return [], [f"{type(e).__name__}: {e}"]
    rows = [row for _, block in sorted(good, key=lambda part: part[0][0]) for row in block.rows()]
    return rows, [str(error) for error in bad.values()]


def _contents(component: Component, what: Sources) -> SourceContents:
    source, n = component.source, len(component.source)
    files = files_of(source)
    rows, bad = _first(source, _LOOK)
    layouts = _layouts(source, what)
    paths = () if files is None else files.paths
    return SourceContents(
        "/".join(component.path),
        format_of(source),
        n,
        len(paths),
        0 if files is None else sum(files.sizes),
        tuple(dict.fromkeys([*paths[:1], *paths[-1:]])),
        len(rows),
        fields_of(rows) or _fields_without_rows(source),
        summary(layouts),
        len(layouts),
        tuple(advice(layouts, files)),
        tuple(bad),
    )


def _fields_without_rows(source: Source) -> dict[str, Field]:
    # if no first row can be read, reading no rows still gives the columns
    try:
        none = source.read(np.zeros(0, np.int64))
    except (PipelineError, OSError):
        return {}
    return fields_of_columns(none) if isinstance(none, Columns) else {}


def _layouts(source: Source, what: Sources) -> Sequence[dict[str, Any]]:
    files = files_of(source)
    if what.reopen is not None and files is not None and len(files.paths) > _LAID:
        # each layout may cost a request, so a sample must do
        some = np.linspace(0, len(files.paths) - 1, _LAID).astype(np.int64).tolist()
        source = what.reopen([ListedPath.of(files.stat(i)) for i in some])
    layout = getattr(source, "layout", None)
    return layout() if layout is not None else []
