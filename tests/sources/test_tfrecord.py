"""TFRecordSource on damaged files, and what tf.train.Example holds."""

from __future__ import annotations

import gzip
import struct
import sys
import time

import numpy as np
import pytest

from pipeline import Dataset, TFRecordSource, parse_example, parse_sequence_example
from pipeline.errors import MissingExtraError, RecordError, SourceError
from pipeline.sources import crc32c
from pipeline.sources.crc32c import masked
from tests.writers import payload, tf_frame, tfrecord

N = 20


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.tfrecord"
    tfrecord(path, range(N))
    return path


def spoil(path, at, by=1):
    data = bytearray(path.read_bytes())
    data[at] ^= by
    path.write_bytes(data)


def start_of(i):
    return sum(len(payload(k)) + 16 for k in range(i))


def test_a_flipped_bit_spoils_its_record_alone(path):
    spoil(path, start_of(7) + 13)
    source = TFRecordSource(path)
    assert source.read(np.array([6, 8])) == [payload(6), payload(8)]
    says = rf"record 7 of {path}, bytes {start_of(7)} to {start_of(8)}: its checksum.*on_error"
    with pytest.raises(RecordError, match=says):
        source.read(np.arange(N))
    assert source.read(np.array([6, 8])) == [payload(6), payload(8)]
    rows = list(Dataset(source).on_error("skip"))
    assert rows == [payload(8 if i == 7 else i) for i in range(N)]
    assert TFRecordSource(path, verify=False).read(np.array([7])) != [payload(7)]


@pytest.mark.parametrize("left", [1, 5, 11, 12, 14, 15])
def test_a_cut_tail_is_one_bad_record(path, left):
    path.write_bytes(path.read_bytes()[: start_of(N - 1) + left])
    source = TFRecordSource(path)
    assert len(source) == N
    assert source.read(np.arange(N - 1)) == [payload(i) for i in range(N - 1)]
    with pytest.raises(RecordError, match=f"record {N - 1} of .*it is cut: the file ends at byte"):
        source.read(np.array([N - 1, 0]))
    assert list(Dataset(source).on_error("skip"))[-1] == payload(0)


@pytest.mark.parametrize("at", [0, 3, 7, 8, 11])
@pytest.mark.parametrize("by", [1, 128])
def test_a_corrupt_length_is_named_at_once(path, at, by):
    spoil(path, start_of(4) + at, by)
    with pytest.raises(SourceError, match=f"length of record 4 of {path}, bytes {start_of(4)} to"):
        TFRecordSource(path)


def test_what_is_no_tfrecord_file(tmp_path):
    path = tmp_path / "a.tfrecord"
    path.write_bytes(gzip.compress(tf_frame(b"x")))
    with pytest.raises(SourceError, match=r"compressed as a whole \(gzip\).*Decompress"):
        TFRecordSource(path)
    path.write_bytes(b"just some text, and more of it")
    with pytest.raises(SourceError, match="Is this a TFRecord file"):
        TFRecordSource(path)


def test_checksums_are_those_of_the_standard():
    steps = np.frombuffer(b"123456789", np.uint8).reshape(1, 9)
    crc = 0xE3069283  # RFC 3720's, of these nine digits
    expected = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    assert crc32c.masked(b"123456789") == crc32c.masked_columns(steps)[0] == expected


def test_without_the_extra_it_says_what_to_do(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "google_crc32c", None)
    crc32c._native.cache_clear()
    with pytest.raises(MissingExtraError, match=r"lockstep-data\[formats\]") as caught:
        TFRecordSource(path)
    assert "verify=False" in caught.value.__notes__[0]
    assert TFRecordSource(path, verify=False).read(np.array([3])) == [payload(3)]


# ---- tf.train.Example, encoded by hand


