"""What a report holds: curves of runs, and the rows of the steps that one asks for first."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.dataset import Dataset
from pipeline.debug.brief import pictures
from pipeline.debug.journal.line import Line
from pipeline.debug.journal.reading import Run
from pipeline.debug.report.curves import curves_of
from pipeline.debug.report.page import page
from pipeline.debug.show import png, rows_of
from pipeline.debug.spikes import THRESHOLD, WINDOW

SAMPLE = 12  # steps beside spikes
SPIKES = 24  # of these, the strongest
ROWS, CHARS = 16, 600  # of a step, and of a text
ROOM = 1_200_000  # characters of records in a page: it stays below 3 MB
PICTURE = 20_000  # bytes of a picture


def report(
    runs: Sequence[Run],
    dataset: Dataset | None = None,
    *,
    records: bool = True,
    window: int = WINDOW,
    threshold: float = THRESHOLD,
) -> str:
    """One or several runs as a page that needs nothing else: HTML.

    Args:
        runs: whose curves are drawn over one another; rows are of the first one's steps.
        dataset: of the first run; without it, the page holds no rows.
        records: whether the page holds data at all.
        window, threshold: of spikes, see `find_spikes`.

    Raises:
        MissingExtraError: Bokeh is not installed.
        MismatchError: the dataset is not the run's.
    """
    curves = [curves_of(run, window=window, threshold=threshold) for run in runs]
    first = runs[0]
    embedded: dict[int, Any] = {}
    if not records:
        note = "This page holds no records: it was made with --no-records."
    elif not all("dataset" in first.launch(line) for line in _ends(first)):
        note = "This page holds no records: the run's ledger is older than the journal."
    elif dataset is None:
        note = "This page holds no records: no dataset was given (--data module:name)."
    else:
        strongest = sorted(curves[0].spikes, key=lambda s: -(s.score or np.inf))[:SPIKES]
        steps = [s.step for s in strongest] + _sample(curves[0].step)
        embedded = _embedded(first, dataset, list(dict.fromkeys(steps)))
        note = _note(embedded, {s.step for s in strongest})
    return page(curves, folder=str(first.folder), embedded=embedded, note=note)


def _ends(run: Run) -> list[Line]:
    return [line for line in (run.ledger.last, next(run.path(), None)) if line is not None]


def _sample(steps: Any) -> list[int]:
    if not len(steps):
        return []
    return steps[np.linspace(0, len(steps) - 1, SAMPLE).astype(int)].tolist()


def _note(embedded: dict[int, Any], spikes: set[int]) -> str:
    at = sorted(spikes & embedded.keys())
    others = sorted(embedded.keys() - spikes)
    return (
        f"This page holds the records' texts of {len(embedded)} steps, up to {ROWS} rows of each "
        f"and {CHARS} characters of a text: {len(at)} at spikes, and a sample of {len(others)}."
    )


def _embedded(run: Run, dataset: Dataset, steps: list[int]) -> dict[int, Any]:
    found: dict[int, Any] = {}
    room = ROOM
    for step in steps:
        about = step_of(run, dataset, run.line(step))
        room -= len(repr(about))
        if room < 0 and found:
            break
        found[step] = about
    return found


def step_of(run: Run, dataset: Dataset, line: Line) -> dict[str, Any]:
    """A step's line and rows for the page, plain data."""
    rows = rows_of(run, dataset, line, only=range(ROWS), most=CHARS)
    pictures = _pictures(run, dataset, line) if any(row["images"] for row in rows) else {}
    for row in rows:
        row["pictures"] = pictures.get((row["batch"], row["row"]), [])
        del row["images"]
    count = line.rows[1] - line.rows[0]
    more = f"and {count - len(rows)} more rows" if count > len(rows) else ""
    return {"line": in_words(line), "rows": rows, "more": more}


def _pictures(run: Run, dataset: Dataset, line: Line) -> dict[tuple[int, int], list[Any]]:
    found: dict[tuple[int, int], list[Any]] = {}
    for k, rows in enumerate(run.rows(dataset, line)):
        values = rows.take.block.rows()[:ROWS]
        for position, row in zip(rows.positions.tolist(), values, strict=False):
            for name, a in pictures(row):
                data = png(a)
                if len(data) <= PICTURE:
                    src = "data:image/png;base64," + base64.b64encode(data).decode()
                    found.setdefault((k, position), []).append(
                        {"name": name or "value", "src": src}
                    )
    return found


def in_words(line: Line) -> str:
    """What a step told, for people."""
    told = {"loss": line.loss, "gradient norm": line.grad_norm, **line.scalars}
    parts = [f"{k} {v:.5g}" for k, v in told.items() if v is not None]
    if line.loss_bits and line.loss is None:
        parts.insert(0, f"loss {line.loss_value}")
    spent = ", ".join(f"{v:.3f} s {k}" for k, v in line.seconds.items())
    parts += [f"data step {line.data_step:,}", spent, f"launch {line.launch}"]
    return "; ".join([*parts, line.told] if line.told else parts)
