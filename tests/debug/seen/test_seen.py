"""When documents were trained on: as reading every step tells, over chains of all kinds."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import Dataset, Loader, mix, scan, zip_datasets
from pipeline.__main__ import main
from pipeline.debug.journal import Journal, Run
from pipeline.debug.seen import Documents, Seen, check, index_of, seen, seen_in_run

TEXTS = [f"{i} " + "to be or not " * (1 + i % 7) for i in range(97)]
STEPS = 60


def tokens(text: str) -> dict[str, Any]:
    return {"tokens": np.frombuffer(text.encode(), np.uint8).astype(np.int32)}


def size(text: str) -> int:
    return len(text.encode())


def packed(ds: Dataset, **options: Any) -> Dataset:
    return ds.map(tokens).pack({"tokens": 64}, **options)


CHAINS: dict[str, Callable[[Path], Dataset]] = {
    "shuffled": lambda _: Dataset(TEXTS, seed=1).shuffle().repeat(),
    "sliced": lambda _: Dataset(TEXTS, seed=1).shuffle()[:40].repeat(),
    "by lengths": lambda path: (
        Dataset(TEXTS, seed=1)
        .shuffle()
        .map(tokens)
        .pack(
            {"tokens": 64},
            lengths=scan(Dataset(TEXTS, seed=1), size, path=path / "s", workers=0, progress=False),
        )
        .repeat()
    ),
    "streamed": lambda _: packed(Dataset(TEXTS, seed=1).shuffle(), block=8).repeat(),
    "lanes": lambda _: packed(Dataset(TEXTS, seed=1).shuffle(), block=8).repeat().lanes(2),
    "mixed": lambda _: mix(
        {"a": Dataset(TEXTS).shuffle(), "b": packed(Dataset(TEXTS[:9])).map(lambda r: "x")},
        {"a": 2, "b": 1},
        stop="never",
    ),
    "zipped": lambda _: zip_datasets({"a": Dataset(TEXTS), "b": Dataset(TEXTS[::-1])}).repeat(),
}


def of(ds: Dataset, folder: Path, text: str, states: Any = ()) -> tuple[Seen, str]:
    index = index_of(ds.components, Documents(), folder, workers=0, progress=False)
    return seen(text, Loader(ds, 4), index, until=STEPS, states=states), index.root


@pytest.mark.parametrize("chain", CHAINS)
def test_steps_and_rows_are_those_that_reading_finds(chain: str, tmp_path: Path) -> None:
    ds = CHAINS[chain](tmp_path)
    loader, states = Loader(ds, 4), list[Any]()
    every, names = [], ["/".join(c.path) for c in ds.components]
    for step in range(STEPS):
        if step % 7 == 0:
            states.append((step, json.loads(json.dumps(loader.state_dict()))))
        next(loader)
        every.append(loader.where())
    for which in random.Random(chain).sample(range(len(TEXTS)), 6):
        expected = list[tuple[Any, ...]]()
        records = {
            (n, r)
            for n, c in zip(names, ds.components, strict=True)
            for r in range(len(c.source))
            if Dataset(c.source)[r] == TEXTS[which]
        }
        for step, where in enumerate(every):
            for row, got in enumerate(where):
                parts = [(s.row, (s.start, s.stop)) for s in got.segments] or [(got, None)]
                parts += [(b, None) for b in got.beside]
                expected += [
                    (step, row, p.epoch, span)
                    for p, span in parts
                    if (p.component, p.record) in records
                ]
        for known in ((), states):
            found, root = of(ds, tmp_path / "index", TEXTS[which], known)
            got = [(o.step, o.row, o.epoch, o.tokens) for o in found.places]
            assert sorted(got, key=str) == sorted(expected, key=str)
            assert bool(found) == bool(expected)
            assert check(found.proof, root, TEXTS[which].encode()).found


def test_only_steps_around_a_block_are_read(tmp_path: Path) -> None:
    reads: list[str] = []

    def counted(text: str) -> dict[str, Any]:
        reads.append(text)
        return tokens(text)

    ds = Dataset(TEXTS, seed=1).shuffle().map(counted).pack({"tokens": 64}, block=8).repeat()
    loader, states = Loader(ds, 4), list[Any]()
    for step in range(STEPS):
        states.append((step, loader.state_dict()))
        next(loader)
    drawn, _ = len(reads), reads.clear()
    found, _ = of(ds, tmp_path, TEXTS[5], states)
    assert found
    assert len(reads) < drawn / 2


def test_one_newline_at_the_end_is_tried_both_ways(tmp_path: Path) -> None:
    ds = Dataset(["to\n", "be", "not\n\n"])
    for text, matched in (
        ("to", "with one newline more at its end"),
        ("to\n", "as it is"),
        ("be\n", "with one newline less at its end"),
        ("be\r\n", "with one newline less at its end"),
        ("not", ""),
        ("be\n\n", ""),
    ):
        assert of(ds, tmp_path, text)[0].matched == matched


def test_a_document_is_a_field_or_what_a_function_gives(tmp_path: Path) -> None:
    ds = Dataset([{"text": "to be", "id": 1}, {"text": b"or not", "id": 2}])
    for documents in (Documents("text"), Documents(function=lambda r: r["text"])):
        index = index_of(ds.components, documents, tmp_path, workers=0, progress=False)
        assert seen("or not", Loader(ds, 1), index, until=2).steps == (1,)
    assert len(list(tmp_path.iterdir())) == 2  # each of these has an index of its own
    for documents, says in (
        (Documents(), r"name the field, one of \['text', 'id'\]"),
        (Documents("title"), r"no field 'title'"),
        (Documents("id"), "neither text nor bytes"),
    ):
        with pytest.raises(ValueError, match=says):
            index_of(ds.components, documents, tmp_path / "bad", workers=0, progress=False)


def test_a_damaged_index_proves_nothing(tmp_path: Path) -> None:
    ds = Dataset(TEXTS)
    found, _ = of(ds, tmp_path, TEXTS[3])
    nodes = next(tmp_path.rglob("nodes.npy"))
    data = bytearray(nodes.read_bytes())
    data[200:] = bytes(len(data) - 200)
    nodes.write_bytes(data)
    with pytest.raises(ValueError, match="is damaged"):
        of(ds, tmp_path, TEXTS[3])
    nodes.write_bytes(data[:-40])
    with pytest.raises(ValueError, match="is damaged"):
        of(ds, tmp_path, TEXTS[3])
    assert found


# ---- runs


@pytest.mark.parametrize("chain", ["shuffled", "streamed", "mixed"])
def test_a_run_is_read_by_its_journal(chain: str, tmp_path: Path) -> None:
    ds = CHAINS[chain](tmp_path)
    loader, logged = Loader(ds, 4), list[Any]()
    for stop, batches in ((20, 1), (32, 2)):  # the second start went back, skips, and accumulates
        with Journal(tmp_path / "run", loader, states_every=5) as journal:
            while loader.step < stop:
                rows: list[Any] = []
                for _ in range(batches):
                    next(loader)
                    rows += loader.where()
                journal.log(loss=1.0)
                logged.append(rows)
        if batches == 1:
            loader = loader.like()
            loader.seek(12)
            loader.skip(range(16, 19))
    run = Run(tmp_path / "run")
    rows_of = {(x.launch, x.step): rows for x, rows in zip(run.ledger, logged, strict=True)}
    every = {line.step: rows_of[line.launch, line.step] for line in run.path()}
    index = index_of(ds.components, Documents(), tmp_path / "i", workers=0, progress=False)
    names = ["/".join(c.path) for c in ds.components]
    for which in random.Random(chain).sample(range(len(TEXTS)), 8):
        records = {
            (n, r)
            for n, c in zip(names, ds.components, strict=True)
            for r in range(len(c.source))
            if Dataset(c.source)[r] == TEXTS[which]
        }
        expected = list[tuple[int, int]]()
        for step, where in every.items():
            for row, got in enumerate(where):
                parts = [s.row for s in got.segments] or [got]
                expected += [(step, row) for p in parts if (p.component, p.record) in records]
        found = seen_in_run(TEXTS[which], run, ds, index)
        assert sorted((o.step, o.row) for o in found.places) == sorted(expected)
        assert found.steps == tuple(sorted({step for step, _ in expected}))


def test_of_several_hosts_too_only_steps_around_a_block_are_read(tmp_path: Path) -> None:
    reads: list[str] = []

    def counted(text: str) -> dict[str, Any]:
        reads.append(text)
        return tokens(text)

    chain = Dataset(TEXTS, seed=1).shuffle().map(counted).pack({"tokens": 64}, block=8)
    ds = chain.repeat().lanes(2)
    for hosts, folder in ((1, tmp_path / "one"), (2, tmp_path / "two")):
        for host in range(hosts):
            loader = Loader(ds, 4, host=host, hosts=hosts)
            with loader, Journal(folder, loader, states_every=2) as journal:
                for _ in range(STEPS):
                    next(loader)
                    journal.log(loss=1.0)
    index = index_of(ds.components, Documents(), tmp_path / "i", workers=0, progress=False)
    one = seen_in_run(TEXTS[5], Run(tmp_path / "one"), ds, index)
    reads.clear()
    two = seen_in_run(TEXTS[5], Run(tmp_path / "two"), ds, index)
    assert one.places == two.places != ()
    few = len(reads)
    for path in (tmp_path / "two").glob("states*.jsonl"):
        path.unlink()
    assert seen_in_run(TEXTS[5], Run(tmp_path / "two"), ds, index).places == one.places
    assert few < len(reads) / 3


# ---- the command

loader = Loader(Dataset(TEXTS, seed=1).shuffle().repeat(), 4)
just_data = loader.dataset
others = Dataset(TEXTS, seed=2).shuffle().repeat()


def text_of(record: str) -> str:
    return record.upper()


def asked(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    status = main(["seen", *map(str, words)])
    out, err = capsys.readouterr()
    return status, out + err


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here, page, p = tmp_path / "run", tmp_path / "page.txt", tmp_path / "p.json"
    running = loader.like()
    with Journal(here, running, data=f"{__name__}:loader") as journal:
        for _ in range(50):
            next(running)
            journal.log(loss=0.5)
    name = ["--run", here, "--workers", 0]
    expected = loader.find(5, within=range(50))
    for text, status in ((TEXTS[5], 0), ("another", 1)):
        page.write_text(text)
        got, out = asked(capsys, page, *name, "--proof", p, "--json")
        shown = json.loads(out[: out.rindex("}") + 1])
        assert (got, shown["steps"]) == (status, [] if status else expected)
        root = shown["root"]
        got, out = asked(capsys, "--check", p, "--root", root)
        assert got == status
        assert "steps: claimed, not checked" in out
        assert "file: not checked" in out
        assert asked(capsys, page, "--check", p, "--root", root)[0] == status
        assert asked(capsys, here / "ledger.jsonl", "--check", p, "--root", root)[0] == 2
        assert asked(capsys, "--check", p, "--root", root[::-1])[0] == 2
    page.write_text(TEXTS[5].upper())
    assert asked(capsys, page, *name, "--document", f"{__name__}:text_of")[0] == 0
    status, out = asked(capsys, page, *name)
    assert (status, "its neighbours in the sorted index are" in out) == (1, True)
    page.write_text(TEXTS[5])
    for text in (TEXTS[5], "another"):  # "never" too is said of the run's own dataset only
        page.write_text(text)
        assert asked(capsys, page, *name, "--data", f"{__name__}:others")[0] == 2
    page.write_text(TEXTS[5])
    plain = [page, "--run", here, "--data", f"{__name__}:just_data", "--batch", 4]
    status, out = asked(capsys, *plain, "--until", expected[0])
    assert (status, out.startswith("never in the")) == (1, True)
    assert asked(capsys, *plain, "--until", expected[0] + 1)[0] == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["PAGE"], "--run RUN"),
        (["PAGE", "--run", "RUN"], "no ledger.jsonl"),
        (["PAGE", "--run", "RUN", "--until", "3"], "give --data"),
        (["PAGE", "--run", "RUN/none", "--data", "X:loader"], "no run at"),
        (["none", "--run", "RUN", "--data", "X:loader"], "No such file"),
        (["PAGE", "--run", "RUN", "--data", "X:just_data", "--until", "3"], "--batch"),
        (["--check", "PAGE"], "--root"),
        (["--check", "PAGE", "--root", "0" * 64], "no JSON"),
    ],
)
def test_mistakes_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    (tmp_path / "page.txt").write_text("to be")
    change = {"PAGE": str(tmp_path / "page.txt"), "RUN": str(tmp_path), "X:": f"{__name__}:"}
    for old, new in change.items():
        words = [word.replace(old, new) for word in words]
    status, out = asked(capsys, *words)
    assert status == 2
    assert says in out
