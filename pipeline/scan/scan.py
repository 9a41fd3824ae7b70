"""Makes a scan: calls a function on every record, in parallel, in pieces that survive a kill."""

from __future__ import annotations

import atexit
import hashlib
import itertools
import os
import re
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import lru_cache
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np

from pipeline.block import Block, Columns
from pipeline.checks import function
from pipeline.dataset import Dataset
from pipeline.errors import ChainError, ScanError
from pipeline.nodes import Part
from pipeline.sampling.scanned import Scanned, differences, key_digest, read_header
from pipeline.scan.pieces import Pieces, Values, end_to_end
from pipeline.scan.progress import progress as shown
from pipeline.sources import MemorySource, SequenceSource
from pipeline.transforms import (
    Measure,
    code_name,
    refuse_unseen,
    versions,
    warn_of_versions,
)
from pipeline.types import ENDLESS, At, Source, where
from pipeline.workers import Workers, budget, chosen
from pipeline.workers.work import Executor, Rows

ROWS = 1 << 10  # records of one work
_AHEAD = budget("64MiB")


def scan(
    dataset: Dataset,
    f: Callable[[Any], Any],
    *,
    path: str | os.PathLike[str] | None = None,
    workers: int | Literal["auto"] | Workers = "auto",
    progress: bool = True,
    name: str | None = None,
    fingerprint: str | None = None,
) -> Scanned:
    """Compute `f(row)` once for each record of a dataset, in parallel, as a column in a file.

    With its result, `ds.filter(flags)` and `ds.pack(…, lengths=…)` know every row by arithmetic.
    Scan the dataset that is to be filtered or packed before it is shuffled. A scan that was broken
    off, even killed, continues when it is called again; one that is finished is returned at once.

    Args:
        dataset: indexed, finite, with the same rows in every epoch.
        f: a pure function of a row that returns a bool, a whole number or a float, or a dict of
            them. A row that fails under `on_error("skip")` has the value False, 0 or NaN.
        path: the folder to keep the scan in; by default one beside the files of the dataset, named
            after f and a digest. Several processes may make a scan together. A scan of rows in
            memory needs no folder: it is kept until the process ends.
        workers: who evaluates f, as in a Loader.
        progress: whether to show a bar on a terminal, or else a line every ten seconds.
        name: what messages and the folder call it; by default the function's name.
        fingerprint: a text that says what f computes, for functions that no fingerprint can look
            into. Change it whenever f computes something else.

    Returns:
        The results: `.values` is an array `[records]`, or a dict of them if f returns dicts.

    Raises:
        ChainError: rows of the dataset have no lasting positions, lie in no local files and no
            path is given, or depend on something that no fingerprint sees.
        ScanError: path holds a scan of another dataset or function, or f returned something else.

    >>> ds = Dataset(["to", "be", "", "or"], seed=1)
    >>> full = scan(ds, lambda text: len(text) > 0, workers=0)
    >>> kept = ds.filter(full).shuffle()
    >>> len(kept), sorted(kept)
    (3, ['be', 'or', 'to'])
    """
    if not isinstance(dataset, Dataset):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ChainError(f"scan wants a Dataset, not {type(dataset).__name__}: Dataset(…)")
    _check(dataset.top)
    if not isinstance(path, str | os.PathLike | None) or not isinstance(name, str | None):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ChainError(f"scan({path=}, {name=}): give a folder and a name, as strings")
    who = chosen(workers)
    stage = Measure(function("scan", f), name or code_name(f), given=fingerprint)
    of = dataset.top.scan_key()
    said = {**of, "the function": stage.fingerprint()}
    of = {**of, "function": f"{stage.name} {stage.code.digest}"}
    digest = key_digest(of)
    packages = versions(stage.packages) | dataset.top.node.packages
    folder = os.path.abspath(path or _beside(dataset, f"{stage.name}-{digest[:12]}"))
    found_again = [c for c in dataset.components if path or not _in_memory(c.source)]
    refuse_unseen(said, "scan", found_again)
    if not _finished(folder, of, packages):
        pieces = Pieces(folder, digest, len(dataset))
        try:
            _make(pieces, dataset.top, stage, who, progress)
            pieces.finish(of, packages)
        except FileNotFoundError:
            # another process was faster, and has removed the pieces
            if not _finished(folder, of, packages):
                raise
    return Scanned(folder, digest=digest)


