"""What a range costs: gcsfs, s3fs and obstore by themselves, and Storage over them.

An emulator in a process of its own answers, at 0 and at 50 ms latency. CPU is that of the reading
process, all threads. Ranges are 1 KB, at random, and not merged. Then: 64 random records at 50 ms,
in round trips; how much of the emulator's bandwidth large ranges reach; and what a start on 1,000
shards costs, with and without a manifest.

    python benchmarks/storage.py
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")

from pipeline import ArrayRecordSource, ParquetSource, Storage
from pipeline.tools.convert import convert
from tests.emulators.fixtures import S3, Gcs

SIZE, RANGE, RANGES, RUNS = 4 << 20, 1000, 256, 5
LARGE, SHARDS = 64 << 20, 1000
BANDWIDTH = 100e6  # bytes a second

Spans = list[tuple[int, int]]


def spans(seed: int) -> Spans:
    places = random.Random(seed).sample(range(SIZE // 8000), RANGES)
    return [(place * 8000, place * 8000 + RANGE) for place in places]


def with_fsspec(protocol: str, options: dict[str, Any], url: str) -> Callable[[Spans], Any]:
    import fsspec

    fs = fsspec.filesystem(protocol, **options)

    def read(wanted: Spans) -> Any:
        starts, stops = zip(*wanted, strict=True)
        return fs.cat_ranges([url] * len(wanted), starts, stops)

    return read


def with_obstore(gcs: Gcs, url: str) -> Callable[[Spans], Any]:
    import obstore
    from obstore.store import GCSStore

    options: Any = {"base_url": gcs.url, "skip_signature": True}
    store = GCSStore("bucket", config=options, client_options={"allow_http": True})
    name = url.removeprefix("gs://bucket/")

    def read(wanted: Spans) -> Any:
        starts, stops = zip(*wanted, strict=True)
        return obstore.get_ranges(store, name, starts=starts, ends=stops, coalesce=0)

    return read


def with_storage(storage: Storage, url: str) -> Callable[[Spans], Any]:
    stat = storage.stat(url)
    return lambda wanted: storage.read([stat.range(*span) for span in wanted])


def cost(read: Callable[[Spans], Any]) -> tuple[float, float]:
    """CPU and wall, in µs a range: medians."""
    read(spans(0))
    runs: list[tuple[float, float]] = []
    for seed in range(1, RUNS + 1):
        wanted = spans(seed)
        cpu, wall = time.process_time(), time.perf_counter()
        read(wanted)
        runs.append((time.process_time() - cpu, time.perf_counter() - wall))
    cpus, walls = zip(*runs, strict=True)
    return tuple(statistics.median(times) / RANGES * 1e6 for times in (cpus, walls))  # pyright: ignore[reportReturnType]


def compare(gcs: Gcs, s3: S3, data: bytes) -> None:
    url, other = gcs.put("a", data), s3.put("a", data)
    fast: Any = "obstore"
    readers = {
        "gcsfs": with_fsspec("gs", gcs.options, url),
        "obstore": with_obstore(gcs, url),
        "Storage, gs, fsspec": with_storage(gcs.storage(gap=0), url),
        "Storage, gs, obstore": with_storage(gcs.storage(engine=fast, gap=0), url),
        "s3fs (moto)": with_fsspec("s3", s3.options, other),
        "Storage, s3, fsspec (moto)": with_storage(s3.storage(gap=0), other),
        "Storage, s3, obstore (moto)": with_storage(s3.storage(engine=fast, gap=0), other),
    }
    for latency in (0.0, 0.05):
        gcs.control(latency=latency)
        costs = {
            name: cost(read) for name, read in readers.items() if not (latency and "moto" in name)
        }
        base = costs["gcsfs"]
        for name, (cpu, wall) in costs.items():
            print(
                f"{latency * 1e3:3.0f} ms  {name:28} {cpu:6.0f} µs CPU, {wall:6.0f} µs wall a range"
                f"  gcsfs takes {base[0] / cpu:4.1f} x, {base[1] / wall:4.1f} x"
            )


def round_trips(gcs: Gcs, data: bytes) -> None:
    url = gcs.put("b", data)
    for engine in ("fsspec", "obstore"):
        gcs.control(latency=0)
        read = with_storage(gcs.storage(engine=engine, gap=0), url)
        read(spans(0)[:64])
        gcs.control(latency=0.05)
        walls: list[float] = []
        for seed in range(1, 10):
            start = time.perf_counter()
            read(spans(seed)[:64])
            walls.append(time.perf_counter() - start)
        trips = statistics.median(walls) / 0.05
        print(f" 50 ms  64 random records through {engine}: {trips:.2f} round trips")


def bandwidth(gcs: Gcs, data: bytes) -> None:
    url = gcs.put("c", data)
    for engine in ("fsspec", "obstore"):
        gcs.control(latency=0.05, bandwidth=BANDWIDTH)
        storage = gcs.storage(engine=engine)
        stat = storage.stat(url)
        start = time.perf_counter()
        for _ in range(4):
            storage.read([stat.range(0, LARGE)])
        rate = 4 * LARGE / (time.perf_counter() - start)
        print(f" 50 ms  64 MiB whole through {engine}: {rate / BANDWIDTH:.2f} of the bandwidth")
    gcs.control(latency=0, bandwidth=0)


def starts(gcs: Gcs) -> None:
    """Seconds and requests until a source of 1,000 shards is there."""
    writers = {".array_record": ArrayRecordSource, ".parquet": ParquetSource}
    for suffix, source in writers.items():
        with tempfile.TemporaryDirectory() as folder:
            convert({"id": list(range(10))}, f"{folder}/x{suffix}")
            for i in range(SHARDS):
                gcs.upload(f"{folder}/x{suffix}", f"{i:04}{suffix}")
            pattern = f"{gcs.bucket}/*{suffix}"
            gcs.control(latency=0.05)
            for what in ("nothing known", "with a manifest"):
                gcs.forget()
                start = time.perf_counter()
                opened = source(pattern, storage=gcs.storage(cache=""))
                spent = time.perf_counter() - start
                print(
                    f" 50 ms  a start on {len(opened.files.paths):,} shards of {suffix}, {what}: "
                    f"{spent:.2f} s, {len(gcs.log()):,} requests"
                )
                opened.files.write_manifest()
            gcs.control(latency=0)


def main() -> None:
    data = random.Random(0).randbytes(SIZE)
    gcs, s3 = Gcs(), S3()
    try:
        compare(gcs, s3, data)
        round_trips(gcs, data)
        bandwidth(gcs, random.Random(0).randbytes(LARGE))
        starts(gcs)
    finally:
        gcs.close()
        s3.close()


if __name__ == "__main__":
    main()
