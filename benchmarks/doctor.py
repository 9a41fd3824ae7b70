"""The doctor on other projects' loaders, and on ours: a table of twelve laws, and each ✘ in words.

    python benchmarks/doctor.py [--only NAME,NAME] [--write docs/doctor.md]

Each peer's packages, at the versions named, go into a folder of their own (`.peers`, or where
LOCKSTEP_PEERS says). What does not install is said. Seconds are those of the doctor, from its
start to its end.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from doctor_peers.environments import PACKAGES, variables

FOLDER = Path(__file__).parent / "doctor_peers"
START, END = "<!-- doctor: begin -->", "<!-- doctor: end -->"
SIGNS = {"held": "✔", "broken": "✘", "unclaimed": "–"}


class Case(NamedTuple):
    """A loader to examine; `issue` is a public report, and `law` the one that it is about."""

    peer: str
    factory: str
    options: tuple[str, ...] = ()
    issue: str = ""
    law: str = ""


SHUFFLED = ("--shuffled", "--key", "id")
HOSTS = ("--hosts", "1,2")
KEY = ("--key", "id")
CASES = (
    Case("lockstep", "lockstep", SHUFFLED),
    Case("lockstep", "lockstep_packed_mix"),
    Case("datasets", "datasets_stream", KEY, "huggingface/datasets 8308", "second resume"),
    Case("datasets", "datasets_shuffled", SHUFFLED, "huggingface/datasets 7901", "resume"),
    Case("datasets", "datasets_filtered", KEY, "huggingface/datasets 8360", "resume"),
    Case("datasets", "datasets_formatted", KEY, "huggingface/datasets 7538", "resume"),
    Case("datasets", "datasets_mapped", KEY, "huggingface/datasets 8145", "resume"),
    Case("torchdata", "torch_dataloader", SHUFFLED),
    Case("torchdata", "torch_distributed", SHUFFLED),
    Case(
        *("torchdata", "torchdata_stateful", SHUFFLED),
        *("meta-pytorch/data 1437", "resume at the epoch's edge"),
    ),
    Case(
        *("accelerate", "accelerate_stateful", (*KEY, *HOSTS)),
        *("huggingface/accelerate 3938", "host count does not matter"),
    ),
    Case(
        *("accelerate", "accelerate_skipping", (*SHUFFLED, *HOSTS)),
        *("huggingface/accelerate 4071", "resume"),
    ),
    Case(
        *("grain", "grain_loader", KEY),
        *("google/grain, another worker count", "worker count does not matter"),
    ),
    Case(
        *("grain", "grain_dataset", KEY, "google/grain, a worker killed"),
        "worker killed: error or recovery, never silence",
    ),
    Case(
        *("mosaicml-streaming", "mosaic", SHUFFLED),
        *("mosaicml/streaming 869", "resume at the epoch's edge"),
    ),
    Case("litdata", "litdata", SHUFFLED, "Lightning-AI/litData 316", "resume"),
    Case("lightning", "lightning", KEY, "Lightning-AI/pytorch-lightning 21938", "resume"),
    Case(
        *("lightning", "lightning_estimated", KEY),
        *("Lightning-AI/pytorch-lightning 20550", "resume"),
    ),
    Case(
        *("torchtitan", "torchtitan", KEY),
        *("pytorch/torchtitan, another degree", "host count does not matter"),
    ),
)


class Outcome(NamedTuple):
    """What the doctor said of a case in so many seconds: its rows, or why it has none."""

    case: Case
    rows: list[dict[str, Any]]
    lines: list[str]
    seconds: float


def examined(case: Case) -> Outcome:
    """Run the doctor in the peer's environment."""
    try:
        env = variables(case.peer, FOLDER)
    except RuntimeError as error:
        return Outcome(case, [], [str(error)], 0.0)
    started = time.perf_counter()
    command = [sys.executable, "-m", "pipeline", "doctor", f"factories:{case.factory}"]
    said = subprocess.run(
        [*command, *case.options], env=env, capture_output=True, text=True, check=False
    )
    lines = said.stdout.splitlines() or said.stderr.splitlines()[-1:]
    rows = [_row(line) for line in said.stdout.splitlines()]
    return Outcome(case, rows, lines, time.perf_counter() - started)


