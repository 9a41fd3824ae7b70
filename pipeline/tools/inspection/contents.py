"""What files hold: how many records, of which fields, laid out how, and what follows from that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline.checks import whole
from pipeline.dataset import Dataset
from pipeline.errors import LengthError
from pipeline.nodes.faults import survivors
from pipeline.sources import Storage
from pipeline.sources.storage.files import Found
from pipeline.tools.inspection.fields import Field, fields_of
from pipeline.tools.inspection.layout import advice, summary
from pipeline.tools.inspection.opening import Broken, Opened, files_of, format_of, opened
from pipeline.tools.inspection.preview import preview
from pipeline.types import Component, Source

_LOOK = 16  # first records, whose fields are told
_LAID = 16  # files whose layout is looked at


@dataclass(frozen=True)
class Held:
    """What one source holds.

    Attributes:
        name: the names that lead to it in a mix, zip or concatenation; "" in a plain dataset.
        format: "ArrayRecord", "Parquet", …
        records: in all files.
        files: how many; 0 for a source that has none.
        bytes: of all files.
        paths: of the first and last file.
        fields: of the first records.
        layout: figures of chunks, codecs and sizes, as far as the format has them; plain data.
        laid: how many files the layout was taken from.
        advice: what follows for random access.
        bad: errors of first records that cannot be read.
    """

    name: str
    format: str
    records: int
    files: int
    bytes: int
    paths: tuple[str, ...]
    fields: dict[str, Field]
    layout: dict[str, Any]
    laid: int
    advice: tuple[str, ...]
    bad: tuple[str, ...]


@dataclass(frozen=True)
class Inspected:
    """What a path, a dataset or a source holds.

    Attributes:
        rows: of an epoch; None where rows are counted as they come, or never end.
        dataset: the stages of a dataset in words; "" for a path.
        sources: what each holds.
        first: as many first rows as were asked for.
        broken: files that cannot be opened.
    """

    rows: int | None
    dataset: str
    sources: tuple[Held, ...]
    first: tuple[Any, ...]
    broken: tuple[Broken, ...]

    def as_json(self) -> dict[str, Any]:
        """All as plain data; of rows what `preview` shows."""
        found = asdict(self)
        fields = [{k: f._asdict() for k, f in held.fields.items()} for held in self.sources]
        for held, named in zip(found["sources"], fields, strict=True):
            held["fields"] = named
        return {
            **found,
            "first": [preview(row) for row in self.first],
            "broken": [b._asdict() for b in self.broken],
        }


def inspect(data: Any, *, first: int = 0, storage: Storage | None = None) -> Inspected:
    """What a path, URL, glob, dataset or source holds; little of it is read.

    Args:
        data: a path or glob, a Dataset, or what else `Dataset` takes.
        first: how many first rows to give.
        storage: how URLs are reached.

    Raises:
        SourceError: no such file, a suffix that no format has, files that disagree, or a single
            file that cannot be opened.

    >>> found = inspect({"id": np.arange(5), "text": list("abcde")}, first=1)
    >>> found.rows, {name: str(f) for name, f in found.sources[0].fields.items()}
    (5, {'id': 'int64', 'text': 'text of 1'})
    """
    whole("first", first, 0)
    what = opened(data, storage)
    sources = tuple(_held(component, what) for component in what.components)
    if isinstance(data, Dataset):
        return Inspected(_length(data), repr(data), sources, tuple(data.head(first)), ())
    rows = [Dataset(c.source) for c in what.components]
    some = tuple(rows[0].head(first)) if rows and first else ()
    return Inspected(sum(held.records for held in sources), "", sources, some, what.broken)


def _length(ds: Dataset) -> int | None:
    try:
        return len(ds)
    except LengthError:
        return None


def _held(component: Component, what: Opened) -> Held:
    source, n = component.source, len(component.source)
    files = files_of(source)
    read = Dataset(source).read
    good, bad = survivors(read, np.arange(min(n, _LOOK)))
    rows = [row for _, block in sorted(good, key=lambda part: part[0][0]) for row in block.rows()]
    layouts = _layouts(source, what)
    paths = () if files is None else files.paths
    return Held(
        "/".join(component.path),
        format_of(source),
        n,
        len(paths),
        0 if files is None else sum(files.sizes),
        tuple(dict.fromkeys([*paths[:1], *paths[-1:]])),
        fields_of(rows),
        summary(layouts),
        len(layouts),
        tuple(advice(layouts, files)),
        tuple(str(error) for error in bad.values()),
    )


def _layouts(source: Source, what: Opened) -> Sequence[dict[str, Any]]:
    files = files_of(source)
    if what.reopen is not None and files is not None and len(files.paths) > _LAID:
        # each may cost a request: a sample of them tells as much
        some = np.linspace(0, len(files.paths) - 1, _LAID).astype(np.int64).tolist()
        source = what.reopen([Found.of(files.stat(i)) for i in some])
    layout = getattr(source, "layout", None)
    return layout() if layout is not None else []
