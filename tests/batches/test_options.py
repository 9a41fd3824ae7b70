"""A loader's options, its looks, and what it tells of the last batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline import Dataset, Loader, Threads
from pipeline.errors import BatchError, OptionError, PositionError, UnknownNameError

DS = Dataset(range(20))


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("num_workers", "workers="),
        ("drop_last", 'remainder="drop"'),
        ("shuffle", r"dataset\.shuffle\(\)"),
        ("collate_fn", "collate="),
        ("prefetch_factor", "ahead="),
        ("rank", "host="),
        ("world_size", "hosts="),
        ("nonsense", "no such option"),
    ],
)
def test_other_libraries_names_get_one_line(theirs: str, ours: str) -> None:
    options: dict[str, Any] = {theirs: 4}
    with pytest.raises(OptionError, match=rf"Loader\({theirs}=4\): .*{ours}") as caught:
        Loader(DS, 4, **options)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, TypeError)


def test_a_loader_shows_where_it_stands() -> None:
    loader = Loader(DS, 8, workers=Threads(2))
    with loader:
        _ = [next(loader) for _ in range(4)]
        assert repr(loader) == "Loader(step=4, epoch=1, batch_size=8, workers=Threads(n=2))"

    assert repr(Loader(DS, 8).once()) == "Once(batch_size=8, workers=Serial())"
    assert repr(Loader(DS, 8).stats()).endswith("Limit: nothing yet.")


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("set_epoch", "not needed"), ("reset", "seek"), ("restore", "load_state_dict")],
)
def test_other_libraries_attributes_get_one_line(theirs: str, ours: str) -> None:
    with pytest.raises(UnknownNameError, match=rf"a Loader has no \.{theirs}: here it is .*{ours}"):
        getattr(Loader(DS, 4), theirs)
    assert not hasattr(Loader(DS, 4), theirs)
    with pytest.raises(AttributeError, match=r"a Loader has no \.nonsense$"):
        _ = Loader(DS, 4).nonsense  # pyright: ignore[reportAttributeAccessIssue]


def test_the_last_batch_is_told() -> None:
    loader = Loader(DS, 4)
    assert loader.last_step is None
    with pytest.raises(PositionError, match="no batch was handed out yet"):
        loader.where()
    loader.skip(range(1, 3))
    for expected in (0, 3):
        batch = next(loader)
        assert loader.last_step == expected
        assert [row.record for row in loader.where()] == batch.tolist()
    loader.seek(0)
    assert loader.last_step == 3
    loader.load_state_dict(loader.state_dict())
    assert loader.last_step is None


def test_rows_of_where_by_arrays() -> None:
    where = Loader(DS, 4).where(1)
    for index in ([1, 3], np.array([1, 3]), np.array([False, True, False, True]), slice(1, 4, 2)):
        assert [row.record for row in where[index]] == [5, 7]
    assert where[np.int64(-1)].record == 7
    assert where[[]] == ()
    with pytest.raises(PositionError, match="rows of a batch of 4"):
        _ = where[np.array([4])]


def test_a_batch_of_terabytes_is_refused_by_name() -> None:
    for size in (2**40, 10**30):
        for remainder in ("keep", "pad"):
            with pytest.raises(BatchError, match=r"batch_size=\d+: give a whole number"):
                Loader(Dataset(range(3)), size, remainder=remainder)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("lanes", [1, 2])
def test_a_counted_pass_smaller_than_a_batch_is_refused_where_it_would_drop(lanes: int) -> None:
    ds = DS.filter(lambda x: x % 4 == 0).lanes(lanes)
    for draw in (next, list):
        with pytest.raises(BatchError, match='remainder="drop" leaves nothing: batch_size=8'):
            draw(Loader(ds, 8, remainder="drop"))
    assert len(list(Loader(ds, 2, remainder="drop"))) in (1, 2)
    assert list(Loader(DS.filter(lambda x: False), 8, remainder="drop")) == []


def test_once_keeps_its_workers_and_each_loop_has_a_loader_of_its_own() -> None:
    made: list[Any] = []

    def seen(x: int) -> int:
        return x

    once = Loader(DS.map(seen), 8, workers=Threads(1)).once()
    make = once._make
    once._make = lambda: made.append(make()) or made[-1]
    first = [b.tolist() for b in once]
    assert [b.tolist() for b in once] == first
    assert len(once) == 3
    assert len(made) == 1
    both = [(a.tolist(), b.tolist()) for a, b in zip(once, once, strict=True)]
    assert both == [(b, b) for b in first]
    assert len(made) == 2
    for _ in once:
        break
    assert [b.tolist() for b in once] == first
    once.close()
