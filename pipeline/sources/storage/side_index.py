"""Indexes of files that have none: offsets of records, found once and kept in the cache."""

from __future__ import annotations

import contextlib
import functools
import glob
import hashlib
import logging
import os
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
    known = storage.cache or os.environ.get("LOCKSTEP_CACHE")
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = os.fsdecode(known) if known else os.path.join(caches, "lockstep")
    return os.path.abspath(os.path.expanduser(folder))


def indexed(
    stat: Stat, storage: Storage, kind: str, build: Callable[[Stat, Storage], Mapping[str, Any]]
) -> Arrays:
    """The index of one file, loaded from the cache, or built now and kept for the next process.

    An index is stored under the file's path and `kind`. It is valid while size, tag and, for a
    local file, modification time are unchanged; a stale or damaged one is built again and replaced.
    Local files under 1 MiB are indexed each time. If the cache folder is not writable, the index
    serves this process alone, and a warning is logged to "pipeline".

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
    path = os.path.join(cache_folder(storage), "index", f"{name.hexdigest()[:32]}.idx")
    found = load_arrays(path, facts)
    if found is None:
        found = _plain(build(stat, storage))
        if _facts(stat, kind) == facts:  # else it changed meanwhile, which the caller will notice
            _keep(path, facts, found, storage)
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


def _keep(path: str, facts: dict[str, Any], arrays: Arrays, storage: Storage) -> None:
    """Write an index. A failure only costs later processes the time to build it again."""
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        _sweep(path)
        save_arrays(path, arrays, facts)
        limit = byte_count("cache_size", storage.cache_size)
        _cache(cache_folder(storage), limit, os.getpid()).count(os.stat(path).st_size)
    except OSError as e:
        LOGGER.warning(
            f"the index of {facts['path']} cannot be kept ({e}), so each process builds it anew. "
            "Set LOCKSTEP_CACHE to a folder that can be written."
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
