"""python -m pipeline doctor module:factory: test anybody's loader on the laws. Exit 1 if one fails.

The factory returns a new loader; it gets those of workers, host and hosts that it has as
parameters.
"""

from __future__ import annotations

import argparse
import sys

from pipeline.debug.doctor import examine
from pipeline.tools.commands import Answer
from pipeline.tools.commands.names import seconds

NAME, HELP = "doctor", "run the laws on a loader of any library: resume, workers, hosts, kills"


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("factory", help="module:name of a function that makes a loader")
    p.add_argument("--workers", type=counts, default=(0, 2), help="worker counts to compare (0,2)")
    p.add_argument("--hosts", type=counts, default=(1, 2, 4), help="host counts (1,2,4)")
    p.add_argument("--key", help="a field that names records; else rows are digested")
    p.add_argument("--batches", type=int, default=60, help="batches to look at (60)")
    p.add_argument("--shuffled", action="store_true", help="passes should differ: judge it")
    p.add_argument("--seed", type=int, default=0, help="chooses where runs are cut (0)")
    p.add_argument("--seconds", type=seconds, default=60, help="after so many a run hangs (60)")


def run(args: argparse.Namespace) -> Answer:
    report = examine(
        args.factory,
        workers=args.workers,
        hosts=args.hosts,
        key=args.key,
        batches=args.batches,
        shuffled=args.shuffled,
        seed=args.seed,
        seconds=args.seconds,
        tell=_tell if sys.stderr.isatty() else lambda words: None,
    )
    return Answer(report.as_json(), str(report).splitlines(), report.ok)


def counts(text: str) -> tuple[int, ...]:
    """Integers separated by commas.

    >>> counts("1,2,4")
    (1, 2, 4)
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: give numbers, as in 0,2") from None


def _tell(words: str) -> None:
    print(f"doctor: {words} …", file=sys.stderr, flush=True)
