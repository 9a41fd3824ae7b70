"""What a parser raises becomes an error of ours, with path and offset."""

from __future__ import annotations

import errno
import struct
import tokenize
from typing import Any

import pyarrow as pa
import pytest

from pipeline.errors import MissingFileError, RecordError, ScanError, SourceError
from pipeline.sources.complaints import parsed_json, parsing


def dig(n: int = 0) -> None:
    dig(n + 1)


@pytest.mark.parametrize(
    "parse",
    [
        lambda: {}["x"],
        lambda: [][3],
        lambda: None.x,  # pyright: ignore
        lambda: 1 / 0,
        lambda: struct.unpack("<Q", b""),
        lambda: bytes(1 << 62),
        lambda: 2.0**5000,
        lambda: b"\xff".decode(),
        lambda: pa.BufferReader(b"").read_buffer(-1),
        lambda: pa.ipc.open_file(b"ARROW1"),
        lambda: (_ for _ in ()).throw(tokenize.TokenError("EOF", (1, 2))),
        lambda: (_ for _ in ()).throw(MemoryError()),
        lambda: (_ for _ in ()).throw(OSError("Corrupt snappy compressed data.")),
        lambda: (_ for _ in ()).throw(ValueError("x" * 10**6)),
        dig,
    ],
)
def test_whatever_a_parser_raises_names_file_and_place(parse: Any) -> None:
    with (
        pytest.raises(SourceError, match=r"cannot read a\.npy, at byte 17: .+") as e,
        parsing("a.npy", 17),
    ):
        parse()
    assert len(str(e.value)) < 500
    with (
        pytest.raises(RecordError, match=r"cannot read a\.npy: .+"),
        parsing("a.npy", error=RecordError),
    ):
        parse()


def test_errors_of_ours_and_of_the_system_pass() -> None:
    with pytest.raises(MissingFileError, match="its own"), parsing("a"):
        raise MissingFileError("its own")
    with pytest.raises(ConnectionResetError), parsing("a"):
        raise ConnectionResetError(errno.ECONNRESET, "reset")
    with pytest.raises(KeyboardInterrupt), parsing("a"):
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    "text",
    ["", "{", "[" * 10**5, "9" * 30, "9" * 10**5, "NaN", "\x00", b"\xff\xfe\xfd", "1" + "0" * 19],
)
def test_json_of_anybody(text: Any) -> None:
    with pytest.raises(ScanError, match=r"cannot read scan\.json: "):
        parsed_json(text, "scan.json", ScanError)


def test_json_keeps_what_is_right() -> None:
    assert parsed_json('{"a": [-9223372036854775808, 1.5e3, "ü", null]}', "x") == {
        "a": [-(1 << 63), 1500.0, "ü", None]
    }
