"""The command line: python -m harness train | replay | show | sample | export | doctor | …"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

from harness import distributed
from harness.arguments import directory, positive, step, temperature, window
from harness.config import SETTINGS_HELP, parse
from harness.errors import HarnessError
from harness.rundir import RunDir
from pipeline.errors import PipelineError, need
from pipeline.tools.output import print_anything

_REPEATABLE = "--xla_gpu_exclude_nondeterministic_ops"
_CPUS = "--xla_force_host_platform_device_count"
_FLAGS = ("coordinator", "processes", "process")
_OWN = ("export", "replay", "sample", "seen", "show")  # in files of these names


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit status: 0 done; 1 a replayed step differs; 2 the command cannot be done as asked,
            and stderr says why; 75 another process of the run has ended; 143 or 130 stopped by
            SIGTERM or Ctrl-C, with everything saved.
    """
    print_anything()
    args = _parser().parse_args(argv)
    status = _run(args)
    distributed.leave(status)
    return status


def _run(args: argparse.Namespace) -> int:
    try:
        _before_jax(args)
        return _command(args)
    except (HarnessError, PipelineError) as e:
        # notes say which record and which stage
        print(
            "\n".join([f"{type(e).__name__}: {e}", *getattr(e, "__notes__", ())]), file=sys.stderr
        )
        return 2
    except ModuleNotFoundError as e:
        print(need("harness", str(e.name)), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; run the same command again to resume", file=sys.stderr)
        return 130
    except Exception as e:
        if distributed.is_loss(e):  # also TimeoutErrors, which are OSErrors
            distributed.say_farewell(e)
            return distributed.LOST
        if not isinstance(e, OSError):
            raise
        # a full disk, no write permission, a file instead of a folder
        place = Path(str(e.filename or args.run))
        remedy = "give --run a folder that can be written and has room; what is saved is whole"
        if not place.absolute().is_relative_to(args.run.absolute()):
            remedy = "give a path that is there and can be read, or one that can be written"
        print(f"{e.strerror or e}: {place}: {remedy}.", file=sys.stderr)
        return 2


def _command(args: argparse.Namespace) -> int:
    """Call the command's function with its options, and with the settings if it takes them."""
    from harness.metrics import Screen

    options = {k: v for k, v in vars(args).items() if k not in ("command", "run", *_FLAGS)}
    if "processes" in args:
        flags = args.coordinator, args.processes, args.process
        distributed.join(distributed.place(flags, os.environ))
    # the first process writes for all; beside JSON on stdout all else goes to stderr
    screen = Screen(quiet=not distributed.first(), stderr=options.get("as_json", False))
    home = import_module(f"harness.{args.command if args.command in _OWN else 'commands'}")
    function, run = getattr(home, args.command), RunDir(args.run)
    given = [options.pop(name, ()) for name in ("set", "config")]
    takes = signature(function).parameters
    if "given" in takes:
        options["given"] = parse(*given)
    if "cfg" in takes:
        options["cfg"] = run.begun().config(parse(*given))
    return function(run, screen, **options)


def _before_jax(args: argparse.Namespace) -> None:
    # read once, when jax starts; without it, GPU scatters add in any order
    flags = os.environ.get("XLA_FLAGS", "").split()
    if not any(flag.startswith(_REPEATABLE) for flag in flags):
        flags.append(f"{_REPEATABLE}=true")
    if args.command == "replay":  # on CPUs, with as many devices as the run's largest mesh
        launches = RunDir(args.run).all_launches()
        most = max((math.prod(launch["mesh"].values()) for launch in launches), default=1)
        given = [int(flag.partition("=")[2]) for flag in flags if flag.startswith(_CPUS)]
        if most > max(given, default=1):
            flags = [flag for flag in flags if not flag.startswith(_CPUS)] + [f"{_CPUS}={most}"]
    os.environ["XLA_FLAGS"] = " ".join(flags)


def _add_train(commands: Any) -> argparse.ArgumentParser:
    train = commands.add_parser(
        "train",
        help="train, or go on training",
        epilog=f"settings and their defaults:\n{SETTINGS_HELP}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    train.add_argument("--steps", type=positive, help="stop after so many steps of the run")
    train.add_argument(
        "--from",
        type=int,
        dest="begin_at",
        metavar="K",
        help="go on from checkpoint K; later ones are set aside",
    )
    train.add_argument(
        "--on-spike",
        metavar="z=8,back=100,skip=10,times=3",
        help="at a spike of more than z go back in a fork of the run and skip the data",
    )
    train.add_argument(
        "--profile", type=window, metavar="A:B", help="write an XProf trace of these steps"
    )
    train.add_argument(
        "--deterministic",
        action="store_true",
        help="keep what is compiled and autotuned in the run's compiled/, and refuse to go on "
        "where versions, flags or devices have changed",
    )
    return train


def _add_looks(commands: Any) -> None:
    """Commands that look at a run."""
    show = commands.add_parser("show", help="print the records and text of steps; needs no model")
    for command in (commands.choices["replay"], show):
        command.add_argument(
            "--steps", type=window, required=True, metavar="A:B", help="A, ..., B-1"
        )
    seen = commands.add_parser("seen", help="was a document trained on? exit 1 if never")
    seen.add_argument("file", type=Path, metavar="FILE", help="the document's text")
    seen.add_argument("--proof", type=Path, metavar="P", help="write the proof to this file")
    sample = commands.add_parser("sample", help="let the model write")
    sample.add_argument("--prompt", default="", help="what it continues")
    sample.add_argument("--tokens", type=positive, default=200, help="how many it writes")
    sample.add_argument("--temperature", type=temperature, default=0.8, help="0: the likeliest")
    sample.add_argument("--seed", type=int, default=0)
    sample.add_argument("--at", default="newest", help="newest, best, or a checkpoint's step")
    goodput = commands.add_parser("goodput", help="where wall time went, over all launches")
    doctor = commands.add_parser("doctor", help="is this machine the one that the bits are from?")
    for command in (goodput, doctor):
        command.add_argument("--json", action="store_true", dest="as_json")


def _add_spikes(commands: Any) -> None:
    """The commands of the spike workflow."""
    spikes = commands.add_parser("spikes", help="steps whose loss or gradient norm stands out")
    spikes.add_argument("--window", type=int, default=100, metavar="N", help="steps compared with")
    spikes.add_argument("--threshold", type=float, default=5.0, metavar="Z", help="least z-score")
    inspect = commands.add_parser("inspect", help="a step's rows by loss and gradient norm")
    inspect.add_argument("--rank", default="loss,gradnorm", help="loss, gradnorm or both")
    inspect.add_argument("--top", type=int, default=20, metavar="N", help="rows at most")
    blame = commands.add_parser(
        "blame",
        help="what made a step spike: its data, the machine, the optimizer",
    )
    for command in (inspect, blame):
        command.add_argument("--step", type=step, required=True, metavar="S")
    for command in (spikes, inspect, blame):
        command.add_argument(
            "--json", action="store_true", dest="as_json", help="as JSON, on stdout alone"
        )


def _add_forks(commands: Any) -> None:
    """Commands that begin a run again in another folder."""
    rewind = commands.add_parser(
        "rewind",
        help="train again from an earlier step without some data",
    )
    rewind.add_argument("--to", type=step, required=True, metavar="K", help="step to go back to")
    rewind.add_argument("--skip", type=window, metavar="A:B", help="steps whose data is left out")
    rewind.add_argument(
        "--consume", action="store_true", help="draw the skipped data without update, not jump it"
    )
    rewind.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", dest="settings"
    )
    fork = commands.add_parser("fork", help="train again as if some records had never been there")
    fork.add_argument(
        "--mode",
        choices=("mask", "substitute"),
        default="mask",
        help="their tokens count for nothing, or other records take their place",
    )
    fork.add_argument("--to", type=step, metavar="K", help="begin at or before this step instead")
    for command in (rewind, fork):
        command.add_argument("--fork", type=directory, required=True, metavar="DIR")
        command.add_argument(
            "--without", nargs="+", default=[], metavar="FILE:N", help="records, or a file of them"
        )
        command.add_argument("--steps", type=step, help="train up to this step; 0: not at all")


def _add_shared(command: argparse.ArgumentParser) -> None:
    several = command.add_argument_group("several processes, if no launcher tells them")
    several.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 listens")
    several.add_argument("--processes", metavar="N", help="how many there are")
    several.add_argument("--process", metavar="I", help="which one this is, from 0")
    command.add_argument(
        "--config",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="TOML, or a run's config.json; of several the later holds",
    )
    command.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="over --config",
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m harness",
        description="Train the reference model, prove its steps, find what disturbed it.",
        epilog="python -m harness COMMAND --help says more; every command takes --run DIR.",
    )
    commands = parser.add_subparsers(required=True, metavar="command", dest="command")

    train = _add_train(commands)
    commands.add_parser(
        "settings",
        help="write a lost config.json again, from the newest checkpoint",
    )
    replay = commands.add_parser("replay", help="prove steps against the ledger")
    replay.add_argument("--show", action="store_true", help="print each row's records and text")
    report = commands.add_parser("report", help="the run as a page: curves, spikes, records")
    report.add_argument("-o", "--out", default="report.html", metavar="FILE")
    report.add_argument("--no-records", action="store_true", help="leave data out of the page")
    export = commands.add_parser("export", help="write a model for others to load")
    export.add_argument("--to", type=Path, required=True, metavar="FOLDER", dest="folder")
    export.add_argument("--step", type=int, help="of the checkpoint; the newest if not given")
    export.add_argument(
        "--format", choices=("safetensors", "stablehlo"), default="safetensors", dest="form"
    )
    _add_spikes(commands)
    _add_forks(commands)
    _add_looks(commands)
    for command in commands.choices.values():
        command.add_argument(
            "--run", type=directory, required=True, metavar="DIR", help="folder of the run"
        )
    for command in (train, replay, export):
        _add_shared(command)
    return parser


if __name__ == "__main__":
    sys.exit(main())
