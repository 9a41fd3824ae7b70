"""Conversion gives the same bytes, whoever writes them and however often they are killed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from pipeline import ArrayRecordSource, Dataset, ParquetSource, Processes, Ray, Threads
from pipeline.__main__ import main
from pipeline.errors import ChainError, RecordError, SourceError
from pipeline.tools.convert import WRITERS, Tokenize, convert
from pipeline.tools.convert.place import Place

ROWS = {"id": np.arange(2500), "text": [f"row {i} é" for i in range(2500)]}


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file()}


@pytest.mark.long
@pytest.mark.parametrize(
    "workers",
    [Threads(2), pytest.param(Processes(2, parent=False), id="Processes(2, parent=False)")],
)
@pytest.mark.parametrize("suffix", [".parquet", ".array_record", ".jsonl"])
def test_whoever_writes_the_bytes_are_the_same(tmp_path: Path, suffix: str, workers: Any) -> None:
    for name, by in (("serial", 0), ("others", workers)):
        (tmp_path / name).mkdir()
        done = convert(ROWS, str(tmp_path / name / f"x{suffix}"), shards=3, workers=by)
        assert (done.records, done.skipped, len(done.files)) == (2500, 0, 3)
    assert contents(tmp_path / "serial") == contents(tmp_path / "others")
    assert sorted(p.name for p in (tmp_path / "serial").iterdir()) == [
        *(f"x-{i:05d}-of-00003{suffix}" for i in range(3)),
        f"x{suffix}.manifest.json",
    ]


def test_parquet_and_arrow_hold_the_rows_in_groups_of_a_thousand(tmp_path: Path) -> None:
    tokens = [np.arange(i % 5, dtype=np.int32) for i in range(2500)]
    convert(Dataset({**ROWS, "t": tokens}), str(tmp_path / "x.parquet"))
    back = ParquetSource(tmp_path / "x.parquet").read(np.array([7, 2499])).tree
    assert back["id"].tolist() == [7, 2499]
    assert back["text"].tolist() == ["row 7 é", "row 2499 é"]
    assert [t.tolist() for t in back["t"]] == [[0, 1], [0, 1, 2, 3]]
    assert back["t"][0].dtype == np.int32
    facts = pq.read_metadata(tmp_path / "x.parquet")
    assert [facts.row_group(i).num_rows for i in range(3)] == [1000, 1000, 500]
    convert(ParquetSource(tmp_path / "x.parquet"), str(tmp_path / "x.feather"))
    assert feather.read_table(tmp_path / "x.feather")["text"].to_pylist() == ROWS["text"]


def test_records_of_bytes_hold_text_and_json(tmp_path: Path) -> None:
    convert(ROWS, str(tmp_path / "x.array_record"))
    source = ArrayRecordSource(tmp_path / "x.array_record")
    record = json.loads(source.read(np.array([17]))[0])
    source.close()
    assert record == {"id": 17, "text": "row 17 é"}
    convert([b"\0raw", b""], str(tmp_path / "y.array_record"))
    source = ArrayRecordSource(tmp_path / "y.array_record")
    assert source.read(np.arange(2)) == [b"\0raw", b""]
    source.close()


def test_tokens_go_end_to_end_and_say_their_type(tmp_path: Path) -> None:
    ds = Dataset(ROWS).map(Tokenize("bytes", eos=np.int64(256)))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ChainError, match="eos -1: the tokenizer bytes has no such token"):
        Tokenize("bytes", eos=-1)
    want = np.concatenate([[*t.encode(), 256] for t in ROWS["text"]])
    convert(ds, str(tmp_path / "x.bin"))
    assert (np.fromfile(tmp_path / "x.bin", np.uint16) == want).all()
    assert json.loads((tmp_path / "x.json").read_text()) == {"dtype": "uint16"}
    convert(ds, str(tmp_path / "x.npy"))
    assert (np.load(tmp_path / "x.npy") == want).all()
    convert(ds, str(tmp_path / "m.idx"))
    assert (np.fromfile(tmp_path / "m.bin", np.uint16) == want).all()
    head = (tmp_path / "m.idx").read_bytes()
    assert head[:9] == b"MMIDIDX\0\0"
    lengths = np.frombuffer(head, "<i4", 2500, 34)
    starts = np.frombuffer(head, "<i8", 2500, 34 + 4 * 2500)
    assert lengths.tolist() == [len(t.encode()) + 1 for t in ROWS["text"]]
    assert (np.diff(starts) == 2 * lengths[:-1]).all()
    assert np.frombuffer(head, "<i8", -1, 34 + 12 * 2500).tolist() == list(range(2501))


def test_webdataset_members_are_the_fields(tmp_path: Path) -> None:
    rows = [{"__key__": "a/7", "jpg": b"\xff", "label": np.int64(3)}, {"jpg": b"\xfe", "label": 4}]
    convert(Dataset(rows), str(tmp_path / "x.tar"))
    with tarfile.open(tmp_path / "x.tar") as tar:
        read = {m.name: tar.extractfile(m).read() for m in tar}  # pyright: ignore[reportOptionalMemberAccess]
    assert read == {
        "a/7.jpg": b"\xff",
        "a/7.json": b'{"label": 3}',
        "000000001.jpg": b"\xfe",
        "000000001.json": b'{"label": 4}',
    }


def test_what_a_format_cannot_hold_is_shown(tmp_path: Path) -> None:
    with pytest.raises(ChainError, match=r"JSON lines cannot hold the row b'\\x00'.*--map"):
        convert([b"\0"], str(tmp_path / "x.jsonl"))
    with pytest.raises(ChainError, match=r"must be text without line breaks"):
        convert(["a\nb"], str(tmp_path / "x.txt"))
    with pytest.raises(ChainError, match=r"--tokenizer, or --map"):
        convert(["a"], str(tmp_path / "x.bin"))
    mixed = Dataset(range(2000)).map(lambda i: {"v": i if i < 1500 else "x"})
    with pytest.raises(ChainError, match=r"among rows 1000 to 1999, .*do not fit the columns"):
        convert(mixed, str(tmp_path / "x.parquet"))
    later = Dataset(range(2000)).map(lambda i: {"v": i if i < 1000 else "x"})
    with pytest.raises(ChainError, match=r"rows from 1000 on do not fit.*The columns are v: int64"):
        convert(later, str(tmp_path / "x.parquet"))
    with pytest.raises(SourceError, match=r"name a file with one of the suffixes .array_record"):
        convert([1], str(tmp_path / "x.zip"))
    with pytest.raises(ChainError, match="a dataset with a length"):
        convert(Dataset(range(3)).filter(bool), str(tmp_path / "x.jsonl"))
    for suffix in ("jsonl", "parquet", "tar"):
        with pytest.raises(ChainError, match=r"two (are the same text|have the same name)"):
            convert([{1: 2, "1": 3}], str(tmp_path / f"twice.{suffix}"))
    for suffix in ("txt", "tar", "bagz", "array_record", "tfrecord"):
        with pytest.raises(ChainError, match=r"surrogates not allowed.*--map"):
            convert(["\ud800"], str(tmp_path / f"half.{suffix}"))
    convert([{"a": "\ud800"}], str(tmp_path / "half.jsonl"))  # JSON has a form for it
    assert Dataset(str(tmp_path / "half.jsonl"))[0] == {"a": "\ud800"}
    # nothing of these is in the way of what comes next
    assert convert(range(3), str(tmp_path / "x.jsonl")).records == 3


def test_it_goes_on_where_it_was_and_does_nothing_twice(tmp_path: Path) -> None:
    calls: list[int] = []
    bad = {70}

    def record(i: int) -> str:
        calls.append(i)
        if i in bad:
            raise RuntimeError("stop")
        return str(i)

    ds = Dataset(range(100)).map(record)
    with pytest.raises(RuntimeError, match="stop"):
        convert(ds, str(tmp_path / "x.txt"), shards=4)
    # quick shards may be written several at a time, and those before a bad one once more
    assert list(dict.fromkeys(calls)) == list(range(71))
    with pytest.raises(SourceError, match="unfinished conversion of another plan: shards differ"):
        convert(ds, str(tmp_path / "x.txt"), shards=5)
    bad.clear()
    calls.clear()
    convert(ds, str(tmp_path / "x.txt"), shards=4)
    assert calls == list(range(50, 100))
    done = convert(ds, str(tmp_path / "x.txt"), shards=4)
    assert len(calls) == 50
    assert b"".join(Path(f).read_bytes() for f in done.files).split() == [
        b"%d" % i for i in range(100)
    ]
    Path(done.files[1]).write_bytes(b"cut")
    calls.clear()
    convert(ds, str(tmp_path / "x.txt"), shards=4)
    assert calls == list(range(100))


def test_what_is_somebody_elses_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("mine")
    with pytest.raises(SourceError, match=r"x.txt exists, and no conversion"):
        convert(["a"], str(tmp_path / "x.txt"))
    assert (tmp_path / "x.txt").read_text() == "mine"


def test_bad_records_stop_it_or_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def decode(i: int) -> str:
        if i % 40 == 7:
            raise RecordError(f"no text in {i}")
        return str(i)

    ds = Dataset(range(100)).map(decode)
    with pytest.raises(RecordError, match="no text in 7"):
        convert(ds, str(tmp_path / "x.txt"))
    done = convert(ds, str(tmp_path / "x.txt"), skip_bad=True)
    assert (done.records, done.skipped) == (97, 3)
    want = [str(i) for i in range(100) if i % 40 != 7]
    assert Path(done.files[0]).read_text().split() == want
    assert "record 47 of MemorySource" in caplog.text


_KILLED = """
import os, random, signal, sys, time
import numpy as np
from pipeline import Dataset
from pipeline.tools.convert import convert
folder = sys.argv[1]
def row(i):
    return {"i": int(i), "text": "x" * int(i % 50)}
