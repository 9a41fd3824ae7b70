"""BagzSource beside the bagz library, and on damaged files."""

from __future__ import annotations

import pickle

import bagz
import numpy as np
import pyarrow as pa
import pytest

from pipeline import BagzSource, Dataset
from pipeline.errors import RecordError, SourceError
from pipeline.sources import bagz as bagz_module
from pipeline.sources import open_path
from pipeline.sources.storage.gather import read_spans
from tests.writers import bags, payload


def write(path, records, compression=None):
    options = bagz.Writer.Options(compression=compression) if compression else None
    with bagz.Writer(str(path), options) if options else bagz.Writer(str(path)) as writer:
        for record in records:
            writer.write(record)
    return str(path)


@pytest.mark.parametrize("level", [1, 3, 19])
@pytest.mark.parametrize("size", [0, 1, 63, 255, 256, 257, 65_791, 65_792, 70_000])
def test_reads_what_the_library_reads(tmp_path, level, size):
    rng = np.random.default_rng(size)
    records = [rng.bytes(size), b"a" * size, b"", b"x"]
    path = write(tmp_path / "a.bagz", records, bagz.CompressionZstd(level))
    assert BagzSource(path).read(np.array([3, 0, 1, 2])) == [b"x", *records[:3]]
    assert list(bagz.Reader(path)) == records


def test_compression_by_name_or_by_argument(tmp_path):
    zstd = write(tmp_path / "a.bag", [b"a" * 100], bagz.CompressionZstd(3))
    plain = write(tmp_path / "b.bagz", [b"a" * 100], bagz.CompressionNone())
    assert BagzSource(zstd, compression="zstd").read(np.array([0])) == [b"a" * 100]
    assert BagzSource(plain, compression="none").read(np.array([0])) == [b"a" * 100]
    with pytest.raises(RecordError, match="it is no zstd frame"):
        BagzSource(plain).read(np.array([0]))
    with pytest.raises(SourceError, match='choose "auto", "zstd" or "none"'):
        BagzSource(plain, compression="lz4")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", ["a.bagz", "a.bag"])
@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("separate", [True, False])
@pytest.mark.parametrize("records", [[], [b"", b""], [b"", b"to", b"", b"be" * 400, b""]])
def test_every_way_to_write_is_read(tmp_path, name, plain, separate, records):
    place = bagz.LimitsPlacement.SEPARATE if separate else bagz.LimitsPlacement.TAIL
    options = bagz.Writer.Options(limits_placement=place)
    if plain or name == "a.bag":
        options = bagz.Writer.Options(limits_placement=place, compression=bagz.CompressionNone())
    with bagz.Writer(str(tmp_path / name), options) as writer:
        for record in records:
            writer.write(record)
    assert list(Dataset(tmp_path / name)) == records
    assert list(Dataset(str(tmp_path / f"*{name}"))) == records  # less limits.a.bagz
    again = pickle.loads(pickle.dumps(BagzSource(tmp_path / name)))
    assert again.read(np.arange(len(records))) == records


def test_limits_that_do_not_fit_are_named(tmp_path):
    (tmp_path / "a.bagz").write_bytes(b"some bytes")
    side = tmp_path / "limits.a.bagz"
    for data in (b"", b"1234567", (3).to_bytes(8, "little"), b"\xff" * 8):
        side.write_bytes(data)
        with pytest.raises(SourceError, match=r"cannot read .*a\.bagz: "):
            BagzSource(tmp_path / "a.bagz")


@pytest.mark.parametrize("sized", [True, False])
def test_a_bomb_is_refused_at_a_limit_that_can_be_raised(tmp_path, sized):
    data = bytes(3_000_000)
    frame = pa.Codec("zstd").compress(data, asbytes=True)
    if not sized:
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(data)
        frame = sink.getvalue().to_pybytes()
    path = write(tmp_path / "a.bag", [frame, pa.Codec("zstd").compress(b"a", asbytes=True)])
    source = BagzSource(path, compression="zstd", record_limit="1MiB")
    with pytest.raises(RecordError, match=rf"record 0 of {path}.*record_limit=1048576.*raise that"):
        source.read(np.array([0]))
    assert source.read(np.array([1])) == [b"a"]
    assert BagzSource(path, compression="zstd").read(np.array([0])) == [data]


def test_frames_that_do_not_tell_their_size(tmp_path):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(b"streamed " * 1000)
    path = write(tmp_path / "a.bag", [sink.getvalue().to_pybytes()])
    assert BagzSource(path, compression="zstd").read(np.array([0])) == [b"streamed " * 1000]


def test_shards_by_number(tmp_path):
    for i in range(3):
        bags(tmp_path / f"a-{i:05d}-of-00003.bagz", range(i * 5, i * 5 + 5))
    source = BagzSource(tmp_path / "a@3.bagz")
    assert source.read(np.arange(15)) == [payload(i) for i in range(15)]
    assert len(open_path(str(tmp_path / "a@3.bagz"))) == 15
    with pytest.raises(SourceError, match=r"a-00000-of-00004\.bagz does not exist"):
        BagzSource(tmp_path / "a@4.bagz")
    bags(tmp_path / "b.bagz-00000-of-00001", range(5))
    named = str(tmp_path / "b.bagz@1")  # not compressed, to the library too
    assert BagzSource(named).read(np.arange(5)) == list(bagz.Reader(named))


def test_a_damaged_record_spoils_itself_alone(tmp_path):
    path = tmp_path / "a.bagz"
    write(path, [b"hello " * 50, b"world " * 50, b"again " * 50])
    data = bytearray(path.read_bytes())
    second = data.index(b"\x28\xb5\x2f\xfd", 4)
    for at, by in ((second, 1), (second + 4, 0x20), (second + 5, 0xFF), (second + 9, 0xFF)):
        spoiled = bytearray(data)
        spoiled[at] ^= by
        path.write_bytes(spoiled)
        source = BagzSource(path)
        assert source.read(np.array([2, 0])) == [b"again " * 50, b"hello " * 50]
        with pytest.raises(RecordError, match=rf"record 1 of {path}, bytes {second} to .*on_error"):
            source.read(np.arange(3))
        assert list(Dataset(source).on_error("skip"))[1] == b"again " * 50


def test_what_is_no_bagz_file(tmp_path):
    path = tmp_path / "a.bagz"
    bags(path, range(20))
    whole = path.read_bytes()
    for data in (b"text", b"text text text text text", whole[:-1], whole[:-8], whole[:-16]):
        path.write_bytes(data)
        with pytest.raises(SourceError, match=r"too short|no Bagz file|truncated"):
            BagzSource(path)


def test_whether_a_file_is_compressed_is_found_out_once(tmp_path, caplog, monkeypatch):
    path = tmp_path / "a.bagz"
    with bagz.Writer(str(path), bagz.Writer.Options(compression=bagz.CompressionNone())) as writer:
        for i in range(100):
            writer.write(b"%d" % i)
    source, reads = BagzSource(path), []
    monkeypatch.setattr(bagz_module, "read_spans", lambda *a: reads.append(a) or read_spans(*a))
    assert source.read(np.arange(100)) == [b"%d" % i for i in range(100)]
    assert len(reads) == 1
    assert [line.message for line in caplog.records] == [
        f"{path} is named .bagz, but its records are not compressed"
    ]
