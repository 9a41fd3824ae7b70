"""A journal tells which rows made each step, whatever the loop, its hosts, workers and restarts."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash

from pipeline import Columns, Dataset, Loader, Threads
from pipeline.debug.find import steps_of
from pipeline.debug.journal import Journal, JournalWarning, Line, Run
from pipeline.debug.journal.digests import batch_digest, row_digests
from pipeline.debug.journal.ledger import read
from pipeline.debug.journal.lines import LineLog
from pipeline.debug.journal.naming import found_name
from pipeline.debug.journal.xxh3 import summed
from pipeline.debug.replay import replay
from pipeline.debug.seen.history import in_run
from pipeline.errors import FeedError, JournalError, MismatchError


def _long(n: int) -> dict[str, Any]:
    return {"tokens": np.arange(1 + n % 7, dtype=np.int32) + n}


def indexed() -> Dataset:
    """Rows by position."""
    return Dataset({"x": np.arange(100), "s": [str(i) for i in range(100)]}, seed=1).shuffle()


def counted(lanes: int = 1) -> Dataset:
    """Rows as they come."""
    chain = Dataset(range(300), seed=2).shuffle().map(_long)
    return chain.pack({"tokens": 12}, block=32).repeat().lanes(lanes)


def journaled(folder: Path, loader: Loader, steps: int, **options: Any) -> None:
    """A loop that journals."""
    with loader, Journal(folder, loader, **options) as journal:
        for _ in range(steps):
            next(loader)
            journal.log(loss=1.0)


def lines_of(folder: Path) -> list[Line]:
    """The ledger's lines."""
    return read(folder / "ledger.jsonl")


def digests(folder: Path) -> list[str]:
    """Of each step, hosts added up."""
    run = Run(folder)
    return [run.digest(line) for line in run.path()]


# ---- digests


def test_rows_have_the_digest_of_what_collate_makes_of_them() -> None:
    rows: list[Any] = [
        {"i": 1, "f": 0.5, "b": True, "s": "a", "l": [1, 2], "n": None, "t": (np.int8(1), b"\0")},
        {"i": 2, "f": -0.0, "b": False, "s": "", "l": [3, 4], "n": None, "t": (np.int8(2), b"x")},
    ]
    batch = next(iter(Loader(Dataset(rows), 2)))
    assert row_digests(rows) == row_digests(Columns(batch))
    assert len({*row_digests(rows)}) == 2
    big = np.arange(6, dtype=">i4").reshape(2, 3)
    assert row_digests(Columns(big)) == row_digests(Columns(big.astype("<i4")))
    assert row_digests(Columns(big.T.copy().T)) == row_digests(Columns(big))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"x": 0.0}, {"x": -0.0}),
        ({"x": 1}, {"x": 1.0}),
        ({"x": 1}, {"y": 1}),
        ({"x": np.zeros((2, 3))}, {"x": np.zeros((3, 2))}),
        ({"x": np.zeros(0)}, {"x": np.zeros(0, np.int64)}),
        ({"x": "a"}, {"x": b"a"}),
        ({"x": "1"}, {"x": 1}),
        ({"x": "a", "y": "b"}, {"x": "b", "y": "a"}),
        ({"x": "ab", "y": ""}, {"x": "a", "y": "b"}),
        ({}, {"x": None}),
    ],
)
def test_what_differs_has_another_digest(one: Any, other: Any) -> None:
    assert row_digests([one]) != row_digests([other])


def test_a_batch_s_digest_tells_the_order_of_rows() -> None:
    rows = row_digests([1, 2, 3])
    assert batch_digest(rows, [0, 1, 2]) != batch_digest(rows, [1, 0, 2])


@pytest.mark.parametrize("n", [0, 1, 255, 256, 3000])
def test_a_batch_of_many_rows_has_the_same_digest(n: int) -> None:
    rng = np.random.default_rng(n)
    rows = [rng.bytes(16) for _ in range(n)]
    positions = rng.integers(0, 1 << 48, n)
    expected = sum(map(xxhash.xxh3_128_intdigest, rows, positions.tolist())) % (1 << 128)
    assert batch_digest(rows, positions) == batch_digest(rows, positions.tolist()) == expected
    assert summed(b"".join(rows), positions) == expected


