"""The vocabulary of a chain: what a source, transform and feed are, and what they see."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from pipeline.block import Block, Columns, Int64s, Origin
from pipeline.checks import shown
from pipeline.errors import SourceError

if TYPE_CHECKING:
    from typing_extensions import TypeVar  # Python's own takes no default before 3.13

    BatchT = TypeVar("BatchT", default=Any)  # what a Loader hands out
else:
    from typing import TypeVar

    BatchT = TypeVar("BatchT")

ENDLESS = 1 << 62  # the length of an endless dataset; order arithmetic is exact to 2**48 positions


@dataclass(frozen=True, slots=True)
class At:
    """Where n rows of an indexed dataset stand.

    Attributes:
        epoch: int64[n], how often the row was drawn before; random values hash it.
        order: int64[n], the epoch whose order holds: slices and `shuffle(reshuffle=False)` pin it
            to 0 beneath them.
        index: int64[n], the row's position in that epoch, in [0, length).
    """

    epoch: Int64s
    order: Int64s
    index: Int64s

    @staticmethod
    def of_rows(rows: Int64s, n: int) -> At:
        """Where stream rows stand in a dataset of n rows that is read epoch after epoch.

        >>> at = At.of_rows(np.array([2, 3, 4]), 3)
        >>> at.epoch.tolist(), at.index.tolist()
        ([0, 1, 1], [2, 0, 1])
        """
        low, high = (int(rows.min()), int(rows.max())) if len(rows) else (0, 0)
        if low // n == high // n:  # nearly always, and divisions are slow
            epoch = np.full(len(rows), low // n)
            return At(epoch, epoch, rows - low // n * n)
        epoch, index = np.divmod(rows, n)
        return At(epoch, epoch, index)

    def take(self, which: Int64s | list[int] | slice) -> At:
        """Some of these rows, chosen by index or slice."""
        return At(self.epoch[which], self.order[which], self.index[which])


class ArraySpec:
    """Shape (without the batch axis) and dtype of one field of a row.

    Args:
        shape, dtype: the field's in one row.
        held: where the dtype is object, what the objects are: "str", "int32[?]"; "" for anything.
    """

    __slots__ = ("dtype", "held", "shape")

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], held: str = "") -> None:
        self.shape, self.dtype, self.held = shape, dtype, held

    def __eq__(self, other: object) -> bool:
        same = isinstance(other, ArraySpec)
        return same and (self.shape, self.dtype, self.held) == (
            other.shape,
            other.dtype,
            other.held,
        )

    def __hash__(self) -> int:
        return hash((self.shape, self.dtype))

    def __repr__(self) -> str:
        if self.held:
            known = not self.shape or self.held.endswith("]")
            return self.held if known else f"{self.held}{list(self.shape)}"
        return f"{self.dtype}{list(self.shape)}"


class Component(NamedTuple):
    """One source of a dataset, and the names that lead to it: () in a plain chain."""

    path: tuple[str, ...]
    source: Source


@dataclass(frozen=True)
class Site:
    """What a stage may know besides its rows.

    Attributes:
        seed: the dataset's seed.
        path: names from the outermost mix, zip or concatenation down to this chain.
        components: the sources that `Origin.component` numbers, with full paths.
        stage: for messages: "stage 3: map 'tokenize'".
        index: int64[n], each row's position in the dataset at this stage; None if streamed.
        skip: told of a row that failed and of its error, it says whether to go on without the
            row; None where each error is raised.
    """

    seed: int
    path: tuple[str, ...]
    components: tuple[Component, ...]
    stage: str
    index: Int64s | None = field(default=None)
    skip: Callable[[int, Exception], bool] | None = field(default=None)

    def describe(self, origin: Origin, i: int) -> str:
        """Row i's provenance in words, its file included where the source knows it."""
        return describe(self.components, origin, i)

    def annotate(self, error: BaseException, origin: Origin, i: int) -> None:
        """Add notes to an error of user code: the stage, and the row it was working on."""
        at = "" if self.index is None else f", position {int(self.index[i])}"
        error.add_note(f"in {self.stage}, on {self.describe(origin, i)}{at}")


