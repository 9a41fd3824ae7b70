"""A summary of a Parquet file for people: sizes, codecs, columns, and advice."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.sources.parquet_footer import Footer, arrow_schema
from pipeline.sources.storage.storage import Stat

_SMALL, _LARGE = 64 << 10, 64 << 20  # bytes of a row group


def layout(stat: Stat, footer: Footer) -> dict[str, Any]:
    """Facts about one file as plain data that can be written as JSON."""
    metadata = footer.metadata
    groups = [
        {
            "rows": metadata.row_group(i).num_rows,
            "bytes": metadata.row_group(i).total_byte_size,
            "stored_bytes": _stored(footer, i, stat.size),
        }
        for i in range(metadata.num_row_groups)
    ]
    schema = arrow_schema(stat.path, metadata)
    return {
        "path": stat.path,
        "format": "parquet",
        "bytes": stat.size,
        "rows": metadata.num_rows,
        "groups": groups,
        "codecs": footer.codecs(stat.size),
        "columns": {field.name: str(field.type) for field in schema},
        "written_by": _written_by(footer),
        "advice": _advice(groups),
    }


def _written_by(footer: Footer) -> str:
    try:
        return footer.metadata.created_by
    except UnicodeDecodeError:  # damaged; nothing depends on it
        return "?"


def _stored(footer: Footer, group: int, size: int) -> int:
    # 0 if the column chunks' metadata are damaged
    if footer.damage(group, size):
        return 0
    return sum(stop - start for start, stop in footer.spans(group))


def _advice(groups: list[dict[str, Any]]) -> list[str]:
    if not any(g["rows"] for g in groups):
        return ["no rows: readers pass over it"]
    rows = int(np.median([g["rows"] for g in groups]))
    size = int(np.median([g["bytes"] for g in groups]))
    shape = f"row groups of about {rows:,} rows, {size:,} bytes decoded"
    if size > _LARGE:
        return [
            f"{shape}: large; a random row costs all of one. Shuffle with .shuffle(chunks=4), or "
            f"write row_group_size={max(1, rows * (_LARGE // 8) // size):,}"
        ]
    if size < _SMALL and len(groups) > 1:
        return [f"{shape}: small; opening and reading them costs more than decoding. Write larger"]
    return [f"{shape}: fine with .shuffle(chunks=16); a full shuffle decodes one for each row"]
