"""python -m pipeline profile module:dataset: which stage is slow?"""

from __future__ import annotations

import argparse
from dataclasses import asdict

from pipeline.debug.profile import profile
from pipeline.tools.commands import Answer
from pipeline.tools.commands.names import loadable, workers

NAME, HELP = "profile", "run a dataset for some seconds: which stage is slow?"


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("data", help="module:name of a Dataset, a Loader, or a function returning one")
    p.add_argument("--seconds", type=float, default=5.0)
    p.add_argument("--batch", type=int, default=128, help="batch size, for a Dataset")
    p.add_argument("--workers", type=workers, default=0, help="for a Dataset: 0, n or auto")


def run(args: argparse.Namespace) -> Answer:
    data = loadable(args.data)
    stats = profile(data, seconds=args.seconds, batch=args.batch, workers=args.workers)
    return Answer({**asdict(stats), "limit": stats.limit}, [str(stats)])
