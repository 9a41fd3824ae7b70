"""Joins of several datasets: one after another, in turn, side by side, or mixed."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from pipeline.checks import whole
from pipeline.dataset import Dataset, standing_on
from pipeline.errors import ChainError
from pipeline.nodes import (
    STOPS,
    Concatenated,
    Interleaved,
    LaneMix,
    Mixed,
    Part,
    Zipped,
    check_names,
)
from pipeline.nodes.scope import Scope
from pipeline.sampling.schedule import Schedule

_EXAMPLES = {
    "mix": "{'a': a, 'b': b}, weights={'a': 3, 'b': 1}",
    "zip_datasets": "{'a': a, 'b': b}",
}


def concatenate(datasets: Sequence[Dataset], *more: Any, seed: int = 0) -> Dataset:
    """Indexed datasets one after another. Their shuffles differ, as seeds depend on their places.

    Args:
        datasets: finite indexed datasets.
        seed: the seed of the stages above.

    >>> list(concatenate([Dataset(["a", "b"]), Dataset(["c"])]))
    ['a', 'b', 'c']
    """
    return standing_on(Concatenated(_numbered("concatenate", datasets, more)), seed)


def interleave(
    datasets: Sequence[Dataset],
    *more: Any,
    cycle: int | None = None,
    run: int = 1,
    seed: int = 0,
) -> Dataset:
    """Indexed datasets in turn, `run` rows of each; an epoch has each row of each once.

    `cycle` of them take turns at a time. From the round after one has given all its rows, the next
    dataset that has not begun takes its turn. Lengths may differ, so fewer take turns towards the
    end: for shares that hold throughout, use mix.

    Args:
        datasets: finite indexed datasets.
        cycle: how many take turns at a time; None for all of them.
        run: rows of one before the next has its turn.
        seed: the seed of the stages above.

    >>> a, b, c = Dataset(["a0", "a1", "a2"]), Dataset(["b0"]), Dataset(["c0", "c1"])
    >>> list(interleave([a, b, c]))
    ['a0', 'b0', 'c0', 'a1', 'c1', 'a2']
    >>> list(interleave([a, b, c], cycle=2))
    ['a0', 'b0', 'a1', 'c0', 'a2', 'c1']
    """
    parts = _numbered("interleave", datasets, more)
    _warn_of_one_order("interleave", parts)
    cycle = len(parts) if cycle is None else whole("interleave cycle", cycle, 1)
    return standing_on(Interleaved(parts, cycle, whole("interleave run", run, 1)), seed)


def zip_datasets(datasets: Mapping[str, Dataset], *more: Any, seed: int = 0) -> Dataset:
    """Indexed datasets of one length side by side: rows are {name: row}.

    >>> zip_datasets({"x": Dataset(["a", "b"]), "y": Dataset([1, 2])})[1]
    {'x': 'b', 'y': 2}
    """
    if more:
        raise ChainError(f"zip_datasets wants names: zip_datasets({_EXAMPLES['zip_datasets']})")
    parts = _named("zip_datasets", datasets)
    _warn_of_orders_apart(parts)
    return standing_on(Zipped(parts), seed)


def mix(
    datasets: Mapping[str, Dataset],
    weights: Mapping[str, float] | Sequence[tuple[int, Mapping[str, float]]],
    stop: Literal["first", "all", "never"] = "first",
    *,
    seed: int = 0,
) -> Dataset:
    """Rows of several datasets dealt by weight: every prefix is within one row of its shares.

    Shares are rounded to 65,536ths. If one of them would come to nothing, all are taken as exact
    as their decimals, or rounded to 2**30ths, and every prefix is within 1.7 rows (half a row, of
    two datasets). So weights go down to 1 in 10**7 and beyond, with rows found at once anywhere.

    Shares count the rows that leave the mix, after filters and packs of the single datasets: pack
    before mixing for shares of tokens, after it for shares of documents. What is drawn from a
    dataset is always a prefix of its own order; a shorter one goes on with its next epoch.

    If all datasets are indexed, so is the mix. Else it is counted, and each of its lanes deals the
    rows of that lane of its datasets.

    Args:
        datasets: datasets by name, without "." and "/"; each may have shuffles, filters and packs.
        weights: {name: any number from 0 on}; or a schedule [(from_row, {name: weight}), …] rising
            from row 0, where a missing name has weight 0. A schedule is append-only: on resume,
            its entries from `Loader.frontier` on may be added or changed, and so may datasets that
            are first dealt there.
        stop: a pass ends before a dataset would begin again ("first"), once all have been passed
            through ("all"), or "never". The next pass starts the pattern anew, and its datasets go
            on where they were.
        seed: the seed of the stages above.

    Raises:
        ChainError: names and weights do not fit, a weight is so small that it rounds to nothing
            (a share below half a row in 2**30), or a dataset has lanes of its own.

    >>> ds = mix({"a": Dataset(list("abcd")), "b": Dataset([1, 2])}, {"a": 2, "b": 1})
    >>> list(ds), ds.fingerprint()["schedule.0"]
    (['a', 1, 'b', 'c', 2, 'd'], '0 {"a": 43691, "b": 21845}')
    """
    parts = _named("mix", datasets)
    if stop not in STOPS:
        raise ChainError(f'mix(stop={stop!r}): choose "first", "all" or "never"')
    if not parts:
        raise ChainError("mix of no datasets: give at least one")
    check_names(parts)
    _warn_of_one_order("mix", parts)
    schedule = Schedule.of(list(parts), weights)
    node = LaneMix if any(part.streamed for part in parts.values()) else Mixed
    return standing_on(node(parts, schedule, stop), seed)


def _warn_of_one_order(kind: str, parts: Mapping[str, Part]) -> None:
    # orders drawn from the same seed and names; those of unpinned orders differ by dataset
    known: dict[tuple[object, ...], tuple[str, object]] = {}
    for name, part in parts.items():
        for *drawn, order in part.node.orders(Scope(part, (name,), (name,))):
            other, same = known.setdefault(tuple(drawn), (name, order))
            if other != name and same is not order:
                warnings.warn(
                    f"{kind}: datasets {other!r} and {name!r} are in the same random order: what "
                    f"is chosen of each was shuffled from seed {drawn[0]} under one name. Give "
                    "one of them a seed of its own: shuffle(seed=) or Dataset(…, seed=).",
                    stacklevel=3,
                )
                return


def _warn_of_orders_apart(parts: Mapping[str, Part]) -> None:
    found = {
        name: tuple(tuple(drawn) for *drawn, _ in part.node.orders(Scope(part, (name,), (name,))))
        for name, part in parts.items()
    }
    shuffled = [name for name, orders in found.items() if orders]
    if len({found[name] for name in shuffled}) > 1:
        warnings.warn(
            f"zip_datasets: datasets {shuffled} are each shuffled on their own, so rows that "
            "belong together stand apart. Shuffle the zip instead, or choose rows of each in one "
            "order: shuffle(seed=…)[:n].",
            stacklevel=3,
        )


def _named(kind: str, datasets: Mapping[str, Any]) -> dict[str, Part]:
    if not isinstance(datasets, Mapping) or not all(isinstance(n, str) for n in datasets):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ChainError(
            f"{kind} wants {{name: dataset}}, names being strings: {kind}({_EXAMPLES[kind]})"
        )
    return dict(zip(datasets, _parts(kind, datasets.values()), strict=True))


def _numbered(kind: str, datasets: Iterable[Any], more: Sequence[Any]) -> dict[str, Part]:
    if more:
        raise ChainError(f"{kind} takes datasets in a list: {kind}([a, b])")
    return {str(i): part for i, part in enumerate(_parts(kind, datasets))}


def _parts(kind: str, datasets: Iterable[Any]) -> list[Part]:
    if isinstance(datasets, Dataset):
        raise ChainError(f"{kind} takes datasets in a list: {kind}([a, b])")
    found = list(datasets)
    for other in found:
        if not isinstance(other, Dataset):
            raise ChainError(
                f"{kind} joins Datasets, not {type(other).__name__}: Dataset(…) of each"
            )
    return [ds.top for ds in found]
