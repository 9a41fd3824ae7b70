"""What a scan evaluates for each row: small numbers or flags, as columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from pipeline.block import Block, Columns
from pipeline.checks import shown
from pipeline.errors import ScanError
from pipeline.transforms.calling import each
from pipeline.transforms.defaults import FunctionTransform
from pipeline.types import Site

BARE = "value"  # what the column is called if the function returns no dict


@final
@dataclass(frozen=True)
class Measure(FunctionTransform):
    """Columns of `f(row)` for each row: of a bool, whole number or float, or of a dict of them."""

    kind = "scan"

    def apply(self, block: Block, site: Site) -> Block:
        """The columns of values; one without a name is called "value".

        Raises:
            ScanError: f returned something else, or other fields than for another row.
        """
        block, rows = each(lambda row: self._checked(row, site), block, site)
        if not rows:
            return Block([], block.origin)
        for i, row in enumerate(rows):
            if row.keys() != rows[0].keys():
                raise ScanError(
                    f"{site.stage} returned the fields {list(row)} for "
                    f"{site.describe(block.origin, i)} and {list(rows[0])} for others. Return the "
                    "same ones for every row."
                )
        columns = {key: stacked(key, [row[key] for row in rows], site) for key in rows[0]}
        return Block(Columns(columns), block.origin)

    def _checked(self, row: Any, site: Site) -> dict[str, Any]:
        found = self.f(row)
        named = {str(k): v for k, v in found.items()} if isinstance(found, dict) else {BARE: found}
        for value in named.values():
            if not isinstance(value, bool | int | float | np.bool_ | np.integer | np.floating):
                raise ScanError(
                    f"{site.stage} returned {shown(found)} ({type(value).__name__}). A scan keeps "
                    "a bool, a whole number or a float for each row, or a dict of them."
                )
        if not named:
            raise ScanError(f"{site.stage} returned an empty dict: return at least one value")
        return named


def stacked(name: str, values: list[Any], site: Site) -> NDArray[Any]:
    """Values of one field: bool, int64 or float64; NumPy's own numbers keep their dtype."""
    dtypes = {_DTYPES.get(type(v)) or np.asarray(v).dtype for v in values}
    try:
        return np.array(values, joined(name, dtypes))
    except OverflowError as e:
        raise ScanError(f"{site.stage}: a number does not fit int64: {e}") from e


_DTYPES = {bool: np.dtype(bool), int: np.dtype(np.int64), float: np.dtype(np.float64)}


def joined(name: str, dtypes: set[np.dtype[Any]]) -> np.dtype[Any]:
    """A dtype that holds the values of all of `dtypes`.

    Raises:
        ScanError: some are flags and some are numbers.
    """
    if len({dtype.kind == "b" for dtype in dtypes}) > 1:
        raise ScanError(
            f"a scan's function returned flags for some rows and numbers for others ({name!r}: "
            f"{', '.join(sorted(map(str, dtypes)))}). Return one kind."
        )
    return np.result_type(*dtypes)
