"""Whether what a glob matched can be what was meant: sets of shards, links, drafts."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from itertools import islice

from pipeline.errors import SourceError

_NUMBERED = re.compile(r"(.*)-(\d+)-of-(\d+)(.*)", re.DOTALL)
_DRAFTS = {
    "_temporary": "a draft of a job that has not ended, or failed",
    "_delta_log": "the log of a Delta table",
}
_HASH = re.compile(r"-[0-9a-f]{8,}(?=\.|$)")  # in names of the Hugging Face hub, one for each shard
_MOST_SHARDS = 1 << 20  # at most so many shard numbers of one set are checked


def check_folders(pattern: str) -> None:
    """Refuse a glob that passes over a folder which may not be read, as if it held nothing."""
    parts = pattern.split("/")
    for depth in range(1, len(parts)):
        above = "/".join(parts[:depth]) + "/"
        if depth < len(parts) - 1 and not glob.has_magic(above):
            continue
        for folder in glob.glob(above, recursive=True):
            if not os.access(folder, os.R_OK | os.X_OK):
                raise SourceError(
                    f"{pattern} matches files in {folder}, which may not be read. Ask for the "
                    "right to read it, or narrow the pattern."
                )


def check_links(pattern: str, every: Sequence[str], found: Sequence[str]) -> None:
    """Refuse a glob that matches a link to nothing, or a file twice through links to folders."""
    if broken := next((f for f in every if os.path.islink(f) and not os.path.exists(f)), None):
        raise SourceError(
            f"{pattern} matches {broken}, a link to {os.readlink(broken)}, which does not exist. "
            "Restore the file, remove the link, or give a list of the files."
        )
    folders = {os.path.dirname(f) for f in found}
    real = {folder: os.path.realpath(folder) for folder in folders}
    seen: dict[tuple[str, str], str] = {}
    for f in found:
        folder, name = os.path.split(f)
        other = seen.setdefault((real[folder], name), f)
        if other != f:
            raise SourceError(
                f"{pattern} matches one file by two paths, {other} and {f}, as a folder is a link. "
                "Narrow the pattern, or give a list of the files."
            )


def check_drafts(pattern: str, found: Sequence[str]) -> None:
    """Refuse a glob that matches files that a table keeps beside those of its rows."""
    for folder, what in _DRAFTS.items():
        inner = f"/{folder}/"
        drafts = (path for path in found if inner in path and folder not in pattern)
        if draft := next(drafts, None):
            raise SourceError(
                f"{pattern} matches {draft}, {what}. Narrow the pattern, or give a list of files: "
                "of a Delta table, what DeltaTable(folder).file_uris() returns."
            )


def check_shards(pattern: str, found: Sequence[str]) -> None:
    """Refuse a glob that matches several generations of a set of shards, or only part of one.

    Shards are files whose names end in `-I-of-N`, counted from 0, or from 1 if shard N exists.
    Shards that the pattern excludes by itself, as `x-0000[0-3]-of-*` does, are not missed.
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
