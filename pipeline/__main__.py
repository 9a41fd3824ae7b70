"""What can be asked of a pipeline from a shell: python -m pipeline …"""

from __future__ import annotations

import argparse
import json
import sys

from pipeline.errors import PipelineError


def _profile(args: argparse.Namespace) -> None:
    from pipeline.debug import profile

    data = profile.load(args.data)
    stats = profile.profile(data, seconds=args.seconds, batch=args.batch, workers=args.workers)
    if args.json:
        print(json.dumps(profile.as_json(stats)))
    else:
        profile.show(stats)


def _workers(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m pipeline", description=__doc__)
    commands = parser.add_subparsers(required=True)
    p = commands.add_parser("profile", help="run a dataset for some seconds: which stage is slow?")
    p.add_argument("data", help="module:name of a Dataset, a Loader, or a function returning one")
    p.add_argument("--seconds", type=float, default=5.0)
    p.add_argument("--batch", type=int, default=128, help="batch size, for a Dataset")
    p.add_argument("--workers", type=_workers, default=0, help="for a Dataset: 0, n or auto")
    p.add_argument("--json", action="store_true", help="for programs")
    p.set_defaults(run=_profile)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run a command; errors that Lockstep raises on purpose are one line."""
    args = _parser().parse_args(argv)
    try:
        args.run(args)
    except PipelineError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
