"""Your own data: files, mixes, prompts, functions; what cannot be trained on is named."""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.config import Config, make, parse, settle
from harness.data import open_data
from harness.errors import ConfigError
from harness.metrics import Screen
from harness.named import check_folder
from harness.own_data import own_data
from harness.tokens import BOS, decode, make_tokenizer
from pipeline import Dataset, Loader

TEXTS = [f"This is document {i}." for i in range(200)]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    table = pa.table({"text": TEXTS, "other": list(range(200))})
    pq.write_table(table, "a.parquet", row_group_size=20)
    lines = [json.dumps({"text": f"line {i}", "ask": f"What {i}? "}) for i in range(100)]
    Path("b.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


def streams(**settings: Any) -> tuple[Dataset, Dataset | None]:
    found = own_data(
        make({"length": 64, "lanes": 1, **{k.replace("__", "."): v for k, v in settings.items()}})
    )
    assert found is not None
    return found


def documents(rows: Any) -> list[str]:
    """The text of whole segments, in order."""
    tokens = np.concatenate([row["tokens"][row["segment_ids"] > 0] for row in rows])
    return [decode(t) for t in np.split(tokens, np.flatnonzero(tokens == BOS))[1:]]


def test_each_document_is_trained_on_or_held_out(files: Path) -> None:
    train, held_out = streams(data__train="a.parquet", data__held_out=0.1)
    assert held_out is not None
    assert documents(held_out) == TEXTS[180:]
    with Loader(train, 8) as loader:
        batches = [next(loader) for _ in range(20)]
    rows = [{k: v[i] for k, v in batch.items()} for batch in batches for i in range(8)]
    assert set(documents(rows)[:-1]) <= set(TEXTS[:180])
    assert len(set(documents(rows)[:170])) > 160  # shuffled, without repetition
    assert documents(rows)[:50] != TEXTS[:50]


@pytest.mark.parametrize(("field", "told"), [("text", "None is neither"), ("other", "is neither")])
def test_what_is_no_text_is_named_with_its_record(files: Path, field: str, told: str) -> None:
    pq.write_table(pa.table({"text": [None, *TEXTS], "other": list(range(201))}), "nulls.parquet")
    train, _ = streams(data__train="nulls.parquet", data__text=field)
    with Loader(train, 200) as loader, pytest.raises(ConfigError, match=told) as raised:
        next(loader)
    assert "nulls.parquet" in "".join(raised.value.__notes__)


def test_a_mix_has_its_shares(files: Path) -> None:
    train, _ = streams(
        data__train={"a": "a.parquet", "b": "b.jsonl"}, data__weights={"a": 3, "b": 1}
    )
    with Loader(train, 40) as loader:
        batch = next(loader)
    assert sum("line " in decode(row) for row in batch["tokens"]) == 10


def test_a_prompt_is_seen_and_not_learned(files: Path) -> None:
    train, _ = streams(data__train="b.jsonl", data__prompt="ask")
    with Loader(train, 4) as loader:
        batch = next(loader)
    learned = decode(batch["tokens"][0][batch["weights"][0] > 0])
    assert "What" in decode(batch["tokens"][0])
    assert "What" not in learned
    assert learned.startswith("line ")
    assert sorted(batch) == ["positions", "segment_ids", "tokens", "weights"]


def test_a_tokenizer_of_hugging_face(files: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    words = {"[UNK]": 0, "<s>": 1, **{w: i for i, w in enumerate(["This", "is", "document"], 2)}}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, "[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    made.save("tokenizer.json")
    _, held_out = streams(data__train="a.parquet", data__tokenizer="tokenizer.json")
    assert held_out is not None
    row = held_out.head(1)[0]
    assert row["tokens"][:6].tolist() == [1, 2, 3, 4, 0, 0]
    with pytest.raises(ConfigError, match=r"none\.json"):
        streams(data__train="a.parquet", data__tokenizer="none.json")


def test_files_may_lie_elsewhere_and_a_run_be_continued_from_anywhere(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizers = pytest.importorskip("tokenizers")

    def write(path: str, words: dict[str, int]) -> None:
        tokenizers.Tokenizer(tokenizers.models.WordLevel(words, "[UNK]")).save(path)

    write("a.json", {"[UNK]": 0, "is": 1})
    Path("bytes").write_text("no tokenizer")
    words = ["data.train.a=a.parquet", "data.train.b=s3://b/*.jsonl", "data.evaluation=*.parquet"]
    first = make(parse([*words, "data.tokenizer=a.json"]))
    assert first.data.train == {"a": f"{files}/a.parquet", "b": "s3://b/*.jsonl"}
    assert first.data.evaluation == f"{files}/*.parquet"
    assert first.data.tokenizer == f"{files}/a.json"
    assert parse(["data.tokenizer=bytes"]) == {"data.tokenizer": "bytes"}
    stored = dataclasses.asdict(
        replace(first, data=replace(first.data, train=f"{files}/a.parquet"))
    )

    Path("moved").mkdir()
    monkeypatch.chdir("moved")
    Path("a.json").write_bytes((files / "a.json").read_bytes())
    write("b.json", {"[UNK]": 0, "document": 1})

    def fingerprint(*words: str) -> Any:
        found = own_data(settle(stored, parse(words)))
        assert found is not None
        return found[0].fingerprint()

    assert fingerprint() == fingerprint("data.tokenizer=a.json")
    assert fingerprint() != fingerprint("data.tokenizer=b.json")


def test_documents_are_whole_whatever_length_a_tokenizer_s_file_names(files: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[PAD]": 0, "is": 1}, "[PAD]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.enable_truncation(2)
    made.enable_padding(length=8)
    made.save("short.json")
    tokenizer = make_tokenizer("short.json")
    assert tokenizer.encode(b"is is is").tolist() == [1, 1, 1]
    assert tokenizer.encode(b"is").tolist() == [1]


def test_bytes_of_added_tokens(files: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.BPE({"\u0120": 0, "a": 1}, []))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.add_special_tokens(["<s>"])
    made.add_tokens(["  \u00e9"])  # text that is one token, as runs of spaces often are
    made.save("added.json")
    tokenizer = make_tokenizer("added.json")
    sizes = tokenizer.sizes()
    for text, size in (("  \u00e9", 4), ("a", 1), ("<s>", 0), (" ", 1)):
        [token] = tokenizer.encode(text.encode()).tolist()
        assert sizes[token] == size, text


MINE = """
import numpy as np
from pipeline import Dataset
rows = Dataset([np.arange(64)] * 8)
def both(cfg):
    return rows[:6].shuffle(), rows[6:]
short = Dataset([np.arange(5)] * 8)
number = 3
"""


def test_rows_of_a_function_or_a_dataset(files: Path) -> None:
    (files / "mine_rows.py").write_text(MINE)
    train, held_out = streams(data__source="mine_rows:both")
    assert held_out is not None
    assert train.endless
    assert len(held_out) == 2
    row = train.head(1)[0]
    assert (row["segment_ids"] == 1).all()
    assert row["positions"].tolist() == list(range(64))
    assert streams(data__source="mine_rows:rows")[1] is None
    for name, told in (
        ("short", "length=64"),
        ("number", "int"),
        ("short_", "has no short_. Did you mean short"),
    ):
        with pytest.raises(ConfigError, match=told):
            streams(data__source=f"mine_rows:{name}")
    with pytest.raises(ConfigError, match="no module nowhere"):
        streams(data__source="nowhere:rows")


def rows_of(monkeypatch: pytest.MonkeyPatch, found: Any, **settings: Any) -> Dataset:
    """What the trainer makes of a module's data."""
    monkeypatch.setitem(sys.modules, "given_rows", SimpleNamespace(found=found))
    return streams(data__source="given_rows:found", **settings)[0]


def chat(i: int) -> dict[str, Any]:
    return {"tokens": np.full(5 + i, i + 1), "loss_mask": np.array([0] * 3 + [1] * (2 + i))}


def test_a_loss_mask_is_the_weights_of_packed_chats(monkeypatch: pytest.MonkeyPatch) -> None:
    chats = Dataset([0, 1, 2] * 8).map(chat)
    packed = chats.pack({"tokens": 64, "loss_mask": 64}, how="best_fit")
    row = rows_of(monkeypatch, packed).head(1)[0]
    assert sorted(row) == ["positions", "segment_ids", "tokens", "weights"]
    assert row["segment_ids"].max() > 1
    for k in range(1, row["segment_ids"].max() + 1):
        weights = row["weights"][row["segment_ids"] == k]
        assert weights.tolist() == [0.0] * 3 + [1.0] * (len(weights) - 3)


TOKENS = np.arange(64)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"tokens": TOKENS, "lossmask": TOKENS}, r"\['lossmask'\] are not known.*loss_mask"),
        ({"text": "hi"}, r"\['text'\] are not known.*tokens, weights"),
        ({"weights": TOKENS}, "tokens are missing"),
        ({"tokens": TOKENS, "loss_mask": np.ones(63)}, r"float64 of shape \(63,\)"),
        ({"tokens": TOKENS, "weights": np.full(64, np.nan)}, "hold nan at place 0"),
        ({"tokens": TOKENS, "weights": 9 - TOKENS}, "hold -1 at place 10"),
        ({"tokens": TOKENS, "weights": TOKENS, "loss_mask": TOKENS}, "has weights twice"),
        ({"tokens": TOKENS, "loss_mask": TOKENS, "loss_mask_positions": TOKENS}, "as long as"),
        ({"tokens": TOKENS, "segment_ids": TOKENS - 1}, "segment_ids of a row hold -1"),
        (TOKENS - 1, "token -1 at place 0 is not in the vocabulary, 0 to 263"),
        (TOKENS + 201, r"token 264 at place 63 .*model\.vocab"),
        (TOKENS[:5], r"\.pack\(64\)"),
        ({"tokens": TOKENS[:5]}, r"\.pack\({'tokens': 64}\)"),
    ],
)
def test_rows_that_cannot_be_trained_on(
    row: Any, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=told) as raised:
        rows_of(monkeypatch, Dataset([row]))
    assert "record 0" in "".join(raised.value.__notes__)


