"""What the data is: a frozen description, chained fluently, that any process can evaluate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from os import PathLike, fsdecode
from os.path import abspath, expanduser
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from pipeline.block import Block, Columns, Int64s, as_int64
from pipeline.checks import flag, function, shown, whole
from pipeline.errors import (
    ChainError,
    LengthError,
    OptionError,
    PositionError,
    ScanError,
    short_traceback,
    shorten,
)
from pipeline.nodes import Cached, Leaf, Packed, Part, check_cacheable, lane_blocks
from pipeline.nodes.names import refuse_options, unknown_name
from pipeline.nodes.node import Node
from pipeline.nodes.packed import documents_of
from pipeline.nodes.scope import Stage
from pipeline.picture import Picture, boxes_of
from pipeline.sampling.chunks import RUN, Chunks, Even, Uneven
from pipeline.sampling.order import Order
from pipeline.sampling.repeat import Repeat
from pipeline.sampling.scan_filter import ScanFilter
from pipeline.sampling.scanned import Scanned
from pipeline.sampling.select import Select, chosen
from pipeline.sampling.shuffle import Everywhere, Reach, Shuffle, Window
from pipeline.sampling.slice import Slice, sliced
from pipeline.sources.formats import source_of
from pipeline.transforms import (
    Bucket,
    Filter,
    FlatMap,
    Map,
    MapWithIndex,
    Pack,
    RandomMap,
    code_name,
    collate_block,
    refuse_unseen,
)
from pipeline.tree import map_leaves
from pipeline.types import ArraySpec, At, Component, Transform, describe

MOST_LANES = 1 << 16
_SCAN = (
    "Or find out once what it keeps, and rows have positions: ds.filter(scan(ds, f)), "
    "ds.pack(n, lengths=scan(ds, len))."
)


class Dataset:
    """A description of data: a source, orders and transforms. Frozen: methods return a new one.

    Args:
        source: a Source; a dict of columns; a sequence of records; or a path or glob, its format
            told by the suffix.
        seed: what every random stage's seed is derived from.

    Raises:
        SourceError: the path cannot be opened.
        ChainError: the source is none of these.

    >>> ds = Dataset({"x": np.arange(6)}, seed=1).shuffle().map(lambda r: {"x": r["x"] * 10})
    >>> len(ds), sorted(int(row["x"]) for row in ds)
    (6, [0, 10, 20, 30, 40, 50])
    >>> ds[0] == ds[0]
    True
    """

    __slots__ = ("top",)

    def __init__(self, source: Any, *, seed: int = 0, **others: Any) -> None:
        refuse_options("Dataset", others)
        seed = whole("seed", seed, -(1 << 62))
        self.top = Part(Leaf(source_of(source)), seed)

    # ---- chaining

    def shuffle(
        self,
        *others: Any,
        seed: int | None = None,
        window: int | None = None,
        chunks: int | None = None,
        run: int | None = None,
        reshuffle: bool = True,
        name: str | None = None,
        **unknown: Any,
    ) -> Dataset:
        """A new random order each epoch; `reshuffle=False` keeps epoch 0's order in all of them.

        Args:
            seed: the shuffle's seed, instead of the dataset's.
            window: shuffle only within aligned runs of this many rows: neighbours are read
                together.
            chunks: put the source's chunks (row groups) into a random order, and shuffle rows
                within each run of this many chunks. Storage is then read chunk by chunk, at nearly
                a full shuffle's quality. A source without chunks is cut into runs of 64 records.
                Only maps and slices of step 1 may stand beneath.
            run: with chunks, records of a chunk, instead of the source's own chunks if these are
                tiny.
            reshuffle: whether each epoch has an order of its own.
            name: tells this shuffle's randomness apart from that of another in the chain.

        Raises:
            ChainError: the dataset is counted or endless; or, with chunks, its rows are not in
                their source's order.

        >>> ds = Dataset(range(4)).shuffle()
        >>> sorted(ds)
        [0, 1, 2, 3]
        """
        refuse_options("shuffle", unknown)
        if others:
            size = others[0] if type(others[0]) is int else "n"
            raise OptionError(
                f"shuffle({shown(others[0])}): here all rows are shuffled, without a buffer. To "
                f"shuffle neighbours only give window={size}"
            )
        name = name or "shuffle"
        seed = None if seed is None else whole("seed", seed, -(1 << 62))
        reshuffle = flag("shuffle reshuffle", reshuffle)
        return self._ordered(Shuffle(name, seed, reshuffle, self._reach(window, chunks, run)))

    def _reach(self, window: int | None, chunks: int | None, run: int | None) -> Reach:
        if window is not None and chunks is not None:
            raise ChainError(f"shuffle({window=}, {chunks=}): give one of the two")
        if run is not None and chunks is None:
            raise ChainError(
                f"shuffle({run=}): give chunks= too, how many runs are shuffled together"
            )
        if window is not None:
            return Window(whole("shuffle window", window, 1))
        if chunks is None:
            return Everywhere()
        self._refuse_counted("shuffle")
        if run is not None:
            run = whole("shuffle run", run, 1)
        bounds = self.top.node.chunks(run is None)
        runs = Even(self.top.length, run or RUN) if bounds is None else Uneven(bounds)
        return Chunks(whole("shuffle chunks", chunks, 1), runs)

    def repeat(self, epochs: int | None = None, **unknown: Any) -> Dataset:
        """The dataset `epochs` times over, or endlessly; batches then run across epochs.

        >>> len(Dataset(range(4)).repeat(3))
        12
        """
        refuse_options("repeat", unknown)
        if epochs is not None:
            epochs = whole("repeat epochs", epochs, 1)
        repeat = Repeat(epochs)
        self._refuse(repeat)
        return of_part(self.top.repeated(repeat))

    def limit(self, n: int) -> Dataset:
        """The first n rows, or all if there are fewer: `ds[:n]`, endless datasets included.

        As of every slice, the members are the same in each epoch. The n-th row of a counted dataset
        is not known: limit what lies beneath its stages, or end passes with `Loader(steps=)`.

        >>> list(Dataset(range(10)).limit(3)), len(Dataset(range(2)).repeat().limit(5))
        ([0, 1, 2], 5)
        """
        if self.counted:
            raise ChainError(
                f"limit({n}) needs rows by position, but {self.top.counting} counts rows "
                "as they come. Limit the rows beneath it, or end passes with Loader(steps=)."
            )
        return self._ordered(Slice(0, 1, min(whole("limit", n, 0), self.top.length)))

    def map(
        self,
        f: Callable[[Any], Any],
        *,
        batched: bool = False,
        name: str | None = None,
        fingerprint: str | None = None,
        **unknown: Any,
    ) -> Dataset:
        """Apply `f(row)` to each row; or, batched, `f(rows)` to stacked rows, giving as many.

        A batched function must treat rows one by one, as it may get any number of them.

        Args:
            f: a pure function. It may change its row in place, except for arrays of columns,
                which are read-only, but not what it has returned for another row.
            batched: whether f takes and returns stacked rows, a pytree of arrays `[n, ...]`.
            name: what messages and the fingerprint call it; by default the function's name.
            fingerprint: a text that says what f computes, for functions that no fingerprint can
                look into. Change it whenever f computes something else.

        >>> Dataset({"x": np.arange(3)}).map(lambda c: {"y": c["x"] + 1}, batched=True)[2]
        {'y': np.int64(3)}
        """
        refuse_options("map", unknown)
        batched = flag("map batched", batched)
        stage = Map(function("map", f), name or code_name(f), batched, given=fingerprint)
        return self._transformed(stage)

    def random_map(
        self,
        f: Callable[[Any, np.random.Generator], Any],
        *,
        name: str | None = None,
        seed_globals: bool = False,
        fingerprint: str | None = None,
    ) -> Dataset:
        """Apply `f(row, rng)` to each row, with a random generator of its own.

        rng depends only on the seed, this stage's name (by default the function's) and the row's
        provenance. It may be used during the call only.

        Args:
            f: a function whose randomness comes from rng alone.
            name: tells the stage's randomness apart from that of others.
            seed_globals: for functions that draw from global generators instead, as torchvision's
                do: `random`, `np.random` and (once imported) torch's CPU generator are seeded from
                rng before each row and put back afterwards. Refused in threads, which share them.
            fingerprint: as in map.

        >>> ds = Dataset(range(3)).random_map(lambda x, rng: x + rng.random(), name="jitter")
        >>> ds[1] == ds[1]
        True
        """
        seed_globals = flag("random_map seed_globals", seed_globals)
        name = name or code_name(f)
        stage = RandomMap(function("random_map", f), name, seed_globals, given=fingerprint)
        return self._transformed(stage)

    def map_with_index(self, f: Callable[[int, Any], Any], *, name: str | None = None) -> Dataset:
        """Apply `f(position, row)` to each row; positions in this dataset count from 0.

        >>> list(Dataset(["a", "b"]).map_with_index(lambda i, row: (i, row)))
        [(0, 'a'), (1, 'b')]
        """
        stage = MapWithIndex(function("map_with_index", f), name or code_name(f))
        self._refuse_counted("map_with_index")
        return self._transformed(stage)

    def filter(
        self,
        p: Callable[[Any], bool] | Scanned,
        *,
        block: int = 64,
        name: str | None = None,
        fingerprint: str | None = None,
        **unknown: Any,
    ) -> Dataset:
        """Keep the rows for which `p(row)` is True. The dataset is counted from here on.

        Given a scan of this dataset that holds flags, it stays indexed instead: the flagged rows
        are found by arithmetic, so that length, seek and any number of hosts stay exact.

        >>> list(Dataset(range(6)).filter(lambda x: x % 2 == 0))
        [0, 2, 4]
        """
        refuse_options("filter", unknown)
        block = whole("block", block, 1)
        if isinstance(p, Scanned):
            return self._flagged(p, name or "kept")
        stage = Filter(function("filter", p), name or code_name(p), block, given=fingerprint)
        return self._transformed(stage)

    def flat_map(
        self,
        f: Callable[[Any], Any],
        *,
        block: int = 64,
        name: str | None = None,
        fingerprint: str | None = None,
    ) -> Dataset:
        """Replace each row by the rows of the iterable `f(row)`. It is counted from here on.

        A generator must not change what it has yielded. A row given several times is copied.

        >>> list(Dataset(["ab", "c"]).flat_map(list))
        ['a', 'b', 'c']
        """
        block = whole("block", block, 1)
        stage = FlatMap(function("flat_map", f), name or code_name(f), block, given=fingerprint)
        return self._transformed(stage)

    def bucket(
        self,
        key: Callable[[Any], Any] | str,
        boundaries: Sequence[float],
        *,
        block: int = 1024,
        name: str | None = None,
    ) -> Dataset:
        """The same rows, those of similar length together. The dataset is counted from here on.

        Within a block, rows come bucket after bucket. So a batch holds rows of one bucket, except
        where a block goes on to its next one. Collate them with `pad_to`.

        Args:
            key: a function from a row to its length; or the name of a field, whose length counts.
            boundaries: rising; the longest length of each bucket. Longer rows share one more.
            block: approximate number of rows sorted together; best many times the batch size.
            name: what messages call it.

        >>> ds = Dataset(["aa", "bbbbb", "c", "dddd"]).bucket(len, [2, 5], block=4)
        >>> list(ds)
        ['aa', 'c', 'bbbbb', 'dddd']
        """
        known = key if isinstance(key, str) else code_name(function("bucket", key))
        block = whole("block", block, 1)
        return self._transformed(Bucket(key, name or known, boundaries, block))

    def pack(
        self,
        length: int | Mapping[str, int],
        *,
        lengths: Scanned | None = None,
        how: Literal["split", "first_fit", "best_fit"] = "split",
        block: int = 256,
        cross: bool = True,
        longest_first: bool = True,
        max_segments: int | None = None,
        longer: Literal["split", "truncate", "refuse"] = "split",
        bos: int | Mapping[str, int] | None = None,
        eos: int | Mapping[str, int] | None = None,
        meta: Sequence[str] = (),
        name: str | None = None,
    ) -> Dataset:
        """Lay token rows end to end into rows of a fixed length, with segment ids and positions.

        Args:
            length: tokens of a packed row: an int where rows are token arrays, {field: length} for
                dicts. A document goes only into a row in which all of its fields fit.
            lengths: a scan of this dataset, or of one beneath its shuffles and maps, with the
                tokens of each document (a column for each field). Packed rows then have positions,
                so the dataset stays indexed. "split" lays whole epochs end to end, under any
                shuffle, and pads only their last row; the others pack blocks, in one order for all
                epochs.
            how: "split" cuts documents at row borders. "first_fit" keeps them whole, in the first
                row with room, and "best_fit" in the row with least room to spare. Both pad;
                "best_fit" and larger blocks pad less.
            block: approximate number of documents packed together.
            cross: for "split": False cuts only documents that are longer than a row.
            longest_first: for the fits: whether a block's long documents choose first, which pads
                half as much, or each chooses as it comes.
            max_segments: the most documents, or pieces of documents, in a row.
            longer: whether a document longer than a row is cut into several ("split"), shortened
                ("truncate") or an error ("refuse").
            bos, eos: tokens put before and after each document that has any, counted in lengths:
                an int for all fields, or {field: int}.
            meta: fields kept beside the packed ones, with one value for each segment: an array
                `[max_segments, ...]`, padded with 0 or None; without max_segments, an object that
                is an array `[segments, ...]`.
            name: what messages call it.

        >>> ds = Dataset([np.array([5, 6, 7]), np.array([8])]).pack(2)
        >>> [row["tokens"].tolist() for row in ds]
        [[5, 6], [7, 8]]
        >>> docs = Dataset([{"t": np.ones(2), "id": 7}, {"t": np.ones(1), "id": 8}])
        >>> row = docs.pack({"t": 4}, how="best_fit", max_segments=3, meta=["id"]).head(1)[0]
        >>> row["segment_ids"].tolist(), row["id"].tolist()
        ([1, 1, 2, 0], [7, 8, 0])
        """
        stage = Pack(
            length,
            how=how,
            block=whole("block", block, 1),
            name=name or how,
            cross=flag("pack cross", cross),
            longest_first=flag("pack longest_first", longest_first),
            max_segments=max_segments,
            longer=longer,
            bos=bos,
            eos=eos,
            meta=meta,
        )
        if lengths is None:
            return self._transformed(stage)
        self._refuse_counted("pack(lengths=…)")
        top = self.top
        documents = documents_of(top, stage, lengths)
        return standing_on(Packed(documents, stage, lengths), top.seed, top.on_error)

    def lanes(self, n: int) -> Dataset:
        """Deal a counted dataset's blocks to n lanes, so that up to n hosts can share it.

        Lanes are part of the data, and so of every saved state: choose the largest number of hosts
        that you will ever use.

        >>> Dataset(range(100)).filter(bool).lanes(4).fingerprint()["lanes"]
        '4'
        """
        if not self.counted:
            raise ChainError(
                f"lanes({n}): only counted datasets have lanes, any number of hosts can share this "
                "one by rows. Put .lanes after filter, flat_map or pack."
            )
        return of_part(replace(self.top, lanes=whole("lanes", n, 1, most=MOST_LANES)))

    def cache(self, path: str | PathLike[str] | None = None) -> Dataset:
        """Keep each row once it is computed. Rows must be indexed and the same in every epoch.

        A cache changes no data and no fingerprint, so a run may go on with or without it. Stages
        that differ by epoch (random_map, a reshuffling shuffle) go after it, and so do filter,
        flat_map and pack.

        In a folder, rows are dicts with text keys, tuples, lists, NumPy's arrays and scalars,
        numbers, text and bytes; other rows are refused. In memory they may be anything.

        Args:
            path: a folder of this machine, which processes and runs may share and be killed in.
                Rows are found by the fingerprint of what lies beneath (sources, stages, seed),
                checked by checksum, and computed again if damaged. The folder is never emptied:
                delete it as you like. None keeps rows in memory, each worker process its own.

        Raises:
            ChainError: rows beneath differ by epoch, are counted or never end; or, with a folder,
                no fingerprint sees all that they depend on.

        >>> ds = Dataset(range(4)).map(lambda x: x * x, name="slow").cache().shuffle().repeat()
        >>> sorted(ds.head(4))
        [0, 1, 4, 9]
        """
        if path is not None and not isinstance(path, str | bytes | PathLike):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ChainError(f"cache({shown(path)}): give a folder, or nothing to keep rows here")
        top, folder = self.top, None if path is None else fsdecode(path)
        if folder is not None and ("://" in folder or "\0" in folder):
            raise ChainError(
                f"cache({folder!r}): rows are kept on this machine. Give a local folder."
            )
        if folder is not None:
            folder = abspath(expanduser(folder))  # one place for all processes, after a chdir too
            refuse_unseen(top.fingerprint(), f"cache({folder!r})", top.components)
        check_cacheable(top.node, any(part.skips for part in top.parts.values()))
        return of_part(replace(top, node=Cached(top.node, top.seed, folder)))

    def on_error(self, action: Literal["raise", "skip"]) -> Dataset:
        """What happens to a row that cannot be read or mapped: raise its error, or skip the row.

        With "skip", a counted dataset leaves the row out. An indexed one takes the epoch's next
        good row in its place, so that every batch is full and each good row comes at least once.
        The logger "pipeline" tells each skipped row once, with its provenance. Only what would fail
        again is skipped: I/O errors and mistakes in the chain are raised all the same. The setting
        holds for the whole chain, wherever it stands, and is part of the fingerprint.

        >>> bad = Dataset(range(4)).map(lambda x: 12 // (x - 1)).on_error("skip")
        >>> list(bad)
        [-12, 12, 12, 6]
        """
        if action not in ("raise", "skip"):
            raise ChainError(f'on_error({action!r}): choose "raise" or "skip"')
        return of_part(replace(self.top, on_error=action))

    def _ordered(self, order: Order) -> Dataset:
        self._refuse_counted(order.kind)
        self._refuse(order)
        self._check_name(order, self.top.stages)
        return of_part(self.top.ordered(order))

    def _flagged(self, flags: Scanned, name: str) -> Dataset:
        self._refuse_counted("filter(scanned)")
        between = self.top.node.moved(self.top.scanned(flags, "filter"))
        if between is not None:
            raise ScanError(
                f"filter is by the positions of the dataset scanned, but {between.kind} "
                f"'{between.name}' stands between: filter before it"
            )
        return self._ordered(ScanFilter(flags, name))

    def _transformed(self, transform: Transform) -> Dataset:
        # rows of parts carry the same provenance, which is all that random values depend on
        self._check_name(transform, (*self.top.stages, *self.top.stages_of_parts()))
        return of_part(self.top.transformed(transform))

    def _refuse(self, order: Order) -> None:
        why = order.refusal(self.top.length)
        if why:
            raise ChainError(why)

    def _refuse_counted(self, what: str) -> None:
        if self.counted:
            raise ChainError(
                f"{what} needs rows by position, but {self.top.counting} counts rows as "
                f"they come. Move {what} before it. {_SCAN}"
            )

    @staticmethod
    def _check_name(stage: Stage, others: Iterable[Stage]) -> None:
        name: Any = stage.name
        if not isinstance(name, str):
            raise ChainError(f"{stage.kind}(name={name!r}): give a string")
        if stage.random and (stage.kind, name) in [(s.kind, s.name) for s in others]:
            raise ChainError(
                f"two {stage.kind} stages are named {name!r}: they would draw the same "
                "random numbers. Give one of them name=."
            )

    if not TYPE_CHECKING:  # type checkers name what a Dataset has not themselves

        def __getattr__(self, name: str) -> Any:
            # reached for names that a Dataset does not have
            raise unknown_name(name)

    # ---- what it is

    @property
    def counted(self) -> bool:
        """True once a filter, flat_map or pack decides how many rows there are."""
        return self.top.streamed

    @property
    def endless(self) -> bool:
        """True if passes over it never end."""
        return not self.top.ends

    @property
    def components(self) -> tuple[Component, ...]:
        """The sources, in the order in which `Origin.component` numbers them."""
        return self.top.components

    def __len__(self) -> int:
        if self.counted or self.endless:
            if self.endless:
                why = "it never ends. Use steps= to end a pass."
            else:
                why = f"{self.top.counting} counts rows as they come. {_SCAN}"
            raise LengthError(f"this dataset has no length: {why}")
        return self.top.length

    def visualize(self, *, spec: bool = True) -> Picture:
        """The dataset as a graph: sources, joins and stages, with rows, specs and seeds.

        `print` shows it as text, a notebook as a drawing; `.svg()`, `.html()`, `.save(path)`.

        Args:
            spec: whether to show the spec behind each stage, for which one row is evaluated.

        >>> ds = Dataset({"x": np.arange(6)}, seed=1).shuffle().map(lambda r: r, name="m")
        >>> print(ds.visualize())
        MemorySource       6 rows  {'x': int64[]}
        ↓ shuffle 'shuffle'  6 rows  {'x': int64[]}  seed 1
        ↓ map 'm'            6 rows  {'x': int64[]}
        """

        def found(part: Part) -> Any:
            return of_part(part).spec if spec else ""

        return Picture(boxes_of(self.top, found))

    def _repr_html_(self) -> str:
        return self.visualize()._repr_html_()

    def __repr__(self) -> str:
        return "\n".join(self.top.written())

    def fingerprint(self) -> dict[str, str]:
        """Everything that the data depends on, by name; two datasets with equal ones are the same.

        >>> sorted(Dataset(range(3)).shuffle().fingerprint())
        ['seed', 'source', 'stages.0']
        """
        return self.top.fingerprint()

    @property
    @short_traceback
    def spec(self) -> Any:
        """Shape and dtype of a row's fields, found by evaluating one row.

        >>> Dataset({"x": np.zeros((3, 2), np.float32)}).spec
        {'x': float32[2]}
        """
        block = self._first()
        tree = collate_block(block, lambda i: describe(self.components, block.origin, i))
        held = block.values.tree if isinstance(block.values, Columns) else tree
        return map_leaves(_spec, tree, held)

    def _first(self) -> Block:
        if not self.counted:
            if self.top.length == 0:
                raise PositionError("an empty dataset has no spec: there is no row to look at")
            return self.read(np.zeros(1, np.int64))
        for block in self._stream():
            if len(block):
                return block.slice(0, 1)
        raise PositionError("this dataset has no spec: its stages leave no row to look at")

    # ---- what it holds

    @short_traceback
    def read(self, positions: Sequence[int] | Int64s, *, epoch: int = 0) -> Block:
        """Rows by position in one epoch, many at a time; indexed datasets only.

        Args:
            positions: int64[n] in [0, len), in any order, repeats included.
            epoch: the epoch whose order and randomness hold.

        Raises:
            ChainError: the dataset is counted.
            PositionError: a position lies outside.

        >>> Dataset(["a", "b", "c"]).read([2, 0]).rows()
        ['c', 'a']
        """
        self._refuse_counted("read")
        index = as_int64(positions)
        n = self.top.length
        bad = index[(index < 0) | (index >= n)]
        if len(bad):
            raise PositionError(
                f"positions {bad[:5].tolist()} lie outside of 0..{n - 1}: the dataset has {n} rows"
            )
        turn = np.full(len(index), whole("epoch", epoch, 0), np.int64)
        return self.top.read(At(turn, turn, index))

    def _stream(self) -> Iterator[Block]:
        # the rows of epoch 0 (of all epochs, if endless) in stream order, some at a time
        if not self.counted:
            for start in range(0, self.top.length, 256):
                stop = min(start + 256, self.top.length)
                yield self.read(np.arange(start, stop))
            return
        if self.top.lanes == 1:
            yield from lane_blocks(self.top, 0)
            return
        lanes = [_rows(lane_blocks(self.top, lane)) for lane in range(self.top.lanes)]
        while rows := [row for row in (next(lane, None) for lane in lanes) if row is not None]:
            yield from rows

    @overload
    def __getitem__(self, item: slice | Sequence[int] | NDArray[Any]) -> Dataset: ...
    @overload
    def __getitem__(self, item: int) -> Any: ...
    @short_traceback
    def __getitem__(self, item: int | slice | Sequence[int] | NDArray[Any]) -> Any:
        """A row; or, for many, a dataset with the same members and order in every epoch.

        Args:
            item: a position; a slice; a list or array of positions, in any order, repeats included
                (which give the same row again); or an array with a boolean for each row. Arrays of
                other libraries, such as tensors, count as NumPy's.

        Raises:
            PositionError: a position lies outside, or a mask is of another length.
            ChainError: the dataset is counted, or the item is none of these.

        >>> list(Dataset([*"abcd"])[[3, 0]]), list(Dataset([*"abc"])[np.array([True, False, True])])
        (['d', 'a'], ['a', 'c'])
        """
        if isinstance(item, slice):
            self._refuse_counted("slice")
            return self._ordered(sliced(item, self.top.length))
        if isinstance(item, list | tuple | range) or (hasattr(item, "__array__") and np.ndim(item)):
            self._refuse_counted("ds[positions]")
            return self._ordered(Select(chosen(item, self.top.length)))
        self._refuse_counted("ds[i]")
        if isinstance(item, Scanned):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise PositionError(
                f"ds[{item!r}]: give a mask or positions made of its values, like "
                "ds[scanned.values == 0]; or ds.filter(scanned) if they are flags"
            )
        if isinstance(item, str):
            raise PositionError(
                f"ds[{item!r}]: give a row by its number; a field of it is ds[0][{item!r}]"
            )
        one: Any = np.asarray(item)[()] if hasattr(item, "__array__") else item
        item, n = whole("row", one, -(1 << 62), PositionError), self.top.length
        position = item + n if item < 0 and not self.endless else item
        if not 0 <= position < n:
            raise PositionError(f"row {item} of a dataset of {n} rows")
        return self.read(np.array([position])).rows()[0]

    def __iter__(self) -> Iterator[Any]:
        try:
            for block in self._stream():
                yield from block.rows()
        except BaseException as error:
            shorten(error)
            raise

    @short_traceback
    def head(self, n: int = 5) -> list[Any]:
        """The first n rows, or as many as there are.

        >>> Dataset(range(10)).filter(lambda x: x > 6).head(2)
        [7, 8]
        """
        rows: list[Any] = []
        n = whole("head", n, 0)
        if not self.counted:
            return self.read(np.arange(min(n, self.top.length))).rows()
        for block in self._stream():
            rows += block.rows()
            if len(rows) >= n:
                break
        return rows[:n]


def standing_on(node: Node, seed: int, on_error: str = "raise") -> Dataset:
    """A dataset with a node at its bottom."""
    return of_part(Part(node, whole("seed", seed, -(1 << 62)), on_error=on_error))


def of_part(top: Part) -> Dataset:
    """The dataset that a part describes."""
    new = object.__new__(Dataset)
    new.top = top
    return new


def _spec(a: NDArray[Any], column: NDArray[Any]) -> ArraySpec:
    held = column.flat[0] if column.dtype == object and column.size else None
    name = type(held).__name__ if isinstance(held, str | bytes) else ""
    if isinstance(held, np.ndarray):  # maybe of another length in each row
        name = f"{held.dtype}[{', '.join('?' * held.ndim)}]"
    return ArraySpec(a.shape[1:], a.dtype, name)


def _rows(blocks: Iterator[Block]) -> Iterator[Block]:
    for block in blocks:
        yield from (block.slice(i, i + 1) for i in range(len(block)))
