"""python -m pipeline …: what can be asked of a pipeline from a shell.

Exit status: 0 what was asked holds, 1 it does not hold, 2 it could not be found out.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import traceback

from pipeline.errors import PipelineError
from pipeline.tools.output import print_anything

COMMANDS = (
    *("audit", "browse", "check", "convert", "diff", "doctor", "find", "inspect", "manifest"),
    *("profile", "replay", "report", "same", "seen", "show", "spikes", "verify", "where"),
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m pipeline", description=__doc__)
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(metavar="COMMAND")
    for name in COMMANDS:
        command = importlib.import_module(f"pipeline.tools.commands.{name}")
        p = commands.add_parser(command.NAME, help=command.HELP, description=command.__doc__)
        command.arguments(p)
        p.add_argument("--json", action="store_true", help="print plain data, for programs")
        p.add_argument("--traceback", action="store_true", help="show where an error came from")
        p.set_defaults(run=command.run)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run a command and return its exit status. An error is one line on stderr."""
    print_anything()
    parser = _parser()
    args, more = parser.parse_known_args(argv)
    if more:
        paths = [word for word in more if os.path.exists(word)]
        quote = " A shell writes a pattern out: quote it, as in 'data/*.parquet'." if paths else ""
        parser.error(f"unrecognized arguments: {' '.join(more[:3])}.{quote}")
    if args.run is None:
        parser.print_help()
        return 2
    try:
        answer = args.run(args)
        if args.json:
            print(json.dumps(answer.data))
        else:
            for line in answer.lines:
                print(line)
        print(end="", flush=True)  # there is no sys.stdout to flush where it was closed
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 2
    except Exception as error:
        if args.traceback:
            traceback.print_exc()
        print(_line(error), file=sys.stderr)
        return 2
    return 0 if answer.ok else 1


def _line(error: Exception) -> str:
    # the first note of an error that is not ours tells the stage that it came from; further notes,
    # such as a worker's traceback, tell what ran the stage
    notes = () if isinstance(error, PipelineError) else getattr(error, "__notes__", ())
    first = " ".join(notes[0].split()) if notes else ""
    where = f" ({first}; --traceback shows the lines)" if first else ""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:2000]}{where}"


if __name__ == "__main__":
    sys.exit(main())
