"""The commands of the spike workflow: spikes, inspect, blame, rewind, fork, train --on-spike."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from harness.arguments import directory, step, window
from harness.config import Config, parse
from harness.errors import ConfigError
from harness.rundir import RunDir

if TYPE_CHECKING:
    from harness.metrics import Screen


def add_spike_commands(commands: Any) -> None:
    """Their arguments, onto argparse's `commands`."""
    spikes = commands.add_parser("spikes", help="steps whose loss or gradient norm stands out")
    spikes.add_argument("--window", type=int, default=100, metavar="N", help="steps compared with")
    spikes.add_argument("--threshold", type=float, default=5.0, metavar="Z", help="least z-score")
    spikes.set_defaults(run_command=_spikes)

    inspect = commands.add_parser("inspect", help="a step's rows by loss and gradient norm")
    inspect.add_argument("--rank", default="loss,gradnorm", help="loss, gradnorm or both")
    inspect.add_argument("--top", type=int, default=20, metavar="N", help="rows at most")
    inspect.set_defaults(run_command=_inspect)

    blame = commands.add_parser(
        "blame", help="what made a step spike: its data, the machine, the optimizer"
    )
    blame.set_defaults(run_command=_blame)
    for command in (inspect, blame):
        command.add_argument("--step", type=step, required=True, metavar="S")
    for command in (spikes, inspect, blame):
        command.add_argument("--json", action="store_true", help="as JSON, on stdout alone")

    rewind = commands.add_parser(
        "rewind", help="train again from an earlier step without some data"
    )
    rewind.add_argument("--to", type=step, required=True, metavar="K", help="step to go back to")
    rewind.add_argument("--skip", type=window, metavar="A:B", help="steps whose data is left out")
    rewind.add_argument(
        "--consume", action="store_true", help="draw the skipped data without update, not jump it"
    )
    rewind.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE")
    rewind.set_defaults(run_command=_rewind)

    fork = commands.add_parser("fork", help="train again as if some records had never been there")
    fork.add_argument(
        "--mode",
        choices=("mask", "substitute"),
        default="mask",
        help="their tokens count for nothing, or other records take their place",
    )
    fork.add_argument("--to", type=step, metavar="K", help="begin at or before this step instead")
    fork.set_defaults(run_command=_fork)
    for command in (rewind, fork):
        command.add_argument("--fork", type=directory, required=True, metavar="DIR")
        command.add_argument(
            "--without", nargs="+", default=[], metavar="FILE:N", help="records, or a file of them"
        )
        command.add_argument("--steps", type=step, help="train up to this step; 0: not at all")


def add_on_spike(train: argparse.ArgumentParser) -> None:
    """The option of `train` that turns the policy on."""
    train.add_argument(
        "--on-spike",
        metavar="z=8,back=100,skip=10,times=3",
        help="at a spike of more than z go back in a fork of the run and skip the data",
    )


def train_with_policy(
    run: RunDir, cfg: Config, text: str, *, until: int, screen: Screen
) -> tuple[RunDir, Any]:
    """`train --on-spike`; see `policy.train_on`."""
    from harness.policy import Policy, train_on

    return train_on(run, cfg, Policy.parse(text), until=until, screen=screen)


def _quiet(args: argparse.Namespace, screen: Screen) -> Screen:
    if not args.json:
        return screen
    from rich.console import Console

    from harness.metrics import Screen

    return Screen(Console(stderr=True, highlight=False, soft_wrap=True))


def _spikes(args: argparse.Namespace, run: RunDir, screen: Screen) -> int:
    from harness.ledger import read
    from harness.spikes import latest, spikes_of

    lines = latest(read(run.begun().ledger))
    found = spikes_of(lines, window=args.window, threshold=args.threshold)
    if args.json:
        print(json.dumps([spike.as_json() for spike in found]))
        return 0
    for s in found:
        size = "not finite" if s.score is None else f"z {s.score:.1f}"
        what = ", ".join(f"{n} {s.values[n]} (median before {s.before[n]})" for n in s.fields)
        screen.say(f"step {s.step:,}  {size}  {s.lasted} steps  {what}")
    screen.say(f"{len(found)} spikes in {len(lines):,} steps")
    return 0


def _inspect(args: argparse.Namespace, run: RunDir, screen: Screen) -> int:
    from harness.inspect_step import inspect, tell

    if args.top < 1:
        raise ConfigError(f"--top {args.top} must be at least 1.")
    cfg, rank = run.begun().config(), args.rank.split(",")
    rows = inspect(run, cfg, args.step, _quiet(args, screen), rank=rank, top=args.top)
    if args.json:
        print(json.dumps({"step": args.step, "rows": rows}))
    else:
        tell(args.step, rows, screen)
    return 0


def _blame(args: argparse.Namespace, run: RunDir, screen: Screen) -> int:
    from harness.blame import blame

    found = blame(run, run.begun().config(), args.step, _quiet(args, screen))
    if args.json:
        print(json.dumps(found.as_json()))
    else:
        screen.say(f"{found.kind.upper()}  {found.summary}")
        for line in found.evidence:
            screen.say(f"  {line}")
        for d in found.documents:
            flag = f"  REPEATS {d['repeats']}" if d["repeats"] else ""
            screen.say(f"  {d['name']}  rows {d['rows']}  loss {d['loss']}{flag}")
            screen.say(f"    {d['text']}")
        if found.command:
            screen.say(f"next: {found.command}")
    return 1 if found.kind == "undecided" else 0


def _rewind(args: argparse.Namespace, run: RunDir, screen: Screen) -> int:
    from harness.fork import rewind

    if args.consume and not args.skip:
        raise ConfigError("--consume says how to skip: give --skip A:B too.")
    made = rewind(
        run,
        run.begun().config(),
        RunDir(args.fork),
        screen,
        to=args.to,
        skip=args.skip,
        consume=args.consume,
        without=args.without,
        settings=parse(args.set),
    )
    return _tail(args, run, made.run, screen)


def _fork(args: argparse.Namespace, run: RunDir, screen: Screen) -> int:
    from harness.fork import fork

    made = fork(
        run,
        run.begun().config(),
        RunDir(args.fork),
        screen,
        without=args.without,
        mask=args.mode == "mask",
        to=args.to,
    )
    return _tail(args, run, made.run, screen)


def _tail(args: argparse.Namespace, run: RunDir, made: RunDir, screen: Screen) -> int:
    """Train the fork as far as the run got, or as asked."""
    from harness.ledger import read
    from harness.train import train

    until = args.steps
    if until is None:
        until = max((entry.step for entry in read(run.ledger)), default=-1) + 1
    if not until:
        screen.say(f"to train it: python -m harness train --run {made.path}")
        return 0
    stopped = train(made, made.config(), until=until, screen=screen)
    if stopped is not None:
        screen.say(f"{stopped.name}: saved. Go on: python -m harness train --run {made.path}")
        return 128 + stopped
    screen.say(f"{made.path} stands at step {until:,}; the run {run.path} is as it was")
    return 0
