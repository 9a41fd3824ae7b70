"""The ledger gives back what was written, finds any step through its index, and survives kills."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.debug.journal import columns, ledger
from pipeline.debug.journal.digests import chained
from pipeline.debug.journal.index import GROUP, index_path
from pipeline.debug.journal.ledger import Ledger, LedgerFile, read
from pipeline.debug.journal.line import Line
from pipeline.errors import JournalError


def line(step: int, launch: int = 0, data_step: int | None = None) -> Line:
    at = step if data_step is None else data_step
    return Line(
        step=step,
        launch=launch,
        loss=1.5,
        loss_bits="3fc00000",
        grad_norm=None,
        digest=f"{step:032x}",
        data_step=at,
        rows=(8 * at, 8 * at + 8),
        seconds={"data": 0.1, "step": 0.2, "save": 0.0},
    )


def write(path: Path, lines: list[Line]) -> None:
    log = Ledger(path)
    for each in lines:
        log.append(each)
    log.close()


runs = st.lists(st.tuples(st.integers(0, 90), st.integers(1, 70)), min_size=1, max_size=4)


@pytest.fixture
def small_groups() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger, "GROUP", 16)
        yield


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(runs, st.integers(0, 3))
def test_every_question_is_answered_as_by_reading_all(
    small_groups: None,
    tmp_path_factory: pytest.TempPathFactory,
    launches: list[tuple[int, int]],
    indexed: int,
) -> None:
    path = tmp_path_factory.mktemp("run") / "ledger.jsonl"
    lines = [line(s, k, 2 * s) for k, (a, n) in enumerate(launches) for s in range(a, a + n)]
    for k in range(len(launches)):
        write(path, [each for each in lines if each.launch == k])
    if indexed == 1:
        index_path(path).unlink(missing_ok=True)
    elif indexed == 2:
        index_path(path).write_bytes(b"\x01" * 480)
    elif indexed == 3 and index_path(path).exists():
        index_path(path).write_bytes(index_path(path).read_bytes()[:-10])
    found = LedgerFile(path)
    assert list(found) == lines
    assert len(found) == len(lines)
    assert found.last == lines[-1]
    kept: list[Line] = []
    for each in lines:
        kept = [k for k in kept if k.step < each.step] + [each]
    assert list(found.path()) == kept
    assert list(found.path(10, 60)) == [k for k in kept if 10 <= k.step < 60]
    kept_numbers = columns.numbers(found)
    assert kept_numbers["step"].tolist() == [x.step for x in kept]
    assert kept_numbers["data_end"].tolist() == [x.data_end for x in kept]
    assert columns.digests(found)["digest"].tolist() == [x.digest for x in lines]
    assert found.lineage.leads_on(np.arange(len(lines))).sum() == len(kept)
    assert found.steps == range(kept[0].step, kept[-1].step + 1)
    for step in (0, 9, 16, 50, lines[-1].step, 159, 160):
        of_step = [x for x in lines if x.step == step]
        assert found.of_step(step) == of_step
        led = [x for x in of_step if x in kept]
        assert found.latest(step) == ((led or of_step)[-1] if of_step else None)
        among = [x for x in lines if step - 3 <= x.data_end <= step]
        assert found.ending_in(step - 3, step) == among
        ending = [x for x in lines if x.data_end <= 2 * step]
        assert found.ending_at(2 * step) == (
            max(enumerate(ending), key=lambda x: (x[1].data_end, x[0]))[1] if ending else None
        )


# of each start: behind which of the lines so far it goes on (as a share of them), and its steps
attempts = st.lists(st.tuples(st.floats(0, 1), st.integers(1, 40)), min_size=1, max_size=5)


def chained_lines(starts: list[tuple[float, int]], *, alike: bool, told: bool) -> Iterator[Line]:
    """The lines of a run that goes on behind any earlier line: its number stands as the loss.

    Args:
        starts: see `attempts`.
        alike: whether a step that is done again is what it was.
        told: whether a line names the one it follows, as older journals did not.
    """
    lines = list[Line]()
    for launch, (share, steps) in enumerate(starts):
        before = round(share * len(lines)) - 1
        for _ in range(steps):
            above = lines[before] if before >= 0 else None
            chain, number = above.chain if above else "", len(lines)
            step = above.step + 1 if above else 0
            digest = f"{step if alike else 1000 * launch + step:032x}"
            after = (above.name if above else ()) if told and before != number - 1 else None
            made = replace(line(step, launch), digest=digest, chain=chained(chain, digest))
            lines.append(replace(made, after=after, number=number, loss=float(before)))
            before = number
    yield from lines


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(attempts, st.booleans(), st.booleans(), st.booleans())
def test_the_path_follows_the_chains(
    small_groups: None,
    tmp_path_factory: pytest.TempPathFactory,
    starts: list[tuple[float, int]],
    alike: bool,
    told: bool,
    indexed: bool,
) -> None:
    path = tmp_path_factory.mktemp("run") / "ledger.jsonl"
    lines = list(chained_lines(starts, alike=alike, told=told))
    for launch in range(len(starts)):
        write(path, [each for each in lines if each.launch == launch])
    if not indexed:
        index_path(path).unlink(missing_ok=True)
    kept, number = list[Line](), len(lines) - 1
    while number >= 0:
        kept.insert(0, lines[number])
        number = int(lines[number].loss or 0)
    found = LedgerFile(path)
    led = list(found.path())
    assert [(x.step, x.chain) for x in led] == [(x.step, x.chain) for x in kept]
    assert columns.numbers(found)["launch"].tolist() == [x.launch for x in led]
    if told or not alike:
        assert [x.number for x in led] == [x.number for x in kept]
        assert found.lineage.parents().tolist() == [int(x.loss or 0) for x in lines]


def test_numbers_are_those_of_the_lines(tmp_path: Path) -> None:
    odd = [
        replace(line(0), scalars={"lr": 0.1}, batches=3, loss=1e300),
        replace(line(1), loss=None, loss_bits=None, norm_told=False, told="\u00e9 {}"),
        replace(line(2), scalars={"odd": None, "lr": 0.25}, data_stop=9, grad_norm=2.5),
    ]
    write(tmp_path / "ledger.jsonl", odd)
    found = columns.numbers(LedgerFile(tmp_path / "ledger.jsonl"))
    assert found["loss"].tolist()[::2] == [1e300, 1.5]
    assert np.isnan(found["loss"][1])
    assert found["loss_told"].tolist() == [True, False, True]
    assert found["grad_norm_told"].tolist() == [True, False, True]
    assert found["data_end"].tolist() == [3, 2, 9]
    assert found["rows"].tolist() == [8, 8, 8]
    assert found["lr"].tolist()[::2] == [0.1, 0.25]
    assert np.isnan([found["lr"][1], *found["odd"]]).all()
    assert found["step_seconds"].tolist() == [0.2] * 3
    write(tmp_path / "none.jsonl", [])
    assert columns.numbers(LedgerFile(tmp_path / "none.jsonl"))["step"].tolist() == []


def test_numbers_name_the_line_that_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    write(path, [line(s) for s in range(GROUP + 5)])
    whole = path.read_bytes().splitlines(keepends=True)
    found = LedgerFile(path)
    for bad in (b'{"step": 1}', b"[]", b"{", b'{"step": "x", "rows": [1, 2]}', b" "):
        damaged = bad.ljust(len(whole[7]) - 1) + b"\n"
        path.write_bytes(b"".join([*whole[:7], damaged, *whole[8:]]))
        with pytest.raises(JournalError, match=r"line 8 of .*sed -i 8d"):
            columns.numbers(found)
    typed = whole[7].replace(b'"loss": 1.5', b'"loss": "x"')
    path.write_bytes(b"".join([*whole[:7], typed, *whole[8:]]))
    with pytest.raises(JournalError, match="of a type that a Journal never writes"):
        columns.numbers(found)


def test_an_edited_ledger_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    write(path, [line(s) for s in range(3 * GROUP)])
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:5] + lines[6:]))
    assert LedgerFile(path).latest(5) is None
    assert LedgerFile(path).latest(700) == line(700)
    write(path, [line(3 * GROUP)])
    assert [x.step for x in read(path)] == [s for s in range(3 * GROUP + 1) if s != 5]


def test_opening_reads_the_end_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ledger.jsonl"
    write(path, [line(s) for s in range(20 * GROUP + 7)])
    seen: list[int] = []
    lines = LedgerFile.lines

    def counted(self: LedgerFile, start: int, stop: int | None, first: int = -1):  # type: ignore[no-untyped-def]
        for each in lines(self, start, stop, first):
            seen.append(each[2].step)
            yield each

    monkeypatch.setattr(LedgerFile, "lines", counted)
    assert LedgerFile(path).latest(1000) == line(1000)
    assert len(seen) < 3 * GROUP


def test_damage_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    write(path, [line(s) for s in range(3)])
    whole = path.read_bytes().splitlines(keepends=True)
    for bad in (b'{"step": 1}\n', b"[]\n", b"{\n", b'{"step": "x", "rows": [1, 2]}\n'):
        path.write_bytes(whole[0] + bad + whole[2])
        with pytest.raises(JournalError, match=r"line 2 of .*sed -i 2d"):
            LedgerFile(path)


def test_no_ledger(tmp_path: Path) -> None:
    found = LedgerFile(tmp_path / "ledger.jsonl")
    assert not found
    assert (found.last, found.steps, list(found.path())) == (None, range(0), [])


def test_what_a_newer_version_added_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    write(path, [line(0)])
    path.write_text(path.read_text().replace("{", '{"newer": 1, ', 1))
    assert read(path) == [line(0)]
