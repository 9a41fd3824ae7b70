"""Files of every format that `Dataset` opens by suffix, and what commands say of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
from array_record.python.array_record_module import ArrayRecordWriter

from tests import writers

Write = Callable[[Path, range], Any]


def parquet(path: Path, ids: range) -> None:
    rows = [np.arange(3) + i for i in ids]
    pq.write_table(pa.table({"id": ids, "x": rows}), path, row_group_size=40)


def feather(path: Path, ids: range) -> None:
    pyarrow.feather.write_feather(
        pa.table({"id": ids}), str(path), compression="zstd", chunksize=40
    )


def records(path: Path, ids: range, options: str = "group_size:1") -> None:
    writer = ArrayRecordWriter(str(path), options)
    for i in ids:
        writer.write(b"%d " % i * 5)
    writer.close()


def npy(path: Path, ids: range) -> None:
    np.save(path, np.array(ids, np.uint32))


# of each format: suffix, how it is written, its name, its fields, and whether it keeps a manifest
FORMATS: dict[str, tuple[str, Write, str, set[str], bool]] = {
    "parquet": (".parquet", parquet, "Parquet", {"id", "x"}, True),
    "arrow": (".arrow", feather, "ArrowIpc", {"id"}, False),
    "array_record": (".array_record", records, "ArrayRecord", {""}, True),
    "bagz": (".bagz", writers.bags, "Bagz", {""}, True),
    "tfrecord": (".tfrecord", writers.tfrecord, "TFRecord", {""}, True),
    "webdataset": (".tar", writers.tar, "WebDataset", {"__key__", "txt", "cls.id"}, True),
    "json lines": (".jsonl", writers.json_lines, "JsonLines", {"id", "é"}, True),
    "lines": (".txt", writers.lines, "Lines", {""}, True),
    "tokens": (".u32", writers.tokens, "Token", {""}, False),
    "npy": (".npy", npy, "Token", {""}, False),
    "megatron": (".bin", writers.megatron, "Megatron", {""}, False),
}
