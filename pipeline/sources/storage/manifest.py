"""Manifests: small JSON files with the record counts of many files, so that opening skips counting.

A manifest is kept in the cache, keyed by the list of files, or beside the data as `NAME`, for every
reader. An entry is valid while the file's size and tag (modification time if local) are unchanged.
A damaged manifest counts as missing. JSON is used rather than pickle, which could run code.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence, Set
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from pipeline.errors import SourceError, StorageError
from pipeline.sources.complaints import parsed_json, parsing, warn_once
from pipeline.sources.storage.at_once import at_once
from pipeline.sources.storage.location import Stat, is_url, named
from pipeline.sources.storage.storage import Storage

LOGGER = logging.getLogger("pipeline")
NAME = ".lockstep-manifest.json"  # the file beside the data
_VERSION = 2


class Facts(NamedTuple):
    """What a manifest knows of one file.

    Attributes:
        records: how many the file holds.
        more: what its format needs besides, small and of JSON types; for example row groups.
        ends: digest of its first and last 64 KiB; "" if not computed yet.
    """

    records: int
    more: Any = None
    ends: str = ""


def known(
    kind: str, files: Sequence[Stat], storage: Storage, patterns: Sequence[str] = ()
) -> list[Facts | None]:
    """The facts that the cache, or else a manifest beside the data, holds of each file.

    Args:
        kind: the format, with whatever else the facts depend on.
        files: as they are now.
        storage: how files and cache are read.
        patterns: the globs that found the files.

    Returns:
        One entry per file; None where nothing valid is known.

    Raises:
        SourceError: a manifest lists a file that a pattern matches, but the file does not exist.
    """
    noted = storage.note(_key(kind, files))
    if noted is not None:
        entries = _of_kind(_kinds(noted, "in the cache"), kind)
        facts = [_match(entries.get(f.path), f) for f in files]
        if all(facts):
            return facts
    folders = sorted({_split(f)[0] for f in files})
    far = any(map(is_url, folders))
    found = at_once(lambda folder: _beside(kind, folder, storage), folders, far=far)
    beside = dict(zip(folders, found, strict=True))
    _check_all_there(beside, files, patterns)
    return [_match(beside[_split(f)[0]].get(_split(f)[1]), f) for f in files]


def _check_all_there(
    beside: dict[str, dict[str, Any]], files: Sequence[Stat], patterns: Sequence[str]
) -> None:
    there = {_split(file) for file in files}
    for folder, rows in beside.items():
        for name in rows:
            matches = any(fnmatchcase(name, os.path.basename(pattern)) for pattern in patterns)
            if matches and (folder, name) not in there:
                raise SourceError(
                    f"{folder}/{name} is not there, though {folder}/{NAME} lists it. Restore it; "
                    "or, to do without, write the manifest anew: python -m pipeline manifest."
                )


def keep(kind: str, files: Sequence[Stat], facts: Sequence[Facts], storage: Storage) -> None:
    """Store the facts about these files in the cache, if there is one."""
    names = [file.path for file in files]
    storage.keep_note(_key(kind, files), _written({kind: _rows(names, files, facts)}))


def keep_beside(
    kind: str, files: Sequence[Stat], facts: Sequence[Facts], storage: Storage
) -> list[str]:
    """Write a manifest into each folder of these files. Entries of other files there are kept.

    Returns:
        The manifests' paths.

    Raises:
        OSError: one cannot be written.
    """
    written: list[str] = []
    for folder in sorted({_split(file)[0] for file in files}):
        which = [i for i, file in enumerate(files) if _split(file)[0] == folder]
        mine = [files[i] for i in which]
        names = [_split(file)[1] for file in mine]
        rows = _rows(names, mine, [facts[i] for i in which])
        kinds = _kinds_beside(folder, storage)
        others = _of_kind(kinds, kind)
        gone = {path.rpartition("/")[2] for path in _gone(folder, others.keys() - rows, storage)}
        kinds[kind] = {name: row for name, row in others.items() if name not in gone} | rows
        written.append(f"{folder}/{NAME}")
        storage.write(written[-1], _written(kinds))
    return written


class Comparison(NamedTuple):
    """Files compared with the manifests beside them; all fields are paths.

    Attributes:
        manifests: those that exist.
        known: files that are listed, with the same size and tag.
        stale: files that are listed with another size or tag.
        unknown: files that are not listed.
        gone: files that are listed but no longer exist.
    """

    manifests: tuple[str, ...]
    known: tuple[str, ...]
    stale: tuple[str, ...]
    unknown: tuple[str, ...]
    gone: tuple[str, ...]


def compare(kind: str, files: Sequence[Stat], storage: Storage) -> Comparison:
    """Compare files as they are now with the manifests beside them. The cache is not consulted.

    Raises:
        StorageError: a folder cannot be listed.
    """
    folders = sorted({_split(file)[0] for file in files})
    noted = {folder: _beside(kind, folder, storage) for folder in folders}
    lots: dict[str, list[str]] = {"known": [], "stale": [], "unknown": []}
    for file in files:
        folder, name = _split(file)
        row = noted[folder].get(name)
        lot = "unknown" if row is None else "known" if _match(row, file) else "stale"
        lots[lot].append(file.path)
    there = [f"{folder}/{NAME}" for folder in folders if noted[folder]]
    gone = [path for folder in folders for path in _gone(folder, noted[folder].keys(), storage)]
    known, stale, unknown = map(tuple, lots.values())
    return Comparison(tuple(there), known, stale, unknown, tuple(gone))


def _gone(folder: str, noted: Set[str], storage: Storage) -> list[str]:
    if not noted:
        return []
    if is_url(folder):
        names = {_split(file)[1] for file in storage.glob(f"{folder}/*")}
    else:
        names = set(os.listdir(folder or "/"))
    return [f"{folder}/{name}" for name in sorted(noted) if name not in names]


def _split(file: Stat) -> tuple[str, str]:
    folder = named(file.path).rpartition("/")[0]  # a query may hold slashes
    return folder, file.path[len(folder) + 1 :]


def _key(kind: str, files: Sequence[Stat]) -> str:
    listing = json.dumps([(f.path, f.size, f.tag) for f in files])
    return f"manifest {_VERSION} {kind} {hashlib.blake2b(listing.encode()).hexdigest()}"


def _rows(names: Sequence[str], files: Sequence[Stat], facts: Sequence[Facts]) -> dict[str, Any]:
    return {
        name: [file.size, file.tag, *fact]
        for name, file, fact in zip(names, files, facts, strict=True)
    }


def _written(kinds: dict[str, Any]) -> bytes:
    return json.dumps({"version": _VERSION, "kinds": kinds}).encode()


def _beside(kind: str, folder: str, storage: Storage) -> dict[str, Any]:
    return _of_kind(_kinds_beside(folder, storage), kind)


def _kinds_beside(folder: str, storage: Storage) -> dict[str, Any]:
    path = f"{folder}/{NAME}"
    try:
        data = storage.contents(path)
    except FileNotFoundError:
        return {}
    except StorageError as e:  # the data may be readable all the same
        LOGGER.info("no manifest: %s", e)
        return {}
    return _kinds(data, path)


def _kinds(data: bytes, where: str) -> dict[str, Any]:
    """A manifest's rows by kind and file name: one folder may hold files of several formats."""
    try:
        found = parsed_json(data, where)
        with parsing(where):
            return dict(found["kinds"]) if found["version"] == _VERSION else {}
    except SourceError as e:
        warn_once(f"the manifest {where} is damaged and left out: {e}")
        return {}


def _of_kind(kinds: dict[str, Any], kind: str) -> dict[str, Any]:
    rows = kinds.get(kind)
    return rows if isinstance(rows, dict) else {}


def _match(row: Any, file: Stat) -> Facts | None:
    """The facts in a manifest's row, or None unless size and tag match the file as it is now."""
    if not isinstance(row, list) or len(row) != 5 or not file.tag:
        return None
    size, noted, records, more, ends = row
    same = (size, noted) == (file.size, file.tag)
    sane = type(records) is int and 0 <= records < 1 << 48 and isinstance(ends, str)
    return Facts(records, more, ends) if same and sane else None
