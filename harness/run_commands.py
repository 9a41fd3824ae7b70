"""Commands that look at a run: python -m harness show | seen | sample | goodput | doctor."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.arguments import positive, temperature, window
from harness.rundir import RunDir

if TYPE_CHECKING:
    from harness.metrics import Screen


def _show(args: argparse.Namespace, run: RunDir, screen: Screen) -> int:
    from harness.show import show

    show(run, run.begun().config(), args.steps, screen)
    return 0


def _seen(args: argparse.Namespace, run: RunDir, screen: Screen) -> int:
    cfg = run.begun().config()
    from harness.seen import seen

    return 0 if seen(run, cfg, args.file, args.proof, screen) else 1


def _sample(args: argparse.Namespace, run: RunDir, screen: Screen) -> int:
    cfg = run.begun().config()
    from harness.sample import sample

    text = sample(
        run,
        cfg,
        prompt=args.prompt,
        tokens=args.tokens,
        temperature=args.temperature,
        seed=args.seed,
        at=args.at,
    )
    print(text)
    return 0


def _goodput(args: argparse.Namespace, run: RunDir, screen: Screen) -> int:
    from harness.files import read_lines
    from harness.goodput import as_table, report

    told = report(read_lines(run.begun().goodput))
    print(json.dumps(told) if args.json else as_table(told))
    return 0


def _doctor(args: argparse.Namespace, run: RunDir, screen: Screen) -> int:
    cfg = run.begun().config()
    from harness.doctor import compared, manifest
    from harness.sharding import make_mesh

    told = compared(run.all_launches(), manifest(make_mesh(cfg), cfg.task))
    print(json.dumps(told) if args.json else "\n".join(told["said"]))
    return 0 if told["same"] else 1


def add_run_commands(commands: Any) -> None:
    """Their arguments, onto argparse's `commands`."""
    show = commands.add_parser("show", help="print the records and text of steps; needs no model")
    show.add_argument("--steps", type=window, required=True, metavar="A:B", help="A, ..., B-1")
    show.set_defaults(run_command=_show)

    seen = commands.add_parser("seen", help="was a document trained on? exit 1 if never")
    seen.add_argument("file", type=Path, metavar="FILE", help="the document's text")
    seen.add_argument("--proof", type=Path, metavar="P", help="write the proof to this file")
    seen.set_defaults(run_command=_seen)

    sample = commands.add_parser("sample", help="let the model write")
    sample.add_argument("--prompt", default="", help="what it continues")
    sample.add_argument("--tokens", type=positive, default=200, help="how many it writes")
    sample.add_argument("--temperature", type=temperature, default=0.8, help="0: the likeliest")
    sample.add_argument("--seed", type=int, default=0)
    sample.add_argument("--at", default="newest", help="newest, best, or a checkpoint's step")
    sample.set_defaults(run_command=_sample)

    goodput = commands.add_parser("goodput", help="where wall time went, over all launches")
    goodput.set_defaults(run_command=_goodput)

    doctor = commands.add_parser("doctor", help="is this machine the one that the bits are from?")
    doctor.set_defaults(run_command=_doctor)
    for command in (goodput, doctor):
        command.add_argument("--json", action="store_true")
