"""How an error gets from a worker to the loop: as itself, with its traceback as a note."""

from __future__ import annotations

import pickle
import traceback

import cloudpickle

from pipeline.errors import WorkerError


def pack(error: BaseException) -> bytes:
    """An error as bytes; one that cannot travel is told by a WorkerError."""
    text = "".join(traceback.format_exception(error)).rstrip()
    note = f"in a worker process:\n\n{text}"
    for sent in (error, _told(error)):
        sent.add_note(note)
        for dumps in (pickle.dumps, cloudpickle.dumps):
            try:
                data = dumps(sent)
                # some classes can be written but not read: find out here, where the error is known
                if type(pickle.loads(data)).__name__ == type(sent).__name__:
                    return data
            except Exception:
                continue
    raise AssertionError("a WorkerError holds one string")


def unpack(data: bytes) -> BaseException:
    """The error that was packed."""
    return pickle.loads(data)


def _told(error: BaseException) -> WorkerError:
    kind = type(error)
    told = WorkerError(
        f"{kind.__module__}.{kind.__qualname__} in a worker process: {error!r}. It could not be "
        "sent as itself: give the class a plain __init__, or handle it inside the function."
    )
    for note in getattr(error, "__notes__", ()):
        told.add_note(note)
    return told
