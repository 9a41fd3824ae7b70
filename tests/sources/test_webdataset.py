"""WebDatasetSource: names of every kind, what is left out, and damaged shards."""

from __future__ import annotations

import gzip
import io
import pickle
import subprocess
import tarfile
import time

import numpy as np
import pytest

from pipeline import Dataset, WebDatasetSource
from pipeline.errors import RecordError, SourceError
from tests.writers import tar, tar_of

LONG = "deep/" * 30 + "name" * 40


def records(path, **options):
    source = WebDatasetSource(path, **options)
    return source.read(np.arange(len(source)))


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names(tmp_path, format):
    path = tmp_path / "a.tar"
    long = LONG if format != tarfile.USTAR_FORMAT else "deep/" * 20 + "name" * 20
    names = ["a.JPG", "a.seg.PNG", "d.x/b.txt", "./c.txt", f"{long}.txt", f"{long}.cls", "ü.txt"]
    tar_of(path, [(name, name.encode()) for name in names], format)
    got = records(path)
    assert [r["__key__"] for r in got] == ["a", "d.x/b", "./c", long, "ü"]
    assert got[0] == {"__key__": "a", "jpg": b"a.JPG", "seg.png": b"a.seg.PNG"}
    assert got[3] == {"__key__": long, "txt": f"{long}.txt".encode(), "cls": f"{long}.cls".encode()}


def test_what_is_no_record(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for name, kind in [("d.x", tarfile.DIRTYPE), ("l.txt", tarfile.SYMTYPE)]:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "long" * 60
            archive.addfile(info)
        for name in ("README", ".hidden.txt", "d/.hidden.txt", "__meta__/a.json", "a.txt"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    assert records(path) == [{"__key__": "a", "txt": b""}]


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE])
def test_a_size_of_what_has_no_contents_skips_no_record(tmp_path, kind):
    # some writers give folders and links the size that the file system tells
    path = tmp_path / "a.tar"
    info = tarfile.TarInfo("0.x")
    info.type, info.linkname, info.size = kind, "a.txt", 4096
    tar_of(path, [(f"{i}.txt", b"a") for i in range(3)])
    path.write_bytes(info.tobuf(tarfile.USTAR_FORMAT) + path.read_bytes())
    with tarfile.open(path) as known:
        assert len(known.getnames()) == 4
    assert [r["__key__"] for r in records(path)] == ["0", "1", "2"]


def test_large_members_and_sizes_that_octal_cannot_say(tmp_path):
    path = tmp_path / "a.tar"
    big = np.random.default_rng(0).bytes(700_001)
    tar_of(path, [("0.bin", big), ("1.bin", b"x"), ("2.bin", big[::-1])])
    data = bytearray(path.read_bytes())
    data[124:136] = b"\x80" + (700_001).to_bytes(11, "big")
    data[257:265], data[345:357] = b"ustar  \0", b"14000000000\0"  # GNU's, and its time of access
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    path.write_bytes(data)
    assert [r["bin"] for r in records(path)] == [big, b"x", big[::-1]]
    assert records(path)[0]["__key__"] == "0"


@pytest.mark.parametrize("size", [b"-9999", b"much", b"0x4"])
def test_a_size_that_is_none(tmp_path, size):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("a.txt")
        info.pax_headers = {"size": size.decode()}
        archive.addfile(info)
    with pytest.raises(SourceError, match="header is at byte 1024 has no valid size"):
        WebDatasetSource(path)


def test_only_some_fields(tmp_path):
    path = tmp_path / "a.tar"
    tar_of(path, [("0.txt", b"a"), ("0.cls", b"b"), ("1.cls", b"c")])
    assert records(path, fields=["txt", "json"]) == [
        {"__key__": "0", "txt": b"a"},
        {"__key__": "1"},
    ]
    some, every = WebDatasetSource(path, fields=["txt"]), WebDatasetSource(path)
    assert some.fingerprint() != every.fingerprint()
    with pytest.raises(SourceError, match=r"give a list of names, such as \[\"txt\"\]"):
        WebDatasetSource(path, fields="txt")


def test_a_field_twice_and_keys_apart(tmp_path):
    path = tmp_path / "a.tar"
    names = ["0.txt", "1.txt", "1.TXT", "2.txt", "0.cls"]
    tar_of(path, [(name, b"") for name in names])
    source = WebDatasetSource(path)
    assert len(source) == 4  # a key that comes back later is another record, as in webdataset
    assert source.read(np.array([3])) == [{"__key__": "0", "cls": b""}]
    with pytest.raises(RecordError, match=rf"record 1 of {path}, bytes 512 to 1536.*'txt' .*twice"):
        source.read(np.arange(4))
    assert len(list(Dataset(source).on_error("skip"))) == 4


def test_a_cut_member_spoils_its_record_alone(tmp_path):
    path = tmp_path / "a.tar"
    tar(path, range(5))
    whole = path.read_bytes()
    for size in (4 * 2048 + s for s in (100, 512, 518, 1024 + 8, 1024 + 512, 1024 + 518)):
        path.write_bytes(whole[:size])
        source = WebDatasetSource(path)
        good = source.read(np.arange(4))
        assert [r["__key__"] for r in good] == [f"d/{i:07d}" for i in range(4)]
        with pytest.raises(RecordError, match=f"is cut: the file ends at byte {size}"):
            source.read(np.array([len(source) - 1]))
        assert len(list(Dataset(source).on_error("skip"))) == len(source)


def test_a_file_that_ends_in_what_fills_a_block_up_has_lost_something(tmp_path):
    path = tmp_path / "a.tar"
    tar(path, range(5))
    path.write_bytes(path.read_bytes()[: 4 * 2048 + 512 + 100])  # the first member's 7 bytes are in
    source = WebDatasetSource(path)
    assert len(list(Dataset(source).on_error("skip"))) == len(source) == 6
    with pytest.raises(RecordError, match=f"is cut: the file ends at byte {4 * 2048 + 612}"):
        source.read(np.array([5]))


