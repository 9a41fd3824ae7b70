"""Mistakes in a chain are refused where they are made, by name and with their value."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from pipeline import (
    Dataset,
    Loader,
    Processes,
    Scanned,
    Threads,
    TorchFeed,
    WindowSource,
    concatenate,
    interleave,
    merge,
    mix,
    scan,
    zip_datasets,
)
from pipeline.errors import (
    ChainError,
    CollateError,
    FeedError,
    HostsError,
    PipelineError,
    PositionError,
    ScanError,
)

DS: Any = Dataset(range(10))


@pytest.mark.parametrize(
    ("make", "error", "why"),
    [
        (lambda: DS.shuffle(name=5), ChainError, r"shuffle\(name=5\): give a string"),
        (lambda: DS.map(abs, name=5), ChainError, r"map\(name=5\): give a string"),
        (lambda: DS.shuffle(reshuffle="no"), ChainError, "reshuffle='no': give True or False"),
        (lambda: DS.map(abs, batched="x"), ChainError, "batched='x': give True or False"),
        (lambda: DS.random_map(None), ChainError, r"random_map\(None\): give a function"),
        (lambda: DS.random_map(abs, seed_globals=1), ChainError, "seed_globals=1: give True"),
        (lambda: DS.pack(4, cross="a"), ChainError, "cross='a': give True or False"),
        (lambda: DS["x"], PositionError, r"ds\['x'\]: give a row by its number.*ds\[0\]\['x'\]"),
        (lambda: DS[1.5], PositionError, "row=1.5: give a whole number$"),
        (lambda: concatenate([DS, 5]), ChainError, "concatenate joins Datasets, not int"),  # pyright: ignore[reportArgumentType]
        (lambda: interleave([DS, 5]), ChainError, "interleave joins Datasets, not int"),  # pyright: ignore[reportArgumentType]
        (lambda: zip_datasets({"a": 5}), ChainError, "zip_datasets joins Datasets, not int"),  # pyright: ignore[reportArgumentType]
        (lambda: concatenate(DS), ChainError, r"takes datasets in a list: concatenate\(\[a, b\]\)"),
        (lambda: mix({"a": 5}, {"a": 1}), ChainError, "mix joins Datasets, not int"),  # pyright: ignore[reportArgumentType]
        (lambda: mix([DS], {"a": 1}), ChainError, "mix wants {name: dataset}"),  # pyright: ignore[reportArgumentType]
        (lambda: zip_datasets([DS]), ChainError, "wants {name: dataset}"),  # pyright: ignore[reportArgumentType]
        (lambda: concatenate([DS], seed="a"), ChainError, "seed='a'"),  # pyright: ignore[reportArgumentType]
        (lambda: Loader(DS, 4, host=0.5, hosts=2), HostsError, "host=0.5"),  # pyright: ignore[reportArgumentType]
        (lambda: Loader(DS, 4, collate=5), ChainError, r"collate\(5\): give a function"),  # pyright: ignore[reportArgumentType]
        (lambda: Loader(DS, 4, feed=5), FeedError, "feed=5: give JaxFeed"),  # pyright: ignore[reportArgumentType]
        (lambda: Loader(DS, 4).skip(files=5), PositionError, "files=5: give names"),
        (lambda: scan(DS, abs, path=5), ChainError, "path=5"),  # pyright: ignore[reportArgumentType]
        (lambda: scan(DS, abs, path="/proc/nope/x"), ScanError, "cannot be kept in /proc/nope/x"),
        (lambda: Scanned(5), ScanError, r"Scanned\(5\): give the folder"),  # pyright: ignore[reportArgumentType]
    ],
)
def test_mistakes_are_named(make: Any, error: type[PipelineError], why: str) -> None:
    with pytest.raises(error, match=why):
        make()


def test_messages_are_bounded_and_keep_their_remedy() -> None:
    parts = {f"component {i}": DS for i in range(5000)}
    with pytest.raises(ChainError) as caught:
        mix(parts, {"nope": 1})
    assert len(str(caught.value)) < 4000
    message = str(ChainError("x" * 10**6 + ". Rename it in a .map."))
    assert len(message) == 4000
    assert message.endswith(". Rename it in a .map.")


# ---- rows and arguments that had ended in somebody else's error


async def _later(x: int) -> Any:
    yield x


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: next(Loader(Dataset([{1: 1, "1": 2}]), 1)), "two fields of one name"),
        (lambda: next(Loader(Dataset([1, 2]).map(_later), 2)), "read only once"),
        (lambda: merge(cast(Any, {"version": 1})), "list with the state of each"),
        (lambda: WindowSource(np.zeros(4), 2, lengths=[4.0]), "give whole numbers"),  # pyright: ignore[reportArgumentType]
        (lambda: Dataset([1]).cache("a\0b"), "local folder"),
        (lambda: Dataset(range(5))[[True, 2]], r"got \[True, 2\]"),
        (lambda: Dataset(range(5), seed=2**63), f"whole number from -{1 << 62} to {1 << 62}$"),
        (lambda: Dataset(range(5), seed=-(2**63)), f"whole number from -{1 << 62} on$"),
        (lambda: DS.shuffle(window=2**63), f"whole number from 1 to {1 << 62}$"),
        (lambda: Loader(DS, 2, workers=cast(Any, Threads)), r"Threads is a class.*Threads\(4\)"),
        (lambda: Loader(DS, 2, workers=cast(Any, np.arange(3))), "workers=array.*give 0"),
        (
            lambda: Processes(cast(Any, np.float64(2))),
            r"Processes\(np.float64\(2.0\)\): give a whole number",
        ),  # pyright: ignore[reportArgumentType]
        (lambda: Dataset(list), r"list is a class\. Give an object of it, list\(…\)"),
        (lambda: Dataset(Dataset), "Dataset is a class"),
        (lambda: Dataset({"a": [1], "b": 2}), "column 'b' needs a leading axis.*scalar 2$"),
        (lambda: Dataset([1]).cache(cast(Any, 5)), r"cache\(5\): give a folder"),
        (
            lambda: Loader(DS, 2).load_state_dict(
                Loader(DS, 2).state_dict(), allow=cast(Any, True)
            ),
            "allow=True: give a collection of names",
        ),
    ],
)
def test_odd_arguments_are_refused_by_name(use: Any, message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        use()


def test_numbers_of_numpy_are_numbers() -> None:
    n: Any = np.int64(2)
    rows = list(Loader(DS, 2))
    kinds: list[Any] = [n, np.uint8(0), Threads(n), Processes(n)]
    for workers in kinds:
        with Loader(DS, n, workers=workers, ahead=n << 20) as loader:
            assert [batch.tolist() for batch in loader] == [batch.tolist() for batch in rows]
    assert Threads(n) == Threads(2)


def test_tensors_that_numpy_cannot_hold_are_named() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(FeedError, match="prefetch='2': give a whole number"):
        TorchFeed(prefetch="2")  # pyright: ignore[reportArgumentType]
    for odd in (torch.zeros(2, dtype=torch.bfloat16), torch.zeros(2, requires_grad=True)):
        ds = Dataset([0, 1]).map(lambda i, odd=odd: {"x": odd})
        with pytest.raises(CollateError, match=r"field 'x': record 0 .* has a Tensor that NumPy"):
            next(Loader(ds, 2))


def test_a_cache_folder_may_be_named_in_bytes(tmp_path: Path) -> None:
    assert repr(str(tmp_path)) in repr(Dataset([1]).cache(bytes(tmp_path)))  # pyright: ignore[reportArgumentType]
