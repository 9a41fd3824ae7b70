"""Settings: read, checked, kept, compared."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from harness.__main__ import main
from harness.config import Config, parse, settle
from harness.errors import ConfigError
from harness.rundir import RunDir


def test_values_get_their_setting_s_type() -> None:
    assert parse(["learning_rate=1e-3", "seed=7", "data=/a=b"]) == {
        "learning_rate": 1e-3,
        "seed": 7,
        "data.source": "/a=b",
    }


@pytest.mark.parametrize("word", ["stepz=1", "steps", "steps=1.5", "nothing=1"])
def test_words_that_are_no_settings(word: str) -> None:
    with pytest.raises(ConfigError, match=word.partition("=")[0]):
        parse([word])


@pytest.mark.parametrize(
    "given",
    [
        *({"width": 30}, {"steps": 10}, {"dtype": "float16"}, {"fsdp": -1}, {"lanes": 3}),
        *({"keep": 0}, {"seed": 2**63}, {"seed": -(2**63) - 1}),
    ],
)
def test_settings_that_cannot_be(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(given))):
        Config(**given)


def test_a_begun_run_keeps_its_settings(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.begin(run.config({"width": 64, "seed": 3}))
    assert run.config().width == 64
    assert run.config({"seed": 3, "keep": 9}).keep == 9
    with pytest.raises(ConfigError, match=r"seed: 3 -> 4; dtype: 'float32' -> 'bfloat16'.*--steps"):
        run.config({"seed": 4, "dtype": "bfloat16"})


def test_settings_of_another_version() -> None:
    stored = {**dataclasses.asdict(Config()), "depth": 3}
    with pytest.raises(ConfigError, match=r"\['depth'\]"):
        settle(stored, {})
    del stored["depth"], stored["lanes"]
    assert settle(stored, {}).lanes == 1


def test_mismatch_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    RunDir(tmp_path).begin(Config())
    assert main(["train", "--run", str(tmp_path), "--set", "length=128"]) == 2
    assert "length: 256 -> 128" in capsys.readouterr().err
