"""The audit passes what is random, ours too, and fails each way of not being it."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.debug.audit import Figure, Permute, Report, audit
from pipeline.errors import BatchError, ChainError
from pipeline.sampling.permutation import Permutation
from pipeline.seeds import derive_seed
from tests.sampling import weak

SIZES = [5000, 65_536, 1_000_003]


def ours(n: int) -> Permute:
    return lambda seed, epoch: Permutation(n, derive_seed(seed, "shuffle", epoch))


def families(report: Report) -> set[str]:
    return {figure.name.split(":")[0] for figure in report.failed}


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("n", [*SIZES, 2**40 + 1])
def test_ours_passes(n: int):
    report = audit(ours(n), n)
    assert report.ok, report


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("n", SIZES)
def test_true_random_orders_pass(n: int):
    report = audit(weak.true_random(n), n)
    assert report.ok, report


@pytest.mark.parametrize(
    "n", [SIZES[0], *(pytest.param(n, marks=pytest.mark.long) for n in SIZES[1:])]
)
@pytest.mark.parametrize("make", [weak.affine_feistel, weak.congruential, weak.rotation])
def test_weak_orders_fail(make, n: int):
    report = audit(make(n), n, seeds=range(16), epochs=6, windows=8)
    assert report.bijective
    assert not report.ok
    assert {"residues", "strides"} <= families(report)


def small(permute: Permute, n: int = 5000) -> Report:
    return audit(permute, n, seeds=range(16), epochs=8, windows=8)


def test_seed_plus_epoch_fails_between_orders_alone():
    report = small(lambda seed, epoch: Permutation(5000, derive_seed(seed + epoch)))
    assert families(report) == {"seeds x epochs"}


def test_an_order_that_ignores_the_epoch_fails():
    report = small(lambda seed, epoch: Permutation(5000, derive_seed(seed)))
    assert "epochs" in families(report)


def test_one_order_rotated_by_the_seed_fails():
    one = Permutation(5000, derive_seed(0))
    report = small(lambda seed, epoch: lambda i: (one(i) + 97 * seed + 13 * epoch) % 5000)
    assert {"seeds", "epochs"} <= families(report)


def test_a_bit_that_leaks_from_position_to_record_fails():
    def leak(seed: int, epoch: int):
        order = Permutation(2048, derive_seed(seed, epoch))
        return lambda i: order(i >> 1) << 1 | i & 1

    assert "bits" in families(small(leak, 4096))


def test_one_bad_order_among_good_ones_fails():
    def permute(seed: int, epoch: int):
        return (lambda i: i) if seed == 11 else Permutation(5000, derive_seed(seed, epoch))

    assert not small(permute).ok


@pytest.mark.parametrize("f", [lambda i: i // 2, lambda i: i + 1, lambda i: i - 1])
def test_what_is_no_bijection_fails(f):
    report = small(lambda seed, epoch: lambda i: f(Permutation(5000, derive_seed(seed, epoch))(i)))
    assert not report.bijective
    assert not report.ok
    assert "not a bijection" in str(report)


def test_a_figure_fails_for_its_mean_or_for_its_worst_order():
    def figure(z: float, worst: float, usual: float) -> Figure:
        return Figure("bits: linear", 1.0, 1.0, z, worst, usual)

    assert figure(4.9, 11.9, 2.0).ok
    assert not figure(5.1, 3.0, 2.0).ok
    assert not figure(-5.1, 3.0, 2.0).ok
    assert not figure(0.0, 12.1, 2.0).ok
    assert figure(0.0, 12.1, 4.1).ok


def test_the_same_orders_get_the_same_figures():
    assert small(ours(5000)) == small(ours(5000))


def test_the_table_has_a_line_for_each_figure():
    report = small(ours(5000))
    lines = str(report).splitlines()
    assert len(lines) == 2 + len(report.figures)
    assert lines[0].startswith("23 orders of 5,000 rows, batches of 256: ok")
    assert "FAILED" in str(small(weak.rotation(5000)))


def test_too_little_to_look_at_is_refused():
    with pytest.raises(BatchError, match="n=511 and batch=256"):
        audit(ours(511), 511)
    with pytest.raises(ChainError, match="16 seeds and 6 epochs"):
        audit(ours(5000), 5000, seeds=range(3))


def test_small_batches_audit_small_datasets():
    assert audit(ours(64), 64, batch=16, seeds=range(32)).ok
    assert not audit(weak.rotation(64), 64, batch=16, seeds=range(32)).ok
    assert np.isfinite([f.z for f in audit(ours(64), 64, batch=16).figures]).all()
