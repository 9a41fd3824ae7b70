"""How many rows of each component a mix has used, computed without reading."""

from __future__ import annotations

from pipeline.checks import whole
from pipeline.dataset import Dataset
from pipeline.errors import ChainError, PositionError


def dealt(dataset: Dataset, row: int) -> dict[str, int]:
    """Rows of each component among the first `row` rows of a pass over a mix.

    It costs a look at each entry of the schedule. Rows are those of the mix itself, as in
    `Loader.frontier`: filters and packs after the mix are ignored. With L lanes, each lane deals
    its share of the rows by the same pattern.

    Raises:
        ChainError: the dataset is not a mix, with or without stages on it.
        PositionError: row is below 0.

    >>> from pipeline import mix
    >>> ds = mix({"a": Dataset(range(9)), "b": Dataset(range(9))}, {"a": 3, "b": 1}, "never")
    >>> dealt(ds, 10**12)
    {'a': 750000000000, 'b': 250000000000}
    """
    mixture, lanes = dataset.top.node.mixture, dataset.top.lanes
    if mixture is None:
        raise ChainError("this dataset is no mix: give one, with or without stages on it")
    turns, rest = divmod(whole("row", row, 0, PositionError), lanes)
    pattern = mixture[1].pattern.in_lanes(lanes)
    counts = (lanes - rest) * pattern.counts(turns) + rest * pattern.counts(turns + 1)
    return dict(zip(mixture[1].names, counts.tolist(), strict=True))
