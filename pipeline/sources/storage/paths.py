"""Which files paths, URLs and globs name; incomplete and mixed sets of shards are refused."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from itertools import islice

from pipeline.errors import SourceError, StorageError
from pipeline.sources.complaints import unreadable
from pipeline.sources.storage.location import has_magic, is_url
from pipeline.sources.storage.storage import Stat, Storage

MANIFEST = ".lockstep-manifest.json"  # the file beside the data; see manifest.py
Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]

_NOTE = re.compile(r"\.\w+\.manifest\.json$")  # what a conversion leaves beside x.parquet
_SHARDS = re.compile(r"@(\d+)(?=[^/@]*$)")
_NUMBERED = re.compile(r"(.*)-(\d+)-of-(\d+)(.*)", re.DOTALL)
_HASH = re.compile(r"-[0-9a-f]{8,}(?=\.|$)")  # in names of the Hugging Face hub, one a shard
_MOST_SHARDS = 1 << 20  # of one set whose numbers are looked at


class ListedPath(str):
    """A path with its size and tag from a listing, so that nobody asks the store again."""

    stat: Stat
    pattern = ""  # the glob that found it

    @classmethod
    def of(cls, stat: Stat, pattern: str = "") -> ListedPath:
        """The path of a file just found."""
        path = cls(stat.path)
        path.stat, path.pattern = stat, pattern
        return path


def expand(
    paths: Paths, storage: Storage | None = None, *, empty: bool = False
) -> tuple[Stat, ...]:
    """The files that paths, URLs and globs name: globs sorted, explicit order kept.

    A glob of URLs costs one listing; single URLs are asked for together.

    Args:
        paths: `name@3.bagz` stands for `name-00000-of-00003.bagz` and its fellows.
        storage: how URLs are reached.
        empty: whether a file of 0 bytes is a valid file without records.

    Raises:
        SourceError: nothing matches, a directory, a missing or empty file, or a glob that matches
            some shards of a set without the others, or several generations of it.
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
    return files


def patterns(paths: Paths) -> list[str]:
    """The globs among paths, and those that found a `ListedPath`."""
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
    return name.removeprefix("file://") if name.startswith("file:///") else name


def _expand_one(path: str, storage: Storage) -> Sequence[Stat | str]:
    """What a listing says of files; or their paths, where nothing was listed."""
    if isinstance(path, ListedPath):
        return [path.stat]
    if is_url(path):
        return _expand_url(path, storage)
    if os.path.isdir(path):
        raise _is_folder(path)
    if os.path.exists(path):  # before globs: a name may hold brackets
        return [os.path.abspath(path)]  # so that a later chdir does not lose it
    if not glob.has_magic(path):
        raise SourceError(f"{path} does not exist. Correct the path, or remove it from paths.")
    found = sorted(f for f in glob.glob(path, recursive=True) if os.path.isfile(f))
    found = [f for f in found if not _NOTE.search(f)]
    if not found:
        raise SourceError(
            f"no file matches the pattern {path!r} (in {os.getcwd()}). Correct the pattern."
        )
    _check_shards(path, found)
    return [os.path.abspath(f) for f in found]


def _expand_url(url: str, storage: Storage) -> Sequence[Stat | str]:
    if url.endswith("/"):
        raise _is_folder(url)
    if not has_magic(url):
        return [url]
    try:
        found = [f for f in storage.glob(url) if not f.path.endswith(f"/{MANIFEST}")]
        found = [f for f in found if not _NOTE.search(f.path)]
    except StorageError:
        raise
    except OSError as e:
        raise unreadable(url, e) from e
    if not found:
        raise SourceError(f"no file matches the pattern {url!r}. Correct the pattern.")
    _check_shards(url, [f.path for f in found])
    return found


def _check_shards(pattern: str, found: Sequence[str]) -> None:
    """Refuse a glob that matches several generations of a set of shards, or not all of one.

    Shards are files whose names say `-I-of-N`, I from 0, or from 1 if N itself is there. A shard
    that the pattern itself leaves out, as `x-0000[0-3]-of-*` does, is not missed.
    """
    sets: dict[tuple[str, str, str], dict[int, str]] = {}
    totals: dict[tuple[str, str, str], tuple[str, int]] = {}
    for path in found:
        folder, _, name = path.rpartition("/")
        parts = _NUMBERED.fullmatch(name)
        if parts is None:
            continue
        key = folder, parts[1], _HASH.sub("", parts[4])
        first, total = totals.setdefault(key, (path, int(parts[3])))
        other = sets.setdefault(key, {}).setdefault(int(parts[2]), path)
        if total != int(parts[3]) or other != path:
            raise SourceError(
                f"{pattern} matches two generations of the same shards: "
                f"{first if total != int(parts[3]) else other} and {path}. Remove one of them, or "
                "narrow the pattern."
            )
    for key, numbers in sets.items():
        first, total = totals[key]
        begin = int(0 not in numbers and total in numbers)  # some writers count from 1
        surplus = [path for i, path in numbers.items() if not begin <= i < begin + total]
        if surplus:
            raise SourceError(
                f"{pattern} matches {surplus[0]}, which is none of {total} shards that begin at "
                f"{begin}. Remove it, or give a list of the files."
            )
        missing = (
            name
            for i in range(begin, begin + min(total, _MOST_SHARDS))
            if i not in numbers and fnmatchcase(name := _nth(first, i), os.path.basename(pattern))
        )
        if lacking := list(islice(missing, 3)):
            raise SourceError(
                f"{pattern} matches {len(numbers)} of {total} shards: {', '.join(lacking)} "
                f"{'is' if len(lacking) == 1 else 'are'} not there. Restore what is missing; or, "
                "to do without, give a list of the files."
            )


def _nth(path: str, i: int) -> str:
    parts = _NUMBERED.fullmatch(os.path.basename(path))
    assert parts is not None
    return f"{parts[1]}-{i:0{len(parts[2])}}-of-{parts[3]}{parts[4]}"


def _is_folder(path: str) -> SourceError:
    return SourceError(
        f"{path} is a directory. Name its files with a glob: {os.path.join(path, '*')!r}."
    )


def stats_of(paths: Sequence[str], storage: Storage) -> list[Stat]:
    """Size and tag of each file; a SourceError where one cannot be had."""
    try:
        return storage.stats(paths)
    except StorageError:
        raise
    except OSError as e:
        raise unreadable(e.filename or paths[0], e) from e
