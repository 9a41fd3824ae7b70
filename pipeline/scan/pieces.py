"""The finished pieces of a scan: files, each of which is there whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ScanError
from pipeline.sampling.scanned import HEADER, VERSION, column_path
from pipeline.sources.storage.arrays import load_arrays, save_arrays
from pipeline.sources.storage.atomic import written_whole
from pipeline.transforms.measure import BARE, joined

Values = dict[str, NDArray[Any]]
LEAST, MOST = 1 << 10, 1 << 10  # records of a piece, at least; pieces, at most


class Pieces:
    """An unfinished scan, whose piece i is of the records `bounds[i]:bounds[i + 1]`.

    Args:
        folder: where the scan will be; pieces lie in it until then.
        digest: identifies dataset and function: pieces of another digest are never mixed in.
        rows: how many records there are in all.
    """

    def __init__(self, folder: str, digest: str, rows: int) -> None:
        self.folder, self._digest, self._rows = folder, digest, rows
        self._here = os.path.join(folder, f"pieces-{digest}")
        size = max(LEAST, -(-rows // MOST))
        self.bounds = [*range(0, rows, size), rows]
        try:
            os.makedirs(self._here, exist_ok=True)
        except OSError as e:
            raise ScanError(f"a scan cannot be kept in {folder}: {e}. Give another path=") from e

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def read(self, i: int) -> Values | None:
        """Piece i; None if it is yet to be made."""
        n = self.bounds[i + 1] - self.bounds[i]
        part = load_arrays(self._path(i), self._facts(i))
        return part if part and all(a.shape == (n,) for a in part.values()) else None

    def write(self, i: int, part: Values) -> None:
        """Save piece i, so that it outlives even a crash of the machine."""
        save_arrays(self._path(i), part, self._facts(i), durable=True)

    def finish(self, of: dict[str, str], packages: dict[str, str]) -> None:
        """Write the columns from the pieces, then the header, which marks the scan as whole.

        Args:
            of: what the scan depends on, by name.
            packages: versions of the installed packages that its functions use.
        """
        dtypes = columns_of(self._again(i) for i in range(len(self)))
        names = list(dtypes)
        for i, (name, dtype) in enumerate(dtypes.items()):
            self._column(i, name, dtype)
        header = {
            "version": VERSION,
            "rows": self._rows,
            "named": names != [BARE],
            "columns": [{"name": name, "dtype": dtype.str} for name, dtype in dtypes.items()],
            "digest": self._digest,
            "of": of,
            "packages": packages,
        }
        with self._written(os.path.join(self.folder, HEADER)) as f:
            f.write(json.dumps(header, indent=1).encode())
        for left in Path(self.folder).glob("pieces-*"):
            shutil.rmtree(left, ignore_errors=True)

    def _again(self, i: int) -> Values:
        part = self.read(i)
        if part is None:
            raise FileNotFoundError(self._path(i))
        return part

    def _column(self, i: int, name: str, dtype: np.dtype[Any]) -> None:
        described = {"descr": dtype.str, "fortran_order": False, "shape": (self._rows,)}
        with self._written(column_path(self.folder, i)) as f:
            np.lib.format.write_array_header_1_0(f, described)
            for piece in range(len(self)):
                f.write(self._again(piece)[name].astype(dtype).tobytes())

    def _path(self, i: int) -> str:
        return os.path.join(self._here, f"{i:04}.arrays")

    def _facts(self, i: int) -> dict[str, Any]:
        return {"scan": self._digest, "piece": i, "of": len(self)}

    def _written(self, path: str) -> AbstractContextManager[IO[bytes]]:
        # drafts lie in the folder of the pieces, which is removed in the end
        return written_whole(path, drafts=self._here, durable=True)


def columns_of(parts: Iterable[Values]) -> dict[str, np.dtype[Any]]:
    """The name of each column, with a dtype that holds its values of all parts.

    Raises:
        ScanError: their fields differ, or some hold flags and some numbers.
    """
    found: dict[str, set[np.dtype[Any]]] = {}
    for part in parts:
        found = found or {name: set() for name in part}
        if part.keys() != found.keys():
            raise ScanError(
                f"the scan's function returned the fields {list(found)} for some rows and "
                f"{list(part)} for others. Return the same ones for every row."
            )
        for name, a in part.items():
            found[name].add(a.dtype)
    return {name: joined(name, dtypes) for name, dtypes in found.items()}


def end_to_end(parts: list[Values]) -> Values:
    """The columns of all parts, end to end, in dtypes that hold them all."""
    return {
        name: np.concatenate([part[name] for part in parts], dtype=dtype)
        for name, dtype in columns_of(parts).items()
    }
