"""Tabular files that other software wrote: each reads as pyarrow reads it, or is refused by name.

The files lie beside the project, not in it. What is right for them is what their README says.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import ipc

from pipeline.debug.conformance import same
from pipeline.errors import RecordError, SourceError
from pipeline.sources.arrow_ipc import ArrowIpcSource
from pipeline.sources.arrow_types import plain
from pipeline.sources.parquet import ParquetSource

OTHERS = Path(__file__).parents[2] / ".." / "shared" / "data" / "others"
LARGE = "large_string_map.brotli.parquet"  # 2 GiB of text, minutes to decompress
PARQUET = sorted(p for p in OTHERS.glob("parquet/*.parquet") if p.name != LARGE)
ARROW = sorted([*OTHERS.glob("arrow/*/*.arrow_file"), *OTHERS.glob("arrow/*/*.stream")])

pytestmark = pytest.mark.skipif(not PARQUET, reason="the files of others are not here")


def whole(path: Path) -> pa.Table:
    """What pyarrow makes of a file; times as integers, which Python's own cannot always hold."""
    if path.suffix == ".parquet":
        table = pq.ParquetFile(path, arrow_extensions_enabled=False).read()
    else:
        opened = ipc.open_stream(path) if path.suffix == ".stream" else ipc.open_file(path)
        table = opened.read_all()
    for i, field in enumerate(table.schema):
        kind, column = field.type, table.column(i)
        if isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
            column = pa.chunked_array([chunk.storage for chunk in column.chunks], kind)
        if numbered(kind) != kind:
            column = column.cast(numbered(kind))
        table = table.set_column(i, field.name, column)
    return table


def numbered(kind: pa.DataType) -> pa.DataType:
    """The type with integers for times."""
    from pyarrow import types

    if types.is_struct(kind):
        return pa.struct([pa.field(f.name, numbered(f.type)) for f in kind])
    if types.is_date32(kind):
        return pa.int32()
    timed = types.is_timestamp(kind) or types.is_date(kind) or types.is_duration(kind)
    return pa.int64() if timed else kind


def source_of(path: Path, **options) -> ParquetSource | ArrowIpcSource:
    kind = ParquetSource if path.suffix == ".parquet" else ArrowIpcSource
    return kind(path, **options)


def expected(values: list, kind: pa.DataType) -> list:
    """Python's values of a column, by our rules of conversion but in another way than ours."""
    return [_expected(value, kind) for value in values]


def _expected(value, kind: pa.DataType):
    from pyarrow import types

    if types.is_struct(kind) and kind.num_fields:
        parts = {} if value is None else value
        return {f.name: _expected(parts.get(f.name), f.type) for f in kind}
    if types.is_fixed_size_list(kind):
        inner = [None] * kind.list_size if value is None else value
        return [_expected(v, kind.value_type) for v in inner]
    return value


def plainly(value, kind: pa.DataType):
    """One of our values as Python's, so that the two can be compared."""
    from pyarrow import types

    if isinstance(value, dict) and types.is_struct(kind) and kind.num_fields:
        return {f.name: plainly(value[f.name], f.type) for f in kind}
    if isinstance(value, np.ndarray):
        return [plainly(v, kind.value_type) for v in value]
    if isinstance(value, np.generic):
        if value.dtype.kind in "mM":
            number = None if np.isnat(value) else int(value.astype(np.int64))
            return (
                number if kind == pa.int64() else pa.scalar(number, pa.int64()).cast(kind).as_py()
            )
        return value.item()
    return value


def alike(got, known) -> bool:
    if isinstance(known, dict):
        return got.keys() == known.keys() and all(alike(got[k], known[k]) for k in known)
    if isinstance(known, list | tuple) and isinstance(got, list | tuple):
        return len(got) == len(known) and all(map(alike, got, known))
    if isinstance(got, float) and np.isnan(got):
        return known is None or (isinstance(known, float) and np.isnan(known))
    return got == known and type(got) is type(known)


def check(path: Path, source) -> None:
    table = whole(path)
    assert len(source) == len(table)
    n = len(table)
    some = np.unique(np.linspace(0, n - 1, min(n, 150)).astype(np.int64))
    known = {
        name: expected([values[i] for i in some], plain(table.schema.field(name).type))
        for name, values in zip(
            table.column_names, map(pa.ChunkedArray.to_pylist, table.columns), strict=True
        )
    }
    for columns in (None, [table.column_names[-1]]):
        part = source if columns is None else source_of(path, columns=columns)
        rows = rows_of(part, some)
        for name in columns or table.column_names:
            kind = plain(table.schema.field(name).type)
            for row, value in zip(rows, known[name], strict=True):
                assert row is None or alike(plainly(row[name], kind), value), (name, row, value)
        good = [i for i in np.random.default_rng(0).permutation(len(some)) if rows[i] is not None]
        again = [*good, *good[:3]]
        for i, row in zip(again, part.read(some[again]).rows(), strict=True):
            assert same(row, rows[i])


def rows_of(source, indices) -> list:
    """Row by row; None where a row is refused by name."""
    rows = []
    for i in indices:
        said = source.files.paths[0]
        try:
            rows.append(source.read(np.array([i])).rows()[0])
        except RecordError as e:
            rows.append(None)
            said = str(e)
        assert source.files.paths[0] in said
    return rows


@pytest.mark.parametrize("path", [*PARQUET, *ARROW], ids=lambda p: f"{p.parent.name}/{p.name}")
def test_a_file_of_others_reads_as_pyarrow_reads_it_or_is_refused_by_name(path):
    source, said = None, path.name
    try:
        source = source_of(path)
    except SourceError as e:
        said = str(e)
    assert path.name in said
    if source is not None:
        check(path, source)
