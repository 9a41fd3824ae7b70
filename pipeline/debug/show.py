"""What the rows of a step held: their records with text, tokens, or pictures."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.dataset import Dataset
from pipeline.debug.brief import TEXT, as_text, fields_of, pictures
from pipeline.debug.journal.line import Line
from pipeline.debug.journal.reading import Run
from pipeline.provenance.where import Provenance, RowOrigin
from pipeline.types import Component


def rows_of(
    run: Run,
    dataset: Dataset,
    line: Line,
    *,
    only: Sequence[int] | None = None,
    values: bool = True,
    most: int = TEXT,
) -> list[dict[str, Any]]:
    """The rows of a step as plain data, with where they came from.

    Args:
        run, dataset: of the step.
        line: of the step.
        only: positions in the global batch; by default all.
        values: tell what rows and records hold too, not only where the records lie.
        most: characters of a text that are kept.

    Returns:
        For each row "batch" (of several with gradient accumulation), "row" (its position in the
        global batch), "records" (file, record, epoch, component, tokens [a, b) or None, text or
        None), "fields" (name -> what it holds, numbers cut) and "images" (names of its pictures).

    Raises:
        MismatchError, JournalError: the dataset is not the step's; see `Run.check`.
    """
    found: list[dict[str, Any]] = []
    for k, rows in enumerate(run.rows(dataset, line)):
        origins = Provenance(dataset.components, rows.take.block.origin)
        held = rows.take.block.rows() if values else []
        texts = dataset.components if values else ()
        for i, (position, origin) in enumerate(zip(rows.positions.tolist(), origins, strict=True)):
            if only is not None and position not in only:
                continue
            row = held[i] if values else {}
            found.append(
                {
                    "batch": k,
                    "row": position,
                    "records": [_record(texts, *part, most) for part in documents(origin)],
                    "fields": fields_of(row) if values else {},
                    "images": [name for name, _ in pictures(row)],
                }
            )
    return found


def documents(row: RowOrigin) -> list[tuple[RowOrigin, list[int] | None]]:
    """What stands in a row: each record, and its span of tokens if it was packed."""
    parts = [(s.row, [s.start, s.stop]) for s in row.segments] or [(row, None)]
    found = [(each, span) for top, span in parts for each in (top, *top.beside)]
    return found + [(each, None) for each in row.beside if row.segments]


def _record(
    components: Sequence[Component], row: RowOrigin, span: list[int] | None, most: int
) -> dict[str, Any]:
    return {
        "file": row.file,
        "record": row.file_record,
        "index": row.record,
        "epoch": row.epoch,
        "component": row.component,
        "tokens": span,
        "text": _text_of(components, row, most),
    }


def _text_of(components: Sequence[Component], row: RowOrigin, most: int) -> str | None:
    source = next((c.source for c in components if "/".join(c.path) == row.component), None)
    if source is None:
        return None
    read: Any = source.read(np.array([row.record], np.int64))
    text = as_text(read.row(0) if hasattr(read, "row") else read[0], most)
    return text if text is None or len(text) <= most else f"{text[:most]}…"


# ---- pictures


def png(a: NDArray[Any]) -> bytes:
    """A picture as a PNG file (ISO/IEC 15948): uint8 [h, w] or [h, w, 1, 3 or 4].

    >>> png(np.zeros((4, 4), np.uint8))[:8]
    b'\\x89PNG\\r\\n\\x1a\\n'
    """
    a = np.ascontiguousarray(a if a.ndim == 3 else a[:, :, None])
    height, width, channels = a.shape
    rows = np.hstack([np.zeros((height, 1), np.uint8), a.reshape(height, -1)])
    header = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 3: 2, 4: 6}[channels], 0, 0, 0)
    data = zlib.compress(rows.tobytes(), 6)
    parts = [_chunk(b"IHDR", header), _chunk(b"IDAT", data), _chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    check = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)


def save_images(
    run: Run, dataset: Dataset, line: Line, folder: Path, only: Sequence[int] | None = None
) -> list[str]:
    """Write the pictures of a step's rows, or of some of them, as PNG files; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[str] = []
    for k, rows in enumerate(run.rows(dataset, line)):
        for position, row in zip(rows.positions.tolist(), rows.take.block.rows(), strict=True):
            for name, a in pictures(row) if only is None or position in only else ():
                stem = "".join(c if c.isalnum() else "_" for c in name or "value")
                path = folder / f"step{line.step}-batch{k}-row{position}-{stem}.png"
                path.write_bytes(png(a))
                paths.append(str(path))
    return paths