def test_rows_that_cannot_be_hashed_are_named(tmp_path: Path) -> None:
    dataset = Dataset([1, 2]).map(lambda x: {"odd": object()})
    loader = Loader(dataset, 1, collate=lambda rows: rows)
    with Journal(tmp_path, loader), pytest.raises(FeedError, match="cannot digest field 'odd'"):
        next(loader)


@pytest.mark.parametrize("make", [indexed, counted])
def test_workers_collate_and_padding_change_no_digest(make: Any, tmp_path: Path) -> None:
    variants: list[dict[str, Any]] = [{}, {"workers": Threads(2)}, {"collate": list}]
    for i, options in enumerate(variants):
        loader = Loader(make(), 8, **options)
        journaled(tmp_path / str(i), loader, 10)
    assert digests(tmp_path / "0") == digests(tmp_path / "1") == digests(tmp_path / "2")


@pytest.mark.parametrize("make", [indexed, lambda: counted(4)])
def test_hosts_add_up_and_a_missing_one_is_named(make: Any, tmp_path: Path) -> None:
    journaled(tmp_path / "one", Loader(make(), 8), 9)
    for host in range(4):
        journaled(tmp_path / "four", Loader(make(), 8, host=host, hosts=4), 9)
    assert digests(tmp_path / "four") == digests(tmp_path / "one")
    one, four = Run(tmp_path / "one"), Run(tmp_path / "four")
    assert four.chain(8) == one.chain(8)
    assert replay(four, make(), range(2, 9)).proved == 7
    (tmp_path / "four" / "ledger-00002.jsonl").unlink()
    with pytest.raises(JournalError, match=r"process 2 is not there: ledger-00002\.jsonl"):
        digests(tmp_path / "four")


# ---- steps


def test_a_line_says_what_a_step_did(tmp_path: Path) -> None:
    loader = Loader(indexed(), 8)
    with Journal(tmp_path, loader) as journal:
        for loss in (1.5, float("nan")):
            next(loader)
            journal.log(loss=np.float32(loss), grad_norm=2.0, lr=0.1, odd=float("inf"))
        assert len(lines_of(tmp_path)) == 1  # one step late
        with journal.saving():
            assert len(lines_of(tmp_path)) == 2
    first, second = lines_of(tmp_path)
    assert (first.step, first.launch, first.data_step, first.rows) == (0, 0, 0, (0, 8))
    assert (first.loss, first.loss_bits, first.grad_norm) == (1.5, "3fc00000", 2.0)
    assert (second.loss, second.loss_bits) == (None, "7fc00000")
    assert first.scalars == {"lr": 0.1, "odd": None}
    assert first.seconds.keys() == {"data", "step", "save"}
    assert "NaN" not in (tmp_path / "ledger.jsonl").read_text()


def test_one_log_covers_all_batches_since_the_last(tmp_path: Path) -> None:
    dataset, loader = indexed(), Loader(indexed(), 4)
    loader.skip(range(5, 7))
    with Journal(tmp_path, loader) as journal:
        for _ in range(4):
            for _ in range(3):
                next(loader)
            journal.log(loss=0.0)
    lines = lines_of(tmp_path)
    assert [(x.step, x.data_step, x.batches, x.data_end) for x in lines] == [
        (0, 0, 3, 3),
        (1, 3, 3, 8),
        (2, 8, 3, 11),
        (3, 11, 3, 14),
    ]
    run = Run(tmp_path)
    assert replay(run, dataset, range(4)).ok
    record = Loader(dataset, 4).where(9)[1].record
    assert steps_of(run, dataset, record) == [2]
    skipped = Loader(dataset, 4).where(5)[1].record
    assert steps_of(run, dataset, skipped) == []


def test_gaps_and_steps_back_are_told(tmp_path: Path) -> None:
    loader = Loader(indexed(), 2)
    with Journal(tmp_path, loader) as journal:
        next(loader)
        journal.log(loss=0.0, step=0)
        next(loader)
        with pytest.warns(JournalWarning, match=r"step 7: a gap: log\(step=7\)"):
            journal.log(loss=0.0, step=7)
        next(loader)
        journal.log(loss=0.0)
        next(loader)
        with pytest.warns(JournalWarning, match="step 3: a step back"):
            journal.log(loss=0.0, step=3)
        loader.seek(20)
        next(loader)
        with pytest.warns(JournalWarning, match="a gap: the loader's steps 4 to 19 have no line"):
            journal.log(loss=0.0)
        loader.seek(1)
        next(loader)
        with pytest.warns(JournalWarning, match="a step back"):
            journal.log(loss=0.0)
        with pytest.warns(JournalWarning, match="no batch was drawn"):
            journal.log(loss=0.0)
    assert [bool(line.told) for line in lines_of(tmp_path)] == [0, 1, 0, 1, 1, 1, 1]
    assert Run(tmp_path).line(8).step == 8


