"""Sending an error from a worker to the loop, with its causes; its traceback becomes a note.

Python unpickles an exception by calling its class with `args`, which fails if the constructor takes
something else. So an error is sent in parts, and put together without its constructor.
"""

from __future__ import annotations

import pickle
import traceback
import types
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple, cast

import cloudpickle

from pipeline.block import Block
from pipeline.errors import WorkerError, shorten
from pipeline.workers.queue import Outcome

DEEP = 16  # causes of causes that are sent at most


class Parts(NamedTuple):
    """One error, in parts.

    Attributes:
        kind: its class, pickled; or the whole error, if its class defines how it is pickled.
        args: its arguments, as values that can be sent; None if `kind` is the whole error.
        state: its attributes, including those in slots and those of built-in classes.
        cause: the error that it came from, and whether it was raised `from` that one.
    """

    kind: bytes
    args: tuple[Any, ...] | None
    state: dict[str, Any]
    cause: tuple[Parts, bool] | None


class _Text(str):
    """Stands for a value that cannot be sent; its repr is the value's."""

    def __repr__(self) -> str:
        return str(self)


def pack(error: BaseException) -> bytes:
    """An error and its causes as bytes. One that cannot be sent becomes a WorkerError."""
    shorten(error)
    text = "".join(traceback.format_exception(error)).rstrip()
    error.add_note(f"in a worker process:\n\n{text}")
    return pickle.dumps(_parts(error, DEEP), 5)


def unpack(data: bytes) -> BaseException:
    """The error that `pack` packed."""
    return _whole(pickle.loads(data))


def raised(data: bytes) -> Outcome:
    """The outcome of a work that failed with a packed error."""

    def outcome() -> Block:
        raise unpack(data)

    return outcome


# ---- taking apart


def _parts(error: BaseException, deep: int) -> Parts:
    cause = None
    explicit = error.__cause__ is not None
    came_of = error.__cause__ if explicit or error.__suppress_context__ else error.__context__
    if came_of is not None and deep:
        cause = _parts(came_of, deep - 1), explicit
    for attempt in (_as_itself, _by_parts):
        with suppress(Exception):
            parts = attempt(error, deep)
            # some can be pickled but not unpickled: find out here, while the error is at hand
            if type(_whole(parts)).__name__ == type(error).__name__:
                return parts._replace(cause=cause)
    return _by_parts(_told(error), deep)._replace(cause=cause)


def _as_itself(error: BaseException, deep: int) -> Parts:
    # for a user's class that defines how it is pickled
    for parent in type(error).__mro__:
        if _in_python(parent) and {"__reduce__", "__reduce_ex__"} & vars(parent).keys():
            return Parts(_pickled(error), None, {"__notes__": _notes(error)}, None)
    raise TypeError


def _by_parts(error: BaseException, deep: int) -> Parts:
    args = tuple(_travels(value, deep) for value in error.args)
    state = {name: _travels(value, deep) for name, value in _attributes(error)}
    return Parts(_pickled(type(error)), args, state, None)


def _attributes(error: BaseException) -> Iterator[tuple[str, Any]]:
    # from __dict__, from slots, and those that built-in classes keep outside of __dict__
    for parent in type(error).__mro__:
        if parent is BaseException or parent is object:
            continue
        for name, member in vars(parent).items():
            if isinstance(member, types.MemberDescriptorType | types.GetSetDescriptorType):
                with suppress(Exception):
                    value = getattr(error, name)
                    if value is not None and name not in ("__dict__", "__weakref__"):
                        yield name, value
    yield from error.__dict__.items()


def _travels(value: Any, deep: int) -> Any:
    # a value that can be sent, or a stand-in for it
    if isinstance(value, BaseException):
        return _parts(value, deep - 1) if deep else _text(value)
    if type(value) in (list, tuple) and any(isinstance(v, BaseException) for v in value):
        return type(value)(_travels(v, deep) for v in value)
    if type(value) in (str, int, float, bool, bytes, type(None)):
        return value
    try:
        data = _pickled(value)
        pickle.loads(data)
    except Exception:
        return _text(value)
    return _Bytes(data)


class _Bytes(NamedTuple):
    data: bytes


def _pickled(value: Any) -> bytes:
    try:
        data = pickle.dumps(value, 5)
        pickle.loads(data)
        return data
    except Exception:
        return cloudpickle.dumps(value, 5)


def _text(value: Any) -> _Text:
    for says in cast("tuple[Callable[[Any], str], ...]", (repr, object.__repr__)):
        with suppress(Exception):
            return _Text(says(value))
    return _Text("?")


def _notes(error: BaseException) -> list[str]:
    return list(getattr(error, "__notes__", ()))


def _told(error: BaseException) -> WorkerError:
    kind = type(error)
    told = WorkerError(
        f"{kind.__module__}.{kind.__qualname__} in a worker process: {_text(error)}. It could not "
        "be sent as itself: handle it inside the function, or raise another."
    )
    for note in _notes(error):
        told.add_note(note)
    return told


def _in_python(kind: type) -> bool:
    return bool(kind.__flags__ & (1 << 9))  # a heap type, made by a class statement


# ---- putting together, with just the constructor of the built-in class beneath


def _whole(parts: Parts) -> BaseException:
    made: Any = pickle.loads(parts.kind)
    error: BaseException
    if parts.args is None:
        error = made
    else:
        args = tuple(map(_arrived, parts.args))
        native: Any = next(kind for kind in made.__mro__ if not _in_python(kind))
        error = native.__new__(made, *args)
        error.args = args
    for name, value in parts.state.items():
        with suppress(Exception):  # read-only attributes were set by __new__
            setattr(error, name, _arrived(value))
    if parts.cause is not None:
        of, explicit = _whole(parts.cause[0]), parts.cause[1]
        if explicit:
            error.__cause__ = of
        else:
            error.__context__ = of
    return error


def _arrived(value: Any) -> Any:
    if isinstance(value, _Bytes):
        return pickle.loads(value.data)
    if isinstance(value, Parts):
        return _whole(value)
    if type(value) in (list, tuple):
        return type(value)(map(_arrived, value))
    return value
