"""Whether a dataset is pure and can run in workers: some rows are evaluated again, and compared."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple, cast

import cloudpickle
import numpy as np

from pipeline.checks import whole
from pipeline.dataset import Dataset, of_part
from pipeline.debug.conformance.records import same
from pipeline.errors import WorkerError
from pipeline.meter import METER
from pipeline.nodes import Part
from pipeline.nodes.scope import titled
from pipeline.tree import leaves
from pipeline.types import Transform
from pipeline.workers.forkserver import IMPORT_OURS

_SLOW = 0.01  # seconds a row
_ALONE = 8  # rows that are also evaluated one by one
_CHILD = IMPORT_OURS + "from pipeline.debug.conformance.dataset import child; child(*sys.argv[1:])"


class Fault(NamedTuple):
    """What is wrong with a stage.

    Attributes:
        kind: "impure", "unpicklable" or "unequal"; of notes, "ragged" or "slow".
        stage: "source", or as errors call it: "stage 3: map 'tokenize'".
        text: what was seen, and the remedy.
    """

    kind: str
    stage: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.stage} {self.text}"


@dataclass(frozen=True)
class Report:
    """What `examine` found.

    Attributes:
        rows: number of rows evaluated.
        faults: promises that the dataset breaks.
        notes: what is allowed but may not be intended.
    """

    rows: int
    faults: tuple[Fault, ...]
    notes: tuple[Fault, ...]

    @property
    def ok(self) -> bool:
        """Whether no fault was seen."""
        return not self.faults

    def as_json(self) -> dict[str, Any]:
        """The report as plain data."""
        faults, notes = ([f._asdict() for f in some] for some in (self.faults, self.notes))
        return {**asdict(self), "faults": faults, "notes": notes, "ok": self.ok}

    def __str__(self) -> str:
        told = [*map(str, self.faults), *(f"note: {note}" for note in self.notes)]
        verdict = "ok" if self.ok else "not as promised"
        return "\n".join([*told, f"{self.rows} rows, evaluated four times: {verdict}"])


def check_dataset(ds: Dataset, *, samples: int = 32, seed: int = 0) -> Report:
    """Check what a dataset promises, on rows chosen by `seed`, as `python -m pipeline check` does.

    The rows are evaluated twice, some of them one by one, and once in a fresh interpreter with
    another hash seed. The results must be equal each time, and all rows must have fields of the
    same types.

    Returns:
        The report. Rows of unequal shapes and stages that take over 10 ms a row are notes in it.

    Raises:
        AssertionError: a stage is impure or does not pickle, or rows have unequal fields.
        Exception: what a stage raises.

    >>> check_dataset(Dataset({"x": np.arange(9)}).map(lambda row: row, name="same")).ok
    True
    >>> calls = []
    >>> count = lambda row: {"n": calls.append(0) or len(calls)}
    >>> impure = Dataset({"x": np.arange(9)}).map(count, name="count")
    >>> [(fault.kind, fault.stage) for fault in examine(impure).faults]
    [('impure', "stage 0: map 'count'")]
    """
    report = examine(ds, samples=samples, seed=seed)
    if not report.ok:
        raise AssertionError("\n".join(map(str, report.faults)))
    return report


def examine(ds: Dataset, *, samples: int = 32, seed: int = 0) -> Report:
    """Do the checks of `check_dataset`, and return faults in a report instead of raising them.

    Args:
        ds: any dataset.
        samples: number of rows to evaluate; of a streamed dataset, the first ones.
        seed: chooses the rows.

    Raises:
        Exception: what a stage raises.
    """
    rng = np.random.default_rng(whole("seed", seed, 0))
    stages = list(_stages(ds.top))
    sample = _Sample(whole("samples", samples, 1), int(rng.integers(1 << 62)))
    rows = sample.rows(ds)
    looks = (look(stage, sample) for look in (_pickled, _repeated, _grouped) for stage in stages)
    fault = next(filter(None, looks), None) or _elsewhere(stages, sample)
    unequal, ragged = _unequal(stages, sample)
    faults = tuple(filter(None, (fault, unequal)))
    return Report(len(rows), faults, tuple(filter(None, (ragged, *_slow(ds, sample)))))


class _Stage(NamedTuple):
    """The dataset up to and including a stage, and the name of that stage."""

    name: str
    dataset: Dataset


def _stages(part: Part, path: tuple[str, ...] = ()) -> Iterator[_Stage]:
    # from the sources up, so that a fault is attributed to the first stage that shows it
    for name, below in part.parts.items():
        yield from _stages(below, (*path, name))
    before = f"{'/'.join(path)}: " if path else ""
    beneath = None
    for node in reversed(list(part.node.beneath())):
        first = len(beneath.node.stages) if beneath else 0
        titles = [titled(i, stage) for i, stage in enumerate(node.stages[first:], first)]
        whole = replace(part, node=node, lanes=part.lanes if node.streamed else 1)
        if beneath and len(titles) > 1:  # a node that applies several transforms to a block
            for title, transform in zip(titles[:-1], node.stages[first:], strict=False):
                beneath = replace(beneath.transformed(cast(Transform, transform)), lanes=part.lanes)
                yield _Stage(before + title, of_part(beneath))
            titles = titles[-1:]
        yield _Stage(before + (", ".join(titles) or node.kind or "source"), of_part(whole))
        beneath = whole


@dataclass(frozen=True)
class _Sample:
    """The rows to evaluate: `number` of them, chosen by `seed`."""

    number: int
    seed: int

    def positions(self, ds: Dataset) -> list[int]:
        n = min(ds.top.length, ds.top.period)
        some = np.random.default_rng(self.seed).integers(0, max(1, n), self.number)
        return np.unique(some).tolist() if n > self.number else list(range(n))

    def rows(self, ds: Dataset) -> list[Any]:
        """The rows, evaluated in one call."""
        if ds.counted:
            return ds.head(self.number)
        return ds.read(self.positions(ds)).rows()


def _pickled(stage: _Stage, sample: _Sample) -> Fault | None:
    try:
        cloudpickle.dumps(stage.dataset)
    except Exception as e:
        why = f"cannot be sent to workers: {type(e).__name__}: {_short(e)}. Open it in the function"
        return Fault("unpicklable", stage.name, f"{why}, or give it a __reduce__.")
    try:
        cloudpickle.dumps(sample.rows(stage.dataset))
    except Exception as e:
        why = f"gives rows that cannot come from workers: {type(e).__name__}: {_short(e)}"
        return Fault("unpicklable", stage.name, f"{why}. Return arrays, numbers, text or bytes.")
    return None


def _repeated(stage: _Stage, sample: _Sample) -> Fault | None:
    # stored as bytes, since a stage may write into rows that it returned before
    first = cloudpickle.dumps(sample.rows(stage.dataset))
    again = sample.rows(stage.dataset)
    return _compared(stage, cloudpickle.loads(first), again, "when it was evaluated again")


def _grouped(stage: _Stage, sample: _Sample) -> Fault | None:
    if stage.dataset.counted:
        return None
    positions = sample.positions(stage.dataset)[:_ALONE]
    together = stage.dataset.read(positions).rows()
    alone = [row for p in positions for row in stage.dataset.read([p]).rows()]
    return _compared(stage, together, alone, "by itself than among others")


def _elsewhere(stages: Sequence[_Stage], sample: _Sample) -> Fault | None:
    last = stages[-1]
    (found,) = _in_child([last], sample)
    if _compared(last, sample.rows(last.dataset), found, "") is None:
        return None
    for stage, rows in zip(stages, _in_child(stages, sample), strict=True):
        fault = _compared(stage, sample.rows(stage.dataset), rows, "in another process")
        if fault is not None:
            return fault
    return None


def _in_child(stages: Sequence[_Stage], sample: _Sample) -> list[list[Any]]:
    with tempfile.TemporaryDirectory() as folder:
        given, found = os.path.join(folder, "given"), os.path.join(folder, "found")
        with open(given, "wb") as f:
            f.write(cloudpickle.dumps(([stage.dataset for stage in stages], sample)))
        hashes = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        env = os.environ | {"PYTHONHASHSEED": hashes, "PYTHONPATH": paths}
        command = [sys.executable, "-c", _CHILD, given, found]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            raise WorkerError(f"the dataset cannot be evaluated in another process: {last[:500]}")
        with open(found, "rb") as f:
            return cloudpickle.loads(f.read())


def child(given: str, found: str) -> None:
    """Evaluate the datasets in file `given`, and write their rows to file `found`."""
    with open(given, "rb") as f:
        datasets, sample = cloudpickle.loads(f.read())
    rows = [sample.rows(ds) for ds in datasets]
    with open(found, "wb") as f:
        f.write(cloudpickle.dumps(rows))


def _compared(stage: _Stage, rows: list[Any], others: list[Any], when: str) -> Fault | None:
    if len(rows) != len(others):
        text = f"gave {len(rows)} rows, and {len(others)} {when}"
        return Fault("impure", stage.name, f"{text}. It may depend on nothing but its row.")
    for i, (row, other) in enumerate(zip(rows, others, strict=True)):
        if not same(row, other):
            text = f"gave another row {when}: row {i} was {_short(row)}, then {_short(other)}"
            return Fault("impure", stage.name, f"{text}. It may depend on nothing but its row.")
    return None


def _unequal(stages: Sequence[_Stage], sample: _Sample) -> tuple[Fault | None, Fault | None]:
    # rows with unequal fields, at the first stage that gives them; and rows with unequal shapes
    unequal, ragged = (_differing(stages[-1], sample, shapes) for shapes in (False, True))
    ragged = None if unequal else ragged
    for stage in reversed(stages[:-1]):
        below = _differing(stage, sample, False) if unequal else None
        if below is None:
            break
        unequal = below
    return unequal, ragged


def _differing(stage: _Stage, sample: _Sample, shapes: bool) -> Fault | None:
    seen: dict[str, Any] = {}
    for i, row in enumerate(sample.rows(stage.dataset)):
        if row is None:
            text = f"gives None as row {i}, which is no row of a batch: return the row, or drop it"
            return Fault(
                "unequal", stage.name, f"{text} with .filter(lambda row: row is not None)."
            )
        specs = {name: _spec(value, shapes) for name, value in leaves(row)}
        if not seen:
            seen = specs
        if specs != seen:
            odd = min(k for k in {*specs, *seen} if specs.get(k) != seen.get(k))
            was, now = (some.get(odd, "absent") for some in (seen, specs))
            text = f"field {odd!r} is {was} in row 0 and {now} in row {i}"
            remedy = "pack, pad in .map, or collate=" if shapes else "give all rows the same fields"
            kind = "ragged" if shapes else "unequal"
            return Fault(kind, stage.name, f"gives rows that do not stack: {text}: {remedy}.")
    return None


def _spec(value: Any, shapes: bool) -> str:
    if value is None or isinstance(value, str | bytes):
        return type(value).__name__
    try:
        array = np.asarray(value)
    except ValueError:  # lists of unequal lengths
        return "list"
    return f"{array.dtype}{list(array.shape)}" if shapes else str(array.dtype)


def _slow(ds: Dataset, sample: _Sample) -> Iterator[Fault]:
    METER.take()
    sample.rows(ds)
    for stage, tally in METER.take().items():
        each = tally.seconds / max(1, tally.rows)
        if each > _SLOW:
            rate = f"{each * 1e3:.0f} ms a row, {1 / each:,.0f} rows/s a worker"
            text = f"takes {rate}: give workers=, or cache() what it gives."
            yield Fault("slow", stage, text)


def _short(value: Any) -> str:
    text = " ".join((str(value) if isinstance(value, Exception) else repr(value)).split())
    return text if len(text) <= 120 else f"{text[:117]}..."