def test_a_file_that_ends_in_its_first_header(tmp_path):
    path = tmp_path / "a.tar"
    tar(path, range(1))
    path.write_bytes(path.read_bytes()[:100])
    source = WebDatasetSource(path)
    assert len(source) == 1
    with pytest.raises(RecordError, match="a header is cut: the file ends at byte 100"):
        source.read(np.array([0]))


def test_without_an_end_it_is_still_whole(tmp_path):
    path = tmp_path / "a.tar"
    tar(path, range(3))
    path.write_bytes(path.read_bytes()[: 3 * 2048])
    assert len(records(path)) == 3


def test_what_is_no_tar_file(tmp_path):
    path = tmp_path / "a.tar"
    tar(path, range(3))
    data = bytearray(path.read_bytes())
    path.write_bytes(gzip.compress(data))
    with pytest.raises(SourceError, match=r"compressed as a whole \(gzip\)"):
        WebDatasetSource(path)
    data[2048 + 5] ^= 1
    path.write_bytes(data)
    with pytest.raises(SourceError, match=rf"header at bytes 2048 to 2560 of {path} fails its"):
        WebDatasetSource(path)
    path.write_bytes(b"text " * 1000)
    with pytest.raises(SourceError, match="Is this a tar file"):
        WebDatasetSource(path)


def test_nothing_is_unpickled(tmp_path):
    path = tmp_path / "a.tar"
    data = pickle.dumps([1, 2])
    tar_of(path, [("0.pkl", data), ("0.pyd", data)])
    assert records(path) == [{"__key__": "0", "pkl": data, "pyd": data}]


@pytest.mark.parametrize("version", ["0.0", "0.1", "1.0"])
def test_sparse_members_of_pax_are_refused(tmp_path, version):
    with (tmp_path / "a.bin").open("wb") as f:
        f.write(b"head")
        f.seek(1 << 20)
        f.write(b"tail")
    command = ["tar", "-S", "--format=posix", f"--sparse-version={version}", "-cf", "s.tar"]
    subprocess.run([*command, "a.bin"], cwd=tmp_path, check=True)
    with pytest.raises(SourceError, match=r"s\.tar: the member at byte \d+ is sparse.*without -S"):
        WebDatasetSource(tmp_path / "s.tar")


def with_size(path, field):
    tar_of(path, [("a.txt", b"abc"), ("b.txt", b"de")])
    data = bytearray(path.read_bytes())
    data[124:136] = field
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    path.write_bytes(data)


@pytest.mark.parametrize(
    "field", [b"\x80" + b"\xff" * 11, b"\x80" + bytes(4) + b"\x7f" + b"\xff" * 6, b"77777777777\0"]
)
def test_sizes_past_the_end_are_records_that_are_cut(tmp_path, field):
    with_size(tmp_path / "a.tar", field)
    with pytest.raises(RecordError, match=r"record 0 of .*a\.tar, bytes 0 .*'txt' is cut"):
        records(tmp_path / "a.tar")


@pytest.mark.parametrize("field", [b"\xff" * 12, b"-0000000001\0", b"999999999xx\0"])
def test_sizes_that_are_none(tmp_path, field):
    with_size(tmp_path / "a.tar", field)
    with pytest.raises(
        SourceError, match=r"a\.tar: the member whose header is at byte 0 has no va"
    ):
        records(tmp_path / "a.tar")


@pytest.mark.parametrize("size", ["1" + "0" * 29, "9" * 5000, "-1", "x", "1_0"])
def test_sizes_in_pax_headers(tmp_path, size):
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("a.txt")
        info.size, info.pax_headers = 3, {"size": size}
        archive.addfile(info, io.BytesIO(b"abc"))
    with pytest.raises((SourceError, RecordError), match=r"a\.tar.*byte"):
        records(tmp_path / "a.tar")


@pytest.mark.long
def test_pax_headers_take_time_in_proportion(tmp_path):
    times = []
    for n in (20_000, 160_000):
        with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as archive:
            info = tarfile.TarInfo("a.txt")
            info.pax_headers = {f"k{i}": "v" for i in range(n)}
            archive.addfile(info, io.BytesIO())
        start = time.process_time()
        assert len(records(tmp_path / "a.tar")) == 1
        times.append(time.process_time() - start)
    assert times[1] < 24 * max(times[0], 0.01)


def test_a_member_named_as_the_key_is_an_error(tmp_path):
    tar_of(tmp_path / "a.tar", [("a.__key__", b"x"), ("a.txt", b"y"), ("b.txt", b"z")])
    with pytest.raises(RecordError, match=r"record 0 of .*a\.tar.*a member is named __key__"):
        records(tmp_path / "a.tar")
    assert records(tmp_path / "a.tar", fields=["txt"])[0] == {"__key__": "a", "txt": b"y"}
    rows = list(Dataset(tmp_path / "a.tar").on_error("skip"))
    assert {row["__key__"] for row in rows} == {"b"}


@pytest.mark.parametrize("torn", [True, False])
def test_members_of_a_key_apart_from_each_other_are_told(tmp_path, caplog, torn):
    names = ["a.txt", "b.txt", "a.cls", "b.cls"] if torn else ["a.txt", "a.cls", "b.txt", "b.cls"]
    tar_of(tmp_path / "a.tar", [(name, b"1") for name in names])
    assert len(WebDatasetSource(tmp_path / "a.tar")) == (4 if torn else 2)
    said = [line.message for line in caplog.records]
    assert len(said) == torn
    assert all("members of 'a' do not follow each other" in line for line in said)
