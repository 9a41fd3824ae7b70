"""Whatever trains can be shown: a value of any kind, briefly, and nothing raises."""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import fractions
import json
import pathlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from pipeline import Dataset, Loader
from pipeline.__main__ import main
from pipeline.debug.brief import TEXT, as_text, brief, fields_of, picture, pictures
from pipeline.debug.journal import Journal, Run
from pipeline.debug.show import rows_of


class Rude:
    """Its own code raises, whatever is asked of it."""

    def __repr__(self) -> str:
        raise RuntimeError("no")

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise KeyError("no")

    def __len__(self) -> int:
        raise OSError("no")


class Colour(enum.Enum):
    RED = 1


@dataclass
class Point:
    x: Any
    y: Any


def _rude_objects() -> Any:
    found = np.empty(2, object)
    found[0] = Rude()
    return found


def _nested(levels: int) -> Any:
    found: Any = 1
    for _ in range(levels):
        found = {"d": found}
    return found


def _torch(name: str) -> Any:
    torch: Any = pytest.importorskip("torch")
    plain = torch.arange(6).reshape(2, 3)
    makers: dict[str, Callable[[], Any]] = {
        "bfloat16": lambda: plain.to(torch.bfloat16) / 3,
        "grad": lambda: plain.float().requires_grad_(),
        "bool": lambda: plain > 2,
        "0-d": lambda: torch.tensor(3.5),
        "sparse": lambda: plain.float().to_sparse(),
        "complex": lambda: plain * 1j,
    }
    return makers[name]()


VALUES: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "list of None": lambda: [None, 1],
    "text": lambda: "ä\x1b[2J\ud800",
    "texts": lambda: ["a", "\x1b[2J"],
    "long text": lambda: "ab" * 10**6,
    "bytes": lambda: b"\xff\x00\x01",
    "long bytes": lambda: bytes(range(256)) * 10**5,
    "text in bytes": lambda: "é".encode() * 3000,
    "bytearray": lambda: bytearray(b"abc"),
    "memoryview": lambda: memoryview(b"abc"),
    "whole": lambda: 3,
    "larger than int64": lambda: 2**80,
    "more digits than Python writes": lambda: 10**5000,
    "list of these": lambda: [10**5000, 1],
    "NaN": lambda: float("nan"),
    "infinite": lambda: [float("inf"), -float("inf")],
    "ragged": lambda: [["user", "hi"], ["assistant", "yes", "no"]],
    "ragged numbers": lambda: [[1], [2, 3]],
    "mixed": lambda: [1, "a", None, [2.5]],
    "dicts in a list": lambda: [{"role": "user", "content": "hi"}],
    "day": lambda: np.datetime64("2024-01-01"),
    "days": lambda: np.datetime64("2024-01-01") + np.arange(3),
    "no time": lambda: np.array(["NaT", "2024-01-01T00:00:01"], "M8[ns]"),
    "spans": lambda: np.arange(3).astype("m8[h]"),
    "generic span": lambda: np.array(3).view("m8")[()],
    "datetime": lambda: datetime.datetime(2024, 1, 1),
    "dates": lambda: [datetime.date(2024, 1, 1)],
    "timedelta": lambda: datetime.timedelta(1),
    "complex": lambda: 1 + 2j,
    "complexes": lambda: np.arange(3) * 1j,
    "complex NaN": lambda: complex("nan+infj"),
    "half": lambda: np.float16(1 / 3),
    "longdouble": lambda: np.longdouble("1e400"),
    "bfloat16": lambda: np.arange(3).astype(ml_dtypes.bfloat16),
    "float8": lambda: np.arange(3).astype(ml_dtypes.float8_e4m3fn),
    "int4": lambda: np.arange(3).astype(ml_dtypes.int4),
    "big-endian": lambda: np.arange(3).astype(">i4"),
    "structured": lambda: np.zeros(2, [("a", "i4"), ("b", "f4", 3)]),
    "a record": lambda: np.zeros((), [("a", "i4")])[()],
    "void": lambda: np.void(b"abc"),
    "objects": lambda: np.array([1, "a", None, {2}], object),
    "rude objects": _rude_objects,
    "NumPy's texts": lambda: np.array(["a", "bcd"]),
    "NumPy's bytes": lambda: np.array([b"a", b"bcd"]),
    "variable texts": lambda: np.array(["a", "bcd"], np.dtypes.StringDType()),
    "empty": lambda: np.zeros((0, 2), np.float32),
    "empty list": list[int],
    "empty text": lambda: "",
    "0-d": lambda: np.array(1.5),
    "0-d text": lambda: np.array("abc"),
    "huge": lambda: np.zeros(10**6),
    "huge list": lambda: list(range(10**5)),
    "masked": lambda: np.ma.masked_array([1.0, 2.0], [True, False]),
    "set": lambda: {"b", "a"},
    "frozenset": lambda: frozenset({1}),
    "deque": lambda: collections.deque([1, 2]),
    "range": lambda: range(5),
    "decimal": lambda: decimal.Decimal("1.5"),
    "fraction": lambda: fractions.Fraction(1, 3),
    "uuid": lambda: uuid.UUID(int=3),
    "enum": lambda: Colour.RED,
    "path": lambda: pathlib.PurePath("a/b"),
    "class": lambda: Rude,
    "function": lambda: len,
    "rude": Rude,
    "a list of rude": lambda: [Rude()],
    "a dict of rude in a list": lambda: [{"a": Rude()}],
    "dataclass": lambda: Point(1, Rude()),
    "tuple": lambda: (1, ("a", [[1], []])),
    "as deep as may be": lambda: _nested(60),
    "too deep": lambda: _nested(500),
    "keys of all kinds": lambda: {1: 2, None: 3, (1, 2): "x", "\x1b[2J": 4},
    **{f"torch {name}": lambda name=name: _torch(name) for name in (
        "bfloat16", "grad", "bool", "0-d", "sparse", "complex"
    )},
}  # fmt: skip


