"""Damaged, encrypted and odd Parquet files: an error that names the place, never an abort."""

from __future__ import annotations

import datetime
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
import pytest

from pipeline import Dataset
from pipeline.debug.conformance import same
from pipeline.errors import RecordError, SourceError
from pipeline.sources import parquet_salvage
from pipeline.sources.chunks import is_damage
from pipeline.sources.parquet import ParquetSource
from pipeline.tools.convert import convert
from tests.sources.flips import small_file
from tests.tables import damage


@pytest.mark.long
def test_no_flipped_bit_of_a_footer_ends_the_process(tmp_path):
    _, footer = small_file()
    command = [sys.executable, "-m", "tests.sources.flips", str(tmp_path), "0", str(footer * 8)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    last = done.stdout.split()[-1] if done.stdout else "none"
    assert done.returncode == 0, f"bit {last}: {done.stderr[-2000:]}"
    assert last == str(footer * 8 - 1)


class _Kms(pe.KmsClient):
    """Keeps keys as they are: a test needs no secret."""

    def wrap_key(self, key_bytes, master_key_identifier):
        return key_bytes.hex()

    def unwrap_key(self, wrapped_key, master_key_identifier):
        return bytes.fromhex(
            wrapped_key.decode() if isinstance(wrapped_key, bytes) else wrapped_key
        )


@pytest.mark.parametrize("plain_footer", [True, False])
def test_encrypted_columns_are_refused_when_opened(tmp_path, plain_footer):
    path = str(tmp_path / "a.parquet")
    factory = pe.CryptoFactory(lambda config: _Kms())
    config = pe.EncryptionConfiguration(
        footer_key="f", column_keys={"k": ["secret"]}, plaintext_footer=plain_footer
    )
    properties = factory.file_encryption_properties(pe.KmsConnectionConfig(), config)
    rows = pa.table({"open": [1, 2], "secret": [3, 4]})
    with pq.ParquetWriter(path, rows.schema, encryption_properties=properties) as w:
        w.write_table(rows)
    with pytest.raises(SourceError, match=r"a\.parquet.*ncrypt") as e:
        ParquetSource(path)
    assert not isinstance(e.value, RecordError)
    if plain_footer:
        source = ParquetSource(path, ["open"])
        assert source.read(np.array([1, 0])).tree["open"].tolist() == [2, 1]
        assert source.layout()[0]["rows"] == 2


def test_a_file_that_lost_bytes_in_the_middle_names_group_and_column(tmp_path):
    path = tmp_path / "a.parquet"
    rng = np.random.default_rng(0)
    pq.write_table(
        pa.table({"a": rng.random(20_000), "b": rng.random(20_000)}), path, row_group_size=5000,
        use_dictionary=False, compression="none",
    )  # fmt: skip
    whole = path.read_bytes()
    path.write_bytes(whole[:60_000] + whole[140_000:])
    source = ParquetSource(path)
    for row in (6000, 19_999):
        text = rf"\(row group {row // 5000}\) of {path}: .*column '?[ab]"
        with pytest.raises(RecordError, match=text):
            source.read(np.array([row]))
    first = source.read(np.arange(0, 3500))
    assert len(first) == 3500
    (kept,) = Dataset(path).on_error("skip").read([19_999]).rows()
    assert same(kept, source.read(np.array([0])).rows()[0])  # the next that can be read


def test_one_group_without_its_end_is_a_bad_record(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": np.random.default_rng(0).random(30_000)}), path)
    whole = path.read_bytes()
    path.write_bytes(whole[:60_000] + whole[140_000:])
    with pytest.raises(RecordError, match=rf"row group 0\) of {path}: column 'a'"):
        ParquetSource(path).read(np.array([29_999]))


def test_memory_that_damage_asks_for_is_damage():
    asked = pa.ArrowMemoryError("malloc of size 140737488355328 failed")
    assert is_damage(asked, 1000)
    assert not is_damage(pa.ArrowMemoryError("malloc of size 64 failed"), 1000)
    assert not is_damage(MemoryError(), 1000)
    assert not is_damage(pa.ArrowMemoryError("malloc of size 2147483648 failed"), 1 << 30)


def write_old_times(path, values, **columns):
    rows = pa.table({"t": pa.array(values, pa.timestamp("us")), **columns})
    pq.write_table(rows, path, use_deprecated_int96_timestamps=True)
    return ParquetSource(path)


def test_int96_times_out_of_nanoseconds_are_refused(tmp_path):
    far, near = datetime.datetime(9999, 12, 31), datetime.datetime(2020, 1, 2, 3)
    source = write_old_times(tmp_path / "a.parquet", [near, far, None, near])
    got = source.read(np.array([3, 2, 0])).tree["t"]
    assert got.tolist()[0] == int(near.replace(tzinfo=datetime.UTC).timestamp()) * 10**9
    assert np.isnat(got[1])
    with pytest.raises(RecordError, match=r"column 't' of row 1 of .*a\.parquet is a time"):
        source.read(np.array([0, 1]))
    kept = Dataset(source).on_error("skip").read([0, 3]).rows()
    assert len(kept) == 2


def test_the_last_and_first_nanoseconds_are_read_and_their_neighbours_refused(tmp_path):
    last, first = 2**63 // 1000 - 1, -(2**63 // 1000) + 1
    micros = [last, last + 2, first, first - 2]
    source = write_old_times(tmp_path / "a.parquet", micros)
    got = source.read(np.array([0, 2])).tree["t"]
    assert (got.astype(np.int64) == np.array([last, first]) * 1000).all()
    for row in (1, 3):
        with pytest.raises(RecordError, match=f"column 't' of row {row} "):
            source.read(np.array([row]))


@pytest.mark.parametrize(
    ("kind", "wrap"),
    [
        (pa.list_(pa.timestamp("us")), lambda t: [t]),
        (pa.struct([("x", pa.timestamp("us"))]), lambda t: {"x": t}),
        (pa.map_(pa.string(), pa.timestamp("us")), lambda t: [("k", t)]),
        (pa.list_(pa.struct([("x", pa.timestamp("us"))])), lambda t: [{"x": t}]),
    ],
)
def test_nested_int96_times_out_of_nanoseconds_are_refused(tmp_path, kind, wrap):
    far, near = datetime.datetime(1, 1, 1), datetime.datetime(2020, 1, 2, 3)
    values = pa.array([wrap(near), wrap(far), None, wrap(near)], kind)
    source = write_old_times(tmp_path / "a.parquet", [near] * 4, n=values)
    assert len(source.read(np.array([0, 2, 3]))) == 4 - 1
    with pytest.raises(RecordError, match="column 'n' of row 1 "):
        source.read(np.array([1]))


def large_text(folder) -> tuple[str, int]:
    """A file of 40 KB whose one row group decodes to more than 2 GiB of text, flat and nested."""
    n, text = 2200, "x" * 1_000_000
    flat = pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array([text]))
    nested = pa.ListArray.from_arrays(pa.array(np.arange(n + 1, dtype=np.int32)), flat)
    deep = pa.StructArray.from_arrays([nested], ["l"])
    path = str(folder / "a.parquet")
    rows = pa.table({"t": flat, "l": nested, "s": deep, "i": np.arange(n)})
    pq.write_table(rows, path, store_schema=False, dictionary_pagesize_limit=1 << 30)
    return path, n


@pytest.mark.long
@pytest.mark.parametrize("column", ["t", "l", "s"])
def test_a_row_group_of_more_than_2_gib_of_text_is_read(tmp_path, column):
    path, n = large_text(tmp_path)
    source = ParquetSource(path, [column, "i"])
    got = source.read(np.array([n - 1, 0, n // 2]))
    assert got.tree["i"].tolist() == [n - 1, 0, n // 2]
    first = {"t": lambda t: t, "l": lambda t: t[0], "s": lambda t: t["l"][0]}[column]
    value = first(got.tree[column] if column != "l" else got.tree["l"][0])
    value = value if isinstance(value, str) else value[0]
    assert len(value) == 1_000_000


def test_groups_beyond_the_limit_are_read_in_pieces(tmp_path, monkeypatch):
    rows = pa.table({"l": [[f"t{i}"] * (i % 3) for i in range(1000)], "i": range(1000)})
    pq.write_table(rows, tmp_path / "a.parquet", row_group_size=600)
    known = ParquetSource(tmp_path / "a.parquet").read(np.arange(1000))
    monkeypatch.setattr(parquet_salvage, "_2_GIB", 1)
    got = ParquetSource(tmp_path / "a.parquet").read(np.arange(1000))
    assert got.tree["l"].tolist() == known.tree["l"].tolist()
    assert got.tree["i"].tolist() == list(range(1000))


def test_a_damaged_group_is_decoded_once_however_often_it_is_asked_for(tmp_path):
    path = str(tmp_path / "a.parquet")
    pq.write_table(
        pa.table({"i": np.arange(300)}), path, row_group_size=100, write_page_checksum=True,
        use_dictionary=False, compression="none",
    )  # fmt: skip
    chunk = pq.read_metadata(path).row_group(1).column(0)
    damage(path, chunk.data_page_offset + chunk.total_compressed_size // 2, 1)
    decoded: list[int] = []

    class Counting(ParquetSource):
        def _decode(self, chunks):
            decoded.extend(chunks)
            return super()._decode(chunks)

    source = Counting(path, cache_bytes=0)
    for row in (150, 10, 120, 250, 199, 100, 20):
        if 100 <= row < 200:
            with pytest.raises(RecordError, match="row group 1") as e:
                source.read(np.array([row]))
            assert e.value.alike == range(100, 200)
        else:
            source.read(np.array([row]))
    assert decoded.count(1) == 1


def test_a_footer_of_other_rows_than_its_pages_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"i": np.arange(40)}), path, row_group_size=20)
    source = ParquetSource(path)
    source._groups[0] = np.array([30, 10])
    source._begin()
    with pytest.raises(SourceError, match=r"a\.parquet has changed"):
        source.read(np.array([0]))


@pytest.mark.parametrize("nested", [False, True])
def test_an_index_out_of_its_dictionary_is_an_error_of_its_rows(tmp_path, nested):
    words = pa.array([f"w{i}" for i in range(8)] * 40).dictionary_encode()
    column = pa.ListArray.from_arrays(pa.array(range(321), pa.int32()), words) if nested else words
    path = str(tmp_path / "a.parquet")
    pq.write_table(
        pa.table({"w": column, "i": range(320)}), path, compression="none", write_statistics=False
    )
    chunk = pq.read_metadata(path).row_group(0).column(0)
    # fewer words in the dictionary than the indices speak of: a header's count, zigzag varint
    with open(path, "r+b") as f:
        f.seek(chunk.dictionary_page_offset)
        page = f.read(chunk.data_page_offset - chunk.dictionary_page_offset)
        f.seek(chunk.dictionary_page_offset + page.index(b"\x15\x10"))
        f.write(b"\x15\x04")
    source = ParquetSource(path, verify=False)
    with pytest.raises(RecordError, match=r"row group 0\) of .*a\.parquet: column 'w"):
        source.read(np.array([300]))
    for out in ("out.parquet", "out.arrow"):  # where following the index could end the process
        with pytest.raises(RecordError, match="row group 0"):
            convert(path, tmp_path / out)
