"""Passing log records from workers to the parent, which logs each message once."""

from __future__ import annotations

import logging
from collections.abc import Iterable


class Logs(logging.Handler):
    """Keeps the log records of a worker, to be sent to the parent."""

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
        """The records since the last call."""
        records, self._records = self._records, []
        return records


class Relay:
    """Logs in the parent what workers logged. Several workers may have logged the same message."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def say(self, records: Iterable[logging.LogRecord]) -> None:
        """Hand records with new messages to their loggers in this process."""
        for record in records:
            logger = logging.getLogger(record.name)
            if logger.isEnabledFor(record.levelno) and record.msg not in self._said:
                self._said.add(record.msg)
                logger.handle(record)