def describe(components: Sequence[Component], origin: Origin, i: int) -> str:
    """Row i of `origin` in words: "record 17 of a.parquet, epoch 0"."""
    component = components[int(origin.component[i])]
    record = int(origin.record[i])
    file, inner = where(component.source, record)
    name = "/".join(component.path)
    place = [int(p) for p in origin.place[i] if p >= 0]
    text = f"record {inner} of {file}"
    text += f" (record {record} of the source)" if inner != record else ""
    text += f", component {name}" if name else ""
    text += f", epoch {int(origin.epoch[i])}"
    return text + (f", place {place}" if place else "")


def where(source: Source, record: int) -> tuple[str, int]:
    """The file that holds a record and its index there, or the source's type and the record."""
    known = getattr(source, "where", None)
    if known is None:
        return type(source).__name__, record
    file, inner = known(np.array([record], np.int64))[0]
    return str(file), int(inner)


def fingerprint_of(source: Source) -> str:
    """A source's own fingerprint; its type and length if it has none.

    Raises:
        SourceError: it is no text.
    """
    kind = type(source).__name__
    own = getattr(source, "fingerprint", None)
    if own is None:
        return f"{kind} {len(source)}"
    text = own() if callable(own) else own
    if not isinstance(text, str):
        raise SourceError(f"{kind}.fingerprint() returned {shown(text)}. Return a text.")
    return text


def unseen(source: Source) -> tuple[str, ...]:
    """Which of a source's records its fingerprint does not look into, in words.

    A source may say so itself: `MemorySource` does of objects that it cannot hash.

    >>> class Squares:
    ...     def __len__(self): return 3
    ...     def read(self, indices): return [int(i) ** 2 for i in indices]
    >>> unseen(Squares())
    ('records of Squares, which has no fingerprint()',)
    """
    if getattr(source, "fingerprint", None) is None:
        return (f"records of {type(source).__name__}, which has no fingerprint()",)
    return getattr(source, "unseen", ())


@runtime_checkable
class Source(Protocol):
    """Random access to n records, many at a time.

    Optional members: `where(indices) -> [(file, index in that file), ...]`; `fingerprint() -> str`,
    the same in all processes and wherever the files lie; `chunk_bounds`, int64[k + 1], the bounds
    of chunks that storage reads whole, such as row groups (None if any record is cheap alone);
    `close()`; and, to read ahead, `horizon`, the number of upcoming records that the source wants
    to know of, with `ahead(indices)`, which is called with a sample of these in order. A source
    pickles cheaply (paths and counts, no handles) and works when threads share it.
    """

    def __len__(self) -> int: ...

    def read(self, indices: Int64s, /) -> Sequence[Any] | Columns:
        """Records by index, in the order asked, repeats included."""
        ...


class Transform(Protocol):
    """A stage that changes values and, if `counted`, how many rows there are; a pure function."""

    # properties, so that frozen classes fit
    @property
    def kind(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def random(self) -> bool: ...
    @property
    def counted(self) -> bool: ...
    @property
    def rowwise(self) -> bool:
        """Whether it works row by row, so that it may be given any number of rows at a time."""
        ...

    @property
    def seed_globals(self) -> bool:
        """Whether it seeds the process's global generators."""
        ...

    @property
    def block(self) -> int:
        """Approximate number of rows that it needs at once; 0 where that does not matter."""
        ...

    @property
    def packages(self) -> tuple[str, ...]:
        """Installed packages that the user's functions use."""
        ...

    @property
    def codes(self) -> tuple[Any, ...]:
        """The code of the user's functions that it calls."""
        ...

    def apply(self, block: Block, site: Site) -> Block: ...

    def fingerprint(self) -> str: ...

    def written(self) -> str:
        """The call that adds it to a dataset, as a user writes it."""
        ...


class Feed(Protocol):
    """Puts batches on devices, and knows which rows of the global batch are this process's."""

    prefetch: int

    @property
    def primary(self) -> bool:
        """Whether this process writes what all of them share."""
        ...

    def rows(self, batch: int) -> Int64s:
        """This process's rows of a global batch, rising: int64[m]."""
        ...

    def put(self, batch: Any, rows: Int64s, total: int) -> Any:
        """This process's rows (a pytree of arrays) as a global batch of `total` rows on devices."""
        ...

    def gather(self, state: Any) -> list[Any]:
        """The state of every process, in order; [state] where there is only one."""
        ...
