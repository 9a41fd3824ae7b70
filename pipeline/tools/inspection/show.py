"""What was found of files, as text for people."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pipeline.tools.inspection.contents import Held, Inspected
from pipeline.tools.inspection.manifests import Noted
from pipeline.tools.inspection.preview import preview
from pipeline.tools.inspection.verification import Bad, Verified

_LISTED = 20  # paths of one kind


def inspected(found: Inspected) -> Iterator[str]:
    """Lines that tell what files hold."""
    if found.dataset:
        rows = "counted as they come, or endless" if found.rows is None else f"{found.rows:,}"
        yield from (found.dataset, f"rows     {rows}", "")
    for held in found.sources:
        yield from _held(held)
    for broken in found.broken:
        yield f"BAD      {broken.error}"
    if found.first:
        yield ""
    for i, row in enumerate(found.first):
        yield f"[{i}] {json.dumps(preview(row), ensure_ascii=False)}"


def _held(held: Held) -> Iterator[str]:
    files = f", {_many(held.files, 'file')}, {_bytes(held.bytes)}" if held.files else ""
    name = f"{held.name}: " if held.name else ""
    yield f"{name}{held.format}: {_many(held.records, 'record')}{files}"
    for path in held.paths:
        yield f"         {path}"
    for label, text in zip(("fields", *[""] * len(held.fields)), _fields(held), strict=False):
        yield f"{label:8} {text}"
    for label, text in _layout(held.layout):
        yield f"{label:8} {text}"
    if 0 < held.laid < held.files:
        yield f"         (layout of {held.laid} of the files)"
    for text in held.advice:
        yield f"advice   {text}"
    for text in held.bad:
        yield f"BAD      {text}"


def _fields(held: Held) -> Iterator[str]:
    width = min(24, max(map(len, held.fields), default=0))
    for name, field in held.fields.items():
        yield f"{name:{width}}  {field}" if name else str(field)


def _layout(layout: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if "codecs" in layout:
        turned = {0: ", not transposed"}.get(layout.get("transposed", -1), "")
        yield "codec", ", ".join(layout["codecs"]) + turned
    if "groups" in layout:
        sizes = _range(layout["group_bytes"], "bytes")
        rows = layout["group_records"]
        each = _range(rows, "records") if isinstance(rows, list) else f"about {rows:g} records"
        yield "groups", f"{layout['groups']:,} of {each}, {sizes} stored"
    if "record_bytes" in layout:
        yield "records", f"{_range(layout['record_bytes'], 'bytes')} each, as stored"
    if "dtype" in layout:
        yield "tokens", f"{layout['dtype']}, {layout.get('tokens', 1):,} a record"
    if "options" in layout or "written_by" in layout:
        yield "written", str(layout.get("options") or layout.get("written_by"))
    if layout.get("transposed"):
        yield "", f"transposed: {_many(layout['transposed'], 'file')}"


def _range(values: list[int], unit: str) -> str:
    if values[0] == values[-1]:
        return f"{values[0]:,} {unit}"
    mean = f" (mean {values[1]:,})" if len(values) == 3 else ""
    return f"{values[0]:,} to {values[-1]:,} {unit}{mean}"


def verified(found: Verified) -> Iterator[str]:
    """Lines that name bad records, and a last one that sums up."""
    for bad in found.bad:
        yield f"BAD {_which(bad)}: {bad.error.removeprefix(f'cannot read {bad.file}: ')}"
    records = sum(bad.records for bad in found.bad)
    whole = sum(not bad.records for bad in found.bad)
    rate = found.records / max(found.seconds, 1e-9)
    of_bad = [_many(n, what) for n, what in ((records, "record"), (whole, "whole file")) if n]
    yield (
        f"{_many(found.records, 'record')} in {_many(found.files, 'file')}, {_bytes(found.bytes)}, "
        f"{found.seconds:.1f} s ({rate:,.0f}/s): "
        + (f"{' and '.join(of_bad)} cannot be read" if of_bad else "all can be read")
    )


def _which(bad: Bad) -> str:
    if not bad.records:
        return bad.file
    inner = f"record {bad.first}" if bad.records == 1 else f"records {bad.first} to {bad.last}"
    return f"{bad.file}, {inner}"


def noted(found: Noted) -> Iterator[str]:
    """Lines that tell how manifests stand to their files."""
    yield from found.manifests
    for label, paths in (
        ("STALE", found.stale),
        ("UNKNOWN", found.unknown),
        ("gone", found.gone),
    ):
        yield from (f"{label} {path}" for path in paths[:_LISTED])
        if len(paths) > _LISTED:
            yield f"{label} … and {len(paths) - _LISTED:,} more"
    known = found.files - len(found.stale) - len(found.unknown)
    yield (
        f"{_many(found.records, 'record')} in {_many(found.files, 'file')}: {known:,} known"
        + ("" if found.ok else ". Write it anew: python -m pipeline manifest …")
    )


def _many(n: int, what: str) -> str:
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def _bytes(n: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if n >= size:
            return f"{n / size:,.1f} {unit}"
    return f"{n} bytes"
