"""The result of a scan: a file with one value per record, and what was scanned."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from pipeline.checks import shown
from pipeline.errors import ScanError
from pipeline.sources.complaints import parsed_json, parsing
from pipeline.sources.storage.arrays import load_npy

HEADER = "scan.json"
VERSION = 1
_AGAIN = "Delete the folder and scan again."


@final
@dataclass(frozen=True)
class Scanned:
    """One value for each record of a scanned dataset, by position. It pickles small.

    `scan` makes it; `Scanned(path)` opens an existing one. `ds.filter(flags)` and `ds.pack(…,
    lengths=…)` take it.

    Attributes:
        path: the folder of the scan.
        column: which value, if the function returned a dict; `scanned["length"]` selects one.
        least, most: if either is given, the values are flags: whether the scanned value lies
            between them, inclusive.
        digest: of the scan that the folder must hold; "" for any.

    Raises:
        ScanError: there is no scan, it is damaged, or it is of another dataset or function.

    >>> import tempfile
    >>> from pipeline import Dataset, scan
    >>> folder = tempfile.mkdtemp()
    >>> scores = scan(Dataset([3, 5, 8]), lambda x: x / 10, path=folder + "/scores", workers=0)
    >>> scores.values.tolist(), scores.within(0.4).values.tolist()
    ([0.3, 0.5, 0.8], [False, True, True])
    """

    path: str
    column: str | None = None
    least: float | None = None
    most: float | None = None
    digest: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.path, str | os.PathLike):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ScanError(f"Scanned({self.path!r}): give the folder of a scan")
        object.__setattr__(self, "path", os.path.abspath(os.fspath(self.path)))
        found = str(self._header["digest"])
        if self.digest and found != self.digest:
            raise ScanError(
                f"the scan at {self.path} was replaced meanwhile by one of another dataset or "
                "function. Give each scan a path of its own."
            )
        object.__setattr__(self, "digest", found)
        if self.column is not None and self.column not in self._columns:
            raise ScanError(
                f"the scan at {self.path} has no column {self.column!r}: "
                f"choose one of {self._columns}"
            )

    def __reduce__(self) -> Any:
        return Scanned, (self.path, self.column, self.least, self.most, self.digest)

    def __len__(self) -> int:
        return int(self._header["rows"])

    def __eq__(self, other: object) -> bool:
        if isinstance(other, int | float | str | np.ndarray | np.generic):
            raise ScanError(
                f"{self!r} is no array, so that comparing it with {shown(other)} tells nothing of "
                "its records: compare scanned.values"
            )
        if not isinstance(other, Scanned):
            return NotImplemented
        return self.__reduce__() == other.__reduce__()

    def __repr__(self) -> str:
        column = "" if self.column is None else f"[{self.column!r}]"
        return f"Scanned({self.path!r}, {len(self)} records){column}"

    def __getitem__(self, column: str) -> Scanned:
        """The scan with one of its columns selected."""
        return replace(self, column=column)

    def within(self, least: float | None = None, most: float | None = None) -> Scanned:
        """Flags: whether a record's value lies in [least, most]; None leaves a side open."""
        self._one("within")
        return replace(self, least=least, most=most)

    def fingerprint(self) -> dict[str, str]:
        """The dataset and function that were scanned: part of a fingerprint by name."""
        return {str(k): str(v) for k, v in self._header["of"].items()}

    @property
    def values(self) -> Any:
        """The column `[records]`, or a dict of columns if the function returned a dict."""
        if self.is_named:
            return {name: replace(self, column=name).values for name in self._columns}
        return self._tested(np.asarray(self._one("values")))

    @property
    def is_named(self) -> bool:
        """Whether there are several columns, and none is selected."""
        return self.column is None and bool(self._header["named"])

    @property
    def is_flags_of_bounds(self) -> bool:
        """Whether `within` turns the values into flags."""
        return self.least is not None or self.most is not None

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype that `at` returns."""
        return np.dtype(bool) if self.is_flags_of_bounds else self._one("dtype").dtype

    def at(self, positions: NDArray[np.int64]) -> NDArray[Any]:
        """The values of records by position, in the shape of `positions`. Reads only those."""
        return self._tested(self._one("at")[positions])

    def runs(self, numbers: NDArray[np.int64], width: int) -> NDArray[Any]:
        """The values of aligned runs of `width` records: `[numbers, width]`, 0 beyond the end.

        >>> import tempfile
        >>> from pipeline import Dataset, scan
        >>> found = scan(Dataset([3, 5, 8]), lambda x: x, path=tempfile.mkdtemp(), workers=0)
        >>> found.runs(np.array([1, 0]), 2).tolist()
        [[8, 0], [3, 5]]
        """
        column = self._one("runs")
        whole = len(column) // width
        found = np.zeros((len(numbers), width), self.dtype)
        inside = numbers < whole
        rows = column[: whole * width] if isinstance(column, np.ndarray) else column
        found[inside] = self._tested(rows.reshape(whole, width)[numbers[inside]])
        rest = column[whole * width :]
        found[~inside, : len(rest)] = self._tested(rest)
        return found

    def _tested(self, found: NDArray[Any]) -> NDArray[Any]:
        if not self.is_flags_of_bounds:
            return found
        flags = np.ones(found.shape, bool)
        if self.least is not None:
            flags &= found >= self.least
        if self.most is not None:
            flags &= found <= self.most
        return flags

    def _one(self, what: str) -> Any:
        if self.is_named:
            raise ScanError(
                f"the scan at {self.path} has the columns {self._columns}, {what} wants one: "
                f"choose it by scanned[{self._columns[0]!r}]"
            )
        return self._array

    @cached_property
    def _columns(self) -> list[str]:
        return [str(c["name"]) for c in self._header["columns"]]

    @cached_property
    def _header(self) -> dict[str, Any]:
        header = read_header(self.path)
        if header is None:
            raise ScanError(
                f"there is no finished scan at {self.path}. Make it: scan(dataset, function, "
                "path=…); one that was broken off goes on where it stood."
            )
        return header

    @cached_property
    def _array(self) -> Any:
        i = 0 if self.column is None else self._columns.index(self.column)
        path = column_path(self.path, i)
        found = load_npy(path, ScanError, _AGAIN)
        if found.shape != (len(self),):
            raise ScanError(
                f"the scan's column {path} has shape {found.shape}, not ({len(self)},). {_AGAIN}"
            )
        return found


def column_path(folder: str, i: int) -> str:
    """The path of a scan's i-th column."""
    return os.path.join(folder, f"column-{i}.npy")