def field(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(value):
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def example(**features):
    entries = [field(1, field(1, name.encode()) + field(2, f)) for name, f in features.items()]
    return field(1, b"".join(entries))


def integers(values):
    return field(3, field(1, b"".join(map(varint, values))) if values else b"")


def test_an_example_is_a_dict():
    numbers = [0, 1, -1, 127, 128, 1 << 40, -(1 << 63), (1 << 63) - 1]
    floats = field(2, field(1, struct.pack("<3f", 1, 2.5, -3)))
    one_by_one = field(3, b"".join(varint(1 << 3) + varint(i) for i in (300, 7)))
    texts = field(1, field(1, b"a\0") + field(1, b""))
    got = parse_example(
        example(z=integers(numbers), f=floats, b=texts, u=one_by_one, n=b"", e=integers([]))
    )
    assert list(got) == ["b", "e", "f", "n", "u", "z"]
    assert got["z"].dtype == np.int64
    assert got["z"].tolist() == numbers
    assert (got["f"].dtype, got["f"].tolist()) == (np.float32, [1, 2.5, -3])
    assert got["b"] == [b"a\0", b""]
    assert got["u"].tolist() == [300, 7]
    assert got["n"] == []
    assert got["e"].tolist() == []
    assert parse_example(b"") == {}


def test_a_feature_of_several_lists_is_read_as_protocol_buffers_are_merged():
    number, text = integers([5]), field(1, field(1, b"a"))
    got = parse_example(example(joined=number + integers([6]), last=text + number, text=text * 2))
    assert {name: list(values) for name, values in got.items()} == {
        "joined": [5, 6],
        "last": [5],
        "text": [b"a", b"a"],
    }


def test_a_sequence_example_is_its_context_and_its_steps():
    steps = [integers([1, 2]), integers([]), integers([-3])]
    words = [field(1, field(1, b"a")), b""]
    entries = [
        field(1, field(1, name) + field(2, b"".join(field(1, step) for step in listed)))
        for name, listed in [(b"n", steps), (b"none", []), (b"frames", words), (b"n", steps[1:])]
    ]
    lists = field(2, b"".join(entries[:2])) + field(2, b"".join(entries[2:]))
    context, found = parse_sequence_example(lists + example(id=integers([7])))
    assert {name: values.tolist() for name, values in context.items()} == {"id": [7]}
    assert list(found) == ["frames", "n", "none"]
    assert [values.tolist() for values in found["n"]] == [[], [-3]]
    assert (found["frames"], found["none"]) == ([[b"a"], []], [])
    assert parse_sequence_example(b"") == ({}, {})
    with pytest.raises(ValueError, match=r"these \d+ bytes are no tf.train.SequenceExample"):
        parse_sequence_example(lists[:-1])


def test_a_sequence_example_is_not_taken_for_its_context():
    lists = field(2, field(1, field(1, b"frames") + field(2, field(1, integers([1])))))
    with pytest.raises(ValueError, match=r"no tf\.train\.Example: field 2 is that of a .*Sequence"):
        parse_example(example(id=integers([7])) + lists)


def test_what_is_no_example_says_so():
    whole = example(a=integers([1, 300]), b=field(1, field(1, b"text")))
    endless = example(a=field(3, field(1, b"\x80" * 10 + b"\1")))
    for data in (endless, whole[:-1], whole[:5], b"\xff" * 30, b"\x0b", whole + b"\x0a\x7f"):
        with pytest.raises(ValueError, match=r"these \d+ bytes are no tf.train.Example"):
            parse_example(data)


@pytest.mark.parametrize("length", [2**62, 2**63 - 1, 2**63, 2**64 - 17, 2**64 - 16, 2**64 - 1])
@pytest.mark.parametrize("verify", [True, False])
def test_lengths_that_wrap_are_records_that_are_cut(tmp_path, length, verify):
    size = struct.pack("<Q", length)
    bad = size + struct.pack("<I", masked(size)) + b"data" + bytes(4)
    path = tmp_path / "a.tfrecord"
    path.write_bytes(tf_frame(b"good") + bad)
    source = TFRecordSource(path, verify=verify)
    assert source.read(np.array([0])) == [b"good"]
    with pytest.raises(RecordError, match=r"record 1 of .*a\.tfrecord, bytes 20 .*it is cut"):
        source.read(np.arange(2))


@pytest.mark.parametrize(
    "data",
    [b"\xff" * 300_000, b"\x0a" + b"\xff" * 300_000, b"\x80" * 300_000, b"\x0a\x7f" * 100_000],
)
def test_examples_take_time_in_proportion(data):
    start = time.process_time()
    with pytest.raises(ValueError, match=rf"these {len(data)} bytes are no"):
        parse_example(data)
    assert time.process_time() - start < 2