@pytest.mark.parametrize("name", VALUES)
def test_any_value_is_shown_in_a_few_characters_that_json_and_terminals_take(name: str) -> None:
    value = VALUES[name]()
    for found in (brief(value), fields_of({"x": value, "id": 3}), fields_of(value)):
        text = json.dumps(found, allow_nan=False)
        assert len(text) < 7 * TEXT
        assert "\\u001b" not in text
        assert "\ud800" not in f"{found}"
    row = fields_of({"x": value, "id": 3})
    assert row.get("id", "id" in str(row.get("value"))), "one field hides no other"
    for each in (value, {"x": value}):
        assert as_text(each) is None or "\x1b" not in str(as_text(each))
        assert list(pictures(each)) == []


def test_what_it_shows() -> None:
    for name, wanted in {
        "None": "None",
        "whole": 3,
        "NaN": "nan",
        "infinite": ["inf", "-inf"],
        "ragged": "[['user', 'hi'], ['assistant', 'yes', 'no']]",
        "day": "2024-01-01",
        "no time": ["NaT", "2024-01-01T00:00:01.000000000"],
        "spans": ["0 hours", "1 hours", "2 hours"],
        "complex": "1+2j",
        "bfloat16": [0.0, 1.0, 2.0],
        "half": 0.333252,
        "set": "{'a', 'b'}",
        "empty": [],
        "rude": "<Rude, whose repr raises RuntimeError>",
        "more digits than Python writes": "<int of 16610 bits>",
        "0-d": 1.5,
    }.items():
        assert brief(VALUES[name]()) == wanted, name
    assert brief(np.zeros(100))[-2:] == ["…", [100]]
    assert len(brief("ab" * 10**6)) == TEXT


def test_pictures_are_told_from_other_values() -> None:
    a = np.zeros((8, 8, 3), np.uint8)
    assert brief(a) == "picture uint8[8, 8, 3]"
    row = {"image": a, "rude": Rude(), "ragged": [[1], [2, 3]], "mask": a[..., 0]}
    assert [name for name, _ in pictures(row)] == ["image", "mask"]
    assert picture(a.astype(np.int32)) is None


SENT = [  # what a journal takes, too
    *("None", "text", "texts", "bytes", "NaN", "ragged", "mixed", "day", "days", "complex"),
    *("structured", "empty", "0-d", "bfloat16", "tuple", "huge", "dicts in a list"),
]


def _rows(name: str) -> list[dict[str, Any]]:
    return [{"id": i, "x": VALUES[name]()} for i in range(8)]


def ragged() -> Loader:
    """Chat turns, in rows of a `collate` of its own."""
    return Loader(Dataset(_rows("ragged"), seed=1).shuffle().repeat(), 4, collate=list)


def dates() -> Loader:
    """Rows with a day, and numbers that are complex."""
    columns = {"day": np.datetime64("2024-01-01") + np.arange(8), "z": np.arange(8) * 1j}
    return Loader(Dataset(columns, seed=1).shuffle().repeat(), 4)


def _trained(folder: Path, loader: Loader, **options: Any) -> Run:
    with Journal(folder, loader, **options) as journal:
        for _ in range(6):
            next(loader)
            journal.log(loss=1.0)
    return Run(folder)


@pytest.mark.parametrize("name", SENT)
def test_rows_that_train_are_shown_and_where_needs_no_values(tmp_path: Path, name: str) -> None:
    ds = Dataset(_rows(name), seed=1).shuffle().repeat()
    run = _trained(tmp_path, Loader(ds, 4, collate=list))
    (line, *_) = run.path()
    rows, bare = rows_of(run, ds, line), rows_of(run, ds, line, values=False)
    json.dumps([rows, bare], allow_nan=False)
    assert all(row["fields"]["id"] == row["records"][0]["index"] for row in rows)
    assert [row["fields"] for row in bare] == [{}] * 4
    assert [[r["index"] for r in row["records"]] for row in bare] == [
        [r["index"] for r in row["records"]] for row in rows
    ]


@pytest.mark.parametrize("kind", ["ragged", "dates"])
def test_commands_show_them(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    _trained(tmp_path, globals()[kind](), data=f"{__name__}:{kind}")
    assert main(["where", str(tmp_path), "3", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 4
    assert main(["show", str(tmp_path), "3"]) == 0
    assert ("assistant" if kind == "ragged" else "2024-01-0") in capsys.readouterr().out
    out = tmp_path / "page.html"
    assert main(["report", str(tmp_path), "--out", str(out)]) == 0
    assert ("assistant" if kind == "ragged" else "2024-01-0") in out.read_text()