def _row(line: str) -> dict[str, Any]:
    sign, _, rest = line.partition(" ")
    verdict = next(v for v, s in SIGNS.items() if s == sign)
    law = next(law for law in _laws() if rest.startswith(law))
    return {"law": law, "verdict": verdict, "line": line}


def _laws() -> list[str]:
    from pipeline.debug.doctor import LAWS

    return sorted(LAWS, key=len, reverse=True)  # "resume" begins another's name


def table(outcomes: list[Outcome]) -> list[str]:
    """Laws across, cases down."""
    from pipeline.debug.doctor import LAWS

    lines = [f"{i}. {law}" for i, law in enumerate(LAWS, 1)]
    numbers = " | ".join(map(str, range(1, len(LAWS) + 1)))
    lines += ["", f"| loader | {numbers} | s |", "|---" * (len(LAWS) + 2) + "|"]
    for outcome in outcomes:
        signs = {row["law"]: SIGNS[row["verdict"]] for row in outcome.rows}
        cells = " | ".join(signs.get(law, "") for law in LAWS)
        lines.append(f"| {_title(outcome.case)} | {cells} | {outcome.seconds:.0f} |")
    return lines


def broken(outcomes: list[Outcome]) -> list[str]:
    """Each ✘ as the doctor said it."""
    lines: list[str] = []
    for outcome in outcomes:
        said = [row["line"] for row in outcome.rows if row["verdict"] == "broken"]
        said = said if outcome.rows else outcome.lines
        if said:
            lines += ["", f"{_title(outcome.case)}:", "", "```text", *said, "```"]
    return lines


def reports(outcomes: list[Outcome]) -> list[str]:
    """Public reports, and whether the doctor shows them at these versions."""
    lines = ["", "| report | law | shown |", "|---|---|---|"]
    for outcome in outcomes:
        case = outcome.case
        if case.issue:
            shown = any(r["law"] == case.law and r["verdict"] == "broken" for r in outcome.rows)
            lines.append(f"| {case.issue} ({_title(case)}) | {case.law} | {_yes(shown)} |")
    return lines


def _yes(shown: bool) -> str:
    return "yes" if shown else "no: see its row above"


def _title(case: Case) -> str:
    first = PACKAGES[case.peer][0].replace("==", " ") if PACKAGES[case.peer] else "lockstep"
    first = f"torch {metadata.version('torch')}" if case.factory.startswith("torch_") else first
    return f"`{case.factory}`, {first}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="beginnings of factories' names")
    parser.add_argument("--write", type=Path, help="a page whose table is replaced")
    parser.add_argument("--keep", type=Path, help="a file of results: what is in it is not run")
    args = parser.parse_args()
    outcomes, only = list[Outcome](), tuple(args.only.split(","))
    kept = json.loads(args.keep.read_text()) if args.keep and args.keep.exists() else {}
    for case in CASES:
        if not case.factory.startswith(only):
            continue
        if case.factory not in kept:
            outcome = examined(case)
            kept[case.factory] = [outcome.rows, outcome.lines, outcome.seconds]
            print(f"{_title(case)} ({outcome.seconds:.0f} s)", *outcome.lines, "", sep="\n")
            sys.stdout.flush()
            if args.keep:
                args.keep.write_text(json.dumps(kept))
        outcomes.append(Outcome(case, *kept[case.factory]))
    body = [*table(outcomes), *reports(outcomes), *broken(outcomes)]
    print("\n".join(body))
    if args.write:
        page = args.write.read_text()
        before, _, rest = page.partition(START)
        _, _, after = rest.partition(END)
        args.write.write_text("\n".join([f"{before}{START}", "", *body, "", f"{END}{after}"]))


if __name__ == "__main__":
    main()
