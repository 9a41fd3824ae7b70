"""python -m pipeline profile module:dataset: which stage is slow, and what could be gained?"""

from __future__ import annotations

import argparse
import math
import time
from typing import Any

from pipeline.dataset import Dataset
from pipeline.debug.counterfactual import explain
from pipeline.debug.counterfactual.measure import PATIENCE, used, works
from pipeline.debug.trace import Trace
from pipeline.errors import ChainError
from pipeline.loader import Loader
from pipeline.tools.commands import Answer
from pipeline.tools.commands.names import imported, loadable, output_file, seconds, workers

NAME, HELP = "profile", "run a dataset for some seconds: which stage is slow, what would be gained?"


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("data", help="module:name of a Dataset, a Loader, or a function returning one")
    p.add_argument("--seconds", type=seconds, default=5.0, help="of the first run (5)")
    p.add_argument("--batch", type=int, default=128, help="batch size, for a Dataset")
    p.add_argument("--workers", type=workers, default=0, help="for a Dataset: 0, n or auto")
    p.add_argument(
        "--step", help="what the loop does: module:f, called with each batch; or seconds a batch"
    )
    p.add_argument(
        "--html", type=output_file, metavar="FILE", help="write a page with the figures as bars"
    )
    p.add_argument(
        "--trace",
        type=output_file,
        metavar="FILE",
        help="write a trace, a lane a worker, for Perfetto",
    )


def run(args: argparse.Namespace) -> Answer:
    data = loadable(args.data)
    found = explain(
        data, seconds=args.seconds, batch=args.batch, workers=args.workers, step=_step(args.step)
    )
    lines = [*found.lines()]
    if args.html is not None:
        args.html.write_text(found.html(), encoding="utf-8")
        lines.append(f"page written to {args.html}")
    if args.trace is not None:
        lines.append(_traced(args, data))
    return Answer(found.as_json(), lines)


def _traced(args: argparse.Namespace, data: Dataset | Loader) -> str:
    loader = Loader(data, args.batch, workers=args.workers) if isinstance(data, Dataset) else data
    use, trace = used(_step(args.step)), Trace()
    with trace.of(loader) as traced:
        end = time.monotonic() + PATIENCE + args.seconds
        for batch in trace.batches(traced):
            use(batch)
            if works(traced):  # at first the loop evaluates too, while workers start
                end = min(end, time.monotonic() + args.seconds)
            if time.monotonic() > end:
                break
    trace.write(args.trace)
    return f"trace written to {args.trace}: open it in ui.perfetto.dev"


def _step(text: str | None) -> Any:
    if text is None or ":" in text:
        return None if text is None else imported(text)
    try:
        spent = float(text)
    except ValueError:
        spent = math.nan
    if not 0 <= spent < math.inf:
        raise ChainError(f"--step {text}: give module:function, or seconds a batch")
    return spent
