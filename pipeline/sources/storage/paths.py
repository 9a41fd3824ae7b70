"""Expanding paths, URLs and globs to files. What globs match is checked (see globbed.py)."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

from pipeline.errors import SourceError, StorageError
from pipeline.sources.complaints import unreadable
from pipeline.sources.storage.globbed import (
    check_drafts,
    check_folders,
    check_links,
    check_shards,
)
from pipeline.sources.storage.location import has_magic, is_url, matches
from pipeline.sources.storage.storage import Stat, Storage

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]

_NOTE = re.compile(r"\.\w+\.manifest\.json$")  # the manifest of a conversion, beside x.parquet
_SHARDS = re.compile(r"@(\d+)(?=[^/@]*$)")
_CHAIN = re.compile(
    r"\w+(://[^:]*)?::[A-Za-z][\w+.\-]*://|(zip|tar|simplecache|filecache|blockcache)(://[^:]*)?::"
)
_POINTER, _POINTER_SIZE = b"version https://git-lfs.github.com/spec/v1\noid ", (120, 200)


class ListedPath(str):
    """A path that carries its size and tag from a listing, so that no second request is needed."""

    stat: Stat
    pattern = ""  # the glob that found it

    @classmethod
    def of(cls, stat: Stat, pattern: str = "") -> ListedPath:
        """The path of a file that a listing returned."""
        path = cls(stat.path)
        path.stat, path.pattern = stat, pattern
        return path


def expand(
    paths: Paths, storage: Storage | None = None, *, empty: bool = False
) -> tuple[Stat, ...]:
    """The files that paths, URLs and globs name. Globs are sorted; a list keeps its order.

    A glob of URLs costs one listing; the sizes of single URLs are requested concurrently.

    Args:
        paths: `name@3.bagz` stands for `name-00000-of-00003.bagz` and the other two shards.
        storage: how URLs are read.
        empty: whether a file of 0 bytes is a valid file without records.

    Raises:
        SourceError: nothing matches, a path is a directory, a file is missing, empty or a pointer
            of Git LFS, or a glob matches only some shards of a set, several generations of it, a
            link to nothing, or one file by several paths.
    """
    storage = storage or Storage()
    try:
        named = [_plain(path) for path in _each(paths)]
    except TypeError as e:
        raise SourceError(f"paths={paths!r}: give a path, a glob or a list of them") from e
    found = [
        stat for path in named for shard in _shards(path) for stat in _expand_one(shard, storage)
    ]
    if not found:
        raise SourceError(f"paths={paths!r} names no file. Give at least one path or glob.")
    unknown = [path for path in found if isinstance(path, str)]
    known = dict(zip(unknown, stats_of(unknown, storage), strict=True))
    files = tuple(known[f] if isinstance(f, str) else f for f in found)
    for stat in files:
        if stat.size == 0 and not empty:
            raise SourceError(
                f"{stat.path} is empty (0 bytes). Rewrite it, or remove it from paths."
            )
        if _POINTER_SIZE[0] <= stat.size <= _POINTER_SIZE[1] and not is_url(stat.path):
            _refuse_pointer(stat.path)
    return files


def _refuse_pointer(path: str) -> None:
    # what a clone without Git LFS holds in place of a file; as text it would pass for data
    with suppress(OSError), open(path, "rb") as f:
        if f.read(len(_POINTER)) == _POINTER:
            raise SourceError(
                f"{path} is a pointer of Git LFS, not the file itself. Fetch the files: git lfs "
                "pull."
            )


def patterns(paths: Paths) -> list[str]:
    """The globs among paths, including those by which a `ListedPath` was found."""
    named = [
        path.pattern if isinstance(path, ListedPath) else _plain(path) for path in _each(paths)
    ]
    return list(dict.fromkeys(name for name in named if glob.has_magic(name)))


def _each(paths: Paths) -> list[str | os.PathLike[str]]:
    if isinstance(paths, Iterable) and not isinstance(paths, str | bytes):
        return list(paths)
    return [paths]


def _shards(path: str) -> list[str]:
    found = None if isinstance(path, ListedPath) else _SHARDS.search(path)
    if found is None or (not is_url(path) and os.path.exists(path)):
        return [path]
    n, head, tail = int(found[1]), path[: found.start()], path[found.end() :]
    return [f"{head}-{i:05d}-of-{n:05d}{tail}" for i in range(n)]


def _plain(path: str | os.PathLike[str]) -> str:
    name = path if isinstance(path, ListedPath) else os.path.expanduser(os.fsdecode(path))
    if not name.startswith("file:///"):
        return name
    name = name.removeprefix("file://")
    # `Path.as_uri` writes "%20" for a space; others write names as they are
    return name if os.path.exists(name) or not os.path.exists(unquote(name)) else unquote(name)


def _expand_one(path: str, storage: Storage) -> Sequence[Stat | str]:
    """The files that one path names: their `Stat` if a listing gave it, else just the path."""
    if isinstance(path, ListedPath):
        return [path.stat]
    if _CHAIN.match(path) and not os.path.exists(path):
        raise SourceError(
            f"{path} is a chain of file systems (::), which is not read. To keep copies of remote "
            "files give Storage(cache='a folder'); unpack archives first."
        )
    if is_url(path):
        return _expand_url(path, storage)
    if os.path.isdir(path):
        raise _is_folder(path)
    if os.path.exists(path):  # tried before globbing, since a name may contain brackets
        if Path(path).is_fifo():
            raise SourceError(
                f"{path} is a pipe, which can be read only once. Write its contents to a file."
            )
        return [os.path.abspath(path)]  # so that a later chdir does not lose it
    if not glob.has_magic(path):
        remedy = "Correct the path, or remove it from paths"
        if "{" in path:
            remedy = "Braces stand for themselves: use * or ?, or give a list"
        raise SourceError(f"{path} does not exist. {remedy}.")
    # in a set, as a file below several "**" is found in several ways
    every = [f for f in sorted(set(glob.glob(path, recursive=True))) if not _NOTE.search(f)]
    found = [f for f in every if os.path.isfile(f)]
    check_folders(path)
    check_links(path, every, found)
    if not found:
        raise SourceError(
            f"no file matches the pattern {path!r} (in {os.getcwd()}). Correct the pattern."
        )
    check_drafts(path, found)
    check_shards(path, found)
    return [os.path.abspath(f) for f in found]


def _expand_url(url: str, storage: Storage) -> Sequence[Stat | str]:
    if url.endswith("/"):
        raise _is_folder(url)
    if not has_magic(url):
        return [url]
    try:
        every = storage.glob(url)
        # a file of just this name is given, too: names may contain brackets
        found = [f for f in every if matches(url, f.path) or f.path == url]
        found = [f for f in found if not _NOTE.search(f.path)]
    except StorageError:
        raise
    except OSError as e:
        raise unreadable(url, e) from e
    if not found:
        raise SourceError(f"no file matches the pattern {url!r}. Correct the pattern.")
    check_drafts(url, [f.path for f in found])
    check_shards(url, [f.path for f in found])
    return found


def _is_folder(path: str) -> SourceError:
    return SourceError(
        f"{path} is a directory. Name its files with a glob: {os.path.join(path, '*')!r}."
    )


def stats_of(paths: Sequence[str], storage: Storage) -> list[Stat]:
    """Size and tag of each file.

    Raises:
        SourceError: one cannot be had.
    """
    try:
        return storage.stats(paths)
    except StorageError:
        raise
    except OSError as e:
        raise unreadable(e.filename or paths[0], e) from e