ds = Dataset(range(8000)).map(row)
rng = random.Random(0)
kills = 0
while kills < 50:
    pid = os.fork()
    if pid == 0:
        convert(ds, f"{folder}/x.jsonl", shards=40)
        os._exit(0)
    time.sleep(rng.random() * 0.02)
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        kills += 1
    else:  # it was whole before: from the start again
        for name in os.listdir(folder):
            os.remove(f"{folder}/{name}")
    for name in os.listdir(folder):
        if name.startswith("x-"):
            first = int(name[2:7]) * 200
            lines = open(f"{folder}/{name}").read().splitlines()
            assert lines == ['{"i": %d, "text": "%s"}' % (i, "x" * (i % 50))
                             for i in range(first, first + 200)], name
    notes = f"{folder}/.lockstep-convert"
    notes = os.listdir(notes) if os.path.isdir(notes) else []
    left = [n for n in notes if n.startswith("writing-")]
    assert len(left) <= 2, left  # of the one just killed: a shard, and a note
print(convert(ds, f"{folder}/x.jsonl", shards=40).records, sorted(os.listdir(folder))[0])
"""


@pytest.mark.long
@pytest.mark.slow
def test_fifty_kills_leave_no_wrong_byte_and_nothing_that_grows(tmp_path: Path) -> None:
    out, temp = tmp_path / "out", tmp_path / "temp"
    out.mkdir()
    temp.mkdir()
    command = [sys.executable, "-c", _KILLED, str(out)]
    env = os.environ | {"TMPDIR": str(temp)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["8000", "x-00000-of-00040.jsonl"]
    assert os.listdir(temp) == []


def test_what_a_killed_writer_of_a_bucket_left_is_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    place = Place("memory://bucket")
    code = (
        "import os; from pipeline.tools.convert.place import Place\n"
        "with Place('memory://bucket').workspace(): os._exit(0)"
    )
    env = os.environ | {"TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=env)
    (drafts,) = tmp_path.iterdir()
    assert len(list(drafts.iterdir())) == 1
    with place.workspace() as living, place.alone():
        assert [str(path) for path in drafts.iterdir()] == [living]
    assert list(drafts.iterdir()) == []


@pytest.mark.parametrize("how", ["link", "open"])
def test_a_folder_of_drafts_that_another_laid_out_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The folder for temporary files is shared: whoever is first may lay a link there."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    other = tmp_path / "other"
    (other / "writing-old").mkdir(parents=True)
    (other / "writing-old" / "file").write_text("somebody else's")
    (tmp_path / "tmp").mkdir()
    drafts = tmp_path / "tmp" / f"lockstep-convert-{os.getuid()}"
    if how == "link":
        drafts.symlink_to(other)
    else:
        drafts.mkdir(mode=0o777)
        drafts.chmod(0o777)
    with pytest.raises(SourceError, match=r"lockstep-convert.*only this user can change.*TMPDIR"):
        convert(["a"], "memory://drafts/x.txt")
    assert (other / "writing-old" / "file").read_text() == "somebody else's"


@pytest.mark.parametrize("what", ["notes", "lock", "draft"])
def test_links_in_the_folder_of_a_conversion_are_not_followed(tmp_path: Path, what: str) -> None:
    other = tmp_path / "other"
    (other / "writing-old").mkdir(parents=True)
    (other / "file").write_text("somebody else's")
    notes = tmp_path / "out" / ".lockstep-convert"
    notes.parent.mkdir()
    if what == "notes":
        notes.symlink_to(other)
        with pytest.raises(SourceError, match="is a link"):
            convert(["a"], str(tmp_path / "out" / "x.txt"))
    else:
        notes.mkdir()
        if what == "lock":
            (notes / "lock").symlink_to(other / "file")
            with pytest.raises(SourceError, match="lock cannot be locked"):
                convert(["a"], str(tmp_path / "out" / "x.txt"))
        else:
            (notes / "writing-1").symlink_to(other)
            convert(["a"], str(tmp_path / "out" / "x.txt"))
    assert (other / "file").read_text() == "somebody else's"
    assert (other / "writing-old").is_dir()


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[7]", "7", '{"shards": [{"files": 3}]}', "{}", '{"plan": PLAN}']
)
def test_notes_of_another_shape_count_as_none(tmp_path: Path, text: str) -> None:
    rows = Dataset(["a", "b"])
    convert(rows, str(tmp_path / "x.txt"))
    note = tmp_path / "x.txt.manifest.json"
    plan = json.loads(note.read_text())["plan"]
    note.write_text(text.replace("PLAN", json.dumps(plan)))
    if text == "{}":
        convert(rows, str(tmp_path / "x.txt"))
    else:
        with pytest.raises(SourceError, match=r"x\.txt exists, and no conversion"):
            convert(rows, str(tmp_path / "x.txt"))


def test_two_conversions_do_not_meet(tmp_path: Path) -> None:
    def nested(i: int) -> str:
        with pytest.raises(SourceError, match="another process converts into"):
            convert(Dataset(["b"]), str(tmp_path / "y.txt"))
        return "a"

    convert(Dataset(range(1)).map(nested), str(tmp_path / "x.txt"), shards=1)
    convert(Dataset(["b"]), str(tmp_path / "y.txt"))
    assert sorted(contents(tmp_path)) == sorted(
        ["x.txt", "x.txt.manifest.json", "y.txt", "y.txt.manifest.json"]
    )


def test_a_bucket_takes_files_too(tmp_path: Path) -> None:
    import fsspec

    done = convert(ROWS, "memory://bucket/x.jsonl", shards=2)
    convert(ROWS, str(tmp_path / "x.jsonl"), shards=2)
    files = fsspec.filesystem("memory")
    try:
        for path in done.files:
            assert files.cat_file(path) == (tmp_path / Path(path).name).read_bytes()
        assert convert(ROWS, "memory://bucket/x.jsonl", shards=2) == done
        assert not [f for f in files.find("memory://bucket") if ".lockstep" in f]
    finally:
        files.rm("memory://bucket", recursive=True)


@pytest.mark.slow
def test_the_command_says_what_it_did_and_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("def upper(row):\n    return row['text'].upper()\n")
    convert(ROWS, "in.parquet")
    assert main(["convert", "in.parquet", "out.txt", "--map", "mine:upper", "--workers", "0"]) == 0
    assert Path("out.txt").read_text().splitlines()[3] == "ROW 3 É"
    assert "2,500 records" in capsys.readouterr().out
    for wrong, told in [
        (["in.parquet", "x.zip"], "name a file with one of the suffixes"),
        (["missing.parquet", "x.txt"], "missing.parquet does not exist"),
        (["in.parquet", "y.txt", "--map", "mine:lower"], "the module mine has no 'lower'"),
        (["in.parquet", "y.txt", "--map", "mine"], "give module:name"),
        (["in.parquet", "y.bin", "--tokenizer", "none.json"], "none.json: No such file"),
        (["in.parquet", "y.bin", "--eos", "0"], "give that too"),
        (["in.parquet", "y.bin", "--tokenizer", "bytes", "--text", "t"], "has ['id', 'text']"),
        (["in.parquet", "y.txt", "--address", "auto"], "give --engine ray"),
    ]:
        assert main(["convert", *wrong, "--workers", "0"]) == 2
        error = capsys.readouterr().err
        assert told in error
        assert error.count("\n") == 1


def test_a_tokenizer_of_the_library(tmp_path: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    known = Tokenizer(WordLevel({"row": 0, "</s>": 1, "?": 2}, unk_token="?"))
    known.pre_tokenizer = Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    known.enable_truncation(2)  # texts are whole, whatever length the file names
    known.enable_padding(length=9)
    known.save(str(tmp_path / "t.json"))
    ds = Dataset(ROWS).map(Tokenize(str(tmp_path / "t.json"), eos="</s>"))
    assert ds[3]["tokens"].tolist() == [0, 2, 2, 1]
    assert ds[3]["tokens"].dtype == np.uint16
    with pytest.raises(ChainError, match="has no such token"):
        Tokenize(str(tmp_path / "t.json"), eos="<eos>")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(SourceError, match=r"is no tokenizer\.json"):
        Tokenize(str(tmp_path / "bad.json"), eos="x")


@pytest.mark.long
def test_ray_actors_write_the_same(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs the extra: pip install 'lockstep-data[ray]'")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    convert(ROWS, str(tmp_path / "a/x.parquet"), shards=3)
    convert(ROWS, str(tmp_path / "b/x.parquet"), shards=3, workers=Ray(2))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_every_writer_is_deterministic(tmp_path: Path) -> None:
    tokens = Dataset([np.arange(i % 7, dtype=np.int32) for i in range(300)])
    text = Dataset([f"line {i}" for i in range(300)])
    for suffix in WRITERS:
        for name in ("a", "b"):
            (tmp_path / name).mkdir(exist_ok=True)
            data = tokens if suffix in (".bin", ".idx", ".npy") else text
            convert(data, str(tmp_path / name / f"x{suffix[1:]}{suffix}"))
        assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert len(contents(tmp_path / "a")) == 2 * len(WRITERS) + 2  # the type of .bin, .idx's .bin


def test_a_full_disk_is_said_with_the_file_and_the_remedy(tmp_path):
    """By every writer, those of other languages too; the limit stands for a disk that is full."""
    code = (
        "import random, resource, signal, sys\n"
        "from pipeline import Dataset\n"
        "from pipeline.errors import StorageError\n"
        "from pipeline.tools.convert import convert\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "rows = Dataset([random.randbytes(900).hex() for _ in range(300)])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))\n"
        "for kind in ('array_record', 'bagz', 'tfrecord', 'txt', 'jsonl', 'parquet', 'arrow'):\n"
        "    data = rows.map(str.encode) if kind in ('array_record', 'bagz') else rows\n"
        "    if kind in ('parquet', 'arrow'):\n"
        "        data = Dataset({'x': [random.random() for _ in range(9000)]})\n"
        "    try: convert(data, f'{sys.argv[1]}/a.{kind}')\n"
        "    except StorageError as e: print(kind, e)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    out = subprocess.run(command, capture_output=True, text=True)
    said = out.stdout.splitlines()
    assert len(said) == 7, out
    for line in said:
        kind = line.split()[0]
        assert re.match(rf"{kind} \S+/a\.{kind} cannot be written, .*Make room", line), line
