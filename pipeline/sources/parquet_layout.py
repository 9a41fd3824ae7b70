"""What a Parquet file is made of, for people: sizes, codecs, columns, and advice."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.sources.parquet_footer import Footer
from pipeline.sources.storage.storage import Stat

_SMALL, _LARGE = 64 << 10, 64 << 20  # bytes of a row group


def layout(stat: Stat, footer: Footer) -> dict[str, Any]:
    """Facts of one file as plain data, JSON-able."""
    metadata = footer.metadata
    groups = [
        {
            "rows": metadata.row_group(i).num_rows,
            "bytes": metadata.row_group(i).total_byte_size,
            "stored_bytes": sum(stop - start for start, stop in footer.spans(i)),
        }
        for i in range(metadata.num_row_groups)
    ]
    schema = metadata.schema.to_arrow_schema()
    return {
        "path": stat.path,
        "format": "parquet",
        "bytes": stat.size,
        "rows": metadata.num_rows,
        "groups": groups,
        "codecs": _codecs(footer),
        "columns": {field.name: str(field.type) for field in schema},
        "written_by": metadata.created_by,
        "advice": _advice(groups),
    }


def _codecs(footer: Footer) -> list[str]:
    metadata = footer.metadata
    if not metadata.num_row_groups:
        return []
    first = metadata.row_group(0)
    return sorted({first.column(leaf).compression for leaf in footer.leaves})


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