def test_a_later_row_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    train = rows_of(monkeypatch, Dataset([TOKENS, TOKENS + 300]))
    with Loader(train, 2) as loader, pytest.raises(ConfigError, match="token 300") as raised:
        next(loader)
    assert "record 1" in "".join(raised.value.__notes__)


def test_tokens_of_files_are_in_the_vocabulary(files: Path) -> None:
    lines = [json.dumps({"text": [1, 2, 3 + 400 * (i == 2)]}) for i in range(8)]
    Path("tokens.jsonl").write_text("\n".join(lines))
    train, _ = streams(data__train="tokens.jsonl", data__held_out=0)
    with Loader(train, 1) as loader, pytest.raises(ConfigError, match="token 403") as raised:
        next(loader)
    assert "record 2" in "".join(raised.value.__notes__)
    streams(data__train="tokens.jsonl", data__held_out=0, model__vocab=404)[0].head(1)


def test_held_out_rows_end(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Dataset([TOKENS])
    with pytest.raises(ConfigError, match=r"held-out rows without end: leave \.repeat\(\) out"):
        rows_of(monkeypatch, (rows, rows.repeat()))
    assert rows_of(monkeypatch, (rows, rows.repeat()), evaluate__batches=1).endless


def test_functions_that_give_no_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(cfg: Config) -> None:
        raise FileNotFoundError(f"no file for length {cfg.length}")

    with pytest.raises(ConfigError, match=r"FileNotFoundError: no file for length 64 \(.*\.py:"):
        rows_of(monkeypatch, fails)
    with pytest.raises(ConfigError, match=r"as f\(cfg\), and raised TypeError"):
        rows_of(monkeypatch, lambda: None)
    with pytest.raises(ConfigError, match="has no rows"):
        rows_of(monkeypatch, Dataset([]))


def test_fields_that_are_not_there(files: Path) -> None:
    with pytest.raises(ConfigError, match="no field 'body'"):
        streams(data__train="b.jsonl", data__text="body")
    Path("lines.txt").write_text("a line\n" * 9)
    with pytest.raises(
        ConfigError, match=r"data\.prompt='ask' is a field, and the records of lines"
    ):
        streams(data__train="lines.txt", data__prompt="ask")
    for without in ("text", "ask"):
        lines = [{"text": "a", "ask": "b"}, {"text": "a", "ask": "b"}]
        del lines[1][without]
        Path("less.jsonl").write_text("\n".join(map(json.dumps, lines)))
        train, _ = streams(data__train="less.jsonl", data__prompt="ask", data__held_out=0)
        with pytest.raises(ConfigError, match="None is neither text nor") as raised:
            train.head(1)
        assert "record 1" in "".join(raised.value.__notes__)


def test_modules_that_cannot_be_imported(files: Path) -> None:
    for name, text, told in (
        ("divides", "1 / 0", "import of divides raised ZeroDivisionError"),
        ("imports", "import divided", "import of imports raised ModuleNotFoundError.*'divided'"),
    ):
        Path(f"{name}.py").write_text(text)
        with pytest.raises(ConfigError, match=told):
            streams(data__source=f"{name}:rows")


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("b.jsonl", r"data\.train='b.jsonl'"),
        ("gone.jsonl", r"data\.train="),
        ("mine/*.parquet", r"data\.train="),
        ("gs://bucket/x", r"data\.train="),
        ("shards", r"data\.train='shards/\*\.txt'"),
        ("nested", r"data\.train='nested/\*\*/\*\.parquet'"),
        ("some_rows", "data=some_rows:name.*data=./some_rows"),
        ("my.rows", "data=my.rows:name"),
        ("my-rows:rows", "data=my-rows:name"),
    ],
)
def test_a_folder_of_the_corpus_that_is_none(files: Path, source: str, told: str) -> None:
    Path("some_rows.py").write_text("")
    Path("shards").mkdir()
    Path("shards/0.txt").write_text("")
    Path("nested/year=2024").mkdir(parents=True)
    Path("nested/year=2024/0.parquet").write_text("")
    with pytest.raises(ConfigError, match=told):
        open_data(make({"data.source": source}), files / "run" / source, Screen(quiet=True))


def test_a_model_without_room_for_the_corpus(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.vocab=256: .* 0 to 256"):
        open_data(make({"model.vocab": 256}), tmp_path, Screen(quiet=True))


def test_folders_of_the_corpus(files: Path) -> None:
    Path("corpus").mkdir()  # importable, as any folder is
    for source in ("../data", "data", "corpus", "./some.rows", "/abs/v1.2", "code"):
        check_folder(source, files / "run" / source)
    (files / "run/b.jsonl").mkdir(parents=True)
    check_folder("b.jsonl", files / "run/b.jsonl")


def test_the_default_is_the_embedded_corpus() -> None:
    assert own_data(Config()) is None
