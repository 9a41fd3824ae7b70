"""A conversion: which shards it has, which of them are done, and writing the others."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline.checks import whole
from pipeline.dataset import Dataset
from pipeline.errors import ChainError, SourceError
from pipeline.meter import weight
from pipeline.nodes.faults import survivors
from pipeline.scan.progress import progress
from pipeline.sources.storage.storage import is_url
from pipeline.tools.convert.columns import schema_of
from pipeline.tools.convert.opening import check_opens
from pipeline.tools.convert.place import NOTES, Place
from pipeline.tools.convert.shards import Names, WriteShard, bounds
from pipeline.tools.convert.writers import COLUMNS, WRITERS
from pipeline.tools.pieces import done_by

SHARD = 256 << 20  # approximate bytes of a shard if their number is not given
_LOOK = 0.2  # seconds between two updates of the progress


@dataclass(frozen=True)
class Conversion:
    """The result of a conversion.

    Attributes:
        files: paths of the files, in order.
        records: records in all files.
        skipped: records that could not be read.
        bytes: bytes of all files.
    """

    files: tuple[str, ...]
    records: int
    skipped: int
    bytes: int

    def as_json(self) -> dict[str, Any]:
        """The result as plain data."""
        return asdict(self)


def convert(
    data: Any,
    out: str | os.PathLike[str],
    *,
    shards: int | None = None,
    workers: Any = 0,
    skip_bad: bool = False,
    options: Mapping[str, Any] | None = None,
) -> Conversion:
    """Write a dataset's rows, in order, to files whose format `out`'s suffix determines.

    The same dataset gives the same bytes, whatever the workers. Each file appears whole or not at
    all. If the call is killed, another call goes on with the missing shards. The files are opened
    as a check before it returns. `OUT.manifest.json` beside the files lists them; as long as it is
    true, another call does nothing.

    Parquet and Arrow files have one schema. It is that of the source if rows come unchanged from
    Parquet or Arrow files. Otherwise all rows are evaluated twice: to find their types, and to
    write them.

    Args:
        data: an indexed dataset, or what `Dataset` takes: a path or glob, a source, columns.
        out: the path or URL of the file. If there are several, "train.parquet" gives
            "train-00000-of-00008.parquet" and so on.
        shards: how many files; None for one for about each 256 MiB.
        workers: who writes, as for `Loader`: 0, n processes, "auto", Ray(n).
        skip_bad: leave out records that cannot be read, and log them, instead of stopping.
        options: of the filesystem, if `out` is a URL.

    Raises:
        SourceError: `out` has an unknown suffix, or something else exists there; there are more
            shards than rows; or the files written do not open.
        ChainError: the dataset is streamed or endless, or rows do not fit the format.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> convert({"id": np.arange(5)}, f"{folder}/numbers.jsonl", shards=2).records
    5
    >>> with open(f"{folder}/numbers-00001-of-00002.jsonl") as f:
    ...     print(f.read(), end="")
    {"id": 2}
    {"id": 3}
    {"id": 4}
    """
    ds = data if isinstance(data, Dataset) else Dataset(data)
    if ds.counted or ds.endless:
        raise ChainError("convert wants a dataset with a length: each of its rows is written once")
    out = os.fspath(out)
    root, name = os.path.split(out if is_url(out) else os.path.abspath(os.path.expanduser(out)))
    stem, suffix = os.path.splitext(name)
    if suffix not in WRITERS or not stem:
        raise SourceError(
            f"{out}: name a file with one of the suffixes {', '.join(WRITERS)}; as in "
            "out/train.parquet"
        )
    shards = _shards(ds) if shards is None else whole("shards", shards, 1, SourceError)
    if shards > max(1, len(ds)):
        raise SourceError(
            f"shards={shards} of {len(ds)} rows: some would hold none, and know no columns or "
            f"dtype. Give at most {max(1, len(ds))}."
        )
    names, place = Names(stem, suffix, shards), Place(root, options)
    plan = {"records": len(ds), "shards": shards, "skip_bad": skip_bad, "from": ds.fingerprint()}
    manifest = f"{name}.manifest.json"
    known = place.noted(manifest)
    if known is None or known.get("plan") != plan or not _all_there(place, known["shards"]):
        known = _run(ds, place, names, plan, manifest, workers)
    files = [file for shard in known["shards"] for file in shard["files"]]
    return Conversion(
        tuple(place.path(file["name"]) for file in files),
        sum(shard["records"] for shard in known["shards"]),
        sum(shard["skipped"] for shard in known["shards"]),
        sum(file["bytes"] for file in files),
    )


def _run(
    ds: Dataset, place: Place, names: Names, plan: dict[str, Any], manifest: str, workers: Any
) -> dict[str, Any]:
    with place.alone():
        done = _begun(place, names, plan, manifest)
        todo = [i for i in range(names.shards) if i not in done]
        schema = _schema(ds, place, names, plan, workers) if todo else ""
        with _watched(ds, place, names, done) as counts:
            write = WriteShard(ds, place, names, plan["skip_bad"], counts, schema)
            for facts in done_by(workers, write, todo, name="write"):
                done[facts["shard"]] = facts
        shards = [done[i] for i in range(names.shards)]
        check_opens(place, names.suffix, shards)
        known = {"plan": plan, "shards": shards}
        place.note(manifest, known)
        place.clear()
    return known


def _schema(ds: Dataset, place: Place, names: Names, plan: dict[str, Any], workers: Any) -> str:
    # determined only once: a resumed conversion keeps the schema of the shards that exist
    if names.suffix not in COLUMNS:
        return ""
    note = f"{NOTES}/{names.stem}{names.suffix}.schema.json"
    before = place.noted(note)
    if before is not None and before.get("plan") == plan and isinstance(before.get("schema"), str):
        return before["schema"]
    schema = schema_of(ds, workers=workers, skip_bad=plan["skip_bad"])
    place.note(note, {"plan": plan, "schema": schema})
    return schema


def _begun(
    place: Place, names: Names, plan: dict[str, Any], manifest: str
) -> dict[int, dict[str, Any]]:
    # the shards that an earlier call finished; files of anybody else are not overwritten
    note = f"{NOTES}/{names.stem}{names.suffix}.json"
    before = place.noted(note)
    if before is None and place.noted(manifest) is None:
        taken = [names.of(i) for i in range(names.shards) if place.size(names.of(i)) is not None]
        if taken:
            raise SourceError(
                f"{place.path(taken[0])} exists, and no conversion that can be resumed made it. "
                "Remove it, or choose another place."
            )
    facts = {i: place.noted(names.note(i)) for i in range(names.shards)}
    done = {i: f for i, f in facts.items() if f is not None and _all_there(place, [f])}
    if before != plan and done:
        differing = [k for k in plan if (before or {}).get(k) != plan[k]]
        raise SourceError(
            f"{place.root} holds an unfinished conversion of another plan: {', '.join(differing)} "
            f"differ. Resume that one, or remove {place.path(NOTES)} and its files."
        )
    place.note(note, plan)
    return done


def _all_there(place: Place, shards: list[dict[str, Any]]) -> bool:
    files = [file for shard in shards for file in shard["files"]]
    return all(place.size(file["name"]) == file["bytes"] for file in files)


def _shards(ds: Dataset) -> int:
    some = np.linspace(0, len(ds) - 1, min(len(ds), 64)).astype(np.int64)
    good, _ = survivors(ds.read, some)  # bad records are reported when they are written
    rows = sum(len(block) for _, block in good)
    size = sum(weight(block) for _, block in good)
    return max(1, min(len(ds), -(-size * len(ds) // rows // SHARD))) if rows else 1


@contextmanager
def _watched(ds: Dataset, place: Place, names: Names, done: Mapping[int, Any]) -> Generator[str]:
    # workers on this machine write their progress to a small file, which a thread displays
    ready = sum(stop - start for start, stop in (bounds(len(ds), names.shards, i) for i in done))
    stop = threading.Event()
    with (
        place.workspace() as folder,
        progress("convert", len(ds), "records", done=ready) as show,
    ):
        counts = os.path.join(folder, "counts")
        np.zeros(names.shards, np.int64).tofile(counts)
        thread = threading.Thread(target=_look, args=(counts, ready, show, stop), daemon=True)
        thread.start()
        try:
            yield counts
        finally:
            stop.set()
            thread.join()


def _look(path: str, ready: int, show: Callable[[int], None], stop: threading.Event) -> None:
    while not stop.wait(_LOOK):
        show(ready + int(np.fromfile(path, np.int64).sum()))
