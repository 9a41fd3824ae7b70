"""The Ray actor: loads the dataset, evaluates works, and returns their results."""

from __future__ import annotations

import logging
import os
import pickle
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import cloudpickle
import numpy as np
from numpy.typing import NDArray

from pipeline.block import Block
from pipeline.meter import METER, Tally, weight
from pipeline.nodes import Part
from pipeline.workers import executor, failure, sending
from pipeline.workers.logs import Logs
from pipeline.workers.work import Work, produce

Bytes = NDArray[np.uint8]


class Pickle(NamedTuple):
    """A pickle and its buffers, which Ray's object store shares without a copy."""

    data: bytes
    buffers: list[Bytes]

    @staticmethod
    def of(data: bytes, buffers: list[memoryview]) -> Pickle:
        return Pickle(data, [np.frombuffer(buffer, np.uint8) for buffer in buffers])

    def loads(self) -> Any:
        """The object; its arrays are read-only."""
        return pickle.loads(self.data, buffers=self.buffers)


class Result(NamedTuple):
    """The result of a work: a block, or a packed error.

    Attributes:
        block: None if there is an error.
        error: the error as packed by `failure.pack`, or b"".
        size: bytes of the block.
        seconds: that evaluation took.
        stages: sums by stage.
        logs: what was logged meanwhile.
    """

    block: Pickle | None
    error: bytes
    size: int
    seconds: float
    stages: dict[str, Tally]
    logs: list[logging.LogRecord]


class Evaluator:
    """The actor's class. Ray calls its methods one at a time, in the main thread."""

    def __init__(self) -> None:
        executor.be_worker("a Ray actor")
        self._chain: Part | None = None
        self._stack = False
        self._logs = Logs()

    def load(self, dataset: Pickle, path: list[str], folder: str) -> bytes:
        """Load the dataset. Returns the packed error if that fails, else b"".

        Args:
            dataset: as `sending.dumps` gave it.
            path: where the parent finds modules. Those folders are searched last here.
            folder: the parent's working directory; it becomes this one's, if it is there.
        """
        with suppress(OSError):
            os.chdir(folder)
        try:
            sys.path += [folder for folder in path if folder not in sys.path]
            self._chain, self._stack = sending.loads(*dataset)
        except BaseException as error:
            return failure.pack(error)
        return b""

    def evaluate(self, work: Work) -> Result:
        """Evaluate a work."""
        assert self._chain is not None
        started = time.perf_counter()
        block, error, size = None, b"", 0
        try:
            result = produce(self._chain, work, self._stack)
            block, size = _pickled(result), weight(result)
        except BaseException as e:
            error = failure.pack(e)
        seconds = time.perf_counter() - started
        return Result(block, error, size, seconds, METER.take(), self._logs.take())


def _pickled(block: Block) -> Pickle:
    try:
        return _dumps(pickle.dumps, block)
    except Exception:
        # for rows whose class is only defined in `__main__`
        return _dumps(cloudpickle.dumps, block)


def _dumps(dumps: Callable[..., bytes], block: Block) -> Pickle:
    buffers: list[pickle.PickleBuffer] = []
    data = dumps(block, 5, buffer_callback=buffers.append)
    return Pickle.of(data, [buffer.raw() for buffer in buffers])
