"""Commands for files: every format that a dataset opens is told of, verified and noted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import Dataset, Processes, concatenate, mix
from pipeline.__main__ import main
from pipeline.errors import RecordError, SourceError, StorageError
from pipeline.sources import open_path
from pipeline.sources.storage import manifest
from pipeline.tools.inspection import (
    Bad,
    Verification,
    check_manifest,
    inspect,
    verify,
    write_manifest,
)
from pipeline.tools.inspection.preview import preview
from tests import writers
from tests.emulators.fixtures import Gcs
from tests.tools.inspection.formats import FORMATS, parquet, records


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_near_and_far(tmp_path: Path, gcs: Gcs, name: str) -> None:
    suffix, write, kind, fields, keeps = FORMATS[name]
    for k, ids in enumerate((range(100), range(100, 150))):
        write(tmp_path / f"{k}{suffix}", ids)
    for path in sorted(tmp_path.iterdir()):
        gcs.upload(path)
    size = sum(p.stat().st_size for p in tmp_path.glob(f"*{suffix}"))
    far = gcs.storage(cache=tmp_path / "cache")
    for glob, storage in ((f"{tmp_path}/*{suffix}", None), (f"{gcs.bucket}/*{suffix}", far)):
        found = inspect(glob, first=2, storage=storage)
        (held,) = found.sources
        assert (held.format, held.records, held.files, held.bytes) == (kind, 150, 2, size)
        assert [Path(p).name for p in held.paths] == [f"0{suffix}", f"1{suffix}"]
        assert (set(held.fields), len(found.first), found.broken) == (fields, 2, ())
        assert json.loads(json.dumps(found.as_json()))["sources"][0]["records"] == 150
        done = verify(glob, storage=storage)
        assert (done.ok, done.records, done.files, done.bytes) == (True, 150, 2, size)
        if keeps:
            noted = write_manifest(glob, storage=storage)
            assert (noted.ok, noted.files, noted.records, noted.gone) == (True, 2, 150, ())
            assert check_manifest(glob, storage=storage) == noted
        else:
            with pytest.raises(SourceError, match="files keep no manifest, as a start looks"):
                write_manifest(glob, storage=storage)


def test_layouts_are_summed_up_and_advised_on(tmp_path: Path) -> None:
    for k in range(3):
        parquet(tmp_path / f"{k}.parquet", range(100))
    (held,) = inspect(f"{tmp_path}/*.parquet").sources
    assert held.layout["groups"] == 9
    assert held.layout["group_records"] == [20, 33, 40]
    assert held.layout["codecs"] == ["SNAPPY"]
    assert [a for a in held.advice if "small; opening and reading them costs more" in a]
    assert {n: str(f) for n, f in held.fields.items()} == {"id": "int64", "x": "int64[3]"}
    records(tmp_path / "a.array_record", range(10), "group_size:5,transpose:true")
    (held,) = inspect(str(tmp_path / "a.array_record")).sources
    assert (held.layout["transposed"], held.layout["groups"]) == (1, 2)
    assert held.layout["group_records"] == 5
    assert "transposed: read by the array_record package" in held.advice[0]
    writers.tfrecord(tmp_path / "a.tfrecord", range(10))
    (held,) = inspect(str(tmp_path / "a.tfrecord")).sources
    assert "has no index: each file is read through once" in held.advice[0]


def test_many_files_are_sampled_and_want_a_manifest(tmp_path: Path) -> None:
    for k in range(100):
        (tmp_path / f"{k:03d}.txt").write_text("line\n" * (k + 1))
    (held,) = inspect(f"{tmp_path}/*.txt").sources
    assert (held.files, held.records, held.laid) == (100, 5050, 16)
    small, start = held.advice[1:]
    assert "100 files of 252 bytes" in small
    assert "each start costs 100 reads" in start
    write_manifest(f"{tmp_path}/*.txt")
    assert len(inspect(f"{tmp_path}/*.txt").sources[0].advice) == 2


def test_a_dataset_is_told_of_by_its_sources(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", range(10))
    both = mix(
        {"file": Dataset(str(tmp_path / "a.parquet")), "list": Dataset([{"id": 0, "x": 1}] * 4)},
        weights={"file": 1, "list": 1},
    )
    found = inspect(both.shuffle(), first=1)
    assert [(h.name, h.format, h.records, h.files) for h in found.sources] == [
        ("file", "Parquet", 10, 1),
        ("list", "Memory", 4, 0),
    ]
    assert "shuffle" in found.dataset
    assert (found.rows, len(found.first)) == (len(both), 1)
    assert inspect(Dataset(range(9)).filter(bool)).rows is None
    assert verify(both).records == 14
    with pytest.raises(SourceError, match="Memory records lie in no files"):
        write_manifest(both)


# ---- what is bad


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x55
    path.write_bytes(data)


def spans(found: Verification) -> list[tuple[str, int | None, int | None]]:
    return [(Path(bad.file).name, bad.first, bad.last) for bad in found.bad]


@pytest.mark.parametrize(
    "workers", [0, pytest.param(Processes(2, parent=False), id="Processes(2, parent=False)")]
)
def test_bad_records_are_named_and_the_others_read(tmp_path: Path, workers: Any) -> None:
    parquet(tmp_path / "0.parquet", range(100))
    pq.write_table(
        pa.table({"id": range(100, 200), "x": [[i] for i in range(100)]}),
        tmp_path / "1.parquet",
        row_group_size=40,
        write_page_checksum=True,
        compression="none",
    )
    start = pq.read_metadata(tmp_path / "1.parquet").row_group(1).column(0).data_page_offset
    flip(tmp_path / "1.parquet", start + 120)
    found = verify(f"{tmp_path}/*.parquet", workers=workers)
    assert spans(found) == [("1.parquet", 40, 79)]
    assert (found.records, found.ok, found.bad[0].records) == (200, False, 40)
    assert "row group 1" in found.bad[0].error


def test_checksums_that_reading_leaves_out_are_checked(tmp_path: Path, gcs: Gcs) -> None:
    path = tmp_path / "a.array_record"
    records(path, range(50), "group_size:1,uncompressed")
    flip(path, path.read_bytes().index(b"17 17 17"))
    url, storage = gcs.upload(path), gcs.storage()
    far = Dataset(open_path(url, storage=storage))
    far.read(range(50))  # sizes are right, so nobody notices
    for data in (url, far.shuffle(), str(path), Dataset(str(path)).shuffle()):
        assert spans(verify(data, storage=storage)) == [("a.array_record", 17, 17)]


def test_files_that_do_not_open_are_named_and_the_others_read(tmp_path: Path) -> None:
    for k in range(4):
        parquet(tmp_path / f"{k}.parquet", range(50))
    cut = tmp_path / "2.parquet"
    cut.write_bytes(cut.read_bytes()[:-20])
    found = verify(f"{tmp_path}/*.parquet")
    assert spans(found) == [("2.parquet", None, None)]
    assert (found.files, found.records) == (4, 150)
    told = inspect(f"{tmp_path}/*.parquet")
    assert (told.rows, [Path(b.file).name for b in told.broken]) == (150, ["2.parquet"])
    assert spans(verify(str(cut))) == [("2.parquet", None, None)]
    with pytest.raises(SourceError, match=r"2\.parquet"):
        write_manifest(f"{tmp_path}/*.parquet")


def test_a_file_that_fails_later_does_not_keep_others_from_being_read(tmp_path: Path) -> None:
    class Counted:
        """Two files of records, the second of which has changed."""

        def __init__(self) -> None:
            self.inner = Dataset(f"{tmp_path}/*.txt").components[0].source
            self.files = self.inner.files  # pyright: ignore[reportAttributeAccessIssue]

        def __len__(self) -> int:
            return len(self.inner)

        def where(self, indices: Any) -> Any:
            return self.files.where(indices)

        def read(self, indices: Any) -> Any:
            if (np.asarray(indices) >= 3).any():
                raise SourceError("it has changed")
            return self.inner.read(indices)

    (tmp_path / "a.txt").write_text("1\n2\n3\n")
    (tmp_path / "b.txt").write_text("4\n5\n")
    found = verify(Counted())
    assert found.bad == (Bad(str(tmp_path / "b.txt"), None, None, "it has changed"),)


def test_a_source_without_files_is_verified_too() -> None:
    class Source:
        def __len__(self) -> int:
            return 5000

        def read(self, indices: Any) -> list[int]:
            for i in indices:
                if i in (7, 8, 4000):
                    raise RecordError("bad" if i < 9 else "worse")
            return [int(i) for i in indices]

    found = verify(concatenate([Dataset(Source()), Dataset(range(10))]))
    assert [(b.file, b.first, b.last, b.error) for b in found.bad] == [
        ("Source", 7, 8, "bad"),
        ("Source", 4000, 4000, "worse"),
    ]
    assert found.records == 5010


def test_storage_that_fails_is_no_bad_record(gcs: Gcs) -> None:
    gcs.put("a.txt", b"1\n2\n")
    gcs.put("b.txt", b"3\n")
    gcs.faults({"kind": "status", "status": 403}, match=r"GET .*b\.txt")
    with pytest.raises(StorageError, match=r"b\.txt may not be read"):
        verify(f"{gcs.bucket}/*.txt", storage=gcs.storage(deadline=5))

    source = open_path(gcs.put("c.txt", b"1\n2\n"), storage=gcs.storage(deadline=5))
    gcs.faults({"kind": "status", "status": 403}, match=r"GET .*c\.txt")
    with pytest.raises(StorageError, match=r"c\.txt may not be read"):
        verify(source)


def test_empty_files_hold_nothing_and_are_well(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"")
    assert verify(str(tmp_path / "a.txt")).records == 0
    found = inspect(str(tmp_path / "a.txt"), first=3)
    assert (found.rows, found.first, found.sources[0].fields) == (0, (), {})


# ---- manifests


def test_a_manifest_tells_what_is_stale_unknown_or_gone(tmp_path: Path) -> None:
    for k in range(4):
        (tmp_path / f"{k}.txt").write_text("line\n" * k)
    glob = f"{tmp_path}/*.txt"
    assert not check_manifest(glob).ok
    assert write_manifest(glob).manifests == (f"{tmp_path}/{manifest.NAME}",)
    (tmp_path / "1.txt").write_text("other\n")
    (tmp_path / "2.txt").unlink()
    (tmp_path / "4.txt").write_text("new\n")
    found = check_manifest(glob)
    paths = [[Path(p).name for p in some] for some in (found.stale, found.unknown, found.gone)]
    assert paths == [["1.txt"], ["4.txt"], ["2.txt"]]
    assert write_manifest(glob).ok
    (tmp_path / "3.txt").unlink()
    with pytest.raises(SourceError, match=r"3\.txt is not there, though"):
        Dataset(glob)
    assert not check_manifest(glob).ok  # nor does the check pass
    assert write_manifest(glob).ok


def test_formats_share_a_folder(tmp_path: Path) -> None:
    writers.lines(tmp_path / "a.txt", range(3))
    writers.json_lines(tmp_path / "a.jsonl", range(4))
    for name in ("a.txt", "a.jsonl", "a.txt"):
        assert write_manifest(str(tmp_path / name)).ok
    assert check_manifest(str(tmp_path / "a.jsonl")).ok


# ---- previews, and the commands


def test_previews_are_short_and_plain() -> None:
    row = {"t": "x" * 999, "raw": b"\xff" * 999, "text": "é\n".encode(), "x": np.zeros((9, 9))}
    shown = preview({**row, "when": np.datetime64("2020-01-01"), "nan": np.float32("nan")})
    assert shown["t"] == "x" * 200 + "… (999 characters)"
    assert shown["raw"] == "ff" * 50 + "… (999 bytes)"
    assert shown["text"] == "é\n"
    assert shown["x"] == [0.0] * 16 + ["… float64[9, 9]"]
    assert (shown["when"], shown["nan"]) == ("2020-01-01", "nan")
    assert preview([(1, None), True, list(range(99))])[2][-1] == "… 99 in all"
    json.dumps(shown, allow_nan=False)


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    writers.json_lines(Path("a.jsonl"), range(5))
    Path("b.jsonl").write_text('{"id": 1, "é": []}\n{\n')
    Path("held_here.py").write_text(
        "from pipeline import Dataset\ndata = Dataset('a.jsonl').shuffle()\n"
    )
    assert main(["inspect", "*.jsonl:2"]) == 1  # a record among the first is bad
    out = capsys.readouterr().out
    assert out.startswith("JsonLines: 7 records, 2 files, ")
    assert '[1] {"id": 1, "é": [1]}' in out
    assert "BAD" in out  # among the first records
    assert main(["inspect", "held_here:data:1"]) == 0
    assert "Dataset(JsonLinesSource, seed=0)\n  .shuffle" in capsys.readouterr().out
    assert main(["inspect", "a.jsonl", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 5
    Path("a.jsonl:3.txt").write_text("of that name\n")
    Path("7:1").write_text("of that name\n")
    assert main(["inspect", "a.jsonl:3.txt:1"]) == 0
    assert '[0] "of that name"' in capsys.readouterr().out
    assert main(["inspect", "7:1"]) == 2
    assert "7:1 has the suffix ''" in capsys.readouterr().err
    pq.write_table(pa.table({"id": [1]}), "good.parquet")
    Path("bad.parquet").write_bytes(b"PAR1")
    assert main(["inspect", "*.parquet"]) == 1
    assert "Parquet: 1 record, 1 file" in capsys.readouterr().out
    assert main(["verify", "a.jsonl", "--workers", "0"]) == 0
    assert ": all can be read\n" in capsys.readouterr().out
    assert main(["verify", "*.jsonl", "--workers", "0"]) == 1
    out = capsys.readouterr().out
    assert f"BAD {tmp_path}/b.jsonl, record 1: cannot read record 1 of" in out
    assert out.endswith(": 1 record cannot be read\n")
    assert main(["verify", "*.jsonl", "--workers", "0", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["bad"][0]["first"] == 1
    assert main(["manifest", "*.jsonl", "--check"]) == 1
    assert "UNKNOWN" in capsys.readouterr().out
    assert main(["manifest", "*.jsonl"]) == 0
    assert "7 records in 2 files: 2 known" in capsys.readouterr().out
    assert main(["manifest", "*.jsonl", "--check", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"]


def test_the_commands_reach_a_bucket(gcs: Gcs, capsys: pytest.CaptureFixture[str]) -> None:
    url = gcs.put("a.txt", b"one\ntwo\n")
    options = [f"--option={key}={value}" for key, value in gcs.options.items()]
    assert main(["inspect", f"{url}:1", *options]) == 0
    assert '[0] "one"' in capsys.readouterr().out
    assert main(["verify", url, *options, "--workers=0", "--deadline=5"]) == 0
    assert main(["inspect", url, "--option", "token"]) == 2
    assert "write it as KEY=VALUE" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_fields_and_layout_are_told_where_every_row_is_refused(tmp_path: Path, suffix: str) -> None:
    none = pa.nulls(3, pa.int64())
    vectors = pa.array([[1.0, 2.0]] * 3, pa.list_(pa.float32(), 2))
    table = pa.table({"i": none, "s": list("abc"), "v": vectors, "d": [{"q": 1}] * 3})
    path = tmp_path / f"a{suffix}"
    if suffix == ".parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table)
    (found,) = inspect(path).sources
    assert len(found.bad) == 3
    assert {name: str(field) for name, field in found.fields.items()} == {
        "i": "int64", "s": "object", "v": "float32[2]", "d.q": "int64",
    }  # fmt: skip
    assert found.layout
    assert any("none of the first records can be read" in line for line in found.lines())
