"""What each step of a run did, in any loop: `Journal` writes it, `Run` reads it.

Begin with `journal.py`. A run's folder then holds

    ledger.jsonl      a line a step (`ledger.py`), with an index beside it; which line follows
                      which, after a run went back, say `lineage.py` and `before.py`
    launches.jsonl    a line each time training started (`launches.py`): dataset, batches, hosts
    states.jsonl      the loader's state every so many steps

and, of several processes, as many files of theirs: `ledger-00001.jsonl` …
"""

from pipeline.debug.journal.journal import Journal, JournalWarning
from pipeline.debug.journal.line import Line
from pipeline.debug.journal.reading import Run

__all__ = ["Journal", "JournalWarning", "Line", "Run"]
