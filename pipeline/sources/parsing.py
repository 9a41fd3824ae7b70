"""What a parser raises on damaged bytes, as an error that names the file and the place."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from pipeline.errors import PipelineError
from pipeline.sources.complaints import unreadable


@contextmanager
def parsing(path: str, place: str = "") -> Generator[None]:
    """Turn every exception of a parser into a SourceError; errors of storage pass through.

    Args:
        path: the file that is parsed.
        place: which part of it, such as "its header, bytes 0 to 128".

    >>> with parsing("a.npy", "its header, bytes 0 to 128"):
    ...     raise IndexError("tuple index out of range")
    Traceback (most recent call last):
    pipeline.errors.SourceError: cannot read a.npy: its header, bytes 0 to 128: IndexError: tuple
    index out of range. Rewrite it, or remove it from paths.
    """
    try:
        yield
    except (PipelineError, OSError):
        raise
    except Exception as e:
        said = f"{type(e).__name__}: {' '.join(str(e).split())[:300]}"
        raise unreadable(path, f"{place}: {said}" if place else said) from e
