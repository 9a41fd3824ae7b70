"""What a batch looks like: its layout in memory, its padding, and what belongs to the user."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

from pipeline import Dataset, Loader, Processes, Threads
from pipeline.errors import BatchError
from pipeline.transforms.collate import in_c_order
from pipeline.tree import leaves

ENGINES = (0, Threads(2), Processes(1, parent=False))


class Pair(NamedTuple):
    image: Any
    label: Any


def permuted(i: int) -> Any:
    """Rows as decoders give them: channels last in memory, seen channels first."""
    image = np.arange(48).reshape(4, 4, 3) + i
    return {"image": image.transpose(2, 0, 1), "pair": Pair(image.T, image[::2, ::-1])}


def layout(batch: Any) -> list[Any]:
    return [
        (name, a.shape, str(a.dtype), a.strides, a.flags.c_contiguous, a.flags.writeable,
         a.flags.aligned, a.tobytes())
        for name, a in leaves(batch)
    ]  # fmt: skip


def stack(rows: list[Any]) -> Any:
    return {
        "image": [np.stack([r["image"] for r in rows])],
        "t": np.stack([r["pair"].image for r in rows]).T,
    }


@pytest.mark.slow
@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize("remainder", ["keep", "pad"])
def test_layout_does_not_depend_on_who_evaluates(filtered: bool, remainder: Any) -> None:
    ds = Dataset(range(6)).map(permuted)
    ds = ds.filter(lambda row: True) if filtered else ds
    found: list[Any] = []
    for workers in ENGINES:
        with Loader(ds, 4, workers=workers, remainder=remainder) as loader:
            found.append([layout(batch) for batch in loader])
    assert found[0] == found[1] == found[2]
    assert all(entry[4] and entry[5] for batch in found[0] for entry in batch)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("size", [1, 3])
def test_columns_of_sources_are_laid_out_like_rows(order: Any, size: int) -> None:
    a = np.asarray(np.arange(48.0).reshape(6, 4, 2), order=order)
    for source in ({"x": a}, {"x": a[::-1]}, {"x": a[:, ::2]}, [{"x": row} for row in a]):
        for ds in (Dataset(source), Dataset(source).map(lambda rows: rows, batched=True)):
            for batch in Loader(ds, size):
                assert batch["x"].flags.c_contiguous
                assert batch["x"].flags.writeable


def test_what_collate_returns_is_contiguous_too() -> None:
    batch = next(Loader(Dataset(range(4)).map(permuted), 4, collate=stack))
    assert batch["image"][0].flags.c_contiguous
    assert batch["t"].flags.c_contiguous
    torch = pytest.importorskip(
        "torch", reason="needs the extra: pip install 'lockstep-data[torch]'"
    )

    def last(rows: list[Any]) -> Any:
        image = torch.from_numpy(np.stack([row["image"] for row in rows]))
        return Pair(image.to(memory_format=torch.channels_last), ["a"] * len(rows))

    batch = next(Loader(Dataset(range(4)).map(permuted), 4, collate=last))
    assert isinstance(batch, Pair)
    assert batch.image.is_contiguous()
    assert batch.label == ["a"] * 4


def test_what_is_contiguous_stays_the_same_object() -> None:
    for value in (
        {"x": np.zeros(3), "l": [np.zeros(2), "s"]},
        "text",
        None,
        np.float32(3),
        object(),
    ):
        assert in_c_order(value) is value


# ---- padding


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("collate", [None, lambda rows: {"mask": np.zeros(len(rows))}])
def test_a_field_of_ours_is_never_replaced(counted: bool, collate: Any) -> None:
    ds = Dataset({"mask": np.arange(5)})
    ds = ds.filter(lambda row: True) if counted else ds
    if collate is not None:
        collate.ragged = True
    with pytest.raises(BatchError, match='adds a field "mask", but rows have one'):
        next(Loader(ds, 2, remainder="pad", collate=collate))
    assert next(Loader(ds, 2))["mask"].tolist() == [0, 1]


def test_padding_needs_dicts() -> None:
    with pytest.raises(BatchError, match="rows must be dicts"):
        list(Loader(Dataset(range(5)), 2, remainder="pad"))
