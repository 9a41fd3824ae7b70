"""python -m pipeline where RUN STEP: which records the rows of a step are made of."""

from __future__ import annotations

import argparse

from pipeline.debug.journal import Run
from pipeline.debug.show import rows_of
from pipeline.provenance.where import Provenance
from pipeline.tools.commands import Answer
from pipeline.tools.commands.names import data_argument, needed_dataset, run_argument

NAME, HELP = "where", "which records made the rows of a run's step"


def arguments(p: argparse.ArgumentParser) -> None:
    run_argument(p)
    p.add_argument("step", type=int, metavar="STEP", help="of training")
    data_argument(p)


def run(args: argparse.Namespace) -> Answer:
    found = Run(args.run_folder)
    line, dataset = found.line(args.step), needed_dataset(found, args.data)
    rows = rows_of(found, dataset, line, values=False)
    kept = ("batch", "row", "records")
    plain = [{k: row[k] for k in kept} for row in rows]
    for row in plain:
        row["records"] = [{k: v for k, v in r.items() if k != "text"} for r in row["records"]]
    tables = [
        Provenance(dataset.components, batch.take.block.origin).table()
        for batch in found.rows(dataset, line)
    ]
    return Answer(plain, "\n".join(tables).splitlines())
