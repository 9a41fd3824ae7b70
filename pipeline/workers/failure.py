"""How an error gets from a worker to the loop: as itself, with its cause, its traceback a note."""

from __future__ import annotations

import pickle
import traceback
from typing import NamedTuple

import cloudpickle

from pipeline.block import Block
from pipeline.errors import WorkerError
from pipeline.workers.tickets import Outcome

DEEP = 16  # causes of causes that travel at most


class _Link(NamedTuple):
    # a pickled error forgets what it came of
    error: bytes
    explicit: bool  # `raise … from` the next one, rather than while it was handled


def pack(error: BaseException) -> bytes:
    """An error and its causes as bytes; one that cannot travel is told by a WorkerError."""
    text = "".join(traceback.format_exception(error)).rstrip()
    error.add_note(f"in a worker process:\n\n{text}")
    links: list[_Link] = []
    now: BaseException | None = error
    while now is not None and len(links) < DEEP:
        explicit = now.__cause__ is not None
        links.append(_Link(_pickled(now), explicit))
        now = now.__cause__ if explicit or now.__suppress_context__ else now.__context__
    return pickle.dumps(links)


def unpack(data: bytes) -> BaseException:
    """The error that was packed."""
    links: list[_Link] = pickle.loads(data)
    errors: list[BaseException] = [pickle.loads(link.error) for link in links]
    for error, of, link in zip(errors, errors[1:], links, strict=False):
        if link.explicit:
            error.__cause__ = of
        else:
            error.__context__ = of
    return errors[0]


def raised(data: bytes) -> Outcome:
    """The outcome of a work that failed with the error that was packed."""

    def outcome() -> Block:
        raise unpack(data)

    return outcome


def _pickled(error: BaseException) -> bytes:
    for sent in (error, _told(error)):
        for dumps in (pickle.dumps, cloudpickle.dumps):
            try:
                data = dumps(sent)
                # some classes can be written but not read: find out here, where the error is known
                if type(pickle.loads(data)).__name__ == type(sent).__name__:
                    return data
            except Exception:
                continue
    raise AssertionError("a WorkerError holds one string")


def _told(error: BaseException) -> WorkerError:
    kind = type(error)
    told = WorkerError(
        f"{kind.__module__}.{kind.__qualname__} in a worker process: {error!r}. It could not be "
        "sent as itself: give the class a plain __init__, or handle it inside the function."
    )
    for note in getattr(error, "__notes__", ()):
        told.add_note(note)
    return told
