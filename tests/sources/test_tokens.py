"""Token files: types, headers, rows and documents; files that are cut or of another type."""

from __future__ import annotations

import functools
import json
import struct

import numpy as np
import pytest

from pipeline import MegatronSource, TokenDocumentSource, TokenSource
from pipeline.errors import RecordError, SourceError
from pipeline.sources import open_path
from pipeline.sources.storage import gather
from pipeline.sources.storage.storage import Storage
from pipeline.sources.token_files import from_manifest
from tests.writers import document, megatron, token_documents


def every(source):
    got = source.read(np.arange(len(source)))
    return got.tree.tolist() if hasattr(got, "tree") else [r.tolist() for r in got]


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "uint32", "int64", ">u4"])
def test_types(tmp_path, dtype):
    path = tmp_path / "a.bin"
    np.arange(20).astype(np.dtype(dtype)).tofile(path)
    source = TokenSource(path, dtype)
    assert source.dtype == np.dtype(dtype).newbyteorder("=")
    assert source.read(np.array([3])).tree.dtype == source.dtype
    assert every(source) == list(range(20))
    rows = TokenSource(path, dtype, length=4, stride=8)
    assert every(rows) == [list(range(a, a + 4)) for a in (0, 8, 16)]


def test_what_says_the_type(tmp_path):
    a = np.arange(6, dtype=np.uint16)
    for name in ("a.u16", "a.uint16", "a.uint16.bin", "a.U16.bin"):
        a.tofile(tmp_path / name)
        assert every(TokenSource(tmp_path / name)) == a.tolist()
    a.tofile(tmp_path / "b.bin")
    with pytest.raises(SourceError, match=r'b.bin does not say.*nanoGPT writes "uint16".*b\.json'):
        open_path(tmp_path / "b.bin")
    (tmp_path / "b.json").write_text(json.dumps({"dtype": "uint16"}))
    assert every(open_path(tmp_path / "b.bin")) == a.tolist()
    (tmp_path / "b.json").write_text("{}")
    with pytest.raises(SourceError, match=r"b\.json as JSON such as.*dtype"):
        TokenSource(tmp_path / "b.bin")
    for bad in ("float32", "no type", object):
        with pytest.raises(SourceError, match="give"):
            TokenSource(tmp_path / "b.bin", bad)


def test_arrays_of_numpy(tmp_path):
    path = tmp_path / "a.npy"
    flat, table = np.arange(6, dtype=np.uint16), np.arange(6, dtype=">i4").reshape(2, 3)
    np.save(path, flat)
    assert every(open_path(path)) == flat.tolist()
    np.save(path, table)
    assert every(TokenSource(path)) == table.tolist()
    assert every(TokenSource(path, length=4, stride=1)) == [
        [0, 1, 2, 3],
        [1, 2, 3, 4],
        [2, 3, 4, 5],
    ]
    flat.tofile(path)  # OLMo's are raw, whatever their name
    assert every(TokenSource(path, "uint16")) == flat.tolist()
    for bad in (flat.astype(float), np.zeros((2, 2, 2), int), np.asfortranarray(table)):
        np.save(path, bad)
        with pytest.raises(SourceError, match="tokens are integers of one or two dimensions"):
            TokenSource(path)
    np.save(path, flat)
    with pytest.raises(SourceError, match=r"dtype=int32 was asked for, but .* holds uint16"):
        TokenSource(path, "int32")
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(SourceError, match="promises 6 tokens, 140 bytes in all, but it has 138"):
        TokenSource(path)


def test_files_of_llm_c(tmp_path):
    path = tmp_path / "a.bin"
    for magic, dtype in ((20240520, np.uint16), (20240801, np.uint32)):
        head = np.zeros(256, np.int32)
        head[:3] = magic, 1, 5
        tokens = np.arange(7, 12).astype(dtype)
        path.write_bytes(head.tobytes() + tokens.tobytes())
        assert every(open_path(path)) == tokens.tolist()
        assert every(TokenDocumentSource(path, eos=9)) == [[7, 8, 9], [10, 11]]


