"""A small file of every kind that is parsed, and what opens it."""

from __future__ import annotations

import json
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import bagz
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
from array_record.python.array_record_module import ArrayRecordWriter

from pipeline import (
    ArrayRecordSource,
    ArrowIpcSource,
    BagzSource,
    JsonLinesSource,
    LinesSource,
    MegatronSource,
    ParquetSource,
    TFRecordSource,
    TokenDocumentSource,
    TokenSource,
    WebDatasetSource,
)
from pipeline.sources.storage.storage import Storage
from tests import writers


class Kind(NamedTuple):
    """How a kind of file is written and opened; `damaged` is the suffix of the file to damage."""

    name: str
    write: Callable[[Path], None]
    open: Callable[[str], Any]
    damaged: str = ""


def _array_record(options: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        writer = ArrayRecordWriter(str(path), options)
        for i in range(20):
            writer.write(writers.payload(i) * 9)
        writer.close()

    return write


def _url(path: str) -> Any:
    url = "memory://fuzz/a.array_record"
    Storage().write(url, Path(path).read_bytes())
    return ArrayRecordSource(url)


def _bagz(**options: Callable[[], Any]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        made = bagz.Writer.Options(**{name: option() for name, option in options.items()})
        with bagz.Writer(str(path), made) as writer:
            for i in range(20):
                writer.write(writers.payload(i) * (i % 5))

    return write


def _tar(form: int) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        names = [
            ("folder/" * (13 * (i % 3)) + f"{i}.{k}", b"x" * i) for i in range(6) for k in "bc"
        ]
        writers.tar_of(path, names, form)

    return write


def _npy(path: Path) -> None:
    np.save(path.open("wb"), np.arange(60, dtype=np.uint16).reshape(20, 3))


def _llm_c(path: Path) -> None:
    head = np.zeros(256, "<i4")
    head[:3] = 20240520, 1, 60
    path.write_bytes(head.tobytes() + np.arange(60, dtype="<u2").tobytes())


def _sidecar(path: Path) -> None:
    np.arange(60, dtype="<u2").tofile(path)
    path.with_suffix(".json").write_text(json.dumps({"dtype": "uint16"}))


def _table() -> pa.Table:
    n = 40
    return pa.table(
        {
            "i": np.arange(n),
            "f": pa.array([None if i % 7 == 0 else i / 3 for i in range(n)]),
            "s": [f"text {i}" * (i % 4) for i in range(n)],
            "l": [list(range(i % 5)) for i in range(n)],
            "d": pa.array([f"{i % 3}" for i in range(n)]).dictionary_encode(),
            "t": [{"a": i, "b": str(i)} for i in range(n)],
        }
    )


def _parquet(**options: Any) -> Callable[[Path], None]:
    return lambda path: pq.write_table(_table(), path, row_group_size=15, **options)


def _arrow(new: Callable[..., Any], codec: str | None) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        table = _table()
        with new(str(path), table.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as out:
            out.write_table(table, max_chunksize=15)

    return write


def _text(data: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(data)

    return write


def _megatron(path: Path) -> None:
    writers.megatron(path, range(12))


_JSON_LINES = b"".join(b'{"id": %d, "x": [%d, {"y": "\xc3\xa9"}]}\n \n' % (i, i) for i in range(20))
_ARRAY = json.dumps([{"id": i, "é": [i, "x"]} for i in range(20)], indent=1, ensure_ascii=False)

KINDS = [
    Kind("a.array_record", _array_record("group_size:1,uncompressed"), ArrayRecordSource),
    Kind("b.array_record", _array_record("group_size:7,zstd"), ArrayRecordSource),
    Kind("c.array_record", _array_record("group_size:3,brotli"), _url),
    Kind("d.array_record", _array_record("group_size:1,snappy"), _url),
    Kind("a.bagz", _bagz(), BagzSource),
    Kind("b.bagz", _bagz(compression=bagz.CompressionNone), BagzSource),
    Kind(
        "c.bagz",
        _bagz(limits_placement=lambda: bagz.LimitsPlacement.SEPARATE),
        BagzSource,
        "limits.c.bagz",
    ),
    Kind("a.tfrecord", lambda p: writers.tfrecord(p, range(20)), TFRecordSource),
    Kind(
        "b.tfrecord",
        lambda p: writers.tfrecord(p, range(20)),
        lambda p: TFRecordSource(p, verify=False),
    ),
    Kind("a.txt", lambda p: writers.lines(p, range(30)), LinesSource),
    Kind("a.jsonl", _text(_JSON_LINES), JsonLinesSource),
    Kind("a.json", _text(_ARRAY.encode()), JsonLinesSource),
    Kind("a.tar", _tar(tarfile.USTAR_FORMAT), WebDatasetSource),
    Kind("b.tar", _tar(tarfile.GNU_FORMAT), WebDatasetSource),
    Kind("c.tar", _tar(tarfile.PAX_FORMAT), WebDatasetSource),
    Kind("a.bin", _megatron, MegatronSource, "a.idx"),
    Kind("b.bin", _megatron, lambda p: MegatronSource(p, records="documents"), "b.idx"),
    Kind("c.bin", _megatron, MegatronSource),
    Kind("a.npy", _npy, TokenSource),
    Kind("b.npy", _npy, lambda p: TokenDocumentSource(p, eos=7)),
    Kind("d.bin", _llm_c, TokenSource),
    Kind("e.bin", _sidecar, TokenSource, "e.json"),
    Kind("a.parquet", _parquet(), ParquetSource),
    Kind("b.parquet", _parquet(compression="zstd", write_page_checksum=True), ParquetSource),
    Kind("c.parquet", _parquet(compression="none", use_dictionary=False), ParquetSource),
    Kind("a.arrow", _arrow(pa.ipc.new_file, None), ArrowIpcSource),
    Kind("b.arrow", _arrow(pa.ipc.new_file, "zstd"), ArrowIpcSource),
    Kind("c.arrow", _arrow(pa.ipc.new_stream, "lz4"), ArrowIpcSource),
]


def example() -> bytes:
    """A serialized tf.train.Example."""
    feature = b"\n\x02id\x12\x05\x1a\x03\n\x01\x07"
    text = b"\n\x01t\x12\x0b\n\t\n\x03abc\n\x02de"
    floats = b"\n\x01f\x12\x0c\x12\n\n\x08" + struct.pack("<2f", 1.5, -2)
    entries = b"".join(b"\n" + bytes([len(e)]) + e for e in (feature, text, floats))
    return b"\n" + bytes([len(entries)]) + entries
