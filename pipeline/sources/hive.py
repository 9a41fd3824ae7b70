"""Columns whose values are in the names of folders, as Hive and Spark write partitioned tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from pipeline.checks import shown
from pipeline.errors import SourceError
from pipeline.sources.complaints import parsing
from pipeline.sources.storage.location import named

if TYPE_CHECKING:
    import pyarrow as pa

_NULL = "__HIVE_DEFAULT_PARTITION__"  # how a folder's name says that the value is null
_WHOLE = re.compile(r"-?[0-9]+")


class Hive(NamedTuple):
    """The columns that the folders of files name, in the order in which they come in paths.

    Attributes:
        names: of the columns.
        values: for each file, the value of each column; None is null.
    """

    names: tuple[str, ...]
    values: tuple[tuple[str | None, ...], ...]

    def schema(self) -> pa.Schema:
        """Types as pyarrow infers them: int32 if every value is such a number, else string."""
        import pyarrow as pa

        each = zip(self.names, zip(*self.values, strict=True), strict=True)
        return pa.schema([(name, pa.int32() if _are_int32(v) else pa.string()) for name, v in each])

    def added(self, table: pa.Table, file: int) -> pa.Table:
        """A table of rows of a file, with these columns besides its own."""
        import pyarrow as pa

        for field, text in zip(self.schema(), self.values[file], strict=True):
            whole = field.type == pa.int32()
            value = pa.scalar(text if text is None or not whole else int(text), field.type)
            table = table.append_column(field, pa.repeat(value, table.num_rows))
        return table

    def described(self) -> list[str]:
        """What the data depend on, for fingerprints: the values of each file."""
        return [f"folders: {list(values)}" for values in self.values] if self.names else []


def hive_of(paths: Sequence[str], wanted: bool | Sequence[str]) -> Hive:
    """The columns of files in folders such as `year=2024/month=01`.

    Args:
        paths: of the files.
        wanted: whether every such folder is a column; or the names of those that are.

    Raises:
        SourceError: a folder is missing from the path of one of the files.
    """
    if isinstance(wanted, str):
        raise SourceError(f"hive={wanted!r}: give True, or a list of names such as {[wanted]}.")
    if not wanted:
        return Hive((), ((),) * len(paths))
    folders = [keys_of(path) for path in paths]
    names = tuple(dict.fromkeys(name for found in folders for name in found))
    names = names if wanted is True else tuple(wanted)
    if not names:
        raise SourceError(
            f"hive=True, but no folder of {paths[0]} has a name such as year=2024. Leave hive= out."
        )
    for path, found in zip(paths, folders, strict=True):
        if absent := [name for name in names if name not in found]:
            raise SourceError(
                f"no folder of {path} is named {absent[0]}=..., for the column {absent[0]!r} of "
                f"hive={wanted!r}. Narrow the paths, or give hive= the names that all of them have."
            )
    return Hive(names, tuple(tuple(found[name] for name in names) for found in folders))


def keys_of(path: str) -> dict[str, str | None]:
    """The values that the folders of a path name; of two folders of one name, the deeper one's.

    >>> keys_of("/data/lang=en/k=a%20b/0.parquet"), keys_of("k=a/k=__HIVE_DEFAULT_PARTITION__/0")
    ({'lang': 'en', 'k': 'a b'}, {'k': None})
    """
    found: dict[str, str | None] = {}
    for folder in named(path).split("/")[:-1]:
        name, equals, value = folder.partition("=")
        if name and equals:
            with parsing(path):
                text = unquote(value, errors="strict")
                found[unquote(name, errors="strict")] = None if value == _NULL else text
    return found


def refuse_both(path: str, schema: pa.Schema, hive: Hive) -> None:
    """Raise SourceError if a column is in a file as well as in the names of its folders."""
    if both := [name for name in hive.names if name in schema.names]:
        others = [name for name in hive.names if name not in both]
        raise SourceError(
            f"the columns {shown(both)} are in {path} and in the names of its folders. "
            + (f"Take just the others from there: hive={others}." if others else "Leave hive= out.")
        )


def tell_of_folders(path: str, schema: pa.Schema, columns: Sequence[str]) -> None:
    """Raise SourceError if a column that a file lacks is named by a folder of its path."""
    folders = keys_of(path) if columns else {}
    if named := [name for name in columns if name in folders and name not in schema.names]:
        raise SourceError(
            f"{path} has no column {shown(named)}, but folders of its path have that name. To "
            "read it from there give hive=True."
        )


def _are_int32(values: Sequence[str | None]) -> bool:
    known = [text for text in values if text is not None]
    return bool(known) and all(
        _WHOLE.fullmatch(text) and -(1 << 31) <= int(text) < 1 << 31 for text in known
    )
