"""python -m pipeline report RUN… -o FILE: runs as one HTML page that needs no network."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.debug.journal import Run
from pipeline.debug.report import report
from pipeline.debug.spikes import THRESHOLD, WINDOW
from pipeline.tools.commands import Answer
from pipeline.tools.commands.names import data_argument, output_file, run_dataset

NAME, HELP = "report", "runs as a page: curves, spikes, and the records of their steps"


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder; several are overlaid")
    p.add_argument(
        "-o",
        "--out",
        type=output_file,
        metavar="FILE",
        default="report.html",
        help="(report.html)",
    )
    p.add_argument("--no-records", action="store_true", help="leave data out of the page")
    p.add_argument("--window", type=int, default=WINDOW, help=f"of spikes ({WINDOW})")
    p.add_argument("--threshold", type=float, default=THRESHOLD, help=f"({THRESHOLD:g})")
    data_argument(p)


def run(args: argparse.Namespace) -> Answer:
    runs = [Run(folder) for folder in args.runs]
    dataset = None if args.no_records else run_dataset(runs[0], args.data)
    text = report(
        runs,
        dataset,
        records=not args.no_records,
        window=args.window,
        threshold=args.threshold,
    )
    path: Path = args.out
    path.write_text(text, encoding="utf-8")
    size = path.stat().st_size
    return Answer({"file": str(path), "bytes": size}, [f"{path}: {size / 1e6:.2f} MB"])
