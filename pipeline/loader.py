"""Where a run stands in its data: batch after batch, state, seek, skip. The only mutable class."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Literal

from pipeline.batches.assembly import Assembly
from pipeline.batches.hosts import share_of
from pipeline.batches.once import Once
from pipeline.batches.opening import open_stream
from pipeline.batches.skipping import Skipping
from pipeline.checkpoint import orbax
from pipeline.checkpoint.state import Saved, check_dataset, decode, encode, merge
from pipeline.checks import function, whole
from pipeline.dataset import Dataset
from pipeline.errors import (
    BatchError,
    ChainError,
    HostsError,
    LengthError,
    PositionError,
    short_traceback,
    shorten,
)
from pipeline.frontier import SCHEDULE, frontiers
from pipeline.lanes import late
from pipeline.meter import METER
from pipeline.provenance.exclusions import Exclusions, records_of
from pipeline.provenance.find import check_arithmetic, found_steps
from pipeline.provenance.where import Provenance
from pipeline.sampling.passes import Cursor
from pipeline.sampling.sizes import sizes_of
from pipeline.tree import fresh
from pipeline.types import Feed
from pipeline.workers import Workers, budget, chosen
from pipeline.workers.stats import Account, Stats

REMAINDERS = ("keep", "drop", "pad")
MOST_STEPS = 1 << 48


class Loader:
    """Batches of a dataset, in an exact order, resumable anywhere.

    `for batch in loader` goes from where the loader stands to the end of the pass; the next `for`
    is the next pass, reshuffled. `next(loader)` goes on from pass to pass. Without a feed a batch
    is a pytree of NumPy arrays `[rows, ...]`, this host's rows of the global batch.

    Args:
        dataset: what the data is.
        batch_size: rows of the GLOBAL batch, over all hosts; or a schedule [(from_step, rows), …],
            which changes how the stream of rows is cut, not the stream.
        feed: puts batches on devices, and knows its rows: JaxFeed(sharding), TorchFeed().
        host, hosts: this process's place among them, by hand.
        remainder: a short last batch is kept, dropped, or padded with zeros and a bool "mask".
        steps: end a pass after so many batches.
        collate: layout only: this host's rows (a list) -> batch; `pad_to(...)` for ragged ones.
        workers: 0 evaluates in this thread; n in so many processes; "auto" decides by the cores;
            or Threads(n), Processes(n).
        ahead: how much may wait, evaluated before it is asked for: bytes, or "512MiB".

    Raises:
        BatchError: the batch size fits neither hosts, lanes nor the dataset.
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
        collate: Callable[[list[Any]], Any] | None = None,
        workers: int | Literal["auto"] | Workers = 0,
        ahead: int | str = "512MiB",
    ) -> None:
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
        }
        self._dataset, self._batch_size, self._feed = dataset, batch_size, feed
        sizes = sizes_of(batch_size)
        if remainder not in REMAINDERS:
            raise BatchError(f"remainder={remainder!r}: choose one of {', '.join(REMAINDERS)}")
        if steps is not None:
            whole("steps", steps, 1, BatchError)
        if collate is not None:
            function("collate", collate)
        self._assembly = Assembly(dataset, remainder == "pad", collate)
        # whoever collates by hand sees the very rows that stages return, and so does a late stage
        stack = (collate is None or remainder == "pad") and not late(dataset.chain)
        self._ahead = budget(ahead)
        self._executor = chosen(workers).open(dataset.chain, ahead=self._ahead, stack=stack)
        share = share_of(feed, host, hosts, sizes)
        self._stream = open_stream(dataset.chain, self._executor, share, sizes, remainder, steps)
        self._cursor = self._stream.start()
        self._since, self._excluded = 0, Exclusions(dataset.components)
        self._skipping = Skipping(self._stream)
        self._account = Account()
        self._ready: deque[tuple[Any, Cursor, int]] = deque()
        self._once: Once | None = None

    # ---- going on

    def __iter__(self) -> Iterator[Any]:
        epoch = self._settle().epoch
        while self._settle().epoch == epoch:
            if self._skipping.end(self._cursor.step) is not None:
                self._cursor = self._skipping.next_pass(self._cursor)  # all of it is skipped
                return
            try:
                yield next(self)
            except StopIteration:
                return
            except BaseException as error:
                shorten(error)
                raise

    @short_traceback
    def __next__(self) -> Any:
        """The next batch; passes follow one another.

        Raises:
            StopIteration: the next pass holds no batch.
        """
        asked = time.perf_counter()
        while self._skipping.end(self._settle().step) is not None:
            self._cursor = self._skipping.next_pass(self._cursor)
        # fill before taking: an interrupt in here loses no batch
        self._fill(1 + (self._feed.prefetch if self._feed else 0))
        if not self._ready:
            self._cursor = self._stream.turn(self._cursor)
            raise StopIteration
        self._account.handed_out(self._ready[0][0], self._ready[0][2], asked)
        # no call from here on, where an interrupt could come between
        batch, self._cursor, _ = self._ready[0]
        del self._ready[0]
        return batch

    def _fill(self, want: int) -> None:
        # batches ahead, within the pass; an error among them waits until its batch is asked for
        while len(self._ready) < want:
            cursor = self._skipping.settled(self._ready[-1][1] if self._ready else self._cursor)
            if self._ready and cursor.epoch != self._cursor.epoch:
                return
            try:
                self._stream.expect(cursor, self._skipping.settled)
                made = self._make(cursor)
            except Exception:
                if self._ready:
                    return
                raise
            if made is None:
                return
            self._ready.append(made)
        self._expect(self._ready[-1][1])

    def _expect(self, cursor: Cursor) -> None:
        # workers go on while the loop uses this batch; not into a pass that may never be asked for
        cursor = self._skipping.settled(cursor)
        if cursor.epoch == self._cursor.epoch:
            self._stream.expect(cursor, self._skipping.settled)

    def _make(self, cursor: Cursor) -> tuple[Any, Cursor, int] | None:
        before = METER.into(self._account.late)
        try:
            take = self._stream.take(cursor)
            if take is None:
                return None
            started = time.perf_counter()
            batch = self._assembly(take)
        except StopIteration as e:
            # a `for` over the loader would take it for the end of the pass
            raise RuntimeError(
                "a function of the dataset or its collate raised StopIteration"
            ) from e
        finally:
            METER.into(before)
        self._account.collated(time.perf_counter() - started)
        if self._feed is not None:
            if self._options["collate"] is not None:
                batch = fresh(batch)  # devices may alias it, and collate may use it again
            batch = self._feed.put(batch, take.rows, take.total)
        return batch, take.after, len(take.block)

    # ---- skipping

    def _settle(self) -> Cursor:
        # move past skipped steps before anybody asks where the loader stands
        self._cursor = self._skipping.settled(self._cursor)
        return self._cursor

    def _clear(self) -> None:
        self._ready.clear()
        self._stream.forget()

    def close(self) -> None:
        """End what runs for this loader; its state can still be read."""
        self._clear()
        self._executor.close()
        if self._once is not None:
            self._once.close()

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        """Batches a pass.

        Raises:
            LengthError: a pass never ends, rows are counted as they come, or batch sizes change.
        """
        if self._stream.per_pass is None:
            why = "a pass never ends" if self._dataset.endless else "its batch size changes"
            why = "rows are counted as they come" if self._dataset.counted else why
            raise LengthError(f"this loader has no length: {why}. Give steps=.")
        return self._stream.per_pass

    def __bool__(self) -> bool:
        return True  # `if loader` asks whether there is one, also where it has no length

    def once(self) -> Once:
        """One pass from step 0, each time it is iterated: what evaluation wants.

        Its workers stay from pass to pass, until it or this loader is closed or dropped.

        >>> held_out = Loader(Dataset({"x": np.arange(4)}), 2).once()
        >>> [batch["x"].tolist() for batch in held_out], len(list(held_out))
        ([[0, 1], [2, 3]], 2)
        """
        if self._once is None:
            dataset, size, options = self._dataset, self._batch_size, self._options
            self._once = Once(lambda: Loader(dataset, size, **options))
        return self._once

    def stats(self) -> Stats:
        """What the data has cost so far: each stage, the workers, and the queue between them.

        >>> loader = Loader(Dataset({"x": np.arange(8)}).map(lambda r: r, name="same"), 4)
        >>> _ = list(loader)
        >>> [(s.name, s.rows) for s in loader.stats().stages]
        [('source', 8), ("stage 0: map 'same'", 8), ('collate', 8)]
        """
        return self._account.stats(self._executor.stats(), self._ahead)

    # ---- where it stands

    @property
    def step(self) -> int:
        """Data step of the next batch."""
        return self._settle().step

    @property
    def epoch(self) -> int:
        """Pass of the next batch; it turns over as a pass's last batch is handed out."""
        return self._settle().epoch

    @property
    def frontier(self) -> int:
        """First row of the dataset's mix that no batch has touched: its schedule is open from here.

        Entries of the schedule from this row on may be added, changed or taken back on resume, with
        their datasets, and nothing that was drawn changes. Once a pass of a finite mix has ended it
        is 2**62: where passes begin hangs on all of the schedule. Hosts that split a counted mix by
        lanes may differ a little: the largest is right for all.

        Raises:
            ChainError: the dataset is no mix, with or without stages on it.

        >>> from pipeline import mix
        >>> ds = mix({"a": Dataset(range(9)), "b": Dataset(range(9))}, {"a": 2, "b": 1})
        >>> loader = Loader(ds, 4)
        >>> _ = next(loader)
        >>> loader.frontier
        4
        """
        found = frontiers(self._dataset.chain, self._settle())
        if SCHEDULE not in found:
            raise ChainError("this dataset is no mix, so it has no frontier: see pipeline.mix")
        return found[SCHEDULE]

    def seek(self, step: int) -> None:
        """Stand at a data step as if iterated there; O(1) if indexed, else from a known state."""
        self._stand(self._stream.locate(whole("step", step, 0, PositionError, MOST_STEPS)))

    def skip(self, *ranges: range, records: Any = (), files: Any = ()) -> None:
        """Leave out the batches of these steps; or records and files, wherever they would come.

        It holds from where the loader stands, after every resume and on other hosts too; each host
        must be told. Earlier steps stay what they were. Where a record is left out, another one of
        the same epoch takes its place; a counted dataset goes on with its next row instead, and a
        packed row goes with any of its documents.

        Args:
            ranges: steps, as range(100, 200).
            records: rows of `where`, numbers or ranges of the source, or (component, number).
            files: as `where` shows them, the last parts of their paths, or patterns.

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
        skips = self._skipping.plus(ranges)
        excluded = self._excluded.plus(self.step, records, files)
        self._stand(self._cursor)
        self._skipping.ranges = skips
        if excluded.entries != self._excluded.entries:
            self._excluded = excluded
            self._stream.exclude(excluded, self._cursor.step)

    @short_traceback
    def __getitem__(self, step: int) -> Any:
        """The batch of a data step, skipped or not; the loader stays where it is."""
        made = self._make(self._stream.locate(whole("step", step, 0, PositionError, MOST_STEPS)))
        if made is None:
            raise PositionError(f"there is no step {step}: its pass holds no batch")
        return made[0]

    def where(self, step: int) -> Provenance:
        """Provenance of this process's rows of a data step; if indexed, nothing is read.

        >>> Loader(Dataset({"x": np.arange(8)}), 2).where(1)[0].record
        2
        """
        origin = self._stream.origin(
            self._stream.locate(whole("step", step, 0, PositionError, MOST_STEPS))
        )
        return Provenance(self._dataset.components, origin)

    def find(self, *records: Any, within: range | None = None) -> list[int]:
        """The steps in which records appeared, over all hosts; of a counted dataset, on this one.

        Args:
            records: rows of `where`, numbers or ranges of the source, (component, number) or
                (file, number in it).
            within: steps to look at; by default all up to where the loader stands. Of a counted
                dataset, or one that skips what fails, only reading these steps again tells, so
                they must be given.

        Raises:
            PositionError: there is no such record, or `within` is needed.

        >>> loader = Loader(Dataset({"x": np.arange(8)}).shuffle().repeat(), 2)
        >>> [5 in loader[step]["x"] for step in loader.find(5, within=range(40))]
        [True, True, True, True, True, True, True, True, True, True]
        """
        wanted = records_of(self._dataset.components, records)
        if within is None:
            check_arithmetic(self._dataset.chain)
            within = range(self._since, self.step)
        within = self._skipping.steps(within)
        steps = found_steps(self._stream, self._dataset.chain, wanted, within, self._excluded)
        return [step for step in steps if self._skipping.end(step) is None]

    # ---- state

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands, just after the last batch handed out: small, JSON-able.

        With a feed and a counted dataset, processes gather their lanes: all must call it.
        """
        cursor = self._settle()
        known = tuple(frontiers(self._dataset.chain, cursor).items())
        skips, excluded = self._skipping.ranges, self._excluded.entries
        saved = Saved(cursor, self._stream.rule, self._since, skips, excluded, known)
        every = getattr(self._feed, "whole_states", False)
        state = encode(saved, self._dataset.fingerprint(), whole=every)
        if self._feed is not None and self._dataset.counted:
            return merge(self._feed.gather(state))
        return state

    def load_state_dict(self, state: Mapping[str, Any], *, allow: Collection[str] = ()) -> None:
        """Stand where a state says, whatever hosts, workers or batch size it was saved under.

        Args:
            state: from `state_dict`, of any host if rows are split, merged if lanes are.
            allow: names of differences that are intended, as the error lists them.

        Raises:
            MismatchError: the state is of another dataset.
            StateError: it is damaged, or lacks lanes of this host.
        """
        saved = decode(state)
        check_dataset(state, self._dataset.fingerprint(), allow)
        excluded = Exclusions(self._dataset.components, saved.excluded)
        self._stream.exclude(excluded, 0)
        try:
            cursor, other = self._stream.restore(saved)
        except BaseException:
            self._stream.exclude(self._excluded, 0)
            raise
        self._stand(cursor)
        self._since = cursor.step if other else saved.since
        self._skipping.ranges, self._excluded = saved.skips, excluded

    def _stand(self, cursor: Cursor) -> None:
        # cleared first: an interrupt leaves the old place, never batches of another
        self._clear()
        self._cursor = cursor
        self._skipping.moved()

    get_state = state_dict
    set_state = load_state_dict

    async def save(self, directory: Any) -> Awaitable[None]:
        """Orbax's v1 `StatefulCheckpointable`: the state of now is written in the background."""
        if self._feed is None and not self._stream.alone:
            raise HostsError(
                "this process knows only its own lanes, and each host would write over the others' "
                "state. Use a feed, or save merge([state_dict() of each host]) yourself."
            )
        primary = getattr(self._feed, "primary", True)
        return await orbax.save(self.state_dict(), directory, primary=primary)

    async def load(self, directory: Any) -> Awaitable[None]:
        """Orbax's v1 `StatefulCheckpointable`: stand where a saved state says."""
        return await orbax.load(directory, self.load_state_dict)
