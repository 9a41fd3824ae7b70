"""The destination of a conversion: a folder or a bucket. Each file appears whole or not at all."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from pipeline.errors import SourceError, StorageError
from pipeline.sources.complaints import parsed_json, parsing
from pipeline.sources.storage.atomic import written_whole
from pipeline.sources.storage.local import open_regular
from pipeline.sources.storage.storage import Storage, is_url

LOGGER = logging.getLogger("pipeline")
NOTES = ".lockstep-convert"  # a folder with the state of a conversion; removed when it is complete
_DRAFT = "writing-"


class Place:
    """A folder, local or a URL.

    Args:
        root: the folder.
        options: of the URL's filesystem, as for `Storage`.
    """

    def __init__(self, root: str, options: Mapping[str, Any] | None = None) -> None:
        self.root, self._storage = root.rstrip("/") or "/", Storage(options=dict(options or {}))
        self._remote = is_url(root)

    @property
    def storage(self) -> Storage | None:
        """How sources read the files; None if they are local."""
        return self._storage if self._remote else None

    def path(self, name: str) -> str:
        return f"{self.root}/{name}"

    @contextmanager
    def workspace(self) -> Generator[str]:
        """A temporary folder in which files are written before they are delivered."""
        beside = self._drafts()
        while True:
            folder = tempfile.mkdtemp(prefix=_DRAFT, dir=beside)
            lock = os.open(folder, os.O_RDONLY)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.path.isdir(folder):  # else another process swept it before it was locked
                break
            os.close(lock)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)

    def deliver(self, path: str, name: str) -> int:
        """Move a finished local file to its name, replacing an existing one. Returns its bytes."""
        size = os.path.getsize(path)
        if self._remote:
            self._storage.upload(path, self.path(name))
        else:
            with open(path, "rb") as f:
                os.fsync(f.fileno())  # a file with its name has its contents, even after power loss
            self._folder(os.path.dirname(name))
            os.replace(path, self.path(name))
        return size

    def size(self, name: str) -> int | None:
        """Bytes of a file; None if it does not exist."""
        try:
            return self._storage.stat(self.path(name)).size
        except FileNotFoundError:
            return None

    # ---- notes

    def note(self, name: str, facts: Mapping[str, Any]) -> None:
        """Store facts under a name."""
        text = json.dumps(facts, indent=1).encode() + b"\n"
        if self._remote:
            self._storage.write(self.path(name), text)
            return
        self._folder(os.path.dirname(name))
        drafts = self._folder(NOTES)
        with written_whole(self.path(name), drafts=drafts, durable=True) as f:
            f.write(text)

    def noted(self, name: str) -> dict[str, Any] | None:
        """The facts stored under a name; None if there are none, or they are damaged."""
        path = self.path(name)
        try:
            found = parsed_json(self._storage.contents(path), path)
            with parsing(path):
                shards = found.get("shards")  # a list in a manifest, a number in a plan
                shards = shards if isinstance(shards, list) else [found] if "files" in found else []
                sound = all(map(_is_shard, shards)) and ("plan" not in found or shards)
            return found if sound else None
        except FileNotFoundError:
            return None
        except StorageError:
            raise
        except SourceError:  # damaged
            return None

    def clear(self) -> None:
        """Remove all notes, and the temporary files of killed writers."""
        if not self._remote:
            shutil.rmtree(self.path(NOTES), ignore_errors=True)
            return
        try:
            self._storage.remove(f"{self.path(NOTES)}/**")
        except StorageError as e:  # all files are written; removing may be forbidden
            LOGGER.warning("the notes of a finished conversion stay, remove them: %s", e)

    @contextmanager
    def alone(self) -> Generator[None]:
        """Lock the folder against a second conversion. A bucket cannot be locked.

        Raises:
            SourceError: another process has locked it, or it cannot be locked.
        """
        if self._remote:
            self._sweep()
            yield
            return
        path = os.path.join(self._folder(NOTES), "lock")
        try:
            lock = open_regular(path, os.O_RDWR | os.O_CREAT)
        except OSError as e:
            raise SourceError(f"{path} cannot be locked: {e}. Remove it.") from e
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as e:
                raise SourceError(
                    f"another process converts into {self.root}. Wait for it, or choose another "
                    "place."
                ) from e
            self._sweep()
            yield
        finally:
            os.close(lock)

    def _sweep(self) -> None:
        # remove the temporary folders of killed writers: living ones hold a lock
        beside = self._drafts()
        for name in os.listdir(beside):
            path = os.path.join(beside, name)
            if name.startswith(_DRAFT) and _is_left(path):
                shutil.rmtree(path, ignore_errors=True)

    def _drafts(self) -> str:
        if not self._remote:
            return self._folder(NOTES)
        folder = os.path.join(tempfile.gettempdir(), f"lockstep-convert-{os.getuid()}")
        with suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        found = os.lstat(folder)
        private = stat.S_IMODE(found.st_mode) & 0o077 == 0 and found.st_uid == os.getuid()
        if not stat.S_ISDIR(found.st_mode) or not private:
            raise SourceError(
                f"{folder} is no folder that only this user can change, so another may have laid "
                "it there. Remove it, or set TMPDIR to a folder of your own."
            )
        return folder

    def _folder(self, name: str) -> str:
        path = os.path.join(self.root, name) if name else self.root
        os.makedirs(path, exist_ok=True)
        if name and os.path.islink(path):
            raise SourceError(f"{path} is a link: what it leads to is left alone. Remove it.")
        return path


def _is_shard(facts: Any) -> bool:
    files = [(file["name"], file["bytes"]) for file in facts["files"]]
    numbers = [facts["records"], facts["skipped"], *(size for _, size in files)]
    return all(isinstance(name, str) for name, _ in files) and all(type(n) is int for n in numbers)


def _is_left(folder: str) -> bool:
    """Whether a folder is this user's, and no living process has locked it."""
    with suppress(OSError):
        fd = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return os.fstat(fd).st_uid == os.getuid()
        finally:
            os.close(fd)
    return False
