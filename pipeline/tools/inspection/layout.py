"""The layout of many files together, and advice for random access."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pipeline.sources.storage import manifest
from pipeline.sources.storage.files import Files
from pipeline.sources.storage.storage import is_url
from pipeline.tools.inspection.words import many, span

_MANY = 100  # number of files from which a manifest is worth while
_SMALL = 1 << 20  # bytes; smaller files cost more to open than to read
_FIGURES = re.compile(r"[\d,]+")


def summary(layouts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One layout for many files: sums, and [least, mean, most] of what differs.

    >>> summary([{"codec": "zstd", "chunks": 3, "records": 6, "chunk_bytes": [4, 5, 6]}])
    {'codecs': ['zstd'], 'groups': 3, 'group_records': 2.0, 'group_bytes': [4, 5, 6]}
    """
    found: dict[str, Any] = {}
    codecs = {c for facts in layouts for c in (facts.get("codecs") or [facts.get("codec")]) if c}
    if codecs:
        found["codecs"] = sorted(codecs)
    found |= _groups(layouts) | _chunks(layouts)
    smallest = [
        facts["smallest"] for facts in layouts if facts.get("records", 0) and "smallest" in facts
    ]
    if smallest:
        most = max(facts["largest"] for facts in layouts if "largest" in facts)
        found["record_bytes"] = [min(smallest), most]
    if any("transposed" in facts for facts in layouts):
        found["transposed"] = sum(bool(facts.get("transposed")) for facts in layouts)
    for key in ("dtype", "tokens", "columns", "written_by", "options"):
        values = [facts[key] for facts in layouts if key in facts]
        if values:
            found[key] = values[0]
    return found


def _groups(layouts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    # for Parquet and Arrow, where each row group is known
    groups = [group for facts in layouts for group in facts.get("groups", ())]
    if not groups:
        return {}
    rows, sizes = ([g[key] for g in groups] for key in ("rows", "stored_bytes"))
    return {"groups": len(groups), "group_records": _spread(rows), "group_bytes": _spread(sizes)}


def _chunks(layouts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    # for ArrayRecord, whose files give [least, mean, most]
    some = [facts for facts in layouts if facts.get("chunks")]
    if not some:
        return {}
    chunks = sum(facts["chunks"] for facts in some)
    mean = sum(f["chunk_bytes"][1] * f["chunks"] for f in some) // chunks
    least, most = min(f["chunk_bytes"][0] for f in some), max(f["chunk_bytes"][2] for f in some)
    records = sum(facts["records"] for facts in some)
    return {
        "groups": chunks,
        "group_records": round(records / chunks, 1),
        "group_bytes": [least, mean, most],
    }


def _spread(values: Sequence[int]) -> list[int]:
    return [int(f(values)) for f in (np.min, np.mean, np.max)]


def advice(layouts: Sequence[dict[str, Any]], files: Files | None) -> Iterator[str]:
    """Advice that follows from the layouts, and from the number of files."""
    # sentences that differ only in numbers are given once
    said = [sentence for facts in layouts for sentence in facts.get("advice", ())]
    alike = Counter(_FIGURES.sub("", sentence) for sentence in said)
    for form, n in alike.most_common():
        sentence = next(s for s in said if _FIGURES.sub("", s) == form)
        yield sentence if n == len(layouts) else f"{sentence} ({n} of {len(layouts)} files)"
    if files is None:
        return
    n, mean = len(files.paths), sum(files.sizes) // max(1, len(files.paths))
    if n >= _MANY and mean < _SMALL:
        yield (
            f"{n:,} files of {mean:,} bytes: opening them costs more than reading. Join them: "
            "python -m pipeline convert … --shards N"
        )
    if n >= _MANY and files.kind and not _noted(files):
        where = "requests" if is_url(files.paths[0]) else "reads"
        yield (
            f"each start costs {n:,} {where} where no cache knows these files: python -m pipeline "
            "manifest"
        )


def _noted(files: Files) -> bool:
    stats = [files.stat(i) for i in range(len(files.paths))]
    return not manifest.compare(files.kind, stats, files.storage).unknown


def layout_lines(layout: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """A summary for people: labels and texts."""
    if "codecs" in layout:
        turned = {0: ", not transposed"}.get(layout.get("transposed", -1), "")
        yield "codec", ", ".join(layout["codecs"]) + turned
    if "groups" in layout:
        sizes = span(layout["group_bytes"], "bytes")
        rows = layout["group_records"]
        each = span(rows, "records") if isinstance(rows, list) else f"about {rows:g} records"
        yield "groups", f"{layout['groups']:,} of {each}, {sizes} stored"
    if "record_bytes" in layout:
        yield "records", f"{span(layout['record_bytes'], 'bytes')} each, as stored"
    if "dtype" in layout:
        yield "tokens", f"{layout['dtype']}, {layout.get('tokens', 1):,} a record"
    if "options" in layout or "written_by" in layout:
        yield "written", str(layout.get("options") or layout.get("written_by"))
    if layout.get("transposed"):
        yield "", f"transposed: {many(layout['transposed'], 'file')}"
