"""The command line: python -m harness train | replay | show | sample | export | doctor | …"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import distributed
from harness.arguments import directory, positive, window
from harness.config import SETTINGS_HELP, parse, settle
from harness.errors import ConfigError, HarnessError
from harness.run_commands import add_run_commands
from harness.rundir import RunDir
from harness.spike_commands import add_on_spike, add_spike_commands, train_with_policy
from pipeline.errors import PipelineError, need
from pipeline.tools.output import print_anything

if TYPE_CHECKING:
    from harness.metrics import Screen

_REPEATABLE = "--xla_gpu_exclude_nondeterministic_ops"
_CPUS = "--xla_force_host_platform_device_count"


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
        from harness.metrics import Screen

        if "processes" in args:
            flags = args.coordinator, args.processes, args.process
            distributed.join(distributed.place(flags, os.environ))
        screen = Screen(quiet=not distributed.first())  # the first process writes for all
        return args.run_command(args, RunDir(args.run), screen)
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
        place = e.filename or args.run
        remedy = "give --run a folder that can be written and has room; what is saved is whole"
        print(f"{e.strerror or e}: {place}: {remedy}.", file=sys.stderr)
        return 2


def _before_jax(args: argparse.Namespace) -> None:
    # read once, when jax starts; without it, GPU scatters add in any order
    flags = os.environ.get("XLA_FLAGS", "").split()
    if not any(flag.startswith(_REPEATABLE) for flag in flags):
        flags.append(f"{_REPEATABLE}=true")
    if args.run_command is _replay:  # on CPUs, with as many devices as the run's largest mesh
        launches = RunDir(args.run).all_launches()
        most = max((math.prod(launch["mesh"].values()) for launch in launches), default=1)
        given = [int(flag.partition("=")[2]) for flag in flags if flag.startswith(_CPUS)]
        if most > max(given, default=1):
            flags = [flag for flag in flags if not flag.startswith(_CPUS)] + [f"{_CPUS}={most}"]
    os.environ["XLA_FLAGS"] = " ".join(flags)


def _train(args: argparse.Namespace, run: RunDir, screen: Screen) -> int:
    if args.begin_at is not None:
        run.begun()
    if args.on_spike and (args.begin_at is not None or args.profile or args.deterministic):
        raise ConfigError("--on-spike goes without --from, --profile and --deterministic.")
    cfg = run.config(parse(args.set, args.config))
    until = args.steps or cfg.steps
    done, asked = run.evaluation(), args.begin_at is not None or args.profile is not None
    if done is None or done["step"] < until or asked:
        if args.on_spike:
            run, stopped = train_with_policy(run, cfg, args.on_spike, until=until, screen=screen)
        else:
            from harness.train import train

            stopped = train(
                run,
                cfg,
                until=until,
                screen=screen,
                begin_at=args.begin_at,
                profile=args.profile,
                deterministic=args.deterministic,
            )
        if stopped is not None:
            again = "the same command again" if args.begin_at is None else "it without --from"
            screen.say(f"{stopped.name}: saved. Run {again} to resume.")
            return 128 + stopped
        done = run.evaluation()
    else:
        screen.say(f"{run.path} stands at step {done['step']:,}: nothing left to train.")
    if done is not None:  # with several processes, only the first writes it
        _tell(run, done, "token" if cfg.task == "language" else "row", screen)
    return 0


def _tell(run: RunDir, done: dict[str, Any], unit: str, screen: Screen) -> None:
    entropy = f"; unigram entropy {done['unigram_entropy']:.4f}" if done["unigram_entropy"] else ""
    each = f"nats a {'byte' if entropy else unit}" if unit == "token" else f"a {unit}"
    loss = "is not known" if done["loss"] is None else f"{done['loss']:.4f} {each}"
    screen.say(
        f"held-out loss {loss} after step {done['step']:,} ({done['tokens']:,} {unit}s{entropy})\n"
        f"run          {run.path}\n"
        f"checkpoints  {run.checkpoints}\n"
        f"ledger       {run.ledger}\n"
        "To train on, give --steps more. To prove steps: "
        f"python -m harness replay --run {run.path} --steps 0:{min(20, done['step'])}"
    )


def _replay(args: argparse.Namespace, run: RunDir, screen: Screen) -> int:
    cfg = run.begun().config(parse(args.set, args.config))
    from harness.replay import replay

    return replay(run, cfg, args.steps, show=args.show, screen=screen)


def _report(args: argparse.Namespace, run: RunDir, screen: Screen) -> int:
    from pipeline.__main__ import main as pipeline

    words = ["report", str(run.begun().path), "--out", args.out]
    words += ["--no-records"] if args.no_records else ["--data", "harness.opened:dataset"]
    return pipeline(words)


def _export(args: argparse.Namespace, run: RunDir, screen: Screen) -> int:
    cfg = run.begun().config(parse(args.set, args.config))
    from harness.export import export

    step = export(run, cfg, args.to, step=args.step, form=args.format)
    screen.say(f"{args.to}: the model after step {step:,} as {args.format}")
    return 0


def _settings(args: argparse.Namespace, run: RunDir, screen: Screen) -> int:
    if not run.checkpoints.is_dir():  # which opening them would make
        raise ConfigError(
            f"there is no run in {run.path}, or its folder checkpoints is gone, which holds the "
            "settings: restore it."
        )
    from harness.checkpoint import Checkpoints

    with Checkpoints(run.checkpoints) as checkpoints:
        step = checkpoints.find(None)
        stored = checkpoints.config(step)
    if stored is None:
        raise ConfigError(f"checkpoint {step} in {run.checkpoints} holds no settings.")
    run.begin(settle(stored, {}))
    screen.say(f"{run.path / 'config.json'}: as of checkpoint {step:,}")
    return 0


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
    add_on_spike(train)
    train.add_argument(
        "--profile", type=window, metavar="A:B", help="write an XProf trace of these steps"
    )
    train.add_argument(
        "--deterministic",
        action="store_true",
        help="keep what is compiled and autotuned in the run's compiled/, and refuse to go on "
        "where versions, flags or devices have changed",
    )
    train.set_defaults(run_command=_train)
    return train


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
    commands = parser.add_subparsers(required=True, metavar="command")

    train = _add_train(commands)
    settings = commands.add_parser(
        "settings", help="write a lost config.json again, from the newest checkpoint"
    )
    settings.set_defaults(run_command=_settings)

    replay = commands.add_parser("replay", help="prove steps against the ledger")
    replay.add_argument("--steps", type=window, required=True, metavar="A:B", help="A, ..., B-1")
    replay.add_argument("--show", action="store_true", help="print each row's records and text")
    replay.set_defaults(run_command=_replay)

    report = commands.add_parser("report", help="the run as a page: curves, spikes, records")
    report.add_argument("-o", "--out", default="report.html", metavar="FILE")
    report.add_argument("--no-records", action="store_true", help="leave data out of the page")
    report.set_defaults(run_command=_report)

    export = commands.add_parser("export", help="write a model for others to load")
    export.add_argument("--to", type=Path, required=True, metavar="FOLDER")
    export.add_argument("--step", type=int, help="of the checkpoint; the newest if not given")
    export.add_argument("--format", choices=("safetensors", "stablehlo"), default="safetensors")
    export.set_defaults(run_command=_export)

    add_spike_commands(commands)
    add_run_commands(commands)
    for command in commands.choices.values():
        command.add_argument(
            "--run", type=directory, required=True, metavar="DIR", help="folder of the run"
        )
    for command in (train, replay, export):
        _add_shared(command)
    return parser


if __name__ == "__main__":
    sys.exit(main())
