"""python -m pipeline seen FILE --run RUN: was this document trained on, and when? 0 yes, 1 never.

With --check PROOF --root ROOT it checks a proof instead, without any data: 0 the document is in the
index, 1 it is not, 2 the proof is not valid.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.dataset import Dataset
from pipeline.debug.journal import Run
from pipeline.debug.seen import (
    Documents,
    Index,
    check,
    check_run,
    index_of,
    proof,
    seen,
    seen_in_run,
)
from pipeline.errors import ChainError, ScanError
from pipeline.loader import Loader
from pipeline.tools.commands import Answer
from pipeline.tools.commands.names import (
    data_argument,
    imported,
    loadable,
    needed_dataset,
    output_file,
    workers,
)

NAME, HELP = "seen", "was a document trained on, and when? proves yes or no"


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("file", nargs="?", metavar="FILE", help="the document, as bytes")
    p.add_argument("--run", dest="folder", metavar="RUN", help="the run's folder")
    data_argument(p)
    p.add_argument(
        "--until", type=int, help="steps before this, of a loader from its start: of no journal"
    )
    p.add_argument("--batch", type=int, help="with --until, where --data is a Dataset: batch size")
    p.add_argument("--field", help="the field of a record that is the document")
    p.add_argument("--document", metavar="MODULE:F", help="gives the document of a record")
    p.add_argument("--index", metavar="FOLDER", help="where the index is kept (RUN/seen)")
    p.add_argument("--workers", type=workers, default="auto", help="who reads records for it")
    p.add_argument("--proof", type=output_file, metavar="P", help="write the proof to this file")
    p.add_argument("--check", metavar="P", help="check this proof instead")
    p.add_argument("--root", metavar="R", help="with --check: the root of the index, 64 hex digits")


def run(args: argparse.Namespace) -> Answer:
    if args.check is not None:
        return _check(args)
    if args.file is None or args.folder is None:
        raise ChainError("seen: give FILE and --run RUN; or --check PROOF --root ROOT")
    text, folder = Path(args.file).read_bytes(), Path(args.folder)
    if not folder.is_dir():
        raise ScanError(f"there is no run at {folder}")
    documents = Documents(args.field, imported(args.document) if args.document else None)
    place = Path(args.index) if args.index else folder / "seen"

    def index(dataset: Dataset) -> Index:
        return index_of(dataset.components, documents, place, workers=args.workers)

    if args.until is None:
        run = Run(folder)
        dataset = needed_dataset(run, args.data)
        check_run(run, dataset)  # before records of another dataset are indexed as the run's
        found = seen_in_run(text, run, dataset, index(dataset))
    else:
        loader = _loader(args)
        found = seen(text, loader, index(loader.dataset), until=args.until)
    lines = list(found.lines())
    if args.proof is not None:
        args.proof.write_bytes(found.proof)
        lines.append(f"proof written to {args.proof}: {len(found.proof)} bytes")
    return Answer(found.as_json(), lines, bool(found))


def _check(args: argparse.Namespace) -> Answer:
    if args.root is None:
        raise ChainError(
            "seen --check: without the root of the index nothing is checked. Give --root, as "
            "`seen FILE --run RUN` printed it to somebody you trust."
        )
    file = Path(args.file).read_bytes() if args.file else None
    found = check(Path(args.check).read_bytes(), args.root, file)
    lines = proof.lines(found, known=file is not None)
    data = {
        "found": found.found,
        "document": found.documents[0].hex(),
        "entries": [[e.component, e.record] for e in found.entries],
        "index": found.head,
        "file": "checked" if file is not None else "not checked",
        "steps": f"{proof.NOT_CHECKED}: {found.claims.get('text', 'none')}",
    }
    return Answer(data, lines, found.found)


def _loader(args: argparse.Namespace) -> Loader:
    if args.data is None:
        raise ChainError("seen --until: give --data module:name of the run's Dataset or Loader")
    data = loadable(args.data)
    if not isinstance(data, Dataset):
        return data
    if args.batch is None:
        raise ChainError(
            f"{args.data} is a Dataset, so nothing says which rows a step had: give --batch N, or "
            "name the run's Loader"
        )
    return Loader(data, args.batch)
