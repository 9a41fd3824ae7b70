"""Files of every format, written by the format's own rules, and what record i of each is."""

from __future__ import annotations

import io
import json
import struct
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import bagz
import google_crc32c
import numpy as np

from pipeline import (
    BagzSource,
    JsonLinesSource,
    LinesSource,
    MegatronSource,
    TFRecordSource,
    TokenDocumentSource,
    TokenSource,
    WebDatasetSource,
)


def payload(i: int) -> bytes:
    """Bytes of no fixed length that say which record they are; now and then none at all."""
    return b"" if i % 11 == 10 else b"%d " % i * (1 + i % 3)


# ---- one file of records; ids are the records' numbers


def tfrecord(path: Path, ids: Iterable[int]) -> None:
    path.write_bytes(b"".join(tf_frame(payload(i)) for i in ids))


def tf_frame(data: bytes) -> bytes:
    size = struct.pack("<Q", len(data))
    return size + _masked(size) + data + _masked(data)


def _masked(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def lines(path: Path, ids: Iterable[int]) -> None:
    text = [payload(i) + (b"\r\n" if i % 2 else b"\n") for i in ids]
    if text and text[-1].strip():  # sometimes without an end
        text[-1] = text[-1].rstrip(b"\r\n")
    path.write_bytes(b"".join(text))


def json_lines(path: Path, ids: Iterable[int]) -> None:
    path.write_text("".join(json.dumps({"id": i, "é": [i]}) + "\n" * (1 + i % 2) for i in ids))


def bags(path: Path, ids: Iterable[int]) -> None:
    with bagz.Writer(str(path)) as writer:
        for i in ids:
            writer.write(payload(i))


def tokens(path: Path, ids: Iterable[int]) -> None:
    np.fromiter(ids, np.uint32).tofile(path)


def token_rows(path: Path, ids: Iterable[int]) -> None:
    np.array([[i, i + 1, i + 2] for i in ids], np.uint16).tofile(path)


def document(i: int) -> list[int]:
    return [1 + (i + j) % 60_000 for j in range(i % 5)] + [0]


def token_documents(path: Path, ids: Iterable[int]) -> None:
    np.array([t for i in ids for t in document(i)], np.uint16).tofile(path)


def megatron(path: Path, ids: Iterable[int], *, together: int = 1) -> None:
    """A `.bin` and its `.idx`; each document is `together` sequences."""
    found = [document(i) for i in ids]
    np.array([t for d in found for t in d], np.int32).tofile(path)
    lengths = np.array([len(d) for d in found], "<i4")
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1] * 4])[: len(found)].astype("<i8")
    documents = np.arange(0, len(found) + 1, together, dtype="<i8")
    head = b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 4, len(found), len(documents))
    parts = (head, lengths.tobytes(), starts.tobytes(), documents.tobytes())
    path.with_suffix(".idx").write_bytes(b"".join(parts))


def pairs(path: Path, ids: Iterable[int]) -> None:
    """Megatron documents of two sequences each: record i is sequences 2i and 2i + 1."""
    megatron(path, [j for i in ids for j in (2 * i, 2 * i + 1)], together=2)


def tar(path: Path, ids: Iterable[int]) -> None:
    """Two members a record, their headers made all at once: tarfile takes 30 µs for each."""
    numbers = np.fromiter(ids, np.int64)
    with path.open("wb") as f:
        for block in np.array_split(numbers, max(1, len(numbers) // 20_000)):
            f.write(_tar_blocks(block).tobytes())
        f.write(bytes(1024))


def _tar_blocks(numbers: Any) -> Any:
    blocks = np.zeros((len(numbers), 2, 2, 512), np.uint8)
    for k, suffix in enumerate((b".txt", b".CLS.id")):
        info = tarfile.TarInfo("d/0000000" + suffix.decode())
        info.size = 7
        digits = numbers[:, None] // 10 ** np.arange(6, -1, -1) % 10 + ord("0")
        head = np.tile(np.frombuffer(info.tobuf(), np.uint8), (len(numbers), 1))
        head[:, 2:9] = digits
        head[:, 148:156] = ord(" ")
        sums = [b"%06o\0 " % s for s in head.sum(axis=1).tolist()]
        head[:, 148:156] = np.frombuffer(b"".join(sums), np.uint8).reshape(-1, 8)
        blocks[:, k, 0], blocks[:, k, 1, :7] = head, digits
    return blocks


def tar_of(path: Path, members: Iterable[tuple[str, bytes]], format: int = tarfile.PAX_FORMAT):
    """A tar file by the standard library, of any names."""
    with tarfile.open(path, "w", format=format) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


# ---- every format


class Format(NamedTuple):
    """How to write records to one file, to open many, and what record i then is."""

    suffix: str
    write: Callable[[Path, Iterable[int]], None]
    open: Callable[..., Any]
    record: Callable[[int], Any]

    def files(self, folder: Path, counts: Iterable[int]) -> list[str]:
        """Files of so many records each, numbered through."""
        paths: list[str] = []
        start = 0
        for k, n in enumerate(counts):
            path = folder / f"{k:03d}{self.suffix}"
            self.write(path, range(start, start + n))
            paths.append(str(path))
            start += n
        return paths


def _sample(i: int) -> dict[str, Any]:
    digits = b"%07d" % i
    return {"__key__": f"d/{i:07d}", "txt": digits, "cls.id": digits}


FORMATS: dict[str, Format] = {
    "bag": Format(".bag", bags, BagzSource, payload),
    "bagz": Format(".bagz", bags, BagzSource, payload),
    "json lines": Format(".jsonl", json_lines, JsonLinesSource, lambda i: {"id": i, "é": [i]}),
    "lines": Format(".txt", lines, LinesSource, lambda i: payload(i).decode()),
    "megatron": Format(".bin", megatron, MegatronSource, lambda i: np.array(document(i), np.int32)),
    "megatron documents": Format(
        ".bin",
        pairs,
        lambda paths, **k: MegatronSource(paths, records="documents", **k),
        lambda i: np.array(document(2 * i) + document(2 * i + 1), np.int32),
    ),
    "tfrecord": Format(".tfrecord", tfrecord, TFRecordSource, payload),
    "tokens": Format(".u32", tokens, TokenSource, np.uint32),
    "token rows": Format(
        ".bin",
        token_rows,
        lambda paths, **k: TokenSource(paths, "uint16", length=3, **k),
        lambda i: np.array([i, i + 1, i + 2]).astype(np.uint16),
    ),
    "token documents": Format(
        ".u16",
        token_documents,
        lambda paths, **k: TokenDocumentSource(paths, eos=0, **k),
        lambda i: np.array(document(i), np.uint16),
    ),
    "webdataset": Format(".tar", tar, WebDatasetSource, _sample),
}
