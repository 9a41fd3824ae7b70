"""When threads beat processes: decoders, tokenizers and Python code through two of each.

Rows of an ordinary size through one function each, in batches; what is compared is rows a second
of serial, `Threads(2)` and `Processes(2)`, in turn, medians of some rounds. A function that
leaves the interpreter's lock gains by threads.

    python benchmarks/release.py
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.measure import STARTED, installed, rate
from benchmarks.workloads import jpeg
from pipeline import Dataset, Loader, Threads

Case = tuple[list[Any], Callable[[Any], Any], int]  # rows, function, rows a batch
WORKERS: dict[str, Any] = {"serial": 0, "2 threads": Threads(2), "2 processes": 2}
TEXT = "It is a truth universally acknowledged, that a single man in possession of a good fortune "


def _normalised(row: Any) -> Any:
    return (row - row.mean()) / row.std()


def _unzipped(row: bytes) -> Any:
    return np.frombuffer(zlib.decompress(row), np.uint8)


def _hashed(row: bytes) -> Any:
    return np.frombuffer(hashlib.blake2b(row).digest(), np.uint8)


def _parsed(row: str) -> Any:
    return np.array(json.loads(row)["x"])


def _words(row: str) -> Any:
    counts = dict[str, int]()
    for word in row.lower().split():
        counts[word] = counts.get(word, 0) + 1
    return len(counts)


def _unpacked(row: bytes) -> Any:
    import pyarrow as pa

    return np.frombuffer(pa.decompress(row, 1 << 18, "zstd"), np.uint8)


def cases(folder: Path) -> dict[str, Case]:
    """What is installed, by name."""
    rng = np.random.default_rng(0)
    smooth = np.cumsum(rng.integers(-2, 3, 1 << 18), dtype=np.int64).astype(np.uint8).tobytes()
    found: dict[str, Case] = {
        "NumPy: normalise 1 MiB": ([rng.random(1 << 17)] * 64, _normalised, 8),
        "zlib: 256 KiB": ([zlib.compress(smooth)] * 64, _unzipped, 16),
        "blake2b: 256 KiB": ([smooth] * 64, _hashed, 32),
        "json: 2,000 numbers": ([json.dumps({"x": list(range(2000))})] * 64, _parsed, 32),
        "Python: count words of 16 KB": ([TEXT * 180] * 64, _words, 32),
    }
    if installed("pyarrow"):
        import pyarrow as pa

        packed = pa.compress(smooth, "zstd", asbytes=True)
        found["zstd (pyarrow): 256 KiB"] = ([packed] * 64, _unpacked, 16)
    if installed("PIL"):
        images = Dataset(jpeg.written(folder, 64)).head(64)
        found["Pillow: JPEG to 224×224"] = (images, jpeg.with_pillow, 16)
        if installed("simplejpeg"):
            found["simplejpeg: JPEG to 224×224"] = (images, jpeg.with_simplejpeg, 16)
    if installed("tokenizers"):
        found["tokenizers: 16 KB of text"] = ([TEXT * 180] * 64, _tokenizer(folder), 16)
    return found


def _tokenizer(folder: Path) -> Callable[[str], Any]:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    made.train_from_iterator([TEXT] * 10, trainers.BpeTrainer(vocab_size=400, show_progress=False))
    path = str(folder / "tokenizer.json")
    made.save(path)
    known: list[Any] = []

    def encoded(row: str) -> Any:
        if not known:  # in the process that uses it
            known.append(Tokenizer.from_file(path))
        return np.array(known[0].encode(row).ids)

    return encoded


def measured(case: Case, workers: Any, seconds: float) -> float:
    """Rows a second."""
    rows, f, batch = case
    ds = Dataset(rows, seed=1).map(f).repeat()
    with Loader(ds, batch, workers=workers) as loader:
        after = STARTED if workers == 2 else 0.0
        return rate(loader, batch, warm=16, most=10**6, longest=seconds, after=after)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each run")
    options = parser.parse_args()
    print(f"{'':32}" + "".join(f"{name:>14}" for name in WORKERS) + "   ratio to serial")
    with tempfile.TemporaryDirectory() as folder:
        for name, case in cases(Path(folder)).items():
            found = {how: list[float]() for how in WORKERS}
            for _ in range(options.rounds):
                for how, workers in WORKERS.items():
                    found[how].append(measured(case, workers, options.seconds))
            rates = {how: statistics.median(each) for how, each in found.items()}
            ratios = [rates[how] / rates["serial"] for how in WORKERS if how != "serial"]
            shown = "".join(f"{each:14,.0f}" for each in rates.values())
            told = f"threads {ratios[0]:.2f}, processes {ratios[1]:.2f}"
            print(f"{name:32}{shown}   {told}", flush=True)


if __name__ == "__main__":
    main()
