"""WebDataset shards: tar files in which adjacent members with the same key form a record."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.block import Int64s
from pipeline.errors import RecordError, SourceError
from pipeline.sources.framed import FramedSource, RecordSpans
from pipeline.sources.storage.arrays import Arrays
from pipeline.sources.storage.files import Paths
from pipeline.sources.storage.gather import read_spans
from pipeline.sources.storage.side_index import indexed
from pipeline.sources.storage.storage import Stat, Storage
from pipeline.sources.tar import Member, members

LOGGER = logging.getLogger("pipeline")
# the key ends at the first dot of the base name, unless that is its first character
_KEYED = re.compile(rb"((?:.*/)?[^./][^./]*)\.([^/]*)", re.DOTALL)
_META = re.compile(rb"__[^/]*__(?:$|/)")


class WebDatasetSource(FramedSource):
    """Records of WebDataset shards: `{"__key__": "a/0001", "jpg": bytes, "json": bytes}`.

    Adjacent members with the same key form a record. The key is a member's name up to the first dot
    of its base name; the field is the rest, in lower case. Directories, links, hidden files, names
    without a dot and names that begin with `__meta__/` are skipped. Nothing is extracted or
    unpickled. Where members begin is found once, and kept in the cache folder.

    Args:
        paths: a path, a glob, or a list of these; globs are sorted.
        fields: read only these fields, where a record has them; None for all.
        storage: how URLs are read.

    Raises:
        SourceError: a file is missing, compressed or not a tar file, or a header in it is corrupt.

    >>> import io, tarfile, tempfile
    >>> path = tempfile.mkdtemp() + "/a.tar"
    >>> with tarfile.open(path, "w") as tar:
    ...     for name, data in [("1.txt", b"to"), ("1.cls", b"7"), ("2.txt", b"be")]:
    ...         member = tarfile.TarInfo(name)
    ...         member.size = len(data)
    ...         tar.addfile(member, io.BytesIO(data))
    >>> WebDatasetSource(path).read(np.array([1, 0]))
    [{'__key__': '2', 'txt': b'be'}, {'__key__': '1', 'txt': b'to', 'cls': b'7'}]
    """

    _codec, _scanned = "tar", True

    def __init__(
        self,
        paths: Paths,
        *,
        fields: Sequence[str] | None = None,
        storage: Storage | None = None,
    ) -> None:
        if isinstance(fields, str):
            raise SourceError(f'{fields=}: give a list of names, such as ["{fields}"]')
        self._fields = None if fields is None else frozenset(fields)
        names = ["all"] if self._fields is None else sorted(self._fields)
        super().__init__(paths, "webdataset 2", _load, storage, ("webdataset", *names))

    def read(self, indices: Int64s) -> list[dict[str, Any]]:
        """Records by index, in the order given, repeats included: `__key__`, and bytes by field.

        Raises:
            PositionError: an index is negative or beyond the end.
            RecordError: a record is truncated, has a field twice, or a field named `__key__`; the
                others stay readable.
            SourceError: a file was removed, truncated or replaced.
        """
        at = self._locate(indices)
        sizes = self._files.sizes
        records: list[dict[str, Any]] = []
        wanted: list[tuple[int, str, int, int, int]] = []
        for i, (file, local) in enumerate(zip(at.file.tolist(), at.local.tolist(), strict=True)):
            key, found = _members(self._index(file), local)
            self._check(at, i, key, found, sizes[file])
            records.append({"__key__": key})
            wanted += [(i, name, file, a, b) for name, a, b in found if self._wants(name)]
        table = np.array([(f, a, b) for _, _, f, a, b in wanted], np.int64).reshape(-1, 3)
        data = read_spans(self._files, table[:, 0], table[:, 1], table[:, 2])
        for (i, name, *_), part in zip(wanted, data, strict=True):
            records[i][name] = part
        return records

    def _wants(self, field: str) -> bool:
        return self._fields is None or field in self._fields

    def _check(
        self, at: RecordSpans, i: int, key: str, found: list[tuple[str, int, int]], size: int
    ) -> None:
        names = [name for name, _, _ in found]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise self._bad_key(at, i, key, f"the field {twice!r} is there twice")
        if "__key__" in names and self._wants("__key__"):
            raise self._bad_key(at, i, key, "a member is named __key__, the name of the key itself")
        for name, _, stop in found:
            if stop > size:
                what = f"the field {name!r}" if name else "a header"
                raise self._bad_key(at, i, key, f"{what} is cut: the file ends at byte {size}")

    def _bad_key(self, at: RecordSpans, i: int, key: str, why: str) -> RecordError:
        return self._bad(at, i, f"its key is {key!r}, and {why}")


def _members(index: Arrays, local: int) -> tuple[str, list[tuple[str, int, int]]]:
    """The key of a record, and (field, start, stop) of each of its members."""
    first, last = index["first"][local : local + 2].tolist()
    ends = index["name"][first : last + 1].tolist()
    keys, spans = index["key"][first:last].tolist(), index["span"][first:last].tolist()
    names = index["names"][ends[0] : ends[-1]].tobytes()
    found: list[tuple[str, int, int]] = []
    for k, (start, stop) in enumerate(spans):
        name = names[ends[k] - ends[0] : ends[k + 1] - ends[0]]
        found.append((_decoded(name[keys[k] + 1 :]).lower(), start, stop))
    return _decoded(names[: keys[0]]), found


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _load(stat: Stat, storage: Storage) -> Arrays:
    return indexed(stat, storage, "webdataset 2", _scan)


def _scan(stat: Stat, storage: Storage) -> Arrays:
    """The index of a shard.

    Returns:
        "start", "stop": int64[records], where each record lies; "first": int64[records + 1], the
            first member of each, and the end. "names": all members' names, concatenated; "name":
            int64[members + 1], where each begins; "key": int64[members], how much of it is the key;
            "span": int64[members, 2].
    """
    found: list[Member] = []
    keys: list[int] = []
    first: list[int] = []
    before, seen, torn = None, set[bytes](), b""
    for member in members(stat, storage):
        keyed = _KEYED.fullmatch(member.name)
        if member.name and (keyed is None or _META.match(member.name)):
            continue
        key = keyed[1] if keyed else None
        if key is None or key != before:
            first.append(len(found))
            torn = torn or (key if key is not None and key in seen else b"")
            seen.add(key or b"")
        before = key
        found.append(member)
        keys.append(len(key or b""))
    if torn:
        LOGGER.warning(
            f"in {stat.path} the members of {_decoded(torn)!r} do not follow each other, so that "
            "they are several records, each without the others' fields. If that is not meant, "
            "write the files in order: tar --sort=name."
        )
    bounds = np.array([*first, len(found)], np.int64)
    heads = np.array([m.head for m in found], np.int64)
    spans = np.array([(m.start, m.stop) for m in found], np.int64).reshape(-1, 2)
    return {
        "start": heads[bounds[:-1]],
        "stop": spans[bounds[1:] - 1, 1] if first else np.zeros(0, np.int64),
        "first": bounds,
        "name": np.cumsum([0, *(len(m.name) for m in found)], dtype=np.int64),
        "names": np.frombuffer(b"".join(m.name for m in found), np.uint8),
        "key": np.array(keys, np.int64),
        "span": spans,
    }