def test_rows_do_not_cross_files(tmp_path):
    for k, n in enumerate((7, 2, 0, 6)):
        np.arange(k * 10, k * 10 + n, dtype=np.uint16).tofile(tmp_path / f"{k}.u16")
    source = TokenSource(tmp_path / "*.u16", length=3, stride=2)
    assert every(source) == [[0, 1, 2], [2, 3, 4], [4, 5, 6], [30, 31, 32], [32, 33, 34]]
    assert source.chunk_bounds.tolist() == [0, 3, 3, 3, 5]
    assert source.where(np.array([4]))[0][1] == 1
    assert source.fingerprint() != TokenSource(tmp_path / "*.u16", length=3).fingerprint()


def test_runs_of_single_tokens(tmp_path):
    for k in range(2):
        np.arange(k * 100, k * 100 + 100, dtype=np.uint16).tofile(tmp_path / f"{k}.u16")
    source = TokenSource(tmp_path / "*.u16")
    wanted = np.concatenate([np.arange(90, 120), [5, 5, 6, 7, 3], np.arange(199, 190, -1)])
    assert source.read(wanted).tree.tolist() == wanted.tolist()


@pytest.mark.parametrize("piece", [3, 8, 1 << 20])
def test_documents(tmp_path, monkeypatch, piece):
    monkeypatch.setattr(gather, "_PIECE", piece)
    path = tmp_path / "a.u16"
    for tail, more in (([], []), ([7, 8], [[7, 8]])):
        token_documents(path, range(9))
        np.concatenate([np.fromfile(path, np.uint16), tail]).astype(np.uint16).tofile(path)
        assert every(TokenDocumentSource(path, eos=0)) == [document(i) for i in range(9)] + more
    assert len(TokenDocumentSource(path, eos=50_000)) == 1


def test_what_does_not_fit_says_so(tmp_path):
    a, b, c = (tmp_path / name for name in ("a.u16", "b.i32", "c.bin"))
    np.zeros(3, np.uint16).tofile(a)
    np.zeros(3, np.int32).tofile(b)
    c.write_bytes(b"abc")
    with pytest.raises(SourceError, match=r"uint16 in .*a\.u16 but int32 in .*b\.i32"):
        TokenSource([a, b])
    with pytest.raises(SourceError, match=r"3 bytes are no whole number of <u2 tokens"):
        TokenSource(c, "uint16")
    with pytest.raises(SourceError, match="stride=2 is the distance of rows: give length="):
        TokenSource(a, stride=2)
    with pytest.raises(SourceError, match="stride=0: give a whole number from 1 on"):
        TokenSource(a, length=2, stride=0)
    with pytest.raises(SourceError, match=r"eos=100257 is no uint16, of which the tokens in .*u16"):
        TokenDocumentSource(a, eos=100257)
    c.write_bytes(b"")
    with pytest.raises(SourceError, match=r"c\.bin is empty and does not say.*Give dtype="):
        TokenSource(c)
    assert len(TokenSource(c, "uint16", length=4)) == 0


# ---- Megatron


def test_a_bin_beside_an_idx_is_megatrons(tmp_path):
    path = tmp_path / "a.bin"
    megatron(path, range(9), together=3)
    assert isinstance(open_path(path), MegatronSource)
    assert every(open_path(path)) == [document(i) for i in range(9)]
    grouped = [[t for j in range(i, i + 3) for t in document(j)] for i in (0, 3, 6)]
    assert every(MegatronSource(path, records="documents")) == grouped
    assert MegatronSource(path).dtype == np.int32
    for opened in (open_path, MegatronSource):  # not its own bytes taken for tokens
        with pytest.raises(SourceError, match=r"name the \.bin beside it, .*/a\.bin"):
            opened(tmp_path / "a.idx")
    assert (
        MegatronSource(path).fingerprint()
        != MegatronSource(path, records="documents").fingerprint()
    )


def test_the_idx_counts_for_the_fingerprint(tmp_path):
    path = tmp_path / "a.bin"
    megatron(path, range(9))
    before = MegatronSource(path).fingerprint()
    data = bytearray(path.with_suffix(".idx").read_bytes())
    data[34:38], data[38:42] = data[38:42], data[34:38]
    path.with_suffix(".idx").write_bytes(data)
    assert MegatronSource(path).fingerprint() != before


def test_a_cut_bin_spoils_its_last_records(tmp_path):
    path = tmp_path / "a.bin"
    megatron(path, range(9))
    path.write_bytes(path.read_bytes()[:-6])
    source = MegatronSource(path)
    with pytest.raises(RecordError, match=rf"record 8 of {path}, bytes .*the file ends at byte"):
        source.read(np.arange(9))
    assert [r.tolist() for r in source.read(np.array([6]))] == [document(6)]


