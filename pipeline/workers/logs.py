"""How the parent says what the pipeline logs in workers, once however many workers met it."""

from __future__ import annotations

import logging
from collections.abc import Iterable


class Logs(logging.Handler):
    """Keeps what the pipeline logs in a worker, for the parent to say."""

    def __init__(self) -> None:
        super().__init__()
        self._records: list[logging.LogRecord] = []
        logger = logging.getLogger("pipeline")
        logger.addHandler(self)
        logger.setLevel(logging.INFO)
        logger.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        record.msg, record.args, record.exc_info = record.getMessage(), (), None
        self._records.append(record)

    def take(self) -> list[logging.LogRecord]:
        """The records since they were last taken."""
        records, self._records = self._records, []
        return records


class Relay:
    """Says in the parent what workers logged; several may have met the same row."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def say(self, records: Iterable[logging.LogRecord]) -> None:
        """Hand the records that are new to their loggers here."""
        for record in records:
            logger = logging.getLogger(record.name)
            if logger.isEnabledFor(record.levelno) and record.msg not in self._said:
                self._said.add(record.msg)
                logger.handle(record)
