"""A record read by itself is the same as among others, whatever its codec and wherever it lies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from pipeline import ArrayRecordSource
from pipeline.errors import RecordError
from pipeline.sources.riegeli.alone import record_alone

CODECS = ["uncompressed", "zstd", "snappy", "brotli:3"]


def written(path: Path, codec: str, sizes: list[int]) -> list[bytes]:
    rng = np.random.default_rng(0)
    records = [rng.integers(0, 9, n).astype(np.uint8).tobytes() for n in sizes]
    writer = ArrayRecordWriter(str(path), f"group_size:1,{codec}")
    for record in records:
        writer.write(record)
    writer.close()
    return records


@pytest.mark.parametrize("codec", CODECS)
def test_it_is_what_was_written(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "a.array_record"
    records = written(path, codec, [0, 1, 2, 30, 127, 128, 1000, 9000, 70_000, 20_000] * 4)
    source = ArrayRecordSource(path)
    assert [source.read(np.array([i]))[0] for i in range(40)] == records
    offsets = source._reading._shards.get([0])[0].index.offsets.tolist()  # pyright: ignore
    data = path.read_bytes()
    short = [record_alone(data[offsets[i] : offsets[i + 1]]) for i in (3, 4, 5)]
    assert short == records[3:6]


@pytest.mark.parametrize("codec", CODECS)
def test_what_is_damaged_is_left_to_those_who_can_say_what_is_wrong(
    tmp_path: Path, codec: str
) -> None:
    path = tmp_path / "a.array_record"
    records = written(path, codec, [300] * 9)
    offsets = ArrayRecordSource(path)._reading._shards.get([0])[0].index.offsets  # pyright: ignore
    chunk = path.read_bytes()[offsets[4] : offsets[5]]
    for n in range(len(chunk)):
        assert record_alone(chunk[:n]) is None
    for place in (8, 24, 25, 32, 40):  # its size, its kind, how many, what it unpacks to, its codec
        bad = bytearray(chunk)
        bad[place] ^= 0x15
        assert record_alone(bytes(bad)) is None
    data = bytearray(path.read_bytes())
    data[offsets[4] + 32] ^= 0x15
    path.write_bytes(data)
    source = ArrayRecordSource(path)
    with pytest.raises(RecordError, match="record 4"):
        source.read(np.array([4]))
    assert source.read(np.array([5]))[0] == records[5]
