"""Where converted files go: a folder or a bucket; each appears whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from pipeline.errors import SourceError
from pipeline.sources.storage.atomic import written_whole
from pipeline.sources.storage.storage import Storage, is_url

NOTES = ".lockstep-convert"  # what is known of a conversion under way; gone when it is whole
_DRAFT = "writing-"


class Place:
    """A folder, or a URL that fsspec understands.

    Args:
        root: the folder.
        options: of the URL's filesystem.
    """

    def __init__(self, root: str, options: Mapping[str, Any] | None = None) -> None:
        self.root, self._options = root.rstrip("/") or "/", dict(options or {})
        self._remote = is_url(root)

    @property
    def storage(self) -> Storage | None:
        """How sources reach the files."""
        return Storage(options=self._options) if self._remote else None

    def path(self, name: str) -> str:
        return f"{self.root}/{name}"

    @contextmanager
    def workspace(self) -> Generator[str]:
        """A folder to write files in before they are delivered; nothing of it stays."""
        beside = self._drafts()
        while True:
            folder = tempfile.mkdtemp(prefix=_DRAFT, dir=beside)
            held = os.open(folder, os.O_RDONLY)
            fcntl.flock(held, fcntl.LOCK_EX)
            if os.path.isdir(folder):  # nobody took it for a dead writer's before it was held
                break
            os.close(held)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(held)

    def deliver(self, path: str, name: str) -> int:
        """Move a finished local file to its name, replacing what is there; its size in bytes."""
        size = os.path.getsize(path)
        if self._remote:
            self._filesystem().put_file(path, self.path(name))
            self._filesystem().invalidate_cache()
        else:
            with open(path, "rb") as f:
                os.fsync(f.fileno())  # a name that is there after a power cut has its bytes
            self._folder(os.path.dirname(name))
            os.replace(path, self.path(name))
        return size

    def size(self, name: str) -> int | None:
        """Bytes of a file that is there, else None."""
        try:
            if self._remote:
                return int(self._filesystem().info(self.path(name))["size"])
            return os.path.getsize(self.path(name))
        except FileNotFoundError:
            return None

    # ---- notes

    def note(self, name: str, facts: Mapping[str, Any]) -> None:
        """Keep some facts under a name."""
        text = json.dumps(facts, indent=1) + "\n"
        if self._remote:
            self._filesystem().pipe_file(self.path(name), text.encode())
            return
        self._folder(os.path.dirname(name))
        drafts = self._folder(NOTES)
        with written_whole(self.path(name), drafts=drafts, durable=True) as f:
            f.write(text.encode())

    def noted(self, name: str) -> dict[str, Any] | None:
        """The facts kept under a name, None if there are none that can be read."""
        try:
            if self._remote:
                return json.loads(self._filesystem().cat_file(self.path(name)))
            with open(self.path(name)) as f:
                return json.load(f)
        except (FileNotFoundError, ValueError):
            return None

    def clear(self) -> None:
        """Remove all notes, and what killed writers left."""
        if self._remote:
            with contextlib.suppress(FileNotFoundError):
                self._filesystem().rm(self.path(NOTES), recursive=True)
        else:
            shutil.rmtree(self.path(NOTES), ignore_errors=True)

    @contextmanager
    def alone(self) -> Generator[None]:
        """Hold the folder; a second conversion into it is refused. A bucket cannot be held.

        Raises:
            SourceError: another process holds it.
        """
        if self._remote:
            self._sweep()
            yield
            return
        with open(os.path.join(self._folder(NOTES), "lock"), "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as e:
                raise SourceError(
                    f"another process converts into {self.root}. Wait for it, or choose another "
                    "place."
                ) from e
            self._sweep()
            yield

    def _sweep(self) -> None:
        # remove what killed writers left: the living hold their folders
        beside = self._drafts()
        for name in os.listdir(beside):
            path = os.path.join(beside, name)
            if name.startswith(_DRAFT) and not _held(path):
                shutil.rmtree(path, ignore_errors=True)

    def _drafts(self) -> str:
        if not self._remote:
            return self._folder(NOTES)
        folder = os.path.join(tempfile.gettempdir(), f"lockstep-convert-{os.getuid()}")
        os.makedirs(folder, mode=0o700, exist_ok=True)
        return folder

    def _folder(self, name: str) -> str:
        path = os.path.join(self.root, name) if name else self.root
        os.makedirs(path, exist_ok=True)
        return path

    def _filesystem(self) -> Any:
        import fsspec

        return fsspec.filesystem(self.root.split("://", 1)[0], **self._options)


def _held(folder: str) -> bool:
    try:
        fd = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
