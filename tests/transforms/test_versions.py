"""Versions of packages are recorded where rows are kept or resumed, and only warn."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import Dataset, Loader, concatenate, merge, scan
from pipeline.sources import complaints


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(complaints, "_SAID", set[Any]())
    return lambda: monkeypatch.setattr(sys.modules["numpy"], "__version__", "99.0")


def doubled(x: Any) -> Any:
    return np.multiply(x, 2)


def joined() -> Dataset:
    return concatenate([Dataset(range(4)).map(doubled), Dataset(range(4))])


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


@pytest.mark.parametrize("make", [lambda: Dataset(range(8)).map(doubled), joined])
def test_a_state_names_versions_and_warns_where_they_differ(
    make: Any, newer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    loader = Loader(make(), 2)
    next(loader)
    state = json.loads(json.dumps(loader.state_dict()))
    assert state["packages"] == {"numpy": np.__version__}
    old = np.__version__
    Loader(make(), 2).load_state_dict(state)
    assert not told(caplog)
    newer()
    for _ in range(2):
        again = Loader(make(), 2)
        again.load_state_dict(state)
        assert next(again).tolist() == Loader(make(), 2)[1].tolist()
    (message,) = told(caplog)
    assert "the state was written with other versions" in message
    assert f"numpy {old} -> 99.0" in message


def test_a_state_without_versions_is_read_silently(
    newer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    state = Loader(joined(), 2).state_dict()
    newer()
    for kept in (None, 3, ["numpy"], {}):
        Loader(joined(), 2).load_state_dict(state | {"packages": kept})
    del state["packages"]
    Loader(joined(), 2).load_state_dict(state)
    assert not told(caplog)


def test_hosts_of_other_versions_have_one_state(newer: Any) -> None:
    ds = Dataset(range(40)).map(doubled).filter(lambda x: True).lanes(2).repeat()
    states: list[Any] = []
    for host in range(2):
        loader = Loader(ds, 4, host=host, hosts=2)
        next(loader)
        states.append(loader.state_dict())
    states[1]["packages"] = {"numpy": "99.0"}
    Loader(ds, 4).load_state_dict(merge(states))


def test_scans_and_caches_warn_too(
    tmp_path: Path, newer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def rows() -> Any:
        found = scan(Dataset(range(8)), doubled, path=str(tmp_path / "scan"), workers=0)
        cached = Dataset(range(8)).map(doubled).cache(tmp_path / "cache")
        return found.values.tolist(), [int(x) for x in cached]

    first = rows()
    assert rows() == first
    assert not told(caplog)
    newer()
    assert rows() == rows() == first
    assert [m.partition(" was ")[0].split(" ")[1] for m in told(caplog)] == ["scan", "cache"]
