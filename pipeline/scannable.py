"""Which dataset a scan is of: whether rows keep their places, and whether a scan fits a chain."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pipeline.chain import Chain, as_order
from pipeline.errors import ChainError, ScanError
from pipeline.sampling.scanned import Scanned, differences
from pipeline.types import ENDLESS, At


def scan_key(chain: Chain) -> dict[str, str]:
    """What a scan of a chain depends on, by name: no seed where nothing is random.

    >>> from pipeline import Dataset
    >>> ds = Dataset([1, 2], seed=3)
    >>> sorted(scan_key(ds.chain)), sorted(scan_key(ds.shuffle(reshuffle=False).chain))
    (['source'], ['seed', 'source', 'stages.0'])
    """
    dropped = set(_needless(chain, ""))
    return {k: v for k, v in chain.fingerprint().items() if k not in dropped}


def _needless(chain: Chain, prefix: str) -> Iterator[str]:
    # on_error says what stands for a bad record, whose value nobody needs
    yield prefix + "on_error"
    if not any(s.random for s in (*chain.before, *chain.stages)):
        yield prefix + "seed"
    for name, part in chain.parts.items():
        yield from _needless(part, f"{prefix}{name}.")


def check_scannable(chain: Chain) -> None:
    """Raises ChainError if the rows of a chain have no lasting places, with the remedy."""
    if chain.counted:
        raise ChainError(
            f"a scan needs rows by position, but {chain.counting} counts rows as they come: scan "
            "before it"
        )
    if chain.length == ENDLESS:
        raise ChainError("a scan of an endless dataset would never end: scan before repeat()")
    if chain.length == 0:
        raise ChainError("this dataset has no rows to scan")
    fickle = _fickle(chain, pinned=False)
    if fickle:
        raise ChainError(
            f"a scan is of positions, but {fickle} sets other rows there in each epoch. "
            "Scan before it, and put it above the filter or pack that uses the scan."
        )


def fickle_order(chain: Chain) -> str | None:
    """The stage, in words, that gives each epoch an order of its own; None if all have one."""
    return _fickle(chain, pinned=False, values=False)


def _fickle(chain: Chain, pinned: bool, values: bool = True) -> str | None:
    # the first stage from above that makes an epoch differ from another
    at = At(*(np.full(1, v, np.int64) for v in (1, 0 if pinned else 1, 0)))
    sites = chain.sites(())
    for i in reversed(range(len(chain.stages))):
        stage = chain.stages[i]
        order = as_order(stage)
        if order is None:
            if stage.random and values:
                return f"{stage.kind} '{stage.name}'"
            continue
        if stage.random and int(at.order[0]) and getattr(stage, "reshuffle", True):
            return f"{stage.kind} '{stage.name}'"
        at = order.resolve(at, chain.lengths[i], sites[i])
    if getattr(chain.root, "kind", "") == "mix" and int(at.order[0]):
        return "mix, whose datasets go on from pass to pass,"
    parts = chain.parts.values()
    return next(filter(None, (_fickle(part, not at.order[0], values) for part in parts)), None)


def scanned_part(chain: Chain, scanned: Scanned, what: str) -> int:
    """How many of a chain's stages the scanned dataset has.

    Raises:
        ScanError: the scan is of none of the datasets beneath, told with what differs.
    """
    was = {k: v for k, v in scanned.fingerprint().items() if k != "function"}
    keys = [scan_key(chain.beneath(k)) for k in range(chain.split + 1)]
    fits = [k for k, key in enumerate(keys) if key == was]
    if fits:
        return fits[-1]
    stages = [sum(name.startswith("stages.") for name in key) for key in (was, *keys)]
    near = next((k for k in range(chain.split + 1) if stages[k + 1] == stages[0]), chain.split)
    raise ScanError(
        f"{what}: {scanned!r} is of another dataset. {differences(was, keys[near])}. Use it "
        "on the dataset that was scanned or above that, or scan this one: scan(dataset, function)."
    )


def check_in_place(chain: Chain, part: int, what: str) -> None:
    """Raises ScanError if an order stands between a scanned dataset and what uses the scan."""
    for stage in chain.stages[part : chain.split]:
        if as_order(stage) is not None:
            raise ScanError(
                f"{what} is by the positions of the dataset scanned, but {stage.kind} "
                f"'{stage.name}' stands between: {what} before it"
            )
