"""Every format that a dataset opens becomes every one that is written, or says why it cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import Dataset
from pipeline.errors import ChainError, SourceError
from pipeline.tools.convert import WRITERS, convert
from tests.emulators.fixtures import Gcs
from tests.tools.inspection.formats import FORMATS

BYTES = {".array_record", ".arrayrecord", ".bagz", ".tfrecord"}
COLUMNS = {".arrow", ".feather", ".parquet"}
TOKENS = {".bin", ".npy"}


class Refused(Exception):
    """A format cannot hold a row."""


def plain(value: Any) -> Any:
    """A value without NumPy."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def text(row: Any) -> str:
    """A row as JSON."""
    try:
        return json.dumps(plain(row), ensure_ascii=False)
    except TypeError as e:
        raise Refused from e


def become(row: Any, suffix: str, number: int) -> list[Any]:
    """The records of a format that a row is expected to become."""
    if suffix in BYTES:
        known = {bytes: lambda: row, str: lambda: row.encode()}
        return [known.get(type(row), lambda: text(row).encode())()]
    if suffix in COLUMNS:
        name = "text" if isinstance(row, str) else "tokens" if np.ndim(row) else "record"
        return [plain(row) if isinstance(row, dict) else {name: plain(row)}]
    if suffix == ".jsonl":
        try:
            return [json.loads(row if isinstance(row, bytes) else text(row))]
        except ValueError as e:
            raise Refused from e
    if suffix == ".txt":
        if not isinstance(row, bytes | str):
            raise Refused
        return [row.decode() if isinstance(row, bytes) else row]
    if suffix == ".tar":
        return [member(row, number)]
    return tokens(row, suffix)


def member(row: Any, number: int) -> dict[str, Any]:
    key = {"__key__": f"{number:09d}"}
    if isinstance(row, dict) and "__key__" in row:
        return row
    if isinstance(row, bytes | str):
        kind = "bin" if isinstance(row, bytes) else "txt"
        return key | {kind: row if isinstance(row, bytes) else row.encode()}
    return key | {"json": text(row if isinstance(row, dict) else {"value": row}).encode()}


def tokens(row: Any, suffix: str) -> list[Any]:
    if not isinstance(row, np.ndarray | np.generic):
        raise Refused
    if suffix in TOKENS:
        return np.atleast_1d(row).tolist()
    if row.dtype == np.uint32:  # Megatron has none
        raise Refused
    return [np.atleast_1d(row).tolist()]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_becomes_every_other(tmp_path: Path, name: str) -> None:
    suffix, write, *_ = FORMATS[name]
    write(tmp_path / f"in{suffix}", range(1, 13))
    rows = list(Dataset(f"{tmp_path}/in{suffix}"))
    assert len(rows) == 12
    for out in WRITERS:
        path = str(tmp_path / out[1:] / f"x{out}")
        try:
            want = [become(row, out, i % 6) for i, row in enumerate(rows)]
        except Refused:
            with pytest.raises(ChainError, match="--map module:function"):
                convert(f"{tmp_path}/in{suffix}", path)
            continue
        done = convert(f"{tmp_path}/in{suffix}", path, shards=2)
        assert (done.records, done.skipped) == (12, 0)
        read = out.replace(".idx", ".bin")
        found = [plain(row) for row in Dataset(f"{tmp_path}/{out[1:]}/x*{read}")]
        assert found == [record for records in want for record in records], out


@pytest.mark.parametrize("name", FORMATS)
def test_files_of_a_bucket_become_the_same(tmp_path: Path, gcs: Gcs, name: str) -> None:
    suffix, write, *_ = FORMATS[name]
    (tmp_path / "in").mkdir()
    for k in range(2):
        write(tmp_path / "in" / f"{k}{suffix}", range(9 * k, 9 * k + 9))
    for path in (tmp_path / "in").iterdir():
        gcs.upload(path)
    far = Dataset(source(f"{gcs.bucket}/*{suffix}", gcs))
    out = ".parquet" if name != "lines" else ".txt"
    for folder, data in (("a", f"{tmp_path}/in/*{suffix}"), ("b", far)):
        assert convert(data, f"{tmp_path}/{folder}/x{out}").records == len(far)
    assert (tmp_path / f"a/x{out}").read_bytes() == (tmp_path / f"b/x{out}").read_bytes()
    # and back into the bucket
    done = convert(far, f"{gcs.bucket}/out/x{out}", shards=2, options=gcs.options)
    assert len(done.files) == 2
    again = Dataset(source(f"{gcs.bucket}/out/x-*{out}", gcs))
    local = Dataset(f"{tmp_path}/a/x{out}")
    assert [plain(row) for row in again] == [plain(row) for row in local]


def test_a_glob_passes_over_what_conversions_leave(tmp_path: Path, gcs: Gcs) -> None:
    convert(range(9), f"{tmp_path}/x.parquet", shards=2)
    assert len(Dataset(f"{tmp_path}/*")) == 9
    convert(range(9), f"{gcs.bucket}/x.jsonl", options=gcs.options)
    assert len(Dataset(source(f"{gcs.bucket}/*", gcs))) == 9
    (tmp_path / "a.manifest.json").write_text("{}")  # of somebody else
    with pytest.raises(SourceError, match=r"such as a\.manifest\.json and x-00001-of-00002"):
        Dataset(f"{tmp_path}/*")
    convert(Dataset(np.arange(9)[:, None]), f"{tmp_path}/m.idx")
    with pytest.raises(SourceError, match=r"name the \.bin beside it"):
        Dataset(f"{tmp_path}/m.idx")


def test_json_that_bytes_hold_comes_back(tmp_path: Path) -> None:
    rows = [{"id": i, "é": [i, "x"]} for i in range(9)]
    convert(rows, f"{tmp_path}/a.jsonl")
    convert(f"{tmp_path}/a.jsonl", f"{tmp_path}/b.bagz")
    convert(f"{tmp_path}/b.bagz", f"{tmp_path}/c.jsonl")
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "c.jsonl").read_bytes()


def test_no_shard_is_empty(tmp_path: Path) -> None:
    assert len(convert(range(3), f"{tmp_path}/a.parquet", shards=3).files) == 3
    assert len(Dataset(f"{tmp_path}/a-*")) == 3
    with pytest.raises(SourceError, match=r"shards=4 of 3 rows: some would hold none.*at most 3"):
        convert(range(3), f"{tmp_path}/b.parquet", shards=4)


def source(url: str, gcs: Gcs) -> Any:
    from pipeline.sources import open_path

    return open_path(url, storage=gcs.storage())
