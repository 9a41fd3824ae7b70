"""Arrow IPC streams, folders of Hugging Face, and damage to either."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import ipc

from pipeline import Dataset
from pipeline.debug.conformance import check_source, same
from pipeline.errors import RecordError, SourceError
from pipeline.sources.arrow_ipc import ArrowIpcSource
from pipeline.sources.formats import open_path
from tests.tables import check_rows, table


def stream(folder, rows, name="a.arrow", batch=64, codec=None):
    path = str(folder / name)
    with ipc.new_stream(path, rows.schema, options=ipc.IpcWriteOptions(compression=codec)) as w:
        w.write_table(rows, max_chunksize=batch)
    return path


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("codec", [None, "zstd"])
@pytest.mark.parametrize("counts", [[0], [1], [300, 0, 101]])
def test_keeps_what_a_source_promises(tmp_path, counts, codec, mapped):
    starts = np.cumsum([0, *counts]).tolist()
    paths = [
        stream(tmp_path, table(start, n), f"{i}.arrow", codec=codec)
        for i, (start, n) in enumerate(zip(starts, counts, strict=False))
    ]
    source = ArrowIpcSource(paths, memory_map=mapped, cache_bytes=4096)
    check_source(source, samples=16)
    check_rows(source, np.random.default_rng(0).permutation(sum(counts)))
    again = pickle.loads(pickle.dumps(source))
    check_rows(again, np.arange(sum(counts)))


def test_a_stream_and_a_file_of_the_same_rows_are_one_dataset(tmp_path):
    a = stream(tmp_path, table(0, 100))
    with ipc.new_file(str(tmp_path / "b.arrow"), table(0, 1).schema) as w:
        w.write_table(table(100, 50))
    check_rows(ArrowIpcSource([a, tmp_path / "b.arrow"]), np.arange(150)[::-1])


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("deltas", [True, False])
def test_dictionaries_that_grow_or_are_replaced(tmp_path, deltas, mapped):
    path = str(tmp_path / "a.arrow")
    values = [["a", "b"], ["a", "b", "c"], ["d"], ["a"]]
    parts = [pa.array(v).dictionary_encode() for v in values]
    options = ipc.IpcWriteOptions(emit_dictionary_deltas=deltas)
    with ipc.new_stream(path, pa.schema([("s", parts[0].type)]), options=options) as w:
        for part in parts:
            w.write_batch(pa.record_batch({"s": part}))
    source = ArrowIpcSource(path, memory_map=mapped)
    known = [text for part in values for text in part]
    for order in (np.arange(len(known)), np.arange(len(known))[::-1]):
        for i in order:  # each batch alone: in no order that a stream is read in
            assert source.read(np.array([i])).tree["s"].tolist() == [known[i]]
            source.close()


def test_over_gs_a_stream_is_walked_once(tmp_path, gcs):
    url = gcs.upload(stream(tmp_path, table(0, 500), codec="zstd"))
    source = ArrowIpcSource(url, storage=gcs.storage())
    check_rows(source, [3, 499, 250])
    check_source(source, samples=8)


@pytest.mark.parametrize("cut", [3, 9, 100, -9, -200])
def test_a_stream_cut_short_is_refused_and_one_without_an_end_mark_is_not(tmp_path, cut):
    path = Path(stream(tmp_path, table(0, 200)))
    whole = path.read_bytes()
    path.write_bytes(whole[:-8])
    check_rows(ArrowIpcSource(path), np.arange(200))
    path.write_bytes(whole[:cut] if cut > 0 else whole[: cut - 8])
    with pytest.raises(SourceError, match=r"cannot read .*a\.arrow"):
        ArrowIpcSource(path)


def test_a_file_cut_short_is_not_taken_for_a_stream(tmp_path):
    with ipc.new_file(str(tmp_path / "a.arrow"), table(0, 1).schema) as w:
        w.write_table(table(0, 100))
    whole = (tmp_path / "a.arrow").read_bytes()
    (tmp_path / "a.arrow").write_bytes(whole[:-10])
    with pytest.raises(SourceError, match=r"a\.arrow.* cut short"):
        ArrowIpcSource(tmp_path / "a.arrow")


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
@pytest.mark.parametrize("form", ["stream", "file"])
def test_a_flipped_bit_in_a_buffers_length_is_a_bad_record(tmp_path, form, codec):
    rows = pa.table({"text": [f"row {i}" * 50 for i in range(30)]})
    path = str(tmp_path / "a.arrow")
    made = ipc.new_stream if form == "stream" else ipc.new_file
    with made(path, rows.schema, options=ipc.IpcWriteOptions(compression=codec)) as w:
        w.write_table(rows, max_chunksize=10)
    whole = Path(path).read_bytes()
    block = ArrowIpcSource(path)._footers[0].batches[1]
    body = int(block[0] + block[1])
    refused = 0
    for bit in range(64):
        data = bytearray(whole)
        data[body + bit // 8] ^= 1 << bit % 8
        Path(path).write_bytes(data)
        source = ArrowIpcSource(path)
        assert (
            source.read(np.array([5, 25])).tree["text"].tolist()
            == rows["text"].take([5, 25]).to_pylist()
        )
        try:
            source.read(np.array([15]))
        except RecordError as e:
            refused += rf"(record batch 1) of {path}" in str(e)
    assert refused == 64


def test_a_name_that_is_no_utf8_is_named_with_its_file(tmp_path):
    for made, name in ((ipc.new_stream, "a.arrow"), (ipc.new_file, "b.arrow")):
        path = tmp_path / name
        with made(str(path), pa.schema([("column", pa.int8())])) as w:
            w.write_table(pa.table({"column": pa.array([1], pa.int8())}))
        path.write_bytes(path.read_bytes().replace(b"column", b"col\xff\xfen"))
        with pytest.raises(SourceError, match=rf"cannot read .*{name}"):
            ArrowIpcSource(path)


def test_no_damage_to_a_stream_is_a_crash_or_goes_unnamed(tmp_path):
    whole = Path(stream(tmp_path, table(0, 40), batch=20)).read_bytes()
    bad = str(tmp_path / "bad.arrow")
    rng = np.random.default_rng(0)
    for _ in range(200):
        data = bytearray(whole)
        for _ in range(int(rng.choice([1, 4]))):
            data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        Path(bad).write_bytes(data)
        said = bad
        try:
            ArrowIpcSource(bad).read(np.arange(40))
        except SourceError as e:
            said = str(e)
        except IndexError:
            pass  # fewer rows than there were
        assert "bad.arrow" in said or "column" in said


class TestHuggingFace:
    @pytest.fixture
    def saved(self, tmp_path):
        datasets = pytest.importorskip("datasets")
        rows = {"id": list(range(30)), "text": [f"t{i}" for i in range(30)]}
        made = datasets.Dataset.from_dict(rows)
        made.save_to_disk(tmp_path / "one", num_shards=3)
        datasets.DatasetDict({"train": made, "test": made}).save_to_disk(tmp_path / "both")
        return tmp_path

    def test_a_saved_folder_opens_in_its_own_order(self, saved):
        ds = Dataset(str(saved / "one"))
        assert [row["id"] for row in ds] == list(range(30))
        assert len(open_path(saved / "both" / "train")) == 30
        shard = sorted((saved / "one").glob("*.arrow"))[0]
        assert len(Dataset(str(shard))) == 10

    def test_several_splits_are_refused_by_name(self, saved):
        with pytest.raises(SourceError, match=r"\['train', 'test'\].*both/train"):
            Dataset(str(saved / "both"))

    def test_a_damaged_state_names_itself(self, saved):
        state = saved / "one" / "state.json"
        for text in ("[]", "{}", '{"_data_files": [1]}', "{", '{"_data_files": []}'):
            state.write_text(text)
            with pytest.raises(SourceError):
                Dataset(str(saved / "one"))

    @pytest.mark.parametrize("columns", [5, [[1]], [{"a": 1}], ["no such"], [], [None]])
    def test_damaged_names_of_columns_are_refused(self, saved, columns):
        state = saved / "one" / "state.json"
        state.write_text(json.dumps(json.loads(state.read_text()) | {"_format_columns": columns}))
        with pytest.raises(SourceError):
            Dataset(str(saved / "one"))

    def test_columns_that_were_hidden_stay_hidden(self, saved):
        state = saved / "one" / "state.json"
        said = json.loads(state.read_text()) | {"_format_columns": ["text"]}
        state.write_text(json.dumps(said))
        assert list(Dataset(str(saved / "one"))[3]) == ["text"]

    def test_a_folder_of_other_things_is_still_a_folder(self, tmp_path):
        with pytest.raises(SourceError, match="is a directory"):
            Dataset(str(tmp_path))


def test_streams_are_mapped_and_let_go(tmp_path):
    source = ArrowIpcSource(stream(tmp_path, table(0, 50)))
    first = source.read(np.arange(50))
    source.close()
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()
    assert same(source.read(np.arange(50)).tree, first.tree)
    os.truncate(source.files.paths[0], 100)
    with pytest.raises(SourceError, match="has changed"):
        source.read(np.array([0]))
