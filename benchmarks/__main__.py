"""Measures every workload beside its peers and limit, and tells ratios.

python -m benchmarks                     all, five rounds; writes docs/benchmarks.md
python -m benchmarks rows images         some, printed alone
python -m benchmarks rows --out docs     some measured anew; the page's others stay as they are
python -m benchmarks --size 0.1          quickly and roughly
python -m benchmarks --check             fails where a ratio fell by more than a fifth
"""

from __future__ import annotations

import argparse
import json
import pkgutil
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks import report, workloads
from benchmarks.measure import Workload, measured

DOCS = Path(__file__).parent.parent / "docs"


def found(folder: Path, names: list[str], size: float) -> Iterator[Workload]:
    """The workloads of the named files, or of all."""
    files = [module.name for module in pkgutil.iter_modules(workloads.__path__)]
    unknown = sorted(set(names) - set(files))
    if unknown:
        sys.exit(f"no workloads {', '.join(unknown)}: there are {', '.join(files)}")
    for name in names or files:
        module: Any = import_module(f"benchmarks.workloads.{name}")
        yield from module.workloads(folder, size)


def main() -> int:
    """The exit status: 1 where `--check` finds that a ratio fell."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help="files of benchmarks/workloads; all without any")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each competitor, in turn")
    parser.add_argument("--size", type=float, default=1.0, help="of each run, as a share")
    parser.add_argument("--check", action="store_true", help="compare with the committed ratios")
    parser.add_argument("--out", type=Path, default=None, help="folder for page, JSON and figure")
    options = parser.parse_args()
    results: dict[str, Any] = {"environment": report.environment(_command()), "workloads": {}}
    results["environment"]["rounds"] = options.rounds
    if absent := results["environment"]["absent"]:
        print(f"not installed, so left out: {', '.join(absent)}")
    with tempfile.TemporaryDirectory() as folder:
        for workload in found(Path(folder), options.names, options.size):
            entry = report.entry(workload, measured(workload, options.rounds))
            results["workloads"][workload.name] = entry
            print("\n".join(report.table(workload.name, entry)), flush=True)
    if options.check:
        committed = json.loads((DOCS / "benchmarks.json").read_text())
        worse = report.lost(results, committed)
        print("\n".join(worse) or "no ratio fell by more than a fifth")
        return int(bool(worse))
    if options.out or not options.names:
        folder = options.out or DOCS
        report.write(_beside_others(results, folder) if options.names else results, folder)
    return 0


def _beside_others(results: dict[str, Any], folder: Path) -> dict[str, Any]:
    # with the workloads that the folder's page has, if they were measured under the same versions
    file = folder / "benchmarks.json"
    if not file.exists():
        return results
    before, now = json.loads(file.read_text()), results["environment"]
    for key in ("machine", "python", "versions", "rounds"):
        if before["environment"][key] != now[key]:
            sys.exit(f"{file} has other {key}: {before['environment'][key]}. Measure all anew.")
    return {**before, "workloads": {**before["workloads"], **results["workloads"]}}


def _command() -> str:
    # where it was written to is nobody's business
    given = [a for i, a in enumerate(sys.argv) if i and "--out" not in (a, sys.argv[i - 1])]
    return " ".join(["python -m benchmarks", *(a for a in given if not a.startswith("--out="))])


if __name__ == "__main__":
    sys.exit(main())
