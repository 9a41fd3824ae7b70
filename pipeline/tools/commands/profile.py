"""python -m pipeline profile module:dataset: which stage is slow?"""

from __future__ import annotations

import argparse
import json

from pipeline.debug import profile
from pipeline.tools.commands.names import loadable, workers

NAME, HELP = "profile", "run a dataset for some seconds: which stage is slow?"


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("data", help="module:name of a Dataset, a Loader, or a function returning one")
    p.add_argument("--seconds", type=float, default=5.0)
    p.add_argument("--batch", type=int, default=128, help="batch size, for a Dataset")
    p.add_argument("--workers", type=workers, default=0, help="for a Dataset: 0, n or auto")
    p.add_argument("--json", action="store_true", help="for programs")


def run(args: argparse.Namespace) -> int:
    data = loadable(args.data)
    stats = profile.profile(data, seconds=args.seconds, batch=args.batch, workers=args.workers)
    if args.json:
        print(json.dumps(profile.as_json(stats)))
    else:
        profile.show(stats)
    return 0