@pytest.mark.parametrize("make", [indexed, counted])
def test_a_resumed_run_goes_on_and_redone_steps_keep_their_chain(make: Any, tmp_path: Path) -> None:
    journaled(tmp_path / "whole", Loader(make(), 4), 20)
    loader, state = Loader(make(), 4), dict[str, Any]()
    with Journal(tmp_path / "run", loader) as journal:
        for step in range(15):
            if step == 10:
                state = json.loads(json.dumps(loader.state_dict()))
            next(loader)
            journal.log(loss=1.0)
    loader = Loader(make(), 4)
    loader.load_state_dict(state)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        journaled(tmp_path / "run", loader, 10)
    lines = lines_of(tmp_path / "run")
    assert [(x.step, x.launch) for x in lines] == [(s, 0) for s in range(15)] + [
        (s, 1) for s in range(10, 20)
    ]
    assert {(x.step, x.digest, x.chain) for x in lines} == {
        (x.step, x.digest, x.chain) for x in lines_of(tmp_path / "whole")
    }
    proof = replay(Run(tmp_path / "run"), make(), range(20))
    assert (proof.proved, proof.ok) == (20, True)


def test_a_killed_run_has_a_line_for_each_step_but_the_last(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from pipeline import Loader\n"
        "from pipeline.debug.journal import Journal\n"
        "from tests.debug.test_journal import counted\n"
        "loader = Loader(counted(), 4)\n"
        "journal = Journal(sys.argv[1], loader)\n"
        "for step, batch in enumerate(loader):\n"
        "    journal.log(loss=0.0)\n"
        "    if step == 12: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=root, check=False)
    assert [line.step for line in lines_of(tmp_path)] == list(range(12))
    loader = Loader(counted(), 4)
    loader.seek(12)
    journaled(tmp_path, loader, 3)
    assert [line.step for line in lines_of(tmp_path)] == list(range(15))
    assert replay(Run(tmp_path), counted(), range(15)).ok


def test_any_past_step_is_reached_from_the_state_before_it(tmp_path: Path) -> None:
    journaled(tmp_path, Loader(counted(), 4), 60, states_every=10)
    run, dataset = Run(tmp_path), counted()
    states = [json.loads(x)["step"] for x in (tmp_path / "states.jsonl").read_text().splitlines()]
    assert states == [0, 10, 20, 30, 40, 50, 60, 60]
    line = run.line(47)
    loader = run.loader(dataset, line)
    assert 40 <= loader.step <= 47
    assert run.remade(dataset, line) == line.digest


@pytest.mark.long
def test_records_left_out_on_the_way_are_left_out_again(tmp_path: Path) -> None:
    loader = Loader(counted(), 4)
    with Journal(tmp_path, loader) as journal:
        for step in range(30):
            if step == 7:
                loader.skip(records=range(0, 200))
            next(loader)
            journal.log(loss=0.0)
    assert replay(Run(tmp_path), counted(), range(30)).ok


def test_a_start_that_goes_back_and_leaves_records_out(tmp_path: Path) -> None:
    loader = Loader(counted(), 4)
    with warnings.catch_warnings(), Journal(tmp_path, loader, states_every=5) as journal:
        warnings.simplefilter("ignore", JournalWarning)
        for step in range(45):
            if step == 30:
                loader.seek(12)  # between two states: those of before lie nearer to what follows
                loader.skip(records=range(0, 200))
            next(loader)
            journal.log(loss=0.0)
    run = Run(tmp_path)
    steps = [line.step for line in run.path()]
    assert steps == list(range(27))
    assert [line.step for line in run.path() if run.remade(counted(), line) != line.digest] == []


def test_a_damaged_state_is_named_with_its_line(tmp_path: Path) -> None:
    journaled(tmp_path, Loader(counted(), 4), 12, states_every=5)
    path = tmp_path / "states.jsonl"
    whole = path.read_text().splitlines(keepends=True)
    for bad in ('{"launch": 0}', '{"launch": 0, "step": 5, "state": {}}', "[]", "{", '{"step": 5}'):
        path.write_text(whole[0] + bad + "\n" + "".join(whole[2:]))
        run = Run(tmp_path)
        with pytest.raises(JournalError, match=r"line 2 of .*states\.jsonl.*sed -i 2d"):
            run.remade(counted(), run.line(7))
    path.write_text(whole[0] + "".join(whole[2:]))  # as it says: from the state before
    run = Run(tmp_path)
    assert run.remade(counted(), run.line(7)) == run.line(7).digest


def test_a_changed_digest_or_chain_is_named(tmp_path: Path) -> None:
    journaled(tmp_path, Loader(indexed(), 4), 10)
    whole = (tmp_path / "ledger.jsonl").read_text().splitlines()
    for field in ("digest", "chain"):
        lines = [json.loads(line) for line in whole]
        lines[6][field] = "0" * 32
        (tmp_path / "ledger.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
        proof = replay(Run(tmp_path), indexed(), range(2, 10))
        assert (proof.step, proof.proved) == (6, 4)
        assert field in proof.differs


def test_another_dataset_is_refused_by_what_differs(tmp_path: Path) -> None:
    journaled(tmp_path, Loader(indexed(), 4), 2)
    other = Dataset({"x": np.arange(100), "s": ["a"] * 100}, seed=9).shuffle()
    with pytest.raises(MismatchError, match=r"seed: 1 -> 9; source: other records"):
        Journal(tmp_path, Loader(other, 4))
    with pytest.raises(MismatchError, match=r"another dataset\..*seed: 1 -> 9"):
        replay(Run(tmp_path), other, range(2))
    Journal(tmp_path, Loader(other, 4), allow={"seed", "source"}).close()
    Journal(tmp_path, Loader(indexed(), 8)).close()  # another batch size is the same dataset


# ---- what was lost


def two_starts(folder: Path) -> Dataset:
    """A run whose second start has another batch size."""
    dataset = indexed().repeat()
    loader = Loader(dataset, 4)
    journaled(folder, loader, 6)
    other = Loader(dataset, 8)
    other.load_state_dict(loader.state_dict())
    journaled(folder, other, 6)
    return dataset


@pytest.mark.parametrize("kept", [0, 1])
def test_a_lost_line_of_launches_is_named(kept: int, tmp_path: Path) -> None:
    dataset, path = two_starts(tmp_path), tmp_path / "launches.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:kept]))
    run, lost = Run(tmp_path), rf"launches\.jsonl has no line of launch {kept}"
    for ask in (
        lambda: steps_of(run, dataset, 3),
        lambda: in_run(run, dataset, [("", 3)], 9),
        lambda: replay(run, dataset, range(12)),
        lambda: run.remade(dataset, run.line(11 * kept)),
        run.digests,
    ):
        with pytest.raises(JournalError, match=lost):
            ask()
    with Journal(tmp_path, Loader(dataset, 4)) as journal:
        assert journal.launch == 2  # not one that lines have


def test_lost_launches_of_another_process_are_named(tmp_path: Path) -> None:
    for host in range(2):
        journaled(tmp_path, Loader(indexed(), 4, host=host, hosts=2), 5)
    (tmp_path / "launches-00001.jsonl").unlink()
    for ask in (
        lambda: replay(Run(tmp_path), indexed(), range(5)),
        lambda: digests(tmp_path),
        lambda: Run(tmp_path).digests(),
    ):
        with pytest.raises(JournalError, match=r"launches-00001\.jsonl has no line of launch 0"):
            ask()


def test_a_launch_is_on_the_disk_before_its_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    sync = LineLog.sync

    def told(self: LineLog) -> None:
        synced.append(self._path.name)
        sync(self)

    monkeypatch.setattr(LineLog, "sync", told)
    loader = Loader(indexed(), 4)
    with Journal(tmp_path, loader) as journal:
        next(loader)
        journal.log(loss=1.0)
        assert synced == ["launches.jsonl"]


def test_a_journal_of_before_is_read(tmp_path: Path) -> None:
    dataset = indexed().repeat()
    loader = Loader(dataset, 4)
    with warnings.catch_warnings(), Journal(tmp_path, loader, states_every=5) as journal:
        warnings.simplefilter("ignore", JournalWarning)
        for step in range(30):
            if step == 20:
                loader.seek(8)
                loader.skip(records=range(0, 30))
            next(loader)
            journal.log(loss=1.0)
    for name in ("ledger", "states"):  # neither moves nor what a line follows were noted
        path = tmp_path / f"{name}.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        kept = [{k: v for k, v in x.items() if k not in ("move", "after")} for x in lines]
        path.write_text("".join(json.dumps(line) + "\n" for line in kept))
    (tmp_path / "ledger.index").write_bytes(bytes(48))
    run = Run(tmp_path)
    path = [*run.path()]
    assert [line.step for line in path] == [*range(18)]
    assert [line.step for line in path if run.remade(dataset, line) != line.digest] == []
    assert replay(run, dataset, range(8)).ok
    held: dict[int, list[int]] = {}
    for line in path:
        for rows in run.rows(dataset, line):
            for record in rows.take.block.origin.record.tolist():
                held.setdefault(record, []).append(line.step)
    for record in (0, 5, 29, 30, 39):
        assert steps_of(run, dataset, record) == sorted(held.get(record, []))


# ---- scalars


def test_scalars_of_jax_and_torch_are_read_one_step_later(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    jnp = pytest.importorskip("jax.numpy")
    loader = Loader(indexed(), 4)
    running = torch.tensor(0.0)
    with Journal(tmp_path, loader) as journal:
        for step in range(3):
            next(loader)
            running += 1
            loss = (torch.tensor(0.5, requires_grad=True) * step).reshape(1)
            journal.log(loss=loss, grad_norm=jnp.float32(step), running=running, none=None)
    lines = lines_of(tmp_path)
    assert [line.loss for line in lines] == [0.0, 0.5, 1.0]
    assert [line.grad_norm for line in lines] == [0.0, 1.0, 2.0]
    assert [line.scalars for line in lines] == [{"running": i} for i in (1.0, 2.0, 3.0)]


@pytest.mark.parametrize("value", [np.zeros(2), "high", [1.0]])
def test_what_is_no_number_is_named(value: Any, tmp_path: Path) -> None:
    loader = Loader(indexed(), 4)
    journal = Journal(tmp_path, loader)
    next(loader)
    journal.log(loss=value)
    with pytest.raises(JournalError, match=r"log\(loss=…\)"):
        journal.close()


# ---- mistakes


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    journal = Journal(tmp_path, Loader(indexed(), 4))
    code = (
        "import sys\nfrom pipeline import Loader\nfrom pipeline.debug.journal import Journal\n"
        "from tests.debug.test_journal import indexed\nJournal(sys.argv[1], Loader(indexed(), 4))\n"
    )
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert "another process writes the journal" in done.stderr
    again = Journal(tmp_path, Loader(indexed(), 4))  # in this process it takes over
    with pytest.raises(JournalError, match="closed"):
        journal.log(loss=0.0)
    again.close()


def test_a_name_in_main_is_none_whatever_main_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    main = sys.modules["__main__"]
    monkeypatch.setitem(sys.modules, "__mp_main__", main)  # as importing torch does
    ds = Dataset(range(4))
    monkeypatch.setattr(main, "planted", ds, raising=False)
    assert found_name(ds) is None
    monkeypatch.setattr(sys.modules[__name__], "planted", ds, raising=False)
    assert found_name(ds) == f"{__name__}:planted"


def test_wrong_arguments(tmp_path: Path) -> None:
    loader = Loader(indexed(), 4)
    (tmp_path / "file").touch()
    wrong: list[tuple[Any, Any, dict[str, Any], str]] = [
        ("gs://bucket/run", loader, {}, "local folder"),
        (tmp_path / "file", loader, {}, "is a file"),
        (tmp_path, indexed(), {}, "wants a Loader"),
        (tmp_path, loader, {"data": "train"}, "module:name"),
        (tmp_path, loader, {"data": "__main__:ds"}, "another module in another process"),
        (tmp_path, loader, {"states_every": 0}, "states_every"),
    ]
    for folder, what, options, text in wrong:
        with pytest.raises(JournalError, match=text):
            Journal(folder, what, **options)
    with pytest.raises(JournalError, match="there is no run"):
        Run(tmp_path)
