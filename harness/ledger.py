"""The ledger of the run's journal, read with the harness's own error classes."""

from __future__ import annotations

from pathlib import Path

from harness.errors import DamageError
from pipeline.debug.journal import ledger
from pipeline.debug.journal.ledger import Ledger
from pipeline.debug.journal.line import Line as Entry
from pipeline.debug.journal.line import finite, float_bits
from pipeline.errors import JournalError

__all__ = ["Entry", "Ledger", "finite", "float_bits", "read"]


def read(path: Path) -> list[Entry]:
    """All entries in the order written. A last line torn by a kill is ignored.

    Raises:
        DamageError: a line is not JSON, or not an entry.
    """
    try:
        return ledger.read(path)
    except JournalError as e:
        raise DamageError(str(e)) from e
