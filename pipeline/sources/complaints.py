"""Errors about unusable files: what is wrong with them, and what the user can do."""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from pipeline.errors import MissingFileError, PipelineError, SourceError, StorageError

LOGGER = logging.getLogger("pipeline")
_SAID: set[object] = set()
_REMEDY = "Rewrite it, or remove it from paths."
_LONGEST = 300  # characters of a parser's own message


@contextmanager
def parsing(
    path: str,
    offset: int | None = None,
    error: type[PipelineError] = SourceError,
    remedy: str = _REMEDY,
) -> Generator[None]:
    """Turn any error of a parser on damaged bytes into one that names the file and the offset.

    PipelineErrors pass through. So do errors of the operating system (an OSError with an errno),
    after which a retry may help. pyarrow's OSErrors about corrupt data have no errno.

    Args:
        path: the file.
        offset: the offset at which the parsed part begins, if known.
        error: the class to raise, for example RecordError for one record.
        remedy: the last sentence of the message.

    >>> with parsing("a.npy", 10):
    ...     bytes(-1)
    Traceback (most recent call last):
    pipeline.errors.SourceError: cannot read a.npy, at byte 10: ValueError: negative count. Rewrite
    it, or remove it from paths.
    """
    try:
        yield
    except PipelineError:
        raise
    except Exception as e:  # parsers raise anything: RecursionError, MemoryError, TokenError, ...
        if isinstance(e, OSError) and e.errno is not None:
            raise
        place = path if offset is None else f"{path}, at byte {offset}"
        name = "" if type(e).__name__ in str(e) else f"{type(e).__name__}: "
        raise error(_cannot_read(place, f"{name}{e}", remedy)) from e


def parsed_json(
    data: bytes | str,
    path: str,
    error: type[PipelineError] = SourceError,
    remedy: str = _REMEDY,
) -> Any:
    """Parse JSON from a file that anybody may have written.

    Raises:
        SourceError: it is not JSON, is nested too deep, or holds an integer of more than 64 bits.
            With `error`, of that class instead.

    >>> parsed_json(b'{"rows": 3}', "scan.json")
    {'rows': 3}
    """
    with parsing(path, error=error, remedy=remedy):
        return json.loads(data, parse_int=_whole, parse_constant=_refused)


def _whole(digits: str) -> int:
    # larger integers would overflow in NumPy or float much later
    if len(digits) > 20 or not -(1 << 63) <= int(digits) < 1 << 63:
        raise ValueError(f"the number {digits[:30]} is out of range")
    return int(digits)


def _refused(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _cannot_read(place: str, reason: object, remedy: str = _REMEDY) -> str:
    return f"cannot read {place}: {_words(reason)}. {remedy}"


def _words(reason: object) -> str:
    text = " ".join(str(reason).split()).rstrip(".") or "no reason given"
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def warn_once(message: str, about: object = None) -> None:
    """Log a warning once for each message, or once for each value of `about`."""
    if (key := message if about is None else about) not in _SAID:
        _SAID.add(key)
        LOGGER.warning(message)


def unreadable(path: str, reason: object) -> SourceError:
    """The error for a file that cannot be opened or is not of the expected format."""
    if isinstance(reason, SourceError):  # its message names the file and a remedy already
        return type(reason)(str(reason))
    barred = isinstance(reason, OSError) and reason.errno in (errno.EACCES, errno.EPERM)
    remedy = "Ask for the right to read it, or remove it from paths." if barred else _REMEDY
    return SourceError(_cannot_read(path, reason, remedy))


def changed(path: str, was: str, now: str) -> SourceError:
    """The error for a file that was replaced since its records were counted."""
    return SourceError(
        f"{path} has changed since its records were counted: it had {was}, now {now}. "
        "Restore the file, or build the source anew."
    )


def missing(path: str) -> MissingFileError:
    """The error for a URL at which no object exists."""
    return MissingFileError(
        f"{path} does not exist: the store knows no such object or bucket (404). "
        "Correct the path, or remove it from paths."
    )


def forbidden(path: str, reason: str) -> StorageError:
    """The error for a request that the store refuses to this user."""
    return StorageError(
        f"{path} may not be read: {reason}. "
        "Log in or ask for the right to read it, or give credentials in Storage(options=...)."
    )


def refused(path: str, reason: str) -> StorageError:
    """The error for a request that would fail again if it was retried."""
    return StorageError(f"{path} cannot be read: {reason}. Correct the path or Storage(options=).")


def without_ranges(path: str, reason: str) -> StorageError:
    """The error for a server that cannot send parts of a file."""
    return StorageError(
        f"{path} cannot be read: {reason}. Fetch the file as a whole, or have it sent by a server "
        "that answers requests for ranges."
    )


def out_of_reach(
    path: str, reason: str, tries: int, seconds: float, deadline: float
) -> StorageError:
    """The error for a request that failed until its deadline."""
    counted = "1 try" if tries == 1 else f"{tries} tries"
    return StorageError(
        f"{path} cannot be reached: {reason}; {counted} in {seconds:.1f} s. "
        f"See the network and the name of the host, or raise Storage(deadline={deadline:g})."
    )
