"""The sources of a path or dataset, without the files that do not open."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from pipeline.dataset import Dataset
from pipeline.errors import SourceError, StorageError
from pipeline.sources import Storage, found
from pipeline.sources.storage.files import Files, ListedPath
from pipeline.types import Component, Source

_AT_ONCE = 32  # files that are opened one by one at the same time


class Broken(NamedTuple):
    """A file that does not open, and why."""

    file: str
    error: str


class Sources(NamedTuple):
    """The sources of a path or dataset.

    Attributes:
        components: the sources, with their paths in a mix.
        broken: files of a path or glob that cannot be opened; the sources leave them out.
        reopen: makes a source of some of a path's files; None if it is no path.
    """

    components: tuple[Component, ...]
    broken: tuple[Broken, ...] = ()
    reopen: Callable[[Sequence[ListedPath]], Source] | None = None


def opened(data: Any, storage: Storage | None = None) -> Sources:
    """The sources of a path or glob, of a dataset, or of anything else that `Dataset` takes.

    Raises:
        SourceError: a file does not exist, its suffix is unknown, or files do not fit together.
        StorageError: a file cannot be read.
    """
    if not isinstance(data, str | os.PathLike):
        return Sources((data if isinstance(data, Dataset) else Dataset(data)).components)
    files, reopen = found(data, storage=storage)
    source, broken = _whole(files, reopen)
    return Sources(() if source is None else (Component((), source),), broken, reopen)


def _whole(
    files: Sequence[ListedPath], reopen: Callable[[Sequence[ListedPath]], Source]
) -> tuple[Source | None, tuple[Broken, ...]]:
    try:
        return reopen(files), ()
    except StorageError:
        raise
    except Exception as e:  # a parser may raise anything: the file is to blame
        if len(files) == 1:
            return None, (Broken(files[0], _told(files[0], e)),)
    # to find out which file is to blame, open each alone, then the good ones together
    with ThreadPoolExecutor(min(_AT_ONCE, len(files)), "lockstep-open") as pool:
        errors = list(pool.map(lambda file: _error(file, reopen), files))
    broken = tuple(Broken(f, e) for f, e in zip(files, errors, strict=True) if e)
    good = [f for f, e in zip(files, errors, strict=True) if not e]
    return reopen(good) if good else None, broken


def _error(file: ListedPath, reopen: Callable[[Sequence[ListedPath]], Source]) -> str:
    try:
        close(reopen([file]))
    except StorageError:
        raise
    except Exception as e:
        return _told(file, e)
    return ""


def _told(file: str, error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, SourceError) and file in text:
        return text
    return f"cannot open {file}: {type(error).__name__}: {text[:500]}. Replace it."


def close(source: Source) -> None:
    """Close a source, if it can be closed."""
    closing = getattr(source, "close", None)
    if closing is not None:
        closing()


def files_of(source: Source) -> Files | None:
    """The files of a source; None if it has none, or does not say."""
    files = getattr(source, "files", None)
    return files if isinstance(files, Files) else None


def format_of(source: Source) -> str:
    """The name of a source's format, from its class.

    >>> from pipeline import MemorySource
    >>> format_of(MemorySource([1]))
    'Memory'
    """
    return type(source).__name__.removesuffix("Source")
