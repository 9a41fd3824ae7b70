"""Random datasets for the laws: a recipe lists operations, so a failure prints as one line."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from array_record.python.array_record_module import ArrayRecordWriter
from hypothesis import strategies as st

from pipeline import (
    ArrayRecordSource,
    ArrowIpcSource,
    Dataset,
    Loader,
    MemorySource,
    ParquetSource,
    SequenceSource,
    WindowSource,
    concatenate,
    interleave,
    mix,
    scan,
    zip_datasets,
)
from pipeline.debug.digest import digest
from pipeline.errors import ChainError, PipelineError, ScanError, StreamEndError
from pipeline.sampling.scanned import Scanned, key_digest
from pipeline.tree import leaves
from tests.writers import FORMATS

Op = tuple[Any, ...]
OTHERS = ("arrow", "sequence", "windows", *FORMATS)  # whose rows are of their own kind
SOURCES = ("list", "columns", "array_record", "parquet", *OTHERS)


# ---- rows are {"id": which record, "v": what was done to it}


def bump(row: Any) -> Any:
    return {"id": row["id"], "v": row["v"] * 31 + 7}


def bump_columns(rows: Any) -> Any:
    return {"id": rows["id"], "v": rows["v"] * 31 + 7}


def jitter(row: Any, rng: np.random.Generator) -> Any:
    return {"id": row["id"], "v": row["v"] ^ rng.integers(1 << 30)}


def place(position: int, row: Any) -> Any:
    return {"id": row["id"], "v": row["v"] + position}


def some(row: Any) -> bool:
    return bool(row["id"] % 3 != 0)


def copies(row: Any) -> list[Any]:
    return [{"id": row["id"], "v": row["v"] + j} for j in range(int(row["id"]) % 3)]


def bits(row: Any) -> int:
    return int(row["id"]).bit_length()


def document(row: Any) -> Any:
    return {"tokens": np.full(1 + row["id"] % 7, row["v"])}


def fields(row: Any) -> Any:
    tokens, y = np.full(row["id"] % 9, row["v"]), np.full(row["id"] % 4, row["id"])
    return {"tokens": tokens, "y": y, "id": row["id"]}


def decode(record: bytes) -> Any:
    return {"id": np.int64(int(record)), "v": np.int64(int(record) * 5)}


def of_any(position: int, row: Any) -> Any:
    return {"id": np.int64(position), "v": np.int64(int(digest(row), 16) % 1_000_003)}


class Squares:
    """Anything with a length and items."""

    def __init__(self, n: int) -> None:
        self._n = n

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, i: int) -> int:
        return i * i


def _arrow(folder: Path, counts: list[int]) -> list[str]:
    table = pa.table({"x": np.arange(sum(counts)), "s": [str(i) for i in range(sum(counts))]})
    paths: list[str] = []
    for k, count in enumerate(counts):
        paths.append(str(folder / f"{k}.arrow"))
        with pa.ipc.new_file(paths[-1], table.schema) as writer:
            writer.write_table(table.slice(sum(counts[:k]), count), max_chunksize=4)
    return paths


class Files:
    """Small files of n records, made once a session."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: list[Any] = []
        self.array_record = functools.cache(self._array_record)
        self.parquet = functools.cache(self._parquet)
        self.other = functools.cache(self._other)

    def close(self) -> None:
        """Let go of every file; reading opens it again."""
        for source in self._made:
            source.close()

    def _kept(self, source: Any) -> Any:
        self._made.append(source)
        return source

    def _array_record(self, n: int) -> ArrayRecordSource:
        paths: list[str] = []
        for shard, part in enumerate(np.array_split(np.arange(n), 3)):
            path = str(self._folder / f"{n}-{shard}.array_record")
            writer = ArrayRecordWriter(path, "group_size:2")
            for i in part:
                writer.write(b"%d" % i)
            writer.close()
            paths.append(path)
        return self._kept(ArrayRecordSource(paths))

    def _parquet(self, n: int) -> ParquetSource:
        path = self._folder / f"{n}.parquet"
        table = pa.table({"id": np.arange(n), "v": np.arange(n) * 5})
        pq.write_table(table, path, row_group_size=4)
        return self._kept(ParquetSource(path))

    def cached(self, ds: Dataset, disk: bool) -> Dataset:
        try:
            return ds.cache(self._folder / "cache" if disk else None)
        except ChainError:  # its rows differ by epoch
            return ds

    def scanned(self, ds: Dataset, f: Callable[[Any], Any]) -> Scanned | None:
        """A scan of a dataset; None where its rows have no lasting places."""
        path = self._folder / f"{key_digest(ds.top.scan_key())}-{f.__name__}"
        try:
            return scan(ds, f, path=path, workers=0)
        except ChainError:
            return None

    def _other(self, kind: str, n: int) -> Any:
        if kind == "sequence":
            return SequenceSource(Squares(n))
        if kind == "windows":
            return WindowSource(np.arange(3 * n + 1), 4, 3)
        folder = self._folder / f"{kind} {n}"
        folder.mkdir()
        counts = [n // 2, 0, n - n // 2]
        if kind == "arrow":
            return self._kept(ArrowIpcSource(_arrow(folder, counts)))
        return self._kept(FORMATS[kind].open(FORMATS[kind].files(folder, counts)))

    def dataset(self, kind: str, n: int, seed: int) -> Dataset:
        if kind == "array_record":
            return Dataset(self.array_record(n), seed=seed).map(decode)
        if kind in OTHERS:
            return Dataset(self.other(kind, n), seed=seed).map_with_index(of_any)
        if kind == "parquet":
            return Dataset(self.parquet(n), seed=seed)
        # one column is a view with gaps: batches of it must lie like those of the others
        columns = {"id": np.arange(n), "v": (np.arange(2 * n) // 2 * 5)[::2]}
        if kind == "columns":
            return Dataset(columns, seed=seed)
        return Dataset(MemorySource([decode(b"%d" % i) for i in range(n)]), seed=seed)


def build(files: Files, recipe: Any, depth: int = 0) -> Dataset:
    """The dataset that a recipe (source, n, seed, operations) describes.

    Instead of a source it may have (what joins them, recipes, arguments).
    """
    kind, n, seed, ops = recipe
    ds = files.dataset(kind, n, seed) if isinstance(kind, str) else _join(files, kind, seed, depth)
    beneath = [ds]
    for i, (op, *args) in enumerate(ops):
        name = f"{'d' * depth}s{i}"
        if op == "packed":
            new = packed(files, beneath, *args)
        else:
            of_files = _OF_FILES.get(op)
            new = of_files(files, ds, *args) if of_files else _OPS[op](ds, name, *args)
        ds = new
        beneath.append(ds)
    return ds


def kept(files: Files, ds: Dataset) -> Dataset:
    """The rows that a scan flags, if it can be made and flags any."""
    flags = files.scanned(ds, some)
    return ds if flags is None or not flags.values.any() else ds.filter(flags)


def tokens(row: Any) -> int:
    return len(document(row)["tokens"])


def packed(files: Files, beneath: list[Dataset], how: str, block: int) -> Dataset:
    """The last dataset, packed by a scan of the last of these that can be scanned, if any can."""
    scans = (files.scanned(ds, tokens) for ds in reversed(beneath))
    lengths, docs = next((s for s in scans if s is not None), None), beneath[-1].map(document)
    if lengths is None or docs.endless:
        return beneath[-1]
    try:
        return docs.pack({"tokens": 5}, lengths=lengths, how=how, block=block)  # pyright: ignore[reportArgumentType]
    except ChainError:  # another number of rows each epoch
        return docs.pack({"tokens": 5}, lengths=lengths)
    except ScanError:  # of a part of what is interleaved
        return beneath[-1]


_OF_FILES: dict[str, Callable[..., Dataset]] = {"cache": Files.cached, "kept": kept}


def _join(files: Files, root: Any, seed: int, depth: int) -> Dataset:
    how, recipes, *args = root
    parts = [build(files, recipe, depth + 1) for recipe in recipes]
    if how == "concatenate":
        return concatenate(parts, seed=seed)
    named = {f"c{i}": part for i, part in enumerate(parts)}
    if how == "mix":
        weights, stop = args
        entries = [(row, dict(zip(named, w, strict=True))) for row, w in weights]
        return mix(named, entries, stop, seed=seed)
    n = min(map(len, parts))
    return zip_datasets({name: p[:n] for name, p in named.items()}, seed=seed).map(first_of)


def first_of(row: Any) -> Any:
    return row["c0"]


_OPS: dict[str, Callable[..., Dataset]] = {
    "shuffle": lambda ds, name: ds.shuffle(name=name),
    "window": lambda ds, name: ds.shuffle(window=4, name=name),
    "chunks": lambda ds, name, w, run: ds.shuffle(chunks=w, run=run, name=name),
    "select": lambda ds, name, at: ds[[i % len(ds) for i in at]] if len(ds) else ds,
    "mask": lambda ds, name, k: ds[np.arange(len(ds)) % k != 1] if len(ds) > 1 else ds,
    "limit": lambda ds, name, n: ds.limit(n),
    "interleave": lambda ds, name, n, cycle, run: interleave(
        [ds, ds.limit(n)], cycle=cycle, run=run, seed=ds.top.seed
    ),
    "pinned": lambda ds, name: ds.shuffle(name=name, reshuffle=False),
    "slice": lambda ds, name, a, b, c: ds[a:b:c] if len(range(len(ds))[a:b:c]) else ds,
    "head": lambda ds, name, n: ds[:n],
    "repeat": lambda ds, name, k: ds.repeat(k),
    "map": lambda ds, name: ds.map(bump),
    "batched": lambda ds, name: ds.map(bump_columns, batched=True),
    "random_map": lambda ds, name: ds.random_map(jitter, name=name),
    "map_with_index": lambda ds, name: ds.map_with_index(place),
    "filter": lambda ds, name, block: ds.filter(some, block=block),
    "flat_map": lambda ds, name, block: ds.flat_map(copies, block=block),
    "split": lambda ds, name, block: ds.map(document).pack({"tokens": 5}, block=block),
    "first_fit": lambda ds, name, block: ds.map(document).pack(
        {"tokens": 8}, how="first_fit", block=block, longest_first=False
    ),
    "longest_first": lambda ds, name, block: ds.map(fields).pack(
        {"tokens": 8, "y": 3}, how="first_fit", block=block, max_segments=3, meta=["id"]
    ),
    "best_fit": lambda ds, name, block: ds.map(document).pack(
        {"tokens": 8}, how="best_fit", block=block, bos=-1, eos=-2
    ),
    "whole": lambda ds, name, block: ds.map(document).pack(
        {"tokens": 5}, cross=False, block=block, longer="truncate", max_segments=2
    ),
    "bucket": lambda ds, name, block: ds.bucket(bits, [2, 4], block=block),
    "lanes": lambda ds, name, n: ds.lanes(n),
}

_BOUND = st.none() | st.integers(-12, 30)
_KEEP = st.sampled_from([("map",), ("batched",), ("random_map",)])
_MOVES = st.one_of(
    st.sampled_from([("shuffle",), ("pinned",)]),
    st.tuples(st.just("slice"), _BOUND, _BOUND, st.sampled_from([None, 1, 2, 3, -1])),
    st.tuples(st.just("repeat"), st.integers(1, 3)),
)
_ORDER = st.one_of(
    st.sampled_from([("shuffle",), ("window",), ("pinned",), ("map_with_index",), ("kept",)]),
    st.tuples(st.just("slice"), _BOUND, _BOUND, st.sampled_from([None, 1, 2, 3, -1])),
    st.tuples(st.just("repeat"), st.integers(1, 3)),
    st.tuples(st.just("select"), st.lists(st.integers(0, 60), min_size=1, max_size=30)),
    st.tuples(st.just("mask"), st.integers(1, 4)),
    st.tuples(st.just("limit"), st.integers(1, 30)),
    st.tuples(
        st.just("interleave"),
        st.integers(1, 20),
        st.sampled_from([None, 1]),
        st.integers(1, 3),
    ),
)
# over a source alone: the chunk shuffle asks for rows as they lie
_CACHE = st.tuples(st.just("cache"), st.booleans())
_CHUNKS = st.tuples(st.just("chunks"), st.integers(1, 4), st.none() | st.integers(1, 9))
_BLOCK = st.sampled_from([1, 3, 8, 64])
_COUNT = st.tuples(st.sampled_from(["filter", "flat_map", "bucket"]), _BLOCK)
_PACK = st.tuples(
    st.sampled_from(["split", "first_fit", "longest_first", "best_fit", "whole"]), _BLOCK
)
_LANES = st.tuples(st.just("lanes"), st.sampled_from([1, 2, 4]))


_JOINS = st.sampled_from(["concatenate", "zip", "mix"])
_ROWS = st.sets(st.integers(1, 40), max_size=2).map(lambda rows: [0, *sorted(rows)])
_STOPS = st.sampled_from(["first", "all", "never"])


@st.composite
def _weights(draw: st.DrawFn, parts: int, stop: str) -> Any:
    # often with schedules that add or drop components; a pass that waits for all has no rare one
    rare = [] if stop == "all" else [1e-7]
    weight = st.one_of(st.sampled_from([0, 1, 2, 5, *rare]), st.floats(0.01, 10))
    weights = st.lists(weight, min_size=parts, max_size=parts).filter(any)
    return [(row, draw(weights)) for row in draw(st.one_of(st.just([0]), _ROWS))]


@st.composite
def indexed(draw: st.DrawFn, sizes: st.SearchStrategy[int] | None = None, depth: int = 2) -> Any:
    """A recipe of an indexed dataset; joined ones stand on others, nested up to a depth."""
    n = draw(sizes if sizes is not None else st.integers(1, 40))
    ops = draw(st.lists(_CHUNKS, max_size=1)) if draw(st.booleans()) else []
    ops = [*draw(st.lists(st.one_of(_KEEP, _CACHE), max_size=2)), *ops]
    ops += draw(st.lists(st.one_of(_KEEP, _ORDER, _CACHE), max_size=5 if depth == 2 else 2))
    seed = draw(st.integers(0, 3))
    if not depth or draw(st.integers(0, 3)):
        return draw(st.sampled_from(SOURCES)), n, seed, ops
    ops = [op for op in ops if op[0] != "chunks"]  # these are a source's
    how = draw(_JOINS)
    parts = draw(st.lists(indexed(st.integers(1, 20), depth - 1), min_size=1, max_size=3))
    if how != "mix":
        return (how, parts), n, seed, ops
    stop = draw(_STOPS)
    pinned = [("head", 30)] if stop == "never" else []
    return (how, parts, draw(_weights(len(parts), stop)), stop), n, seed, [*pinned, *ops]


@st.composite
def _uneven(draw: st.DrawFn, depth: int) -> Any:
    # a counted recipe without lanes, its rows as those of a source
    some = st.lists(st.one_of(_KEEP, _COUNT), max_size=2)
    if depth and not draw(st.integers(0, 2)):
        kind, n, seed, ops = draw(_mixtures(depth))
        return kind, n, seed, [*ops, *draw(some)]
    kind, n, seed, ops = draw(indexed(st.integers(1, 60), depth))
    return kind, n, seed, [*ops, draw(_COUNT), *draw(some)]


@st.composite
def _mixtures(draw: st.DrawFn, depth: int) -> Any:
    part = st.one_of(_uneven(depth - 1), indexed(st.integers(1, 20), min(1, depth - 1)))
    parts = [draw(_uneven(depth - 1)), *draw(st.lists(part, max_size=1))]
    ops = draw(st.lists(st.tuples(st.just("repeat"), st.integers(1, 2)), max_size=1))
    stop = draw(_STOPS)
    root = "mix", draw(st.permutations(parts)), draw(_weights(len(parts), stop)), stop
    return root, 0, draw(st.integers(0, 3)), ops


@st.composite
def counted(draw: st.DrawFn, depth: int = 3) -> Any:
    """A recipe of a counted dataset, with lanes; mixes are nested up to a depth."""
    kind, n, seed, ops = draw(_uneven(depth))
    if draw(st.booleans()):
        ops = [*ops, draw(_PACK)]
    return kind, n, seed, [*ops, draw(_LANES)]


@st.composite
def scanned_packs(draw: st.DrawFn) -> Any:
    """A recipe of an indexed dataset packed by a scan, where one can be made."""
    kind, n, seed, ops = draw(indexed(st.integers(1, 40), 1))
    pack = "packed", draw(st.sampled_from(["split", "first_fit", "best_fit"])), draw(_BLOCK)
    above = draw(st.lists(st.one_of(_MOVES, st.just(("window",))), max_size=2))
    return kind, n, seed, [*ops, pack, *above]


def anything() -> st.SearchStrategy[Any]:
    """A recipe of any dataset."""
    return st.one_of(indexed(), counted(), scanned_packs())


def gives_rows(ds: Dataset) -> bool:
    """Whether stages leave rows to batch, in each lane."""
    try:
        for _ in zip(range(9), Loader(ds, 8), strict=False):
            pass
    except PipelineError:
        return False
    return True


def a_record(ds: Dataset, number: int) -> tuple[str, int]:
    """One of a dataset's records, as (component, record)."""
    component = ds.components[number % len(ds.components)]
    return "/".join(component.path), number % len(component.source)


def layout(batch: Any) -> list[Any]:
    """How the arrays of a batch lie in memory."""
    flags = ("C_CONTIGUOUS", "ALIGNED", "WRITEABLE")
    return [
        (name, a.dtype.str, a.strides, *(a.flags[flag] for flag in flags))
        for name, a in leaves(batch)
    ]


def run(loader: Loader, steps: int, look: Callable[[Any], Any] = digest) -> list[Any]:
    """What a look at each of the next batches gives, fewer where passes hold none."""
    out: list[Any] = []
    for _ in range(steps):
        try:
            out.append(look(next(loader)))
        except StopIteration:
            break
        except StreamEndError:  # a lane of an endless mix may have no rows
            out.append("barren")
            break
    return out


def joined(parts: list[Any]) -> Any:
    """The global batch that hosts' parts make up: their rows end to end."""
    return {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
