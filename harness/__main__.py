"""The command line: python -m harness train | replay."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import distributed
from harness.config import SETTINGS_HELP, parse, settle
from harness.errors import ConfigError, HarnessError
from harness.rundir import RunDir
from pipeline.errors import PipelineError, need

if TYPE_CHECKING:
    from harness.metrics import Screen

_REPEATABLE = "--xla_gpu_exclude_nondeterministic_ops"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit status: 0 done; 1 a replayed step differs; 2 it cannot be done as asked, and stderr
        says why; 75 another process of the run has ended; 143 or 130 stopped by SIGTERM or Ctrl-C,
        all saved.
    """
    args = _parser().parse_args(argv)
    _before_jax()
    status = _run(args)
    distributed.leave(status)
    return status


def _run(args: argparse.Namespace) -> int:
    try:
        from harness.metrics import Screen

        if "processes" in args:
            flags = args.coordinator, args.processes, args.process
            distributed.join(distributed.place(flags, os.environ))
        return args.run_command(args, RunDir(args.run), Screen())
    except (HarnessError, PipelineError) as e:
        print(f"{type(e).__name__}: {e}", file=sys.stderr)
        return 2
    except OSError as e:  # a full disk, a folder that cannot be written, a file where one should be
        place = e.filename or args.run
        print(f"{e.strerror or e}: {place}. The run is whole up to its last save.", file=sys.stderr)
        return 2
    except ModuleNotFoundError as e:
        print(need("harness", str(e.name)), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; run the same command again to resume", file=sys.stderr)
        return 130
    except Exception as e:
        if not distributed.is_loss(e):
            raise
        print(distributed.farewell(e), file=sys.stderr)
        return distributed.LOST


def _before_jax() -> None:
    # read once, when jax starts: without it, GPU scatters add in any order
    flags = os.environ.get("XLA_FLAGS", "")
    if _REPEATABLE not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {_REPEATABLE}=true".strip()


def _train(args: argparse.Namespace, run: RunDir, screen: Screen) -> int:
    if args.begin_at is not None:
        run.begun()
    cfg = run.config(parse(args.set, args.config))
    until = args.steps or cfg.steps
    done = run.evaluation()
    if done is None or done["step"] < until or args.begin_at is not None:
        from harness.train import train

        stopped = train(run, cfg, until=until, screen=screen, begin_at=args.begin_at)
        if stopped is not None:
            screen.say(f"{stopped.name}: saved. Run the same command again to resume.")
            return 128 + stopped
        done = run.evaluation()
    else:
        screen.say(f"{run.path} stands at step {done['step']:,}: nothing left to train.")
    if done is not None:  # only the first process of several writes it
        _tell(run, done, screen)
    return 0


def _tell(run: RunDir, done: dict[str, Any], screen: Screen) -> None:
    screen.say(
        f"held-out loss {done['loss']:.4f} nats a byte after step {done['step']:,} "
        f"({done['tokens']:,} tokens; unigram entropy {done['unigram_entropy']:.4f})\n"
        f"run          {run.path}\n"
        f"checkpoints  {run.checkpoints}\n"
        f"ledger       {run.ledger}\n"
        "To train on, give --steps more. To prove steps: "
        f"python -m harness replay --run {run.path} --steps 0:{min(20, done['step'])}"
    )


def _replay(args: argparse.Namespace, run: RunDir, screen: Screen) -> int:
    cfg = run.begun().config(parse(args.set, args.config))
    from harness.replay import replay

    return 0 if replay(run, cfg, args.steps, show=args.show, screen=screen) else 1


def _report(args: argparse.Namespace, run: RunDir, screen: Screen) -> int:
    from pipeline.__main__ import main as pipeline

    words = ["report", str(run.begun().path), "--out", args.out]
    words += ["--no-records"] if args.no_records else ["--data", "harness.opened:dataset"]
    return pipeline(words)


def _settings(args: argparse.Namespace, run: RunDir, screen: Screen) -> int:
    from harness.checkpoint import Checkpoints

    with closing(Checkpoints(run.checkpoints, keep=1, keep_every=1, clean=False)) as checkpoints:
        steps = checkpoints.steps
        stored = checkpoints.config(steps[-1]) if steps else None
    if stored is None:
        raise ConfigError(f"no checkpoint in {run.checkpoints} holds settings.")
    run.begin(settle(stored, {}))
    screen.say(f"{run.path / 'config.json'}: as of checkpoint {steps[-1]:,}")
    return 0


def _directory(text: str) -> Path:
    if "://" in text:
        raise argparse.ArgumentTypeError(f"{text}: a run lies in a local directory; copy it after")
    return Path(text)


def _window(text: str) -> range:
    start, _, stop = text.partition(":")
    if not (start.isdigit() and stop.isdigit() and int(start) < int(stop)):
        raise argparse.ArgumentTypeError(f"{text!r}: give first:end, such as 100:120")
    return range(int(start), int(stop))


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number from 1 on")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m harness", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")

    train = commands.add_parser(
        "train",
        help="train, or go on training",
        epilog=f"settings and their defaults:\n{SETTINGS_HELP}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    train.add_argument("--steps", type=_positive, help="stop after so many steps of the run")
    train.add_argument(
        "--from",
        type=int,
        dest="begin_at",
        metavar="K",
        help="go on from checkpoint K; later ones are set aside",
    )
    train.set_defaults(run_command=_train)

    settings = commands.add_parser(
        "settings", help="write a lost config.json again, from the newest checkpoint"
    )
    settings.set_defaults(run_command=_settings)

    replay = commands.add_parser("replay", help="prove steps against the ledger")
    replay.add_argument("--steps", type=_window, required=True, metavar="A:B", help="A, ..., B-1")
    replay.add_argument("--show", action="store_true", help="print each row's records and text")
    replay.set_defaults(run_command=_replay)

    report = commands.add_parser("report", help="the run as a page: curves, spikes, records")
    report.add_argument("-o", "--out", default="report.html", metavar="FILE")
    report.add_argument("--no-records", action="store_true", help="leave data out of the page")
    report.set_defaults(run_command=_report)

    for command in (train, replay, report, settings):
        command.add_argument("--run", type=_directory, required=True, metavar="DIR")
    for command in (train, replay):
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
    return parser


if __name__ == "__main__":
    sys.exit(main())
