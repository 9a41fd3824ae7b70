"""Records in memory, given as a sequence of records or as columns."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import hashlib
import struct
from collections.abc import Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePath
from typing import Any, NamedTuple, cast
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from pipeline.block import Columns, Int64s
from pipeline.checks import numeric
from pipeline.errors import ChainError
from pipeline.sources.exact import InexactError, exact, objects
from pipeline.sources.indices import inside
from pipeline.sources.memory_maps import MapReference, described, mapping, sample_digest
from pipeline.tree import ATOMS, children, fresh, fresh_elements, leaves, map_leaves, refuse_mask


class MemorySource:
    """Records held in memory.

    Columns are a dict, namedtuple, dataclass or tuple of arrays `[n, ...]`, possibly nested, a
    single array, or `Columns`; in a dict, lists of numbers or strings count as arrays. Other
    mappings, such as what `np.load` returns for `.npz`, count as dicts. Anything else with a length
    and `[i]` is a sequence of records: a list, a tuple of records, your own object. `read` returns
    copies, so writing to them changes nothing here: objects of other types are copied as
    `copy.deepcopy` does, and only what cannot be copied, such as a lock, is shared. Do not change
    the values afterwards: `fingerprint` hashes them only once. Memory-mapped arrays stay in their
    files: a pickle holds the path, and the fingerprint of a large one depends on a sample.

    Args:
        values: columns or a sequence.

    Raises:
        ChainError: it is neither, a masked array, or columns of unequal lengths.

    >>> MemorySource(["a", "b", "c"]).read(np.array([2, 0, 2]))
    ['c', 'a', 'c']
    >>> MemorySource({"x": [1, 2, 3], "name": ["a", "b", "c"]}).read(np.array([2, 0]))
    Columns(x: int64[2], name: object[2])
    """

    def __init__(self, values: Any) -> None:
        if isinstance(values, Mapping) and not isinstance(values, dict):
            values = dict(cast(Mapping[Any, Any], values))
        self._values = _columns(values) if _is_columns(values) else _sequence(values)
        self._digest: str | None = None
        self._unseen: tuple[str, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        if isinstance(self._values, Columns):
            tree = map_leaves(lambda a: described(a) or a, self._values.tree)
            state["_values"] = _ColumnsState(tree)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if isinstance(self._values, _ColumnsState):
            self._values = Columns(map_leaves(_opened, self._values.tree))

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        held = self._values if isinstance(self._values, Columns) else type(self._values).__name__
        return f"MemorySource({held!r}, {len(self)} records)"

    def read(self, indices: Int64s) -> list[Any] | Columns:
        """Records by index, copied: `Columns` of n rows, or a list of n records.

        Raises:
            PositionError: an index is negative or beyond the end.
        """
        wanted = inside(indices, len(self))
        if isinstance(self._values, Columns):
            taken = self._values.read(wanted)
            return Columns.of(map_leaves(fresh_elements, taken.tree), len(wanted))
        values = self._values
        if type(values) is range and _fits_int64(values):
            return (values.start + values.step * wanted).tolist()
        if type(values) not in (list, tuple):  # an object of one's own may fill one record again
            return [fresh(values[i]) for i in wanted.tolist()]
        rows = [values[i] for i in wanted.tolist()]
        return rows if ATOMS.issuperset(map(type, rows)) else list(map(fresh, rows))

    def fingerprint(self) -> str:
        """Hex digest of the contents. Of an object of unknown type only its type's name counts.

        Of a sequence other than a list, tuple or range, its own `fingerprint()` counts, if it has
        one. Else its length and 64 evenly spaced records do; the length alone where a record is
        another each time it is read, as with random augmentation in `__getitem__`.
        """
        if self._digest is None:
            own = getattr(self._values, "fingerprint", None)
            if callable(own):
                self._digest = str(own())
                return self._digest
            found = _digest(self._values)
            self._digest, self._unseen = str(found.hexdigest()), tuple(sorted(found.unseen))
        return self._digest

    @property
    def unseen(self) -> tuple[str, ...]:
        """Objects of which the fingerprint depends on no more than the type, in words."""
        self.fingerprint()
        return self._unseen


class _ColumnsState(NamedTuple):
    """Columns as pickled: arrays, or a `MapReference` for each memory-mapped one."""

    tree: Any


def _opened(leaf: Any) -> Any:
    return leaf.open() if isinstance(leaf, MapReference) else leaf


_SAMPLE = 64
RANDOM = "records that are others each time they are read"  # in `unseen`
FEW = 16  # records that are read twice, to see whether they are random
_INT64 = (1 << 63) - 1
_PIECE = 16 << 20  # bytes hashed at once
_TOLD_BY_TEXT = (PurePath, datetime.timedelta, Decimal, Fraction, UUID)
_LARGE = 64 << 20  # bytes; of larger mapped arrays only a sample is hashed


def _fits_int64(r: range) -> bool:
    return bool(r) and all(-_INT64 <= number <= _INT64 for number in (r[0], r[-1], r.step))


def _is_columns(values: Any) -> bool:
    if isinstance(values, dict | Columns) or hasattr(values, "__array__"):
        return True
    if dataclasses.is_dataclass(values):  # a user's own dataset may be a dataclass too
        return not hasattr(values, "__getitem__")
    if type(values) is tuple:  # a plain tuple may also hold records
        found = [leaf for _, leaf in leaves(values)]
        return bool(found) and all(hasattr(leaf, "__array__") for leaf in found)
    return children(values) is not None


def _columns(values: Any) -> Columns:
    return values if isinstance(values, Columns) else Columns(map_leaves(_column, values))


def _column(leaf: Any) -> Any:
    refuse_mask(leaf)
    if not isinstance(leaf, list):
        return _foreign_column(leaf) if hasattr(leaf, "__array__") else leaf
    typed = (v.dtype for v in leaf if isinstance(v, np.ndarray | np.generic))
    _refuse_mixed({dtype.newbyteorder("=") for dtype in typed})
    # NumPy string arrays would strip zero bytes, turn [1, "a"] into text, and pad to the longest
    if not any(isinstance(v, str | bytes) for v in leaf):
        try:
            stacked = exact(leaf)
        except InexactError as e:
            raise ChainError(f"a column has {e}") from None
        except ValueError:  # ragged
            return objects(leaf)
        if stacked.dtype.kind in "biufcmM":
            return stacked
    return objects(leaf)


def _foreign_column(leaf: Any) -> Any:
    if isinstance(leaf, np.ndarray):
        return leaf
    try:
        return exact(leaf)
    except InexactError as e:
        raise ChainError(f"a column has {e}") from None
    except (TypeError, ValueError, RuntimeError) as e:  # torch's bfloat16, gradients
        raise ChainError(
            f"a column is a {type(leaf).__name__} that NumPy cannot hold ({e}). Convert it, or "
            "give a list of its rows."
        ) from e


def _refuse_mixed(dtypes: set[np.dtype[Any]]) -> None:
    # what NumPy makes of several would depend on which rows there are
    if len(dtypes) > 1 and all(map(numeric, dtypes)):
        raise ChainError(
            f"a column has values of {', '.join(sorted(map(str, dtypes)))}. Give it one dtype."
        )


def _sequence(values: Any) -> Any:
    if isinstance(values, str | bytes):
        raise ChainError(
            f"a {type(values).__name__} is no sequence of records: {values[:40]!r}. "
            "Is it a path? Then use open_path or a source of its format."
        )
    if not (hasattr(values, "__len__") and hasattr(values, "__getitem__")):
        raise ChainError(
            f"a {type(values).__name__} has no length and [i]. "
            "Give columns or a sequence, such as list(values)."
        )
    return values


class _Digest:
    """A hash of values.

    Attributes:
        unseen: objects of which no more than the type was hashed, in words.
    """

    def __init__(self) -> None:
        made: Any = hashlib.blake2b(digest_size=16)
        self.update, self.hexdigest = made.update, made.hexdigest
        self.unseen: set[str] = set()


def _digest(values: Any) -> _Digest:
    digest = _Digest()
    _hash(digest, values)
    return digest


def _hash(digest: _Digest, value: Any) -> None:
    """Hash a canonical encoding, in which a tag and a length precede each part."""
    if isinstance(value, Columns):
        _tagged(digest, "columns", b"")
        _hash(digest, value.tree)
    elif value is None or isinstance(value, bool | int | float | complex):
        _tagged(digest, type(value).__name__, _number(value))
    elif isinstance(value, str):
        _tagged(digest, "str", value.encode("utf-8", "surrogatepass"))
    elif isinstance(value, bytes | bytearray):
        _tagged(digest, "bytes", value)
    elif isinstance(value, np.ndarray | np.generic):
        _hash_array(digest, np.asarray(value))
    elif isinstance(value, set | frozenset):  # their order depends on PYTHONHASHSEED
        parts = [_digest(v) for v in value]
        digest.unseen.update(*(part.unseen for part in parts))
        _tagged(digest, "set", "".join(sorted(part.hexdigest() for part in parts)).encode())
    elif (parts := children(value)) is not None:
        _hash_parts(digest, value, parts)
    elif hasattr(value, "__array__") or hasattr(value, "__array_interface__"):
        _hash_foreign(digest, value)
    elif isinstance(value, range):
        _tagged(digest, "range", repr(value).encode())
    elif hasattr(value, "__len__") and hasattr(value, "__getitem__"):
        _hash_sequence(digest, value)
    elif (text := _text_of(value)) is not None:
        _tagged(digest, _name(value), text.encode("utf-8", "surrogateescape"))
    else:
        _hash_type(digest, value)


def _hash_foreign(digest: _Digest, value: Any) -> None:
    # arrays of other libraries, and Pillow's images
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError):  # torch's bfloat16, gradients
        _hash_type(digest, value)
    else:
        _hash_array(digest, array)


def _hash_type(digest: _Digest, value: Any) -> None:
    _tagged(digest, "object", _name(value).encode())
    digest.unseen.add(f"objects of type {_name(value)}")


def _text_of(value: Any) -> str | None:
    """A text that tells a path, time or number from others of its type; None for other objects."""
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, enum.Enum):
        return value.name
    return str(value) if isinstance(value, _TOLD_BY_TEXT) else None


def _hash_sequence(digest: _Digest, value: Any) -> None:
    # reading a record of an unknown sequence may be slow, so a sample must do
    n, held = len(value), isinstance(value, list | tuple)
    known = n if held else min(n, _SAMPLE)
    _tagged(digest, "sequence", b"%d" % n)
    if not held and _is_random(value):
        digest.unseen.add(RANDOM)
        _tagged(digest, "random", b"")
        return
    for k in range(known):
        _hash(digest, value[k * n // known])


def _is_random(value: Any) -> bool:
    # whether its records differ from one reading to the next: a resume could never find them equal
    few = range(0, len(value), max(1, len(value) // FEW))
    return any(_digest(value[k]) != _digest(value[k]) for k in few)


def _hash_parts(digest: _Digest, value: Any, parts: list[tuple[str, Any]]) -> None:
    kind = type(value).__name__ if isinstance(value, dict | tuple) else _name(value)
    _tagged(digest, kind, b"%d" % len(parts))
    for name, part in sorted(parts, key=lambda p: p[0]) if isinstance(value, dict) else parts:
        _tagged(digest, "field", name.encode("utf-8", "surrogatepass"))
        _hash(digest, part)


def _hash_array(digest: _Digest, a: NDArray[Any]) -> None:
    shape = ",".join(map(str, a.shape))
    if a.dtype.hasobject:
        _tagged(digest, "objects", shape.encode())
        for element in a.reshape(-1).tolist():
            _hash(digest, element)
        return
    if a.nbytes > _LARGE and mapping(a) is not None:
        _tagged(digest, "mapped", sample_digest(a).encode())
        return
    if a.dtype.names is not None and _has_gaps(a.dtype):
        _tagged(digest, "fields", f"{shape} {a.dtype.names}".encode())
        for name in a.dtype.names:
            _hash_array(digest, cast(Any, a)[name])
        return
    if a.dtype.char in "gG":  # bytes of a long double that hold nothing differ by chance
        mantissa, exponent = np.frexp(np.ascontiguousarray(a).view(np.longdouble))
        high = mantissa.astype(np.float64)
        _tagged(digest, "long doubles", shape.encode())
        for part in (high, (mantissa - high).astype(np.float64), exponent):
            _hash_array(digest, part)
        return
    kind = a.dtype.str if a.dtype.names is None else repr(a.dtype.descr)
    digest.update(f"array {kind} {shape} {a.nbytes}:".encode())
    for piece in _pieces(a):
        digest.update(piece)


def _has_gaps(dtype: Any) -> bool:
    """Whether some bytes of a record hold nothing, or its fields stand in another order."""
    end = 0
    for part, at, *_ in map(dtype.fields.get, dtype.names):
        inner = part.base
        if at != end or inner.char in "gG" or (inner.names and _has_gaps(inner)):
            return True
        end = at + part.itemsize
    return end != dtype.itemsize


def _pieces(a: NDArray[Any]) -> Iterator[NDArray[np.uint8]]:
    """An array's bytes in C order, piece by piece: a view may be far larger than its memory."""
    if a.flags.c_contiguous or a.nbytes <= _PIECE:
        yield np.ascontiguousarray(a).reshape(-1).view(np.uint8)
        return
    rows = _PIECE // a[:1].nbytes
    for start in range(0, len(a), max(1, rows)):
        yield from _pieces(a[start : start + rows] if rows else a[start])


def _number(value: Any) -> bytes:
    if isinstance(value, float):
        return struct.pack("<d", value)
    if isinstance(value, complex):
        return struct.pack("<dd", value.real, value.imag)
    return repr(value).encode()


def _tagged(digest: _Digest, tag: str, payload: Any) -> None:
    digest.update(f"{tag} {len(payload)}:".encode())
    digest.update(payload)


def _name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
