"""Which records a batch holds, whatever other libraries make batches of."""

from __future__ import annotations

import subprocess
import sys
from collections import UserDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from pipeline.debug.doctor.rows import rows_of
from pipeline.errors import ChainError


class Named(NamedTuple):
    id: Any
    x: Any


@dataclass
class Classed:
    id: Any
    x: Any


class Opaque:
    """An object of some library: no container, no array."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)
        self.around = self  # as graphs of objects are


IDS, X = np.array([3, 1]), np.zeros((2, 2))


@pytest.mark.parametrize(
    "batch",
    [
        {"id": IDS, "x": X},
        UserDict({"id": IDS, "x": X}),
        Named(IDS, X),
        Classed(IDS, X),
        [{"id": 3}, {"id": 1}],
        [Named(3, X), Named(1, X)],
    ],
)
def test_a_key_names_records_in_every_kind_of_batch(batch: Any) -> None:
    assert rows_of(batch, "id") == [3, 1]
    assert len(rows_of(batch, None)) == 2
    with pytest.raises(ChainError, match="no such field"):
        rows_of(batch, "name")


def test_a_tuple_s_fields_are_numbers_and_nan_equals_nan() -> None:
    assert rows_of((IDS, X), "0") == [3, 1]
    assert rows_of({"id": [float("nan"), 1.5]}, "id") == ["nan", 1.5]


def test_objects_are_told_by_what_they_hold() -> None:
    def row(*values: Any) -> Any:
        return rows_of([Opaque(a=set(values), b=Path("x"))], None)

    assert row("a", "b") == row("b", "a") != row("a", "c")
    assert rows_of(Opaque(a=1), None) != rows_of(Classed(1, None), None)


def torch_batches() -> list[Any]:
    torch = pytest.importorskip("torch", reason="needs the extra: lockstep-data[torch]")
    ids = torch.arange(2)
    parts = [torch.ones(1), torch.ones(2)]
    jagged = torch.nested.nested_tensor(parts, layout=torch.jagged)
    complexes = torch.complex(ids.float(), ids.float())
    return [
        Classed(ids, Opaque(t=ids)),
        Opaque(t=ids.float().requires_grad_()),
        {"id": ids, "x": torch.eye(2).to_sparse(), "y": torch.eye(2).to_sparse_csr()},
        {"id": ids, "x": jagged, "y": complexes.conj()},
        {"id": ids.to(torch.bfloat16), "x": ids.float().to(torch.float8_e4m3fn)},
        {"id": torch.quantize_per_tensor(ids.float(), 0.1, 0, torch.qint8)},
        [Opaque(t=ids), {"a", "b", "c", "d"}],
    ]


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # of prototypes in torch
def test_equal_tensors_are_equal_rows_wherever_they_lie() -> None:
    batches = [[rows_of(batch, None) for batch in torch_batches()] for _ in range(2)]
    assert batches[0] == batches[1]
    code = (
        "from tests.debug.test_doctor_rows import rows_of, torch_batches\n"
        "print([rows_of(batch, None) for batch in torch_batches()])"
    )
    told = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False
    )
    assert told.stdout.strip() == str(batches[0]), told.stderr[-1000:]
    assert len({str(rows) for rows in batches[0]}) == len(batches[0])
