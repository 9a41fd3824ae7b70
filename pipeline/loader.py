"""Where a run stands in its data: batch after batch, state, seek, skip. The only mutable class."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from threading import get_ident
from typing import TYPE_CHECKING, Any, Generic, Literal

from pipeline.batches.assembly import Assembly
from pipeline.batches.hosts import Neighbours, share_of
from pipeline.batches.once import Once
from pipeline.batches.opening import open_stream
from pipeline.batches.options import check_options, unknown_attribute
from pipeline.batches.run import Made, Observer, Run
from pipeline.batches.skipping import MOST_STEPS, step_ranges
from pipeline.batches.stream import Stream, Take
from pipeline.checkpoint import orbax
from pipeline.checkpoint.merging import merge
from pipeline.checkpoint.position import Position
from pipeline.checkpoint.state import (
    SavedState,
    check_dataset,
    check_drawn,
    decode,
    encode,
    packages_of,
    plain,
)
from pipeline.checks import whole
from pipeline.dataset import Dataset
from pipeline.errors import (
    ChainError,
    HostsError,
    LengthError,
    PositionError,
    short_traceback,
    shorten,
)
from pipeline.meter import METER, marked
from pipeline.picture import escaped
from pipeline.provenance.exclusions import Exclusions
from pipeline.provenance.find import check_arithmetic, found_steps
from pipeline.provenance.records import records_of
from pipeline.provenance.where import Provenance
from pipeline.sampling.cursor import Cursor
from pipeline.sampling.cuts import Ranges, joined
from pipeline.sampling.sizes import sizes_of
from pipeline.transforms import warn_of_versions
from pipeline.tree import fresh
from pipeline.types import BatchT, Feed
from pipeline.workers import Auto, Workers, budget, chosen
from pipeline.workers.account import Account
from pipeline.workers.stats import Stats


class Loader(Generic[BatchT]):
    """Batches of a dataset, in an exact order, resumable anywhere.

    `for batch in loader` goes from where the loader stands to the end of the pass; the next `for`
    is the next pass, reshuffled. `next(loader)` goes on from pass to pass. Without a feed a batch
    is a pytree of NumPy arrays `[rows, ...]`, this host's rows of the global batch. Type checkers
    take a batch's type from `collate`, or from you: `Loader[dict[str, np.ndarray]](ds, 32)`.

    Args:
        dataset: the data.
        batch_size: rows of the GLOBAL batch, over all hosts; or a schedule [(from_step, rows), …],
            which changes how the stream of rows is cut, not the stream.
        feed: puts batches on devices, and knows this process's rows: JaxFeed(sharding),
            TorchFeed().
        host, hosts: without a feed, this process's number and how many there are.
        remainder: a short last batch is kept, dropped, or padded with zeros and a bool "mask".
        steps: batches after which a pass ends; None for a pass over the whole dataset.
        collate: a function from this host's rows (a list) to a batch, which decides its layout
            only; `pad_to(...)` for ragged rows.
        workers: 0 evaluates in this thread, n in that many processes; "auto" tries what is fastest;
            or Threads(n), Processes(n).
        ahead: memory for rows that are evaluated before they are asked for: bytes, or "512MiB".
        start: whether workers begin at once, and after each move to another position, rather than
            when the first batch is asked for: see `start`.

    Raises:
        BatchError: the batch size does not fit the hosts, the lanes or the dataset.
        HostsError: the process runs beside others, but was not told which rows are its own.
        LanesError: a counted dataset cannot be shared by so many hosts.

    >>> loader = Loader(Dataset({"x": np.arange(10)}, seed=1).shuffle(), 4)
    >>> [len(batch["x"]) for batch in loader], loader.epoch
    ([4, 4, 2], 1)
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int | Sequence[tuple[int, int]],
        *,
        feed: Feed | None = None,
        host: int | None = None,
        hosts: int | None = None,
        remainder: Literal["keep", "drop", "pad"] = "keep",
        steps: int | None = None,
        collate: Callable[[list[Any]], BatchT] | None = None,
        workers: int | Literal["auto"] | Workers = 0,
        ahead: int | str = "512MiB",
        start: bool = False,
        **others: Any,
    ) -> None:
        check_options(others, remainder, steps, collate)
        if not isinstance(dataset, Dataset):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ChainError(f"a Loader wants a Dataset, not {type(dataset).__name__}: Dataset(…)")
        self._options: dict[str, Any] = {
            "feed": feed,
            "host": host,
            "hosts": hosts,
            "remainder": remainder,
            "steps": steps,
            "collate": collate,
            "workers": workers,
            "ahead": ahead,
            "start": start,
        }
        self._dataset, self._batch_size, self._feed = dataset, batch_size, feed
        self._rule = sizes_of(batch_size), remainder, steps
        self._assembly = Assembly(dataset, remainder == "pad", collate)
        self._workers = (
            Auto() if isinstance(workers, str) and workers == "auto" else chosen(workers)
        )
        self._ahead = budget(ahead)
        self._share = share_of(feed, host, hosts, self._rule[0])
        self._neighbours = Neighbours(feed, told=host is not None)
        self._neighbours.check(warn=False)
        self._account = Account()
        self._owner, self._last, self._checked = 0, None, -1
        self._waiting: list[int] = []  # threads that want a turn, each once
        self._once: Once[BatchT] | None = None
        self._observer: Observer | None = None
        stream = self._open()
        self._position = Position(stream.start())
        self._run = Run(stream, self._position, self._make, self._prefetch)
        if start:
            self.start()

    def _open(self) -> Stream:
        # rows stay unstacked for a collate and for late stages: they see what stages return
        top, (_, remainder, _) = self._dataset.top, self._rule
        stack = (self._options["collate"] is None or remainder == "pad") and not top.late
        self._executor = self._workers.open(top, ahead=self._ahead, stack=stack)
        self._process = os.getpid()
        return open_stream(top, self._executor, self._share, self._rule)

    @property
    def _prefetch(self) -> int:
        return self._feed.prefetch if self._feed else 0

    # ---- one thread at a time

    def _take_turn(self, me: int) -> None:
        # threads take turns, in the order in which they came. One assignment takes a turn, another
        # gives it back: no thread and no interrupt can come between the test and the assignment,
        # as they could with a lock
        if not (self._owner or self._waiting) or self._owner == me:
            self._owner = me
            return
        try:
            self._waiting.append(me)
            while self._waiting[0] != me or self._owner:
                time.sleep(0.0002)
            self._owner = me
        finally:
            if me in self._waiting:  # not if an interrupt came first
                self._waiting.remove(me)

    def _ask(self, question: Callable[[Run], Any]) -> Any:
        # ask the current run, while no other thread changes it
        me = get_ident()
        if self._process != os.getpid():
            self._fork()
        outer = self._owner == me
        try:
            self._take_turn(me)
            return question(self._running())
        finally:
            if not outer and self._owner == me:
                self._owner = 0

    def _fork(self) -> None:
        # this process lacks the parent's workers, and a thread of the parent that held a turn
        self._inherited = self._executor, self._run
        self._owner, self._checked, self._observer = 0, -1, None
        self._waiting = []  # threads of the parent
        self._account = Account()  # what the parent's batches cost is the parent's to count
        self._run = Run(self._open().at(self._position), self._position, self._make, self._prefetch)

    def _running(self) -> Run:
        # the run at the loader's position; one at another position is cancelled
        run = self._run
        if run.position is not self._position:
            run.cancel()
            stream, self._checked = run.stream.at(self._position), -1
            run = self._run = Run(stream, self._position, self._make, self._prefetch)
        return run

    def _settled(self) -> Cursor:
        run = self._running()
        cursor = run.settle()
        self._position = run.position
        return cursor

    # ---- going on

    def __iter__(self) -> Iterator[BatchT]:
        epoch = self.epoch
        while True:
            try:
                batch = self._hand_out(epoch)
            except StopIteration:
                return
            except BaseException as error:
                shorten(error)
                raise
            yield batch

    @short_traceback
    def __next__(self) -> BatchT:
        """The next batch; passes follow one another.

        Raises:
            StopIteration: the next pass holds no batch.
        """
        return self._hand_out(None)

    def _hand_out(self, epoch: int | None) -> Any:
        # the next batch of a pass; of any pass if `epoch` is None
        asked, me = time.perf_counter(), get_ident()
        if self._process != os.getpid():
            self._fork()
        outer = self._owner == me
        try:
            self._take_turn(me)
            run = self._running()
            # fill before taking: an interrupt in here loses no batch
            try:
                if epoch is not None and not run.within(epoch):
                    self._account.stop()
                    raise StopIteration
                if self._checked != run.position.cursor.epoch:
                    self._neighbours.check()
                    self._checked = run.position.cursor.epoch
                with marked("next batch"):
                    found = run.fill(across=epoch is None)
            finally:
                self._position = run.position
            if not found:
                self._account.stop()
                raise StopIteration
            self._account.handed_out(run.ready[0][0].rows, run.ready[0][0].nbytes, asked)
            if self._observer:
                waited = time.perf_counter() - asked
                self._observer.handed_out(run.position, run.ready[0][0], waited)
            # from here on no call, within which an interrupt could come
            made, position = run.ready[0]
            batch, after = made.batch, made.after
            self._position = run.position = position
            self._last = after.step - 1
            del run.ready[0]
            return batch
        finally:
            if not outer and self._owner == me:
                self._owner = 0

    def _make(self, stream: Stream, cursor: Cursor) -> Made | None:
        before = METER.into(self._account.late)
        try:
            take = stream.take(cursor)
            if take is None:
                return None
            told = self._observer.made(take) if self._observer else None
            started = time.perf_counter()
            batch = self._assembly(take)
        except StopIteration as e:
            # a `for` over the loader would take it for the end of the pass
            raise RuntimeError(
                "a function of the dataset or its collate raised StopIteration"
            ) from e
        finally:
            METER.into(before)
        collated = time.perf_counter()
        nbytes = self._account.collated(batch, len(take.rows), collated - started)
        if self._feed is not None:
            if self._options["collate"] is not None:
                batch = fresh(batch)  # devices may alias it, and collate may use it again
            batch = self._feed.put(batch, take.rows, take.total)
            nbytes = self._account.fed(batch, len(take.rows), time.perf_counter() - collated)
        return Made(batch, take.stop - take.start, nbytes, take.after, told)

    def close(self) -> None:
        """End this loader's workers; its state can still be read."""
        if self._owner in (0, get_ident()) and self._process == os.getpid():
            self._run.cancel()
        self._executor.close()  # another thread that waits for a batch gets an error
        self._account.stop()
        if self._once is not None:
            self._once.close()

    def __enter__(self) -> Loader[BatchT]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> Any:
        return _reopened, (self._dataset, self._batch_size, self._options, self._position)

    def __len__(self) -> int:
        """Batches of a pass.

        Raises:
            LengthError: a pass never ends, rows are counted as they come, or batch sizes change.
        """
        per_pass = self._run.stream.per_pass
        if per_pass is None:
            why = "a pass never ends" if self._dataset.endless else "its batch size changes"
            why = "rows are counted as they come" if self._dataset.counted else why
            raise LengthError(f"this loader has no length: {why}. Give steps=.")
        return per_pass

    def __bool__(self) -> bool:
        return True  # `if loader` asks whether there is one, also where it has no length

    def __repr__(self) -> str:
        c = self._position.cursor
        return f"Loader(step={c.step}, epoch={c.epoch}, {self._shown})"

    def _repr_html_(self) -> str:
        stats = self.stats()._repr_html_() if self._account.batches else ""
        return f"<p>{escaped(repr(self))}</p>{self._dataset._repr_html_()}{stats}"

    @property
    def _shown(self) -> str:
        return f"batch_size={self._batch_size}, workers={self._workers!r}"

    if not TYPE_CHECKING:  # type checkers name what a Loader has not themselves

        def __getattr__(self, name: str) -> Any:
            # reached for names that a Loader does not have
            raise unknown_attribute(name)

    def once(self) -> Once[BatchT]:
        """An iterable for evaluation: each iteration is one pass from step 0.

        Its workers live on from pass to pass, until it or this loader is closed or dropped.

        >>> held_out = Loader(Dataset({"x": np.arange(4)}), 2).once()
        >>> [batch["x"].tolist() for batch in held_out], len(list(held_out))
        ([[0, 1], [2, 3]], 2)
        """
        if self._once is None:
            dataset, size, options = self._dataset, self._batch_size, self._options
            self._once = Once(lambda: Loader(dataset, size, **options), self._shown)
        return self._once

    def like(self, dataset: Dataset | None = None, **options: Any) -> Loader:
        """Another loader, at step 0, with the same dataset and options except for those given.

        >>> loader = Loader(Dataset(range(8)), 2)
        >>> len(loader.like(batch_size=4)), len(loader.like(Dataset(range(6))))
        (2, 3)
        """
        size = options.pop("batch_size", self._batch_size)
        dataset = self._dataset if dataset is None else dataset
        return Loader(dataset, size, **{**self._options, **options})

    def stats(self) -> Stats:
        """What the data has cost so far: each stage, the workers, and the queue between them.

        Moves and restores leave the figures as they are, and `close` keeps them.

        >>> loader = Loader(Dataset({"x": np.arange(8)}).map(lambda r: r, name="same"), 4)
        >>> _ = list(loader)
        >>> [(s.name, s.rows) for s in loader.stats().stages]
        [('source', 8), ("stage 0: map 'same'", 8), ('collate', 8)]
        """
        if self._process != os.getpid():
            self._fork()
        return self._account.stats(self._executor.stats(), self._ahead)

    # ---- where it stands

    @property
    def dataset(self) -> Dataset:
        """The dataset that batches are of."""
        return self._dataset

    @property
    def workers(self) -> Workers:
        """The workers that evaluate rows."""
        return self._workers

    @property
    def step(self) -> int:
        """Data step of the next batch."""
        return self._ask(lambda run: self._settled().step)

    @property
    def epoch(self) -> int:
        """Pass of the next batch; it turns over as a pass's last batch is handed out."""
        return self._ask(lambda run: self._settled().epoch)

    @property
    def last_step(self) -> int | None:
        """Data step of the last batch handed out; None if there was none, or none since a restore.

        >>> loader = Loader(Dataset(range(8)), 2)
        >>> _ = next(loader), next(loader)
        >>> loader.last_step, loader.step
        (1, 2)
        """
        return self._last

    @property
    def frontier(self) -> int:
        """First row of the dataset's mix that no batch has used: its schedule is open from here.

        On resume, entries of the schedule from this row on may be added, changed or removed, with
        their datasets: nothing that was drawn changes. Once a pass of a finite mix has ended, it is
        2**62, as the start of the next pass depends on all of the schedule; and so it is once rows
        of one were drawn that a filter or pack above cuts into blocks, by the length of the mix.
        Hosts that split a counted mix by lanes may differ a little: the largest holds for all.

        Raises:
            ChainError: the dataset is no mix, with or without stages on it.

        >>> from pipeline import mix
        >>> ds = mix({"a": Dataset(range(9)), "b": Dataset(range(9))}, {"a": 2, "b": 1})
        >>> loader = Loader(ds, 4)
        >>> _ = next(loader)
        >>> loader.frontier
        4
        """
        mixture = self._dataset.top.node.mixture
        if mixture is None:
            raise ChainError("this dataset is no mix, so it has no frontier: see pipeline.mix")
        return self._ask(lambda run: self._frontiers(self._settled())[mixture[0]])

    def _frontiers(self, cursor: Cursor) -> dict[str, int]:
        return self._dataset.top.frontiers(cursor.rows, cursor.epoch, cursor.lanes)

    def seek(self, step: int) -> None:
        """Move to a data step, as if iterated there: O(1) if indexed, else from a known step.

        Raises:
            PositionError: there is no such step, or it lies before a resume that changed batch
                sizes or rule.
        """
        step = whole("step", step, 0, PositionError, MOST_STEPS)
        self._move(lambda run: run.position._replace(cursor=run.stream.locate(step)))

    def _to_next_pass(self) -> None:
        # for pipeline.compat: leave the pass, where arithmetic tells its end; else stay
        def left(run: Run) -> Position:
            cursor, stream = run.settle(), run.stream
            if not self._dataset.counted and stream.per_pass is not None:
                cursor = stream.advance(cursor, MOST_STEPS)
            return run.position._replace(cursor=cursor)

        self._move(left)

    def start(self) -> None:
        """Begin the workers and their reading ahead now, rather than with the first batch.

        They then start while a model compiles or its checkpoint is restored. Without workers there
        is nothing to begin.

        >>> with Loader(Dataset(range(8)), 4, workers=2) as loader:
        ...     loader.seek(1)
        ...     loader.start()
        ...     next(loader).tolist()
        [4, 5, 6, 7]
        """
        self._ask(lambda run: run.prefetch())

    def skip(self, *ranges: range, records: Any = (), files: Any = ()) -> None:
        """Skip the batches of these steps; or exclude records and files, wherever they would come.

        It holds from where the loader stands and is kept in its state, on any number of hosts; in a
        run, each host must be told. Earlier steps stay what they were. A substitute from the same
        epoch takes the place of an excluded record. A streamed dataset goes on with its next row
        instead, and a packed row is excluded with any of its documents. Steps mean rows: after a
        resume with another batch size, the rows of skipped steps are cut out of the stream.

        Args:
            ranges: steps, as range(100, 200).
            records: rows of `where`, numbers or ranges of the source, or (component, number).
            files: names of files as `where` shows them, the last parts of paths, or patterns.

        Raises:
            PositionError: there is no such step, record or file.

        >>> loader = Loader(Dataset({"x": np.arange(8)}), 2)
        >>> loader.skip(range(1, 3))
        >>> [batch["x"].tolist() for batch in loader]
        [[0, 1], [6, 7]]
        >>> loader.skip(records=[2, 3])
        >>> sorted({2, 3} & {int(x) for batch in loader for x in batch["x"]})
        []
        """
        steps = step_ranges(ranges, "skip")

        def moved(run: Run) -> Position:
            since = run.settle().step
            excluded = Exclusions(self._dataset.components, run.position.exclusions)
            entries = excluded.plus(since, records, files).entries
            return run.position.skipping(steps, self._rule)._replace(exclusions=entries)

        self._move(moved, elsewhere=False)

    @short_traceback
    def __getitem__(self, step: int) -> BatchT:
        """The batch of a data step, skipped or not; the loader stays where it is."""
        step = whole("step", step, 0, PositionError, MOST_STEPS)
        made = self._ask(lambda run: self._make(run.stream, run.stream.locate(step)))
        if made is None:
            raise PositionError(f"there is no step {step}: its pass holds no batch")
        return made.batch

    def where(self, step: int | None = None) -> Provenance:
        """Provenance of this process's rows of a data step.

        Nothing is read for an indexed dataset, unless it skips rows that fail.

        Args:
            step: the data step; by default that of the last batch handed out.

        Raises:
            PositionError: there is no such step, or no batch was handed out yet.

        >>> Loader(Dataset({"x": np.arange(8)}), 2).where(1)[0].record
        2
        """
        step = self._last if step is None else whole("step", step, 0, PositionError, MOST_STEPS)
        if step is None:
            raise PositionError("where(): no batch was handed out yet. Name a step: where(0).")
        origin = self._ask(lambda run: run.stream.origin(run.stream.locate(step)))
        return Provenance(self._dataset.components, origin)

    def find(self, *records: Any, within: range | None = None) -> list[int]:
        """The steps in which records appeared, over all hosts if arithmetic tells.

        For a counted dataset, or one that skips rows that fail, only reading steps again tells what
        was in them: then `within` must be given, and only this host's rows are looked at.

        Args:
            records: rows of `where`, numbers or ranges of the source, (component, number) or
                (file, number in it).
            within: steps to look at; by default all up to where the loader stands.

        Raises:
            PositionError: there is no such record, or `within` is needed.

        >>> loader = Loader(Dataset({"x": np.arange(8)}).shuffle().repeat(), 2)
        >>> [5 in loader[step]["x"] for step in loader.find(5, within=range(40))]
        [True, True, True, True, True, True, True, True, True, True]
        """
        top = self._dataset.top
        wanted = records_of(self._dataset.components, records)
        if within is None:
            check_arithmetic(top)
        else:
            step_ranges([within], "within")

        def found(run: Run) -> list[int]:
            steps = range(run.position.anchor.step, self._settled().step)
            steps, excluded = within or steps, run.position.exclusions
            hits = found_steps(run.stream, top, wanted, steps, excluded)
            return [step for step in hits if run.skipping.end(step) is None]

        return self._ask(found)

    def _move(self, moved: Callable[[Run], Position], *, elsewhere: bool = True) -> None:
        def move(run: Run) -> None:
            self._position = moved(run)

        self._ask(move)
        if self._options["start"]:
            self.start()
        if self._observer:
            self._observer.moved(elsewhere=elsewhere)

    # ---- for pipeline.debug.journal

    def _observe(self, observer: Observer | None) -> None:
        # batches made ahead were not observed: they are made again
        self._observer = observer
        self._ask(lambda run: run.cancel())

    def _taken(self, step: int) -> Take:
        # this process's rows of a data step, before they become a batch
        take = self._ask(lambda run: run.stream.take(run.stream.locate(step)))
        if take is None:
            raise PositionError(f"there is no step {step}: its pass holds no batch")
        return take

    def _skips_to(self, step: int) -> int:
        # the first step from here on that is not skipped
        return self._ask(lambda run: run.skipping.end(step)) or step

    def _skips_from(self, step: int) -> int:
        # the first step from which on all are skipped up to this one. Those skipped before the
        # anchor, where batches had another size, are no jumps any more
        def ranges(run: Run) -> Ranges:
            position, anchor = run.position, run.position.anchor.step
            past = [pair for skip in position.skips for pair in skip.steps]
            behind = [(start, min(stop, anchor)) for start, stop in past if start < anchor]
            return joined([*run.stream.jumps, *behind])

        return next((start for start, stop in self._ask(ranges) if start < step <= stop), step)

    # ---- state

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands, just after the last batch handed out, as small JSON-able data.

        With a feed and a counted dataset, processes gather each other's lanes: all must call it.
        """
        state = self._own_state()
        if self._feed is not None and self._dataset.counted:
            return merge(self._feed.gather(state))
        return state

    def _own_state(self) -> dict[str, Any]:
        def saved(run: Run) -> SavedState:
            known = tuple(self._frontiers(self._settled()).items())
            return SavedState(self._position, self._rule, known)

        whole = getattr(self._feed, "whole_states", False)
        top = self._dataset.top
        packages = top.node.packages
        return encode(self._ask(saved), top.fingerprint(), packages=packages, whole=whole)

    def load_state_dict(self, state: Mapping[str, Any], *, allow: Collection[str] = ()) -> None:
        """Move to where a state says, whatever hosts, workers or batch size it was saved under.

        Args:
            state: what `state_dict` returned: on any host if hosts split batches by rows, merged
                if they split lanes.
            allow: names of intended differences, as the error lists them.

        Raises:
            MismatchError: the state is of another dataset.
            StateError: it is damaged, or lacks lanes of this host.
        """
        state, top = plain(state), self._dataset.top
        saved = decode(state)
        saved = replace(saved, same=check_dataset(state, top.fingerprint(), allow))
        if known := packages_of(state):
            warn_of_versions("the state", known, top.node.packages)

        def restored(run: Run) -> Position:
            position = run.stream.restored(saved)
            if not saved.same:
                c = saved.position.cursor
                # of an edited mix, a pass may end with the last row that was given
                drawn = top.frontiers(max(0, c.rows - 1), c.epoch, c.lanes)
                check_drawn(state, top.fingerprint(), allow, drawn)
            self._last = None
            return position

        self._move(restored)

    get_state = state_dict
    set_state = load_state_dict

    async def save(self, directory: Any) -> Awaitable[None]:
        """Orbax's v1 `StatefulCheckpointable`: write the present state in the background."""
        if self._feed is None and not self._run.stream.alone:
            raise HostsError(
                "this process knows only its own lanes, and each host would write over the others' "
                "state. Use a feed, or save merge([state_dict() of each host]) yourself."
            )
        primary = getattr(self._feed, "primary", True)
        return await orbax.save(self.state_dict(), directory, primary=primary)

    async def load(self, directory: Any) -> Awaitable[None]:
        """Orbax's v1 `StatefulCheckpointable`: move to where a saved state says."""
        return await orbax.load(directory, self.load_state_dict)


def _reopened(
    dataset: Dataset, batch_size: Any, options: dict[str, Any], position: Position
) -> Loader:
    start, later = options["start"], options | dict[str, Any](start=False)
    loader = Loader(dataset, batch_size, **later)
    loader._options, loader._position = options, position
    if start:
        loader.start()
    return loader
