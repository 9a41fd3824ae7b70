"""python -m pipeline …: what can be asked of a pipeline from a shell."""

from __future__ import annotations

import argparse
import importlib
import sys

from pipeline.errors import PipelineError

COMMANDS = ("audit", "convert", "inspect", "manifest", "profile", "verify")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m pipeline", description=__doc__)
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(metavar="COMMAND")
    for name in COMMANDS:
        command = importlib.import_module(f"pipeline.tools.commands.{name}")
        p = commands.add_parser(command.NAME, help=command.HELP, description=command.__doc__)
        command.arguments(p)
        p.set_defaults(run=command.run)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run a command; errors that Lockstep raises on purpose are one line."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.run is None:
        parser.print_help()
        return 2
    try:
        return args.run(args)
    except PipelineError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
