"""Random batches from every format on local disk, beside the format's own reader if installed."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import (
    BagzSource,
    JsonLinesSource,
    LinesSource,
    MegatronSource,
    SequenceSource,
    TFRecordSource,
    TokenSource,
    WebDatasetSource,
)
from tests.writers import tar_of, tf_frame

RECORDS, SIZE, BATCH = 100_000, 512, 128
SECONDS = 1.0


def per_second(read: Callable[[Any], Any], batches: list[Any]) -> float:
    """Records a second: the best of three, as others use the machine too."""
    best, number = 0.0, 0
    read(batches[0])
    for _ in range(3):
        start, done = time.perf_counter(), 0
        while (spent := time.perf_counter() - start) < SECONDS / 3:
            read(batches[number % len(batches)])
            number, done = number + 1, done + BATCH
        best = max(best, done / spent)
    return best


def write_all(folder: Path, records: list[bytes]) -> None:
    """One file a format, the same bytes in each."""
    tokens = np.frombuffer(b"".join(records), np.uint16)
    tokens.tofile(folder / "tokens.u16")
    tokens.tofile(folder / "megatron.bin")
    n = len(records)
    parts = (
        b"MMIDIDX\0\0" + np.array([1], "<u8").tobytes() + b"\x08",
        np.array([n, n + 1], "<u8").tobytes(),
        np.full(n, SIZE // 2, "<i4").tobytes(),
        (np.arange(n, dtype="<i8") * SIZE).tobytes(),
        np.arange(n + 1, dtype="<i8").tobytes(),
    )
    (folder / "megatron.idx").write_bytes(b"".join(parts))
    (folder / "a.tfrecord").write_bytes(b"".join(map(tf_frame, records)))
    tar_of(folder / "a.tar", ((f"{i:07d}.bin", record) for i, record in enumerate(records)))
    text = [record.hex()[:SIZE] for record in records]
    (folder / "a.txt").write_text("\n".join(text))
    (folder / "a.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in text))


def write_bagz(folder: Path, records: list[bytes]) -> Any:
    bagz = import_module("bagz")
    for suffix in ("bag", "bagz"):
        with bagz.Writer(str(folder / f"a.{suffix}")) as writer:
            for record in records:
                writer.write(record)
    return bagz


def hugging_face(records: list[bytes]) -> Any:
    tokens = [np.frombuffer(record, np.uint16) for record in records]
    return import_module("datasets").Dataset.from_dict({"tokens": tokens})


def report(name: str, source: Any, peers: dict[str, Callable[[Any], Any]]) -> None:
    rng = np.random.default_rng(0)
    random = [rng.integers(len(source), size=BATCH) for _ in range(512)]
    starts = rng.integers(len(source) - BATCH, size=512)
    runs = [np.arange(start, start + BATCH) for start in starts]
    ours = per_second(source.read, random)
    line = f"{name:>14} {ours:>12,.0f} {per_second(source.read, runs):>12,.0f}"
    for peer, read in peers.items():
        theirs = per_second(read, random)
        line += f"   {peer} {theirs:,.0f} ({ours / theirs:.2f} x)"
    print(line)


def main() -> None:
    rng = np.random.default_rng(0)
    half = [rng.bytes(SIZE // 2) for _ in range(RECORDS)]
    records = [part + part for part in half]  # so that zstd has something to do
    print(f"{RECORDS} records of {SIZE} bytes in one file, batches of {BATCH}; records a second\n")
    print(f"{'format':>14} {'random':>12} {'runs of ' + str(BATCH):>12}   beside it, random")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["LOCKSTEP_CACHE"] = str(folder / "cache")
        write_all(folder, records)
        memmap = np.memmap(folder / "tokens.u16", np.uint16, "r").reshape(-1, SIZE // 2)
        plain = {"np.memmap[indices]": lambda i: memmap[i]}
        rows = TokenSource(folder / "tokens.u16", length=SIZE // 2)
        report("tokens", rows, plain)
        one_by_one = {"np.memmap[i] each": lambda i: [memmap[k].copy() for k in i.tolist()]}
        report("megatron", MegatronSource(folder / "megatron.bin"), one_by_one)
        report("tfrecord", TFRecordSource(folder / "a.tfrecord"), {})
        unchecked = TFRecordSource(folder / "a.tfrecord", verify=False)
        report("  no checksum", unchecked, {})
        report("webdataset", WebDatasetSource(folder / "a.tar"), {})
        report("lines", LinesSource(folder / "a.txt"), {})
        report("json lines", JsonLinesSource(folder / "a.jsonl"), {})
        try:
            bagz = write_bagz(folder, records)
            for suffix in ("bag", "bagz"):
                reader = bagz.Reader(str(folder / f"a.{suffix}"))
                report(suffix, BagzSource(folder / f"a.{suffix}"), {"bagz": reader.read_indices})
            made = hugging_face(records)
            as_numpy = made.with_format("numpy")
            beside = {"datasets": lambda i: made[i], "with numpy": lambda i: as_numpy[i]}
            report("hugging face", SequenceSource(made), beside)
        except ImportError as e:
            print(f"left out: {e}")


if __name__ == "__main__":
    main()
