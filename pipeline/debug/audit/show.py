"""An audit's figures as a table for people."""

from __future__ import annotations

from pipeline.debug.audit.verdict import Report
from pipeline.errors import need

# of a hundred, one or two of each family
MAIN = (
    "bits: linear",
    "bits: avalanche",
    "bits: shared by orders",
    "residues: mod 16",
    "residues: mod 61",
    "residues: 16 parts of n",
    "strides: 2^0, parts",
    "neighbours: correlation",
    "mixing: way from its place",
    "mixing: gaps in a batch (log2)",
    "balance: sources in a batch",
    "seeds: correlation",
    "epochs: correlation",
    "epochs: matches (count)",
    "epochs: overlap (count)",
)


def show(report: Report, *, every: bool = False) -> None:
    """Print a report: the main figures and the weakest, or every figure.

    Raises:
        MissingExtraError: rich is not installed.
    """
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError as e:
        raise need("report", "rich") from e
    table = Table()
    table.add_column("statistic", no_wrap=True)
    for name in ("value", "random", "z", "worst", "usual", ""):
        table.add_column(name, justify="right")
    weakest = {figure.name for figure in report.weakest[:3]}
    shown = [f for f in report.figures if every or f.name in MAIN or f.name in weakest]
    for figure in shown:
        table.add_row(
            figure.name,
            *(f"{v:.4f}" for v in (figure.value, figure.expected)),
            *(f"{v:.1f}" for v in (figure.z, figure.worst, figure.usual)),
            "ok" if figure.ok else "WEAK",
        )
    console = Console()
    console.print(f"{report.orders} orders of {report.n:,} rows, batches of {report.batch}")
    if shown:
        console.print(table)
    more = len(report.figures) - len(shown)
    console.print(f"{report.verdict}.{f' {more} more figures: --all.' if more else ''}")
