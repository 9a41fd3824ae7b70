"""What a fork leaves out, the records that people name, and what an automatic policy may say."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from harness.config import Config
from harness.edits import Edits, Lineage
from harness.errors import ConfigError
from harness.files import write_json
from harness.fork import records_named
from harness.metrics import Screen
from harness.policy import Policy, train_on
from harness.rundir import RunDir
from pipeline import Dataset


def test_edits_of_a_fork_of_a_fork() -> None:
    first = Lineage(parent="a", checkpoint=3, how="mask", without=(("", 2, 4),))
    kept = {**vars(first), "without": [["", 2, 4]], "skipped": []}
    again = Lineage(parent="b", checkpoint=9, how="consume", skipped=((20, 22),), before=kept)
    assert again.edits == Edits((("", 2, 4),), ((20, 22),))
    assert [again.edits.uses(k) for k in (19, 20, 21, 22)] == [True, False, False, True]


def test_records_that_people_name(tmp_path: Path) -> None:
    components = Dataset(range(9)).components
    (tmp_path / "bad.txt").write_text("# planted\n3\n\n5  # a remark\n")
    assert records_named(components, [str(tmp_path / "bad.txt"), "7"]) == (
        ("", 3, 4),
        ("", 5, 6),
        ("", 7, 8),
    )
    for word in ("9", "a.parquet:1", "three", "3:"):
        with pytest.raises(ConfigError, match=word.rpartition(":")[0] or word):
            records_named(components, [word])


def test_policies() -> None:
    assert Policy.parse("z=6,back=40,skip=2,times=1") == Policy(6.0, 40, 2, 1)
    for text in ("z=0", "skip=0", "times=x", "zz=3", "z=nan"):
        with pytest.raises(ConfigError, match="--on-spike"):
            Policy.parse(text)


@pytest.mark.parametrize("parent", [None, "other", "a"])
def test_a_policy_goes_on_in_forks_alone_and_by_this_launch_s_settings(
    parent: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[tuple[str, int]] = []

    def train(run: RunDir, cfg: Config, **_: Any) -> None:
        trained.append((run.path.name, cfg.log.every))

    monkeypatch.setattr("harness.policy.train", train)
    for name in ("a", "a-1"):
        (tmp_path / name).mkdir()
        RunDir(tmp_path / name).begin(Config())
    if parent is not None:
        made = Lineage(parent=f"/moved/{parent}", checkpoint=3, how="jump")
        write_json(tmp_path / "a-1/fork.json", dataclasses.asdict(made))
    policy, screen = Policy(times=2), Screen(quiet=True)
    if parent == "a":
        train_on(RunDir(tmp_path / "a"), {"log.every": 3}, policy, until=9, screen=screen)
        assert trained == [("a-1", 3)]
        return
    with pytest.raises(ConfigError, match=r"a-1 is there and is no fork of .*/a;"):
        train_on(RunDir(tmp_path / "a"), {}, policy, until=9, screen=screen)
    assert trained == []


def test_a_policy_of_several_processes_is_refused_before_it_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jax.process_count", lambda: 2)
    run, screen = RunDir(tmp_path / "a"), Screen(quiet=True)
    with pytest.raises(ConfigError, match="--on-spike goes back in one process"):
        train_on(run, {}, Policy(), until=9, screen=screen)
