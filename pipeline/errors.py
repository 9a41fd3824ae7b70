"""Every error class, one for each remedy; messages show the values, then what to do."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from types import TracebackType
from typing import ParamSpec, TypeVar

OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep
TRACEBACK = "LOCKSTEP_TRACEBACK"  # in the environment: "full" keeps our frames
_LONGEST = 4000  # characters of a message; the remedy at its end stays
_P = ParamSpec("_P")
_T = TypeVar("_T")


class PipelineError(Exception):
    """The parent of every error that Lockstep raises on purpose.

    Its message is bounded, as it may name thousands of columns or quote another error.

    >>> len(str(PipelineError("x" * 1_000_000)))
    4000
    """

    def __str__(self) -> str:
        text = super().__str__()
        return text if len(text) <= _LONGEST else f"{text[:3000]} … {text[3003 - _LONGEST :]}"


class ChainError(PipelineError, ValueError):
    """A dataset was chained in a way that cannot work: change the chain."""


class OptionError(PipelineError, TypeError):
    """There is no option of that name here: use the one that the message names."""


class UnknownNameError(OptionError, AttributeError):
    """A Dataset has no method of that name: use the one that the message names."""


class PositionError(PipelineError, IndexError):
    """A record, row or step lies outside its range: ask for one inside."""


class LengthError(PipelineError, TypeError):
    """The dataset is endless, or its rows are counted as they come: give steps=, or scan it."""


class SourceError(PipelineError):
    """A source cannot be opened or its files disagree: repair or replace the file it names."""


class StorageError(SourceError, OSError):
    """A file cannot be reached, even after retries: see the network, permissions or options."""


class MissingFileError(StorageError, FileNotFoundError):
    """There is no such file, or no such bucket: correct the path."""


class RecordError(SourceError):
    """One record cannot be read or decoded: skip, repair or rewrite it.

    Attributes:
        alike: the records of the source that fail for the same reason, if known.
    """

    alike: range | None = None


class ScanError(PipelineError, ValueError):
    """A scan is missing, damaged, or of another dataset or function: scan again."""


class CollateError(PipelineError, ValueError):
    """Rows do not stack into one batch: make their fields equal, pack them, or pass collate=."""


class BatchError(PipelineError, ValueError):
    """A batch size or remainder rule does not fit the hosts, lanes or devices: choose another."""


class HostsError(PipelineError, ValueError):
    """The loader's place among the processes is unclear: give feed= or host=, hosts=."""


class LanesError(PipelineError, ValueError):
    """A counted dataset cannot be split over that many hosts: choose lanes or hosts."""


class StateError(PipelineError, ValueError):
    """A saved state is damaged or incomplete: use another, or merge the hosts' parts."""


class MismatchError(StateError):
    """A state belongs to another dataset: restore that dataset, or allow the difference."""


class JournalError(PipelineError, ValueError):
    """A run's journal is missing, damaged, or incomplete: see what the message names."""


class StreamEndError(PipelineError):
    """A counted stream ended before the promised steps: lower steps= or repeat the dataset."""


class WorkerError(PipelineError, RuntimeError):
    """Workers die or hang over some records, or cannot start: see what the message names."""


class FeedError(PipelineError, TypeError):
    """A batch cannot be placed on devices: drop or convert the field it names."""


class MissingExtraError(PipelineError, ImportError):
    """An optional package is not installed: install the extra that the message names."""


def need(extra: str, package: str) -> MissingExtraError:
    """The error for an optional package that is missing.

    >>> print(need("harness", "jax"))
    this needs jax, which is not installed: pip install 'lockstep-data[harness]'
    """
    return MissingExtraError(
        f"this needs {package}, which is not installed: pip install 'lockstep-data[{extra}]'"
    )


def short_traceback(f: Callable[_P, _T]) -> Callable[_P, _T]:
    """Decorate a public function that calls the user's functions, to `shorten` their errors."""

    @wraps(f)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        # not by `with`: an interrupt in its exit would lose what f returned
        try:
            return f(*args, **kwargs)
        except BaseException as error:
            shorten(error)
            raise

    return call


def shorten(error: BaseException) -> None:
    """Take Lockstep's frames out of the traceback of a user function's error, and of its causes.

    What remains is the caller's line, the user's function with all that it calls, and the notes on
    stage and record. Lockstep's own errors keep their frames, and so does every error where the
    environment says LOCKSTEP_TRACEBACK=full.
    """
    if os.environ.get(TRACEBACK) == "full":
        return
    seen: set[int] = set()
    now: BaseException | None = error
    while now is not None and id(now) not in seen:
        seen.add(id(now))
        if not isinstance(now, PipelineError) and _of_user(now):
            now.__traceback__ = _without_ours(now.__traceback__)
        now = now.__cause__ or now.__context__


def _of_user(error: BaseException) -> bool:
    # a stage has said where it was raised, or the innermost frame is not ours
    if any(note.startswith("in ") for note in getattr(error, "__notes__", ())):
        return True
    frames = _frames(error.__traceback__)
    return bool(frames) and not _is_ours(frames[-1])


def _without_ours(traceback: TracebackType | None) -> TracebackType | None:
    kept: TracebackType | None = None
    for entry in reversed(_frames(traceback)):
        if not _is_ours(entry):
            kept = TracebackType(kept, entry.tb_frame, entry.tb_lasti, entry.tb_lineno or 0)
    return kept


def _frames(traceback: TracebackType | None) -> list[TracebackType]:
    found: list[TracebackType] = []
    while traceback is not None:
        found.append(traceback)
        traceback = traceback.tb_next
    return found


def _is_ours(entry: TracebackType) -> bool:
    return entry.tb_frame.f_code.co_filename.startswith(OURS)
