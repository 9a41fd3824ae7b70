"""Was this document trained on, and when? With a proof that others can check without the data.

Begin with proof.py (what is proved, and how it is checked); index.py makes proofs, steps.py finds
the steps of a record, documents.py says what a document is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.dataset import Dataset
from pipeline.debug.journal import Run
from pipeline.debug.seen.documents import Documents
from pipeline.debug.seen.history import check_run, in_run
from pipeline.debug.seen.index import Index, index_of
from pipeline.debug.seen.proof import (
    Checked,
    Entry,
    ProofError,
    check,
    digest_of,
    variants,
)
from pipeline.debug.seen.steps import Occurrence, Record, States, occurrences
from pipeline.loader import Loader
from pipeline.types import where

__all__ = [
    "Checked",
    "Documents",
    "Index",
    "Occurrence",
    "ProofError",
    "Seen",
    "check",
    "check_run",
    "index_of",
    "seen",
    "seen_in_run",
]

_MOST = 100  # steps whose rows are looked up
_LINE = 8  # places that a line shows
Places = dict[int, list[Occurrence]]


@dataclass(frozen=True)
class Seen:
    """When a document was trained on; it prints as a sentence.

    Attributes:
        document: its digest, BLAKE2b-256 in hex.
        matched: how it lies in the data: "as it is", or with one newline more or less at its end;
            "" if it does not.
        records: which records hold it: (component, record, file, number in that file).
        steps: the data steps that had any of them.
        places: rows and tokens of the first hundred of these.
        until: the steps looked at are those before it.
        neighbours: of a document that is in no record, the entries of the index around its place.
        root: of the index: what the proof is checked against.
        proof: at most 4 KB of JSON, for `check`. It covers the index; steps are only claimed.
    """

    document: str
    matched: str
    records: tuple[tuple[str, int, str, int], ...]
    steps: tuple[int, ...]
    places: tuple[Occurrence, ...]
    until: int
    neighbours: tuple[str, ...]
    root: str
    proof: bytes

    def __bool__(self) -> bool:
        return bool(self.steps)

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> Iterator[str]:
        """For people."""
        if not self.records:
            yield f"never, its neighbours in the sorted index are {' and '.join(self.neighbours)}"
        else:
            held = [f"record {number} of {file}" for _, _, file, number in self.records]
            yield f"{when(self.steps, self.places, self.until)}; it is {_some(held)}"
            if self.matched != "as it is":
                yield f"matched {self.matched}"
        yield f"document blake2b {self.document}, index root {self.root}"

    def as_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        data = {k: v for k, v in asdict(self).items() if k != "proof"}
        return {"seen": bool(self), **data, "proof_bytes": len(self.proof)}


def when(steps: tuple[int, ...], places: tuple[Occurrence, ...], until: int) -> str:
    """How often and where, in words."""
    if not steps:
        return f"never in the {until} steps so far"
    n = len(places)
    many = f"{n} time{'s' * (n > 1)}" if len(steps) <= _MOST else f"in {len(steps)} steps"
    return f"{many}: {_some(list(map(str, places)))}"


def _some(words: list[str]) -> str:
    more = f" … ({len(words) - _LINE} more)" if len(words) > _LINE else ""
    return ", ".join(words[:_LINE]) + more


def seen(
    data: str | bytes, loader: Loader, index: Index, *, until: int, states: States = ()
) -> Seen:
    """When a loader gave a document, with the proof that it is in the index, or is not.

    Args:
        data: the document; text counts as UTF-8. One newline at its end is tried both ways.
        loader: of the run, on one host.
        index: of the loader's dataset: see `index_of`.
        until: the run's steps are those before it.
        states: of the run, (step, state) each. Where rows are counted as they come, only steps
            between two of them are read again, instead of all.

    >>> import tempfile, pathlib
    >>> from pipeline import Dataset
    >>> loader = Loader(Dataset(["to be", "or", "not"]).repeat(2), 2)
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> index = index_of(loader.dataset.components, Documents(), folder, workers=0, progress=False)
    >>> found = seen("or", loader, index, until=3)
    >>> print(str(found).splitlines()[0])
    2 times: step 0 row 1 (epoch 0), step 2 row 0 (epoch 1); it is record 1 of MemorySource
    >>> check(found.proof, index.root).found, check(found.proof, index.root).claims["times"]
    (True, 2)
    """

    def find(records: list[Record]) -> Places:
        return occurrences(loader, records, range(until), states, _MOST)

    return _seen(data, loader.dataset, index, until, find)


def seen_in_run(data: str | bytes, run: Run, dataset: Dataset, index: Index) -> Seen:
    """When a run was trained on a document, by its journal; as `seen`, in training steps.

    Args:
        data: the document.
        run: to look in: what it skipped, or went back over, does not count.
        dataset: the run's.
        index: of the dataset.

    Raises:
        MismatchError, JournalError: the dataset is not the run's; see `Run.check`.
    """
    check_run(run, dataset)  # "never" looks into no step
    return _seen(
        data,
        dataset,
        index,
        run.steps.stop,
        lambda records: in_run(run, dataset, records, _MOST),
    )


def _seen(
    data: str | bytes,
    dataset: Dataset,
    index: Index,
    until: int,
    find: Callable[[list[Record]], Places],
) -> Seen:
    text = data.encode() if isinstance(data, str) else data
    digests = [digest_of(each) for each in variants(text)]
    entries = [index.entry(i) for d in digests for i in index.place(d)]
    components = dataset.components
    names = ["/".join(c.path) for c in components]
    pairs = [(names[e.component], e.record) for e in entries]
    found = find(pairs) if pairs else {}
    steps, places = tuple(found), tuple(o for rows in found.values() for o in rows)
    claims = {
        "until": until,
        "times": len(places),
        "steps": [str(o) for o in places],
        "text": when(steps, places, until) if entries else "none",
    }
    records = [
        (name, e.record, *where(components[e.component].source, e.record))
        for name, e in zip((p[0] for p in pairs), entries, strict=True)
    ]
    return Seen(
        document=digests[0].hex(),
        matched=_matched(text, digests, entries),
        records=tuple(records),
        steps=steps,
        places=places,
        until=until,
        neighbours=() if entries else tuple(_neighbours(index, digests[0])),
        root=index.root,
        proof=index.proof(digests, claims),
    )


def _matched(text: bytes, digests: list[bytes], entries: list[Entry]) -> str:
    if not entries:
        return ""
    if entries[0].digest == digests[0]:
        return "as it is"
    change = "less" if text.endswith(b"\n") else "more"
    return f"with one newline {change} at its end"


def _neighbours(index: Index, document: bytes) -> Iterator[str]:
    place = index.place(document).start
    for i, edge in ((place - 1, "its beginning"), (place, "its end")):
        inside = 0 <= i < len(index)
        yield f"{index.entry(i).digest.hex()[:16]}… (number {i})" if inside else edge
