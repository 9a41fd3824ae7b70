"""python -m pipeline profile module:dataset: which stage is slow, and what would be gained?"""

from __future__ import annotations

import argparse
from typing import Any

from pipeline.debug.counterfactual import explain
from pipeline.errors import ChainError
from pipeline.tools.commands import Answer
from pipeline.tools.commands.names import imported, loadable, workers

NAME, HELP = "profile", "run a dataset for some seconds: which stage is slow, what would be gained?"


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("data", help="module:name of a Dataset, a Loader, or a function returning one")
    p.add_argument("--seconds", type=float, default=5.0)
    p.add_argument("--batch", type=int, default=128, help="batch size, for a Dataset")
    p.add_argument("--workers", type=workers, default=0, help="for a Dataset: 0, n or auto")
    p.add_argument(
        "--step", help="what the loop does: module:f, called with each batch; or seconds a batch"
    )


def run(args: argparse.Namespace) -> Answer:
    data = loadable(args.data)
    found = explain(
        data, seconds=args.seconds, batch=args.batch, workers=args.workers, step=_step(args.step)
    )
    return Answer(found.as_json(), found.lines())


def _step(text: str | None) -> Any:
    if text is None or ":" in text:
        return None if text is None else imported(text)
    try:
        return float(text)
    except ValueError as e:
        raise ChainError(f"--step {text}: give module:function, or seconds a batch") from e
