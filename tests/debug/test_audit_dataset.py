"""A dataset's epochs are audited as they will be served, from Python and from a shell."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import Dataset, concatenate, interleave
from pipeline.__main__ import main
from pipeline.debug.audit import audit_dataset
from pipeline.errors import BatchError, ChainError
from tests.sampling import weak


class Weak:
    """A shuffle's reach whose orders are a Feistel network's with an affine round function."""

    def place(self, index, n, names):
        return weak.affine_feistel(n)(0, names[-1])(index)

    def back(self, rows, n, names):
        raise NotImplementedError

    def __str__(self) -> str:
        return "weak"


def table(n: int) -> Dataset:
    return Dataset({"x": np.arange(n)}, seed=3)


def weakly(ds: Dataset) -> Dataset:
    from pipeline.sampling.shuffle import Shuffle

    return ds._ordered(Shuffle(reach=Weak()))


shuffled = table(5000).shuffle()
feeble = weakly(table(5000))
counted = shuffled.filter(lambda row: True)


@pytest.mark.long
def test_shuffled_datasets_pass_whatever_stands_above():
    for ds in (shuffled, shuffled.repeat(), shuffled.repeat(3), counted):
        assert audit_dataset(ds, epochs=30).ok


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_no_seed_is_refused_by_chance(seed: int):
    assert audit_dataset(Dataset({"x": np.arange(5000)}, seed=seed).shuffle()).ok


@pytest.mark.long
def test_true_random_orders_of_many_seeds_pass():
    class Random(Weak):
        def __init__(self, seed):
            self.seed = seed

        def place(self, index, n, names):
            return np.random.default_rng([self.seed, names[-1]]).permutation(n)[index]

    from pipeline.sampling.shuffle import Shuffle

    for seed in range(6):
        ds = table(5000)._ordered(Shuffle(reach=Random(seed)))
        assert audit_dataset(ds, epochs=30).ok


def test_an_affine_feistel_fails():
    report = audit_dataset(feeble, epochs=30)
    assert report.bijective
    assert {"residues", "strides"} <= {f.name.split(":")[0] for f in report.failed}


def test_one_order_for_all_epochs_fails_between_epochs_alone():
    report = audit_dataset(table(5000).shuffle(reshuffle=False), epochs=30)
    assert "epochs: matches (count)" in {f.name for f in report.failed}


@pytest.mark.long
def test_a_part_of_a_source_is_judged_among_its_members():
    ds = table(9000).shuffle(reshuffle=False)[1000:6000]
    assert not audit_dataset(ds, epochs=30).ok
    assert audit_dataset(ds.shuffle(name="again"), epochs=30).ok
    assert audit_dataset(table(9000)[::2].shuffle(), epochs=30).ok


def test_sources_are_balanced_only_if_shuffled_together():
    a, b = table(3000).shuffle(), table(2000).shuffle()
    together = audit_dataset(concatenate([a, b]).shuffle(), epochs=30)
    assert together.ok
    assert "balance: sources in a batch" in {f.name for f in together.figures}
    for joined in (concatenate([a, b]), interleave([a, b])):
        report = audit_dataset(joined, epochs=30)
        assert "balance: sources in a batch" in {f.name for f in report.failed}


def test_rows_that_come_twice_are_no_bijection():
    twice = table(3000)[[*range(1000), *range(1000)]].shuffle()
    assert "not a bijection" in audit_dataset(twice, epochs=30).verdict


@pytest.mark.long
@pytest.mark.parametrize("chunks", [1, 8])
def test_mixing_says_how_near_a_chunk_shuffle_comes(chunks: int):
    def gaps(ds: Dataset) -> float:
        name = "mixing: gaps in a batch (log2)"
        report = audit_dataset(ds, epochs=23)
        return next(f.value - f.expected for f in report.figures if f.name == name)

    ds = table(50_000)
    near = gaps(ds.shuffle(chunks=chunks, run=500))
    assert near < gaps(ds.shuffle(chunks=4 * chunks, run=500)) < -0.1
    assert abs(gaps(ds.shuffle())) < 0.1


def test_what_cannot_be_audited_is_refused():
    with pytest.raises(BatchError, match="Lower batch="):
        audit_dataset(table(100).shuffle())
    with pytest.raises(ChainError, match="epochs=5"):
        audit_dataset(shuffled, epochs=5)


def test_the_command_exits_1_on_a_weak_order_and_names_it(capsys):
    me = "tests.debug.test_audit_dataset"
    assert main(["audit", f"{me}:shuffled", "--epochs", "30"]) == 0
    out = capsys.readouterr().out
    assert "30 orders of 5,000 rows, batches of 256" in out
    assert "residues: mod 16" in out
    assert main(["audit", f"{me}:feeble", "--epochs", "30"]) == 1
    out = capsys.readouterr().out
    assert "WEAK" in out
    assert "FAILED" in out
    assert main(["audit", f"{me}:shuffled", "--epochs", "30", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"]
    assert found["verdict"] == "ok"
    assert {"name", "value", "expected", "z", "ok"} <= set(found["figures"][0])


@pytest.mark.long
def test_the_command_takes_files_and_how_to_shuffle_them(tmp_path: Path, capsys):
    path = str(tmp_path / "a.parquet")
    pq.write_table(pa.table({"x": np.arange(5000)}), path, row_group_size=100)
    for flags, code in (
        ([], 1),
        (["--shuffle"], 0),
        (["--window", "50"], 1),
        (["--chunks", "50"], 0),
    ):
        assert main(["audit", path, "--epochs", "30", *flags]) == code
    capsys.readouterr()
    assert main(["audit", path, "--window", "0"]) == 2
    assert "shuffle window=0" in capsys.readouterr().err
    assert main(["audit", "nowhere_at_all:ds"]) == 2
    assert "Run it from the folder" in capsys.readouterr().err
    assert main(["audit", str(tmp_path / "b.parquet")]) == 2
    assert "does not exist" in capsys.readouterr().err
