"""python -m pipeline audit: is a dataset's order as random as it should be? Exit 1 if not."""

from __future__ import annotations

import argparse

from pipeline.debug import audit
from pipeline.tools.commands import Answer
from pipeline.tools.commands.names import dataset

NAME, HELP = "audit", "does a dataset's order look random?"


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("data", help="module:name of a Dataset; or a path or glob")
    p.add_argument("--shuffle", action="store_true", help="audit it shuffled")
    p.add_argument("--window", type=int, help="audit it shuffled in windows of so many rows")
    p.add_argument("--chunks", type=int, help="audit it shuffled in windows of so many chunks")
    p.add_argument("--run", type=int, dest="run_rows", help="with --chunks: rows a chunk")
    p.add_argument("--batch", type=int, default=256, help="rows of a batch")
    p.add_argument("--epochs", type=int, default=40, help="orders to look at")
    p.add_argument("--all", action="store_true", help="show every figure")


def run(args: argparse.Namespace) -> Answer:
    ds = dataset(args.data)
    if args.shuffle or args.window is not None or args.chunks is not None:
        ds = ds.shuffle(window=args.window, chunks=args.chunks, run=args.run_rows)
    report = audit.audit_dataset(ds, batch=args.batch, epochs=args.epochs)
    return Answer(report.as_json(), report.lines(every=args.all), report.ok)
