"""Indexes of files that have none: offsets of records, found once and kept in the cache."""

from __future__ import annotations

import contextlib
import functools
import glob
import hashlib
import logging
import os
import stat as modes
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pipeline.checks import byte_count
from pipeline.sources.storage.arrays import Arrays, load_arrays, save_arrays
from pipeline.sources.storage.cache import Cache
from pipeline.sources.storage.storage import Stat, Storage, is_url

LOGGER = logging.getLogger("pipeline")

_SMALL = 1 << 20  # a local file below so many bytes is scanned as fast as its index would be loaded
_STALE = 3600  # age in seconds at which a killed writer's temporary file is removed


def cache_folder(storage: Storage) -> str:
    """The folder of side files: storage.cache, else LOCKSTEP_CACHE, else ~/.cache/lockstep."""
    known = _named(storage)
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = os.fsdecode(known) if known else os.path.join(caches, "lockstep")
    return os.path.abspath(os.path.expanduser(folder))


def _named(storage: Storage) -> str | os.PathLike[str] | None:
    return storage.cache or os.environ.get("LOCKSTEP_CACHE")


def _folders(storage: Storage) -> list[str]:
    # where side files are looked for and kept: who has no home, as in many containers, has a folder
    # among temporary files, in which nobody else may write
    folders = [cache_folder(storage)]
    if not _named(storage):
        with contextlib.suppress(OSError):
            mine = os.path.join(tempfile.gettempdir(), f"lockstep-{os.getuid()}")
            if not os.path.lexists(mine) or _is_private(os.lstat(mine)):
                folders.append(mine)
    return folders


def _is_private(found: os.stat_result) -> bool:
    others = modes.S_IWGRP | modes.S_IWOTH
    return (
        modes.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & others
    )


def indexed(
    stat: Stat, storage: Storage, kind: str, build: Callable[[Stat, Storage], Mapping[str, Any]]
) -> Arrays:
    """The index of one file, loaded from the cache, or built now and kept for the next process.

    An index is stored under the file's path and `kind`. It is valid while size, tag and, for a
    local file, modification time are unchanged; a stale or damaged one is built again and replaced.
    Local files under 1 MiB are indexed each time. If no folder can be written to, the index serves
    its caller alone, and a warning is logged to "pipeline".

    Args:
        stat: the file.
        storage: how it is read.
        kind: names the format and the version of the index.
        build: finds the index: arrays by name, none of dtype object.

    Returns:
        The arrays, read-only; large ones stay in their file (see `StoredArray`).

    >>> stat = Storage().stat(os.devnull)
    >>> indexed(stat, Storage(), "ends", lambda stat, storage: {"end": np.array([stat.size])})
    {'end': array([0])}
    """
    if not is_url(stat.path) and stat.size < _SMALL:
        return _plain(build(stat, storage))
    facts = _facts(stat, kind)
    name = hashlib.blake2b(f"{kind}\0{stat.path}".encode("utf-8", "surrogateescape"))
    inner, folders = os.path.join("index", f"{name.hexdigest()[:32]}.idx"), _folders(storage)
    for folder in folders:
        found = load_arrays(os.path.join(folder, inner), facts)
        if found is not None:
            return found
    found = _plain(build(stat, storage))
    if _facts(stat, kind) == facts:  # else it changed meanwhile, which the caller will notice
        _keep(folders, inner, facts, found, storage)
    return found


def _plain(arrays: Mapping[str, Any]) -> Arrays:
    plain = {name: np.ascontiguousarray(a) for name, a in arrays.items()}
    for a in plain.values():
        a.flags.writeable = False
    return plain


def _facts(stat: Stat, kind: str) -> dict[str, Any]:
    path = os.fsencode(stat.path).hex() if not stat.path.isprintable() else stat.path
    facts: dict[str, Any] = {"path": path, "size": stat.size, "tag": "", "kind": kind}
    if is_url(stat.path):
        facts["tag"] = stat.tag
    else:
        facts["changed"] = os.stat(stat.path).st_mtime_ns
    return facts


def _keep(
    folders: list[str], inner: str, facts: dict[str, Any], arrays: Arrays, storage: Storage
) -> None:
    """Write an index. A failure only costs whoever needs it next the time to build it again."""
    errors: list[OSError] = []
    for folder in folders:
        path = os.path.join(folder, inner)
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            _sweep(path)
            save_arrays(path, arrays, facts)
            limit = byte_count("cache_size", storage.cache_size)
            _cache(folder, limit, os.getpid()).count(os.stat(path).st_size)
            return
        except OSError as e:
            errors.append(e)
    LOGGER.warning(
        f"the index of {facts['path']} cannot be kept ({errors[0]}), so each process builds it "
        "anew. Set LOCKSTEP_CACHE to a folder that can be written."
    )


@functools.lru_cache(16)
def _cache(folder: str, limit: int, process: int) -> Cache:
    return Cache(folder, limit)


def _sweep(path: str) -> None:
    # unfinished copies of this index that killed writers left
    for part in glob.glob(f"{glob.escape(path)}.*.part"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - os.lstat(part).st_mtime > _STALE:
                os.unlink(part)
