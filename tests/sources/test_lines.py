"""LinesSource and JsonLinesSource: line ends, empty lines, byte order marks, and bad lines."""

from __future__ import annotations

import gzip
import os
from typing import Any

import numpy as np
import pytest

from pipeline import Dataset, JsonLinesSource, LinesSource
from pipeline.errors import RecordError, SourceError
from pipeline.sources import open_path
from pipeline.sources.storage import gather


def lines(tmp_path, data, kind: Any = LinesSource):
    path = tmp_path / "a"
    path.write_bytes(data)
    source = kind(path)
    return source.read(np.arange(len(source)))


@pytest.mark.parametrize("piece", [1, 2, 3, 1 << 20])
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"\r\n", [""]),
        (b"a", ["a"]),
        (b"a\n", ["a"]),
        (b"a\r\nb", ["a", "b"]),
        (b"a\n\nb\r\n\r\n", ["a", "", "b", ""]),
        (b"a\rb\n\r", ["a\rb", "\r"]),
        (b"\xef\xbb\xbfa\nb", ["a", "b"]),
        (b"\xef\xbb\xbf", []),
        ("ä\u2028b\n\x0c\n".encode(), ["ä\u2028b", "\x0c"]),
    ],
)
def test_where_lines_end(tmp_path, monkeypatch, data, expected, piece):
    monkeypatch.setattr(gather, "_PIECE", max(piece, 3 if data.startswith(b"\xef") else 1))
    assert lines(tmp_path, data) == expected


def test_empty_lines_are_no_json_records(tmp_path):
    data = b'\n{"a": 1}\n\r\n\n[2]\r\n"x"'
    assert lines(tmp_path, data, JsonLinesSource) == [{"a": 1}, [2], "x"]


def test_a_bad_line_is_named_by_file_line_and_bytes(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 0}\n\n{"a": 1\n{"a": "\xff"}\n{"a": 3}\n' + b"[" * 100_000)
    source = open_path(path)
    assert source.read(np.array([0, 3])) == [{"a": 0}, {"a": 3}]
    says = rf"record 1 of {path}, bytes 10 to 17: .*delimiter.*, in line 3 .*jq -c .*on_error"
    with pytest.raises(RecordError, match=says):
        source.read(np.arange(4))
    with pytest.raises(RecordError, match=r"record 2 .*can't decode byte 0xff.*in line 4"):
        source.read(np.array([2]))
    with pytest.raises(RecordError, match=r"record 4 .*nested too deeply, in line 6"):
        source.read(np.array([4]))
    rows = list(Dataset(source).on_error("skip"))
    assert [row["a"] for row in rows] == [0, 3, 3, 3, 0]


def test_text_that_is_not_utf8(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"good\nbad \xff\ngood")
    source = LinesSource(path)
    with pytest.raises(RecordError, match=r"record 1 .*bytes 5 to 10: 'utf-8'.*, in line 2"):
        source.read(np.arange(3))
    assert source.read(np.array([0, 2])) == ["good", "good"]


def test_a_file_of_the_same_size_with_other_lines_is_noticed(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"ab\ncd\n")
    source = LinesSource(path)
    changed = path.stat().st_mtime_ns
    path.write_bytes(b"abcde\n")
    os.utime(path, ns=(changed, changed))
    with pytest.raises(SourceError, match=r"has changed since .*: it had 2 records, now 1"):
        source.read(np.array([0]))


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_compressed_files_are_refused(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(gzip.compress(b"{}\n"))
    with pytest.raises(SourceError, match=r"compressed as a whole.*Decompress it"):
        open_path(path)


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("a.json", b'[{"a": 1}, {"a": 2}]', [{"a": 1}, {"a": 2}]),
        ("a.JSON", b'\xef\xbb\xbf\r\n [\n {"a": "\xc3\xa9]"},\n 2\n]\n', [{"a": "é]"}, 2]),
        ("a.json", b"[]", []),
        ("a.json", b" [ ] ", []),
        ("a.json", b'[[1], [], "x"]', [[1], [], "x"]),
        ("a.json", b"[1, 2]\n[3, 4]\n", [[1, 2], [3, 4]]),  # lines of arrays
        ("a.jsonl", b"[1, 2]\n", [[1, 2]]),
        ("a.json", b'{"a": 1}\n{"a": 2}', [{"a": 1}, {"a": 2}]),
        ("a.json", b"", []),
    ],
)
def test_a_json_array_holds_a_record_each(tmp_path, name, data, expected):
    (tmp_path / name).write_bytes(data)
    assert list(Dataset(tmp_path / name)) == expected


@pytest.mark.parametrize("data", [b"[\n1,\n2\n", b"[1, 2,]", b"[1 2]", b"[" * 100_000, b'["\xff"]'])
def test_a_damaged_array_is_no_lines(tmp_path, data):
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(SourceError, match=r"cannot read .*a\.json: its JSON array is"):
        open_path(tmp_path / "a.json")


@pytest.mark.parametrize("blank", [b"\n", b"  \n", b"\t \r\n", b" " * 100 + b"\n"])
@pytest.mark.parametrize("piece", [1, 3, 1 << 20])
def test_lines_of_spaces_are_no_json_records(tmp_path, monkeypatch, blank, piece):
    monkeypatch.setattr(gather, "_PIECE", piece)
    data = blank + b'{"a": 1}\n' + blank * 3 + b' {"a": 2} \n' + blank + b"  "
    assert lines(tmp_path, data, JsonLinesSource) == [{"a": 1}, {"a": 2}]
    source = JsonLinesSource(tmp_path / "a")
    assert source._index(0)["line"].tolist() == [1, 5]


@pytest.mark.parametrize("kind", [LinesSource, JsonLinesSource])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
def test_utf_16_is_refused_by_its_mark(tmp_path, kind, encoding):
    mark = b"\xfe\xff" if encoding == "utf-16-be" else b""
    (tmp_path / "a.txt").write_bytes(mark + '["a"]'.encode(encoding))
    with pytest.raises(SourceError, match=r"a\.txt: it is UTF-16 or UTF-32.*iconv"):
        kind(tmp_path / "a.txt")