def key_digest(of: Mapping[str, str]) -> str:
    """Sixteen hex digits that identify what was scanned.

    Args:
        of: fingerprint of the dataset and function, by name.
    """
    text = json.dumps(dict(sorted(of.items())))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def read_header(folder: str) -> dict[str, Any] | None:
    """The header of a finished scan; None if there is none.

    Raises:
        ScanError: it cannot be read, or was written by a newer Lockstep.
    """
    path = os.path.join(folder, HEADER)
    try:
        header = parsed_json(Path(path).read_bytes(), path, ScanError, _AGAIN)
    except FileNotFoundError:
        return None
    except NotADirectoryError as e:
        raise ScanError(f"{folder} is a file, a scan is a folder: give another path=") from e
    except OSError as e:
        raise ScanError(f"{path} cannot be read: {e}. Correct the path or its rights.") from e
    with parsing(path, error=ScanError, remedy=_AGAIN):
        version, whole = header["version"], _is_header(header)
    if version != VERSION or not whole:
        raise ScanError(f"{path} has version {version}, this Lockstep reads {VERSION}. {_AGAIN}")
    return header


def _is_header(header: Any) -> bool:
    columns = [(c["name"], np.dtype(c["dtype"])) for c in header["columns"]]
    texts = [*header["of"].keys(), *header["of"].values(), header["digest"], *dict(columns)]
    return (
        bool(columns)
        and all(isinstance(text, str) for text in texts)
        and type(header["rows"]) is int
        and header["rows"] >= 0
        and type(header["named"]) is bool
    )


def differences(was: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What differs between the fingerprint of a scan and the one wanted, in words."""
    keys = sorted(k for k in {*was, *now} if was.get(k) != now.get(k))
    words = {key: key.replace("stages.", "stage ") for key in keys}
    return "; ".join(f"{words[k]}: {was.get(k, 'none')} -> {now.get(k, 'none')}" for k in keys)
