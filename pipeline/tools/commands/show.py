"""python -m pipeline show RUN STEP: the records of a step, with their text, tokens or pictures."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.debug.brief import TEXT
from pipeline.debug.journal import Run
from pipeline.debug.show import rows_of, save_images
from pipeline.errors import PositionError
from pipeline.tools.commands import Answer
from pipeline.tools.commands.names import (
    data_argument,
    needed_dataset,
    number_from_1,
    run_argument,
)

NAME, HELP = "show", "the records of a run's step: text, tokens, or pictures as files"


def arguments(p: argparse.ArgumentParser) -> None:
    run_argument(p)
    p.add_argument("step", type=int, metavar="STEP", help="of training")
    p.add_argument("--row", type=int, action="append", help="only this row of the batch")
    p.add_argument("--chars", type=number_from_1, default=TEXT, help=f"of a text at most ({TEXT})")
    p.add_argument("--out", metavar="FOLDER", help="where pictures go, as PNG files")
    data_argument(p)


def run(args: argparse.Namespace) -> Answer:
    found = Run(args.run_folder)
    line, dataset = found.line(args.step), needed_dataset(found, args.data)
    rows = rows_of(found, dataset, line, only=args.row, most=args.chars)
    missing = {*(args.row or ())} - {row["row"] for row in rows}
    if missing:
        known = [row["row"] for row in rows_of(found, dataset, line, values=False)]
        raise PositionError(
            f"step {line.step:,} has no row {min(missing)}: its rows are {min(known)} to "
            f"{max(known)}."
        )
    lines = list(_lines(rows))
    data: dict[str, Any] = {"step": line.step, "rows": rows, "files": []}
    if args.out:
        data["files"] = save_images(found, dataset, line, Path(args.out), args.row)
        lines += data["files"]
    elif any(row["images"] for row in rows):
        lines.append("rows hold pictures: --out FOLDER writes them")
    return Answer(data, lines)


def _lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    for row in rows:
        for record in row["records"]:
            span = (
                f"  tokens {record['tokens'][0]}:{record['tokens'][1]}" if record["tokens"] else ""
            )
            of = f" ({record['component']})" if record["component"] else ""
            place = f"record {record['record']} of {record['file']}{of}, epoch {record['epoch']}"
            yield f"row {row['row']}  {place}{span}"
            if record["text"] is not None:
                yield from (f"    {line}" for line in record["text"].splitlines())
        texts = [record["text"] for record in row["records"] if record["text"] is not None]
        for name, value in row["fields"].items():
            if not any(_same(value, text) for text in texts):  # it stands above
                yield f"    {name}: {value}"


def _same(value: Any, text: str) -> bool:
    # the text may be cut
    cut = text.endswith("…")
    return isinstance(value, str) and (value == text or (cut and value.startswith(text[:-1])))
