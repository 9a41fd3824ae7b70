"""python -m pipeline convert IN OUT: write records of one format as files of another."""

from __future__ import annotations

import argparse
import os
from typing import Any

from pipeline.dataset import Dataset
from pipeline.errors import ChainError
from pipeline.tools.commands import Answer
from pipeline.tools.commands.names import dataset, imported, storage, storage_arguments, workers
from pipeline.tools.convert import WRITERS, Tokenize, convert
from pipeline.workers import Ray

NAME, HELP = "convert", "write records as files of another format, in shards, in parallel"


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("source", metavar="IN", help="a path, URL or glob; or module:name of a Dataset")
    p.add_argument("out", metavar="OUT", help=f"a file; its suffix is one of {', '.join(WRITERS)}")
    p.add_argument("--shards", type=int, help="how many files (one for about each 256 MiB)")
    p.add_argument("--workers", type=workers, default="auto", help="0, n processes or auto")
    p.add_argument("--engine", choices=("local", "ray"), default="local", help="who writes")
    p.add_argument("--address", help="of the Ray cluster; every machine must see IN and OUT")
    p.add_argument("--map", metavar="MODULE:FUNCTION", help="each record through a function")
    p.add_argument("--tokenizer", help='"bytes", or the path of a tokenizer.json')
    p.add_argument("--text", default="text", help="the field that holds text (text)")
    p.add_argument("--eos", help="a token, by name or number, to put after each text")
    p.add_argument("--skip-bad", action="store_true", help="leave out what cannot be read")
    storage_arguments(p)


def run(args: argparse.Namespace) -> Answer:
    done = convert(
        _dataset(args),
        args.out,
        shards=args.shards,
        workers=_workers(args),
        skip_bad=args.skip_bad,
        options=storage(args).options,
    )
    first, *others = done.files
    more = f" and {len(others)} more" if others else ""
    lines = [f"{done.records:,} records, {done.bytes / 1e6:,.1f} MB: {first}{more}"]
    if done.skipped:
        lines.append(f"{done.skipped:,} records could not be read and were left out")
    return Answer(done.as_json(), lines)


def _dataset(args: argparse.Namespace) -> Dataset:
    ds = dataset(args.source, storage(args))
    if args.map:
        ds = ds.map(imported(args.map), name="--map")
    if args.tokenizer:
        tokenize = Tokenize(args.tokenizer, field=args.text, eos=args.eos)
        ds = ds.map(tokenize, name="--tokenizer")
    elif args.eos is not None:
        raise ChainError("--eos says what --tokenizer puts after each text: give that too")
    return ds


def _workers(args: argparse.Namespace) -> Any:
    if args.engine == "local":
        if args.address is not None:
            raise ChainError(f"--address {args.address} is of a Ray cluster: give --engine ray")
        return args.workers
    n = (os.cpu_count() or 1) if args.workers == "auto" else args.workers
    return Ray(n, args.address)
