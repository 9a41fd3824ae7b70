"""How a dataset reaches worker processes: written once into memory that all of them map."""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Callable

import cloudpickle

from pipeline.errors import ChainError
from pipeline.nodes import Part


def write(chain: Part, stack: bool) -> tuple[int, list[int]]:
    """A descriptor of memory that holds the pickle and its buffers, and the bytes of each.

    Raises:
        ChainError: something cannot be sent; it names the stage.
    """
    data, buffers = dumps(chain, stack)
    parts = [memoryview(data), *buffers]
    fd = _memory()
    for part in parts:
        _write(fd, part)
    return fd, [part.nbytes for part in parts]


def dumps(chain: Part, stack: bool) -> tuple[bytes, list[memoryview]]:
    """The pickle of both, and the buffers beside it.

    Raises:
        ChainError: something cannot be sent; it names the stage.
    """
    buffers: list[pickle.PickleBuffer] = []
    try:
        data = cloudpickle.dumps((chain, stack), 5, buffer_callback=buffers.append)
    except Exception as error:
        raise ChainError(
            f"{_culprit(chain)} cannot be sent to worker processes: {error}. Open it inside the "
            "function, or use Threads(n)."
        ) from error
    return data, [buffer.raw() for buffer in buffers]


def _write(fd: int, part: memoryview) -> None:
    rest = memoryview(bytes(part) + bytes(-part.nbytes % 64)) if part.nbytes < 4096 else part
    while rest:
        rest = rest[os.write(fd, rest) :]
    os.lseek(fd, -(-os.lseek(fd, 0, os.SEEK_CUR) // 64) * 64, os.SEEK_SET)
    os.ftruncate(fd, os.lseek(fd, 0, os.SEEK_CUR))


def _memory() -> int:
    try:
        return os.memfd_create("lockstep-dataset")
    except (OSError, AttributeError):
        with tempfile.TemporaryFile() as file:  # it has no name, so nothing can be left over
            return os.dup(file.fileno())


def _culprit(chain: Part) -> str:
    for i, stage in enumerate(chain.stages):
        if not _sends(lambda stage=stage: cloudpickle.dumps(stage)):
            return f"stage {i}: {stage.kind} {stage.name!r}"
    if not all(_sends(lambda c=c: cloudpickle.dumps(c.source)) for c in chain.components):
        return "the source"
    return "the dataset"


def _sends(dumps: Callable[[], object]) -> bool:
    try:
        dumps()
    except Exception:
        return False
    return True
