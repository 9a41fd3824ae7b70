"""What a fork leaves out, the records that people name, and what an automatic policy may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.edits import Edits, Lineage
from harness.errors import ConfigError
from harness.fork import records_named
from harness.policy import Policy
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
