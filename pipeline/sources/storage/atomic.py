"""How a file is written so that it is there wholly or not at all."""

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
    """A file to write, which takes its name once it is whole, whoever else writes it or is killed.

    Args:
        path: replaced if it is there.
        drafts: a folder of the same file system for what is not whole yet; by default that of path.
            There a killed writer leaves `NAME.*.part`.
        durable: whether its bytes outlive a power failure once its name is there.

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
    # opened by name, not by mkstemp, whose files nobody else may read
    draft = os.path.join(drafts or folder, f"{name}.{uuid.uuid4().hex}.part")
    try:
        with open(draft, "xb") as f:
            yield f
            if durable:
                f.flush()
                os.fsync(f.fileno())
        os.replace(draft, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(draft)
        raise
