"""Requests for URLs: how many run at once, how often each is retried, and its deadline."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from itertools import pairwise
from typing import Any, Protocol, TypeVar

import numpy as np

from pipeline.errors import PipelineError, StorageError
from pipeline.sources.complaints import (
    changed,
    forbidden,
    missing,
    out_of_reach,
    refused,
    without_ranges,
)
from pipeline.sources.storage.location import Answer, Range, Stat
from pipeline.sources.storage.spans import merge
from pipeline.sources.storage.through_fsspec import client_of, open_fsspec
from pipeline.sources.storage.through_obstore import open_obstore, serves, split
from pipeline.sources.storage.verdict import TruncatedError, WrongRangeError, judge

T = TypeVar("T")

_BIG = 1 << 20  # bytes; larger requests run 8 at a time, to finish on a slow line
_BIG_FLIGHT = 8
_SLOWEST = 1 << 20  # bytes a second assumed of an upload: its size extends the deadline
# seconds before the first retry, then doubled up to the second value
_PAUSE, _MOST_PAUSE = 0.1, 8.0
_JITTER = random.Random()  # not the global generator, which users seed and draw from


class Engine(Protocol):
    """A storage client that makes a single attempt at each request."""

    async def info(self, url: str) -> Stat: ...
    async def list(self, pattern: str) -> list[Stat]: ...
    async def get(self, url: str, start: int, stop: int, tag: str) -> Answer: ...
    async def put(self, url: str, data: bytes) -> None: ...
    async def upload(self, url: str, path: str) -> None: ...
    async def remove(self, url: str) -> None: ...


class Remote:
    """Access to all URLs from one process. Safe in threads, which share its connections.

    Args:
        engine: "fsspec", "obstore", or "auto": obstore where it serves the URL and is installed.
        options: for the engine.
        deadline: seconds for a request with all its retries, from its first attempt on.
        gap: unwanted bytes between two ranges up to which they are fetched in one request.
        largest: bytes of one request at most.
        flight: requests at once.
    """

    def __init__(
        self,
        engine: str,
        options: Mapping[str, Any],
        *,
        deadline: float,
        gap: int,
        largest: int,
        flight: int,
    ) -> None:
        self._engine_name, self._options = engine, options
        self._deadline, self._gap, self._largest, self._flight = deadline, gap, largest, flight
        self._lock = threading.Lock()
        self._engines: dict[str, Future[Engine]] = {}
        self._small = asyncio.Semaphore(flight)
        self._big = asyncio.Semaphore(_BIG_FLIGHT)

    # ---- requests

    def stats(self, urls: Sequence[str]) -> list[Stat]:
        """Size and tag of each file, requested concurrently."""
        engines = [self._engine(url) for url in urls]
        return self._run(
            self._all(
                self._try(url, lambda e=engine, u=url: e.info(u))
                for url, engine in zip(urls, engines, strict=True)
            )
        )

    def list(self, pattern: str) -> list[Stat]:
        """The files that a pattern matches, sorted by name; one listing."""
        engine = self._engine(pattern)
        return self._run(self._try(pattern, lambda: engine.list(pattern)))

    def read(self, ranges: Sequence[Range]) -> list[bytes]:
        """The bytes of ranges, none of them empty, in the order given."""
        files: dict[Range, int] = {}
        file = [files.setdefault(span._replace(start=0, stop=0), len(files)) for span in ranges]
        start, stop = np.array([span[1:3] for span in ranges], np.int64).T
        runs = merge(np.array(file, np.int64), start, stop, gap=self._gap)
        names, requests, first = list(files), list[Range](), list[int]()
        for number, a, b in zip(*(part.tolist() for part in runs[:3]), strict=True):
            first.append(len(requests))
            requests += [
                names[number]._replace(start=at, stop=min(at + self._largest, b))
                for at in range(a, b, self._largest)
            ]
        engines = [self._engine(span.path) for span in requests]
        works = [self._get(engine, span) for engine, span in zip(engines, requests, strict=True)]
        answers = self._run(self._all(works))
        data = [b"".join(answers[a:b]) for a, b in pairwise([*first, len(requests)])]
        return runs.parts(start, stop, data)

    def contents(self, url: str, most: int) -> bytes:
        """A whole file, or its first `most` bytes if it is larger."""
        engine = self._engine(url)
        return self._run(self._try(url, lambda: engine.get(url, 0, most, ""))).data

    def write(self, url: str, data: bytes) -> None:
        """Write a whole small file."""
        engine = self._engine(url)
        self._run(self._try(url, lambda: engine.put(url, data), len(data)))

    def upload(self, url: str, path: str) -> None:
        """Copy a local file to a URL. The deadline grows by a second for each MiB."""
        engine, size = self._engine(url), os.path.getsize(path)
        deadline = self._deadline + size / _SLOWEST
        self._run(self._try(url, lambda: engine.upload(url, path), size, deadline))

    def remove(self, urls: Sequence[str]) -> None:
        """Remove files. One that does not exist is no error."""
        self._run(self._all(self._remove(self._engine(url), url) for url in urls))

    async def _remove(self, engine: Engine, url: str) -> None:
        with suppress(FileNotFoundError):
            await self._try(url, lambda: engine.remove(url))

    # ---- how a request is made

    def _engine(self, url: str) -> Engine:
        """The engine for a URL. It is opened in a thread, as looking for credentials may hang."""
        name = self._engine_name
        obstore = name == "obstore" or (name == "auto" and serves(url, self._options))
        key = f"obstore {split(url)[0]}" if obstore else f"fsspec {client_of(url)}"
        found = self._engines.get(key)
        if found is None:
            with self._lock:
                found = self._engines.get(key) or self._opening(key, url, obstore)
        try:
            return found.result(self._deadline)
        except TimeoutError:
            raise StorageError(
                f"{url} cannot be reached: the search for credentials took longer than "
                f"{self._deadline:g} s. See the network, raise Storage(deadline=), or give "
                'credentials (or {"token": "anon"} for none) in Storage(options=...).'
            ) from None
        except Exception as e:
            self._engines.pop(key, None)
            raise _refusal(url, e) from e

    def _opening(self, key: str, url: str, obstore: bool) -> Future[Engine]:
        found: Future[Engine] = Future()

        def work() -> None:
            try:
                found.set_result(self._open(url, obstore))
            except BaseException as e:
                found.set_exception(e)

        self._engines[key] = found
        threading.Thread(target=work, name="lockstep-open", daemon=True).start()
        return found

    def _open(self, url: str, obstore: bool) -> Engine:
        if obstore:
            try:
                return open_obstore(url, self._options, self._deadline)
            except PipelineError:
                # obstore is not installed, the process was forked, or only fsspec knows the options
                if self._engine_name == "obstore":
                    raise
        return open_fsspec(url, self._options, self._flight)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        from fsspec.asyn import get_loop  # one event loop a process, in a thread of its own

        future = asyncio.run_coroutine_threadsafe(work, get_loop())
        try:
            return future.result()
        except BaseException:  # an interrupt too: no request is left running
            future.cancel()
            raise

    async def _all(self, works: Any) -> list[Any]:
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(work) for work in works]
        except BaseExceptionGroup as e:  # the other tasks were cancelled
            raise e.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _get(self, engine: Engine, span: Range) -> bytes:
        path, start, stop, tag, size = span

        async def get() -> bytes:
            answer = await engine.get(path, start, stop, tag)
            data = answer.data
            if len(data) == stop - start:
                check_answer(answer, span)
                return data
            what = f"bytes {start} to {stop} gave {len(data)} of {stop - start} bytes"
            end = size or (await engine.info(path)).size
            if stop > end:
                raise refused(path, f"{what}: it has {end} bytes")
            raise TruncatedError(what)

        try:
            return await self._try(path, get, stop - start)
        except FileNotFoundError:
            if tag:  # the tag may belong to a generation that was replaced
                await self._tell_change(engine, path, tag)
            raise

    async def _tell_change(self, engine: Engine, path: str, tag: str) -> None:
        now = await self._try(path, lambda: engine.info(path))
        if now.tag != tag:
            raise changed(path, f"tag {tag}", f"tag {now.tag}, {now.size} bytes")

    async def _try(
        self, path: str, work: Callable[[], Awaitable[T]], size: int = 0, deadline: float = 0
    ) -> T:
        deadline = deadline or self._deadline
        async with self._big if size > _BIG else self._small:
            start, tries, reason = time.monotonic(), 0, ""
            while True:
                tries += 1
                left = start + deadline - time.monotonic()
                try:  # half of the time left, so that a lost response can be retried
                    async with asyncio.timeout(max(left / 2, min(left, 2.0))):
                        return await work()
                except Exception as e:
                    kind, why = judge(e)
                    if kind != "passing":
                        raise _refusal(path, e) from e
                    # the last attempt may have been too short to fail: an earlier reason says more
                    reason = reason if reason and isinstance(e, TimeoutError) else why
                    pause = min(_MOST_PAUSE, _PAUSE * 2 ** (tries - 1)) * _JITTER.uniform(0.5, 1)
                    spent = time.monotonic() - start
                    if spent + pause >= deadline:
                        raise out_of_reach(path, reason, tries, spent, self._deadline) from e
                await asyncio.sleep(pause)


def check_answer(answer: Answer, span: Range) -> None:
    """Compare what a server says about its response with the range that was requested.

    Raises:
        SourceError: the bytes are of another version of the file.
        WrongRangeError: they are other bytes of the file, or the server does not say which.
    """
    whole = not span.start and len(answer.data) == span.size
    if answer.start != span.start and not (answer.start is None and whole):
        said = "no place" if answer.start is None else f"byte {answer.start}"
        raise WrongRangeError(
            f"bytes {span.start} to {span.stop} were asked for; the server says that it sent "
            f"bytes from {said} on"
        )
    if span.size and answer.size not in (None, span.size):
        raise changed(span.path, f"{span.size} bytes", f"{answer.size}")
    if span.tag and answer.tag and answer.tag != span.tag:
        raise changed(span.path, f"tag {span.tag}", f"tag {answer.tag}")


def _refusal(path: str, error: Exception) -> PipelineError:
    kind, reason = judge(error)
    if isinstance(error, PipelineError):
        return error
    if kind == "missing":
        return missing(path)
    return {"forbidden": forbidden, "whole": without_ranges}.get(kind, refused)(path, reason)