def test_what_is_no_megatron_dataset(tmp_path):
    path = tmp_path / "a.bin"
    megatron(path, range(9))
    side = path.with_suffix(".idx")
    whole = side.read_bytes()
    for data, says in [
        (b"text", "it is no Megatron index"),
        (whole[:9] + b"\2" + whole[10:], "version 2 with dtype code 4 is not known"),
        (whole[:17] + b"\x63" + whole[18:], "dtype code 99"),
        (whole[:-1], "9 sequences need 222 bytes, but it has 221"),
        (whole[:36] + b"\xff\xff" + whole[38:], "negative"),
        (whole[:70] + whole[78:86] + whole[70:78] + whole[86:], "do not divide 9 sequences"),
        (whole[:-8] + whole[-16:-8], "do not divide 9 sequences"),
    ]:
        side.write_bytes(data)
        with pytest.raises(SourceError, match=says):
            MegatronSource(path, records="documents")
    side.unlink()
    with pytest.raises(SourceError, match=r"a\.idx does not exist"):
        MegatronSource(path)
    with pytest.raises(SourceError, match='choose "sequences" or "documents"'):
        MegatronSource(path, records="tokens")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"}", b"]"),
        (b"}", b"{"),
        (b"(6,)", b"(10**30,)"),
        (b"(6,), } " + b" " * 30, b"(1000000000000000000000000000000,), }"),
        (b"(6,), } " + b" " * 30, b"(4294967296, 4294967296), }           "),
        (b"(6,), }", b"(-6,), }"),
        (b"(6,), } ", b"(-2, -3), }"),
        (b"(6,), }", b"(True, 6), }"),
        (b"(6,), } " + b" " * 30, b"(" * 38),
        (b"'<u2'", b"'<U2'"),
        (b"\x93NUMPY\x01", b"\x93NUMPY\x09"),
    ],
)
@pytest.mark.parametrize("kind", [TokenSource, functools.partial(TokenDocumentSource, eos=3)])
def test_npy_headers_that_cannot_be(tmp_path, kind, old, new):
    np.save(tmp_path / "a.npy", np.arange(6, dtype=np.uint16))
    data = (tmp_path / "a.npy").read_bytes()
    assert data.count(old) == 1
    (tmp_path / "a.npy").write_bytes(data.replace(old, new.ljust(len(old))))
    with pytest.raises(SourceError, match=r"a\.npy"):
        kind(tmp_path / "a.npy")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "[]",
        '{"dtype": 10000000000000000000000000000000}',
        '{"dtype": "uint17"}',
        '{"dtype": null}',
        "\x00",
    ],
)
def test_sidecars_of_another_shape(tmp_path, text):
    np.arange(6, dtype=np.uint16).tofile(tmp_path / "a.bin")
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(SourceError, match=r"a\.json"):
        TokenSource(tmp_path / "a.bin")


@pytest.mark.parametrize("facts", [
    ["<u2", -5, [9]], ["<u2", 0, [10**30]], ["O", 0, [6]], ["<u2", 0, [3, 3]], ["<u2", 0], 7, None,
    [[], 0, [6]], ["<u2", 0.0, [6]],
])  # fmt: skip
def test_manifests_are_held_against_the_file(tmp_path, facts):
    np.arange(6, dtype=np.uint16).tofile(tmp_path / "a.u16")
    stat = Storage().stat(str(tmp_path / "a.u16"))
    with pytest.raises(SourceError, match=r"a\.u16"):
        from_manifest(stat, 6, facts)
    assert from_manifest(stat, 6, ["<u2", 0, [6]]).tokens == 6


@pytest.mark.parametrize("records", ["sequences", "documents"])
@pytest.mark.parametrize("start", [2**63 - 1, 2**63 - 9, 2**62, -1, -(2**63)])
def test_megatron_offsets_that_wrap(tmp_path, records, start):
    np.arange(9, dtype=np.uint16).tofile(tmp_path / "a.bin")
    head = b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 8, 1, 2)
    (tmp_path / "a.idx").write_bytes(head + struct.pack("<iqqq", 9, start, 0, 1))
    with pytest.raises(SourceError, match=r"a\.idx.*sequence 0, 9 tokens.*bytes 34 and 38"):
        MegatronSource(tmp_path / "a.bin", records=records)
