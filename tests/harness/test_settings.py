"""Settings from files and words: nested, typed, named by the nearest when mistaken."""

from __future__ import annotations

import dataclasses
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from harness.__main__ import main
from harness.config import Config, flat, make, parse, settle
from harness.errors import ConfigError


def test_files_and_words_the_later_holds(tmp_path: Path) -> None:
    one, other = tmp_path / "a.toml", tmp_path / "b.toml"
    one.write_text("steps = 90\nwidth = 64\n[data]\ntrain = {web = 'w', code = 'c'}\n")
    other.write_text("learning_rate = 1\n[model]\nkv_heads = 2\n")
    found = parse(["width=32", "data.weights.web=3", "data.weights.code=1"], [one, other])
    cfg = make(found)
    assert (cfg.steps, cfg.width, cfg.learning_rate, cfg.model.kv_heads) == (90, 32, 1.0, 2)
    assert cfg.data.train == {"web": "w", "code": "c"}
    assert cfg.data.weights == {"web": 3, "code": 1}


def test_a_part_that_a_word_names_joins_those_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("[data]\ntrain = {web = 'w', code = 'c'}\nweights = {web = 1, code = 1}\n")
    cfg = make(parse(["data.train.code=d", "data.weights.web=3"], [file]))
    assert cfg.data.train == {"web": "w", "code": "d"}
    assert cfg.data.weights == {"web": 3, "code": 1}
    assert make(parse(["data.train=x", "data.train.web=y"])).data.train == {"web": "y"}


@pytest.mark.parametrize("name", ["train", "evaluation", "weights"])
def test_a_part_of_a_begun_run_that_lies_elsewhere_now(name: str) -> None:
    parts = {"a": "x", "b": "y"}
    given = {"data.train": parts, "data.evaluation": parts, "data.weights": {"a": 2, "b": 1}}
    stored, part = dataclasses.asdict(make(given)), "1" if name == "weights" else "/z"
    now = getattr(settle(stored, parse([f"data.{name}.b={part}"])).data, name)
    assert now == ({"a": 2, "b": 1} if name == "weights" else {"a": "x", "b": "/z"})


def test_a_run_s_settings_are_a_config_file_of_another(tmp_path: Path) -> None:
    cfg = make({"seed": 4, "model.qk_norm": True, "data.train": {"a": "x", "b": "y"}})
    file = tmp_path / "config.json"
    file.write_text(json.dumps(dataclasses.asdict(cfg)))
    assert make(parse([], [file])) == cfg == settle(json.loads(file.read_text()), {})


def test_data_is_short_for_its_source() -> None:
    assert make(parse(["data=mine:rows"])).data.source == "mine:rows"
    old = {**{k: v for k, v in flat(Config()).items() if "." not in k}, "data": "/corpus"}
    assert settle(old, {}).data.source == "/corpus"


def test_a_run_older_than_a_setting_does_as_it_did() -> None:
    old = {k: v for k, v in flat(Config()).items() if "." not in k}
    cfg = settle(old, {})
    assert (cfg.model.attention, cfg.optim.from_zero) == ("plain", True)
    assert settle(dataclasses.asdict(Config()), {}) == Config()


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("kv_heads=2", "'model.kv_heads'"),
        ("model.kvheads=2", "'model.kv_heads'"),
        ("optim.shedule=wsd", "'optim.schedule'"),
        ("model.qk_norm=maybe", "not of type bool"),
        ("model.kv_heads=3", "multiple of model.kv_heads=3"),
        ("optim.schedule=cosin", "'cosine'"),
        ("optim.accumulate=3", "optim.accumulate=3"),
        ("model.dropout=1", "model.dropout=1"),
        ("model.loss_chunk=7", "model.loss_chunk=7"),
        ("mesh.tensor=0", "mesh.tensor=0"),
        ("data.weights.a=1", "data.weights"),
        ("data.weights=a", "data.weights='a' must be a table"),
    ],
)
def test_mistakes_are_named(word: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        make(parse([word]))


def test_a_run_s_settings_of_another_type_are_named() -> None:
    assert settle({"steps": "70"}, {}).steps == 70
    with pytest.raises(ConfigError, match="steps='many' is not of type int"):
        settle({"steps": "many"}, {})


@pytest.mark.parametrize("table", ["train = {web = ['a', 'b']}", "evaluation = {web = 3}"])
def test_a_part_that_is_no_path_is_named(table: str, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(f"[data]\n{table}")
    with pytest.raises(ConfigError, match=rf"data\.{table.split()[0]}\.web=.* must be a path"):
        make(parse([], [tmp_path / "a.toml"]))


@pytest.mark.parametrize(
    ("config", "told"),
    [("steps=3", "--set steps=3"), ("none.toml", "No such file"), ("bad.toml", "cannot be read")],
)
def test_config_files_that_are_none(
    config: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.toml").write_text("steps = = 3")
    given = config if "=" in config else str(tmp_path / config)
    assert main(["train", "--run", str(tmp_path / "run"), "--config", given]) == 2
    assert told in capsys.readouterr().err


def test_help_tells_each_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    out = capsys.readouterr().out
    missing: list[Any] = [name for name in flat(Config()) if f"  {name}=" not in out]
    assert not missing


@pytest.mark.parametrize("name", ["data.train", "data.evaluation", "data.tokenizer", "init"])
@pytest.mark.parametrize("path", ["deep/of/a.jsonl", "*/of/a.jsonl", "deep/**/a.jsonl", "~/deep"])
def test_a_path_is_the_same_from_another_directory(
    name: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deep/of").mkdir(parents=True)
    (tmp_path / "deep/of/a.jsonl").write_text("{}\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert parse([f"{name}={path}"])[name] == f"{tmp_path}/{path.removeprefix('~/')}"
    assert parse([f"{name}=gs://b/a.jsonl"])[name] == "gs://b/a.jsonl"


@pytest.mark.parametrize("there", ["", "{", '{"steps": 7, "warmup": 1}'])
def test_settings_are_written_again_whatever_the_file_holds(
    there: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Checkpoints(nullcontext[Any]):
        def __enter__(self) -> Any:
            return self

        def find(self, step: None) -> int:
            return 5

        def config(self, step: int) -> dict[str, Any]:
            return {"seed": 3}

    monkeypatch.setattr("harness.checkpoint.Checkpoints", Checkpoints)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.json").write_text(there)
    assert main(["settings", "--run", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 3
