"""From a loss spike to the documents that made it, and to a run without them, by commands alone.

Three documents of a copy of the corpus are poisoned: a rare byte throughout, a rare n-gram over and
over, bytes in disorder. `make spike` runs this; each command is printed as it is run.

    python examples/spike/walk.py [FOLDER]
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from harness.config import make, parse
from harness.data import prepare
from harness.metrics import Screen
from harness.poison import KINDS, document_at, plant

SETTINGS = Path(__file__).with_name("spike.toml")
STEPS, AT = 130, (60, 85, 110)  # steps that the bad documents are drawn in


def planted(folder: Path) -> set[str]:
    """Poison a copy of the corpus in `folder`; the names of the bad documents."""
    corpus, cfg = prepare(folder / "corpus", Screen()), make(parse((), [SETTINGS]))
    bad = [document_at(corpus, cfg, step) for step in AT]
    if not (folder / "poisoned").exists():
        kinds = {each.record: kind for each, kind in zip(bad, KINDS, strict=True)}
        plant(corpus, folder / "poisoned", kinds)
    return {each.name for each in bad}


def command(*words: str) -> str:
    """Run `python -m …` and show it; what it printed."""
    print("$ python -m", *words, flush=True)
    done = subprocess.run([sys.executable, "-m", *words], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(words)} ended with status {done.returncode}\n{done.stdout}")
    print(done.stdout, flush=True)
    return done.stdout


def asked(*words: str) -> Any:
    """The same with --json."""
    return json.loads(command(*words, "--json"))


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    bad, run, fork = planted(folder), str(folder / "spiked"), str(folder / "mended")
    settings = ("--config", str(SETTINGS), "--set", "data=../poisoned")
    command("harness", "train", "--run", run, "--steps", str(STEPS), *settings)

    spikes = asked("harness", "spikes", "--run", run, "--threshold", "8")
    steps = sorted({spike["peak"] for spike in spikes})
    command("harness", "inspect", "--run", run, "--step", str(steps[0]), "--top", "2")
    named: set[str] = set()
    for step in steps:
        verdict = asked("harness", "blame", "--run", run, "--step", str(step))
        named |= {document["name"] for document in verdict["documents"]}
    (folder / "removed.txt").write_text("".join(f"{name}\n" for name in sorted(named)))

    without = ("--without", str(folder / "removed.txt"))
    command("harness", "fork", "--run", run, *without, "--fork", fork)
    left = asked("harness", "spikes", "--run", fork, "--threshold", "8")
    command("pipeline", "report", run, fork, "-o", str(folder / "report.html"))
    print(f"planted: {sorted(bad)}\nblamed:  {sorted(named)}\nspikes of the fork: {len(left)}")
    if named != bad or left:
        sys.exit("not the documents that were planted, or spikes are left")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/spike"))