def _check(part: Part) -> None:
    """Raise ChainError, with the remedy, if rows have no lasting positions."""
    if part.streamed:
        raise ChainError(
            f"a scan needs rows by position, but {part.counting} counts rows as they come: scan "
            "before it"
        )
    if part.length == ENDLESS:
        raise ChainError("a scan of an endless dataset would never end: scan before repeat()")
    if part.length == 0:
        raise ChainError("this dataset has no rows to scan")
    varying = part.node.varies()
    if varying:
        raise ChainError(
            f"a scan is of positions, but {varying} sets other rows there in each epoch. "
            "Scan before it, and put it above the filter or pack that uses the scan."
        )


def _finished(folder: str, of: dict[str, str], packages: dict[str, str]) -> bool:
    header = read_header(folder)
    if header is None:
        return False
    if header["of"] != of:
        raise ScanError(
            f"the scan at {folder} is of something else. {differences(header['of'], of)}. "
            "Give another path=, or delete the folder to scan anew."
        )
    warn_of_versions(f"the scan at {folder}", header.get("packages"), packages)
    return True


def _beside(dataset: Dataset, name: str) -> str:
    source = dataset.components[0].source
    file, _ = where(source, 0)
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "", name)
    if _in_memory(source):
        return os.path.join(_until_exit(os.getpid()), f"{plain}-{_number(dataset)}.scan")
    if not os.path.isfile(file):
        raise ChainError(
            f"a scan is kept beside the data, but the records of {type(source).__name__} lie in no "
            "file here: give path="
        )
    return os.path.join(os.path.dirname(os.path.abspath(file)), f"{plain}.scan")


def _in_memory(source: Source) -> bool:
    return isinstance(source, MemorySource | SequenceSource)


def _number(dataset: Dataset) -> str:
    # tells sources in memory apart as objects: fingerprints of some look at a sample of records
    held = [c.source for c in dataset.components if _in_memory(c.source)]
    numbers = [_NUMBERS.setdefault(source, next(_COUNT)) for source in held]
    return hashlib.blake2b(str(numbers).encode(), digest_size=6).hexdigest()


_NUMBERS: WeakKeyDictionary[Source, int] = WeakKeyDictionary()
_COUNT = itertools.count()


@lru_cache(1)
def _until_exit(pid: int) -> str:
    # a folder that lasts as long as this process; a fork has its own, and removes only that
    folder = tempfile.mkdtemp(prefix="lockstep-scan-")
    atexit.register(lambda: os.getpid() == pid and shutil.rmtree(folder, ignore_errors=True))
    return folder


def _make(pieces: Pieces, chain: Part, stage: Measure, who: Workers, show: bool) -> None:
    todo = [i for i in range(len(pieces)) if pieces.read(i) is None]
    spans = [(pieces.bounds[i], pieces.bounds[i + 1]) for i in todo]
    total, left = chain.length, sum(stop - start for start, stop in spans)
    measured = chain.transformed(stage)
    bar = shown(f"scan {stage.name}", total, "records", done=total - left)
    executor = who.open(measured, ahead=_AHEAD, stack=False)
    try:
        with bar if show else nullcontext(lambda now: None) as tell:
            found, done = _evaluated(executor, spans), total - left
            for i, (start, stop) in zip(todo, spans, strict=True):
                parts: list[Values] = []
                for first in range(start, stop, ROWS):
                    block = next(found)
                    parts.append(_columns(measured, first, block))
                    done += len(block)
                    tell(done)
                pieces.write(i, end_to_end(parts))
    finally:
        executor.close()


def _evaluated(executor: Executor, spans: list[tuple[int, int]]) -> Iterator[Block]:
    # the blocks in order; as many are evaluated ahead as the executor has capacity for
    ahead = deque[Any]()
    for start, stop in spans:
        for first in range(start, stop, ROWS):
            ahead.append(executor.submit(Rows(np.arange(first, min(first + ROWS, stop)))))
            while ahead and not executor.has_capacity():
                yield ahead.popleft().result()
    while ahead:
        yield ahead.popleft().result()


def _columns(chain: Part, first: int, block: Block) -> Values:
    assert isinstance(block.values, Columns)
    part: Values = {name: np.array(a) for name, a in block.values.tree.items()}
    if chain.skips:
        index = np.arange(first, first + len(block))
        meant = chain.origin(At(0 * index, 0 * index, index))
        found = block.origin
        stands_in = (found.record != meant.record) | (found.component != meant.component)
        for a in part.values():
            a[stands_in] = np.nan if a.dtype.kind == "f" else 0
    return part
