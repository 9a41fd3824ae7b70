"""Writing a file atomically: readers see the whole file or none."""

from __future__ import annotations

import os
import uuid
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import IO


@contextmanager
def written_whole(
    path: str | os.PathLike[str], *, drafts: str = "", durable: bool = False
) -> Generator[IO[bytes]]:
    """Open a file for writing that gets its name only once it is whole.

    So no reader sees half a file, even if the writer is killed or several write at once.

    Args:
        path: an existing file is replaced.
        drafts: a folder on the same file system, for the unfinished file; by default that of
            `path`. A killed writer leaves `NAME.*.part` there.
        durable: fsync before the rename. If the name survives a power failure, so do the contents.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "a"
    >>> with written_whole(path) as f:
    ...     _ = f.write(b"to be")
    ...     path.exists()
    False
    >>> path.read_bytes()
    b'to be'
    """
    folder, name = os.path.split(path)
    # opened by name, since other users may not read what mkstemp creates
    draft = os.path.join(drafts or folder, f"{name}.{uuid.uuid4().hex}.part")
    try:
        with open(draft, "xb") as f:
            yield f
            if durable:
                f.flush()
                os.fsync(f.fileno())
        os.replace(draft, path)
    except BaseException as e:
        if isinstance(e, OSError) and e.filename is None:  # as where the disk is full
            e.filename = os.fspath(path)
        with suppress(FileNotFoundError):
            os.unlink(draft)
        raise
