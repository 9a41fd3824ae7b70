"""python -m pipeline browse RUN: serve a run's page on this machine; steps are made on request."""

from __future__ import annotations

import argparse
import json

from pipeline.debug.browse import Browser
from pipeline.debug.journal import Run
from pipeline.debug.spikes import THRESHOLD, WINDOW
from pipeline.errors import ChainError
from pipeline.tools.commands import Answer
from pipeline.tools.commands.names import data_argument, run_argument, run_dataset

NAME, HELP = "browse", "look at any step of a run, in a browser on this machine"


def arguments(p: argparse.ArgumentParser) -> None:
    run_argument(p)
    p.add_argument("--port", type=_port, default=0, help="(any that is free)")
    p.add_argument("--window", type=int, default=WINDOW, help=f"of spikes ({WINDOW})")
    p.add_argument("--threshold", type=float, default=THRESHOLD, help=f"({THRESHOLD:g})")
    data_argument(p)


def run(args: argparse.Namespace) -> Answer:
    found = Run(args.run_folder)
    dataset, last = run_dataset(found, args.data), found.ledger.last
    if dataset is not None and last is not None:
        found.check(dataset, last)  # said here, and not at each step that is looked at
    try:
        browser = Browser(
            found, dataset, port=args.port, window=args.window, threshold=args.threshold
        )
    except OSError as e:
        raise ChainError(
            f"port {args.port}: {e.strerror}. Give another, or leave --port out."
        ) from e
    if args.json:
        print(json.dumps({"url": browser.url, "ssh": browser.ssh}), flush=True)
    else:
        print(
            f"{browser.url}\nfrom another machine first: {browser.ssh}\nCtrl-C ends it", flush=True
        )
    with browser:
        browser.serve_forever()
    return Answer(None, [])


def _port(text: str) -> int:
    if not (text.isdecimal() and int(text) < 1 << 16):
        raise argparse.ArgumentTypeError(f"{text!r}: a port is a number from 0 to 65535")
    return int(text)
