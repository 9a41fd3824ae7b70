"""How rows are written to a file: as a JSON skeleton and raw bytes, never as a pickle."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.block import Columns, Int64s, Values
from pipeline.checks import numeric
from pipeline.errors import ChainError, need
from pipeline.sources.exact import objects
from pipeline.tree import DEEPEST, leaves, map_leaves, too_deep

_HEAD = struct.Struct("<BxxxI")  # whether the row came from columns; bytes of the skeleton
_ATOMS = (type(None), bool, int, float, str)
_ARRAYS = {np.ndarray: "a", np.memmap: "a", np.matrix: "m", np.recarray: "c"}


def encode(values: Values) -> list[bytes]:
    """Each row as bytes.

    Raises:
        ChainError: a row holds something else than dicts, tuples, lists, arrays, numbers, text and
            bytes.
    """
    if not isinstance(values, Columns):
        return [_encoded(row, False) for row in values]
    if any(a.dtype.hasobject for _, a in leaves(values.tree)):
        rows = (map_leaves(lambda a, i=i: _cell(a, i), values.tree) for i in range(len(values)))
        return [_encoded(row, True) for row in rows]
    return _encoded_columns(values)


class _Box:
    """An element of a column of objects: inside, a dict or array is not taken for columns."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _cell(a: NDArray[Any], i: int) -> Any:
    # an array even of a single number: a scalar would lose its byte order
    return _Box(a[i]) if a.dtype.hasobject else a[i : i + 1].reshape(a.shape[1:])


def _encoded(row: Any, column: bool) -> bytes:
    buffers: list[bytes] = []
    skeleton = json.dumps(_skeleton(row, buffers), separators=(",", ":")).encode()
    return b"".join([_HEAD.pack(column, len(skeleton)), skeleton, *buffers])


def _encoded_columns(values: Columns) -> list[bytes]:
    n = len(values)
    if not n:
        return []
    buffers: list[bytes] = []
    first = map_leaves(lambda a: _cell(a, 0), values.tree)
    skeleton = json.dumps(_skeleton(first, buffers), separators=(",", ":")).encode()
    parts = [
        np.ascontiguousarray(a).reshape(n, -1).view(np.uint8).reshape(n, -1)
        for _, a in leaves(values.tree)
        if a.nbytes
    ]
    body = np.concatenate(parts, axis=1) if parts else np.zeros((n, 0), np.uint8)
    head = _HEAD.pack(True, len(skeleton)) + skeleton
    return [head + row.tobytes() for row in body]


def _skeleton(value: Any, buffers: list[bytes], depth: int = 0) -> Any:
    kind = type(value)
    if kind in _ATOMS:
        return value
    if depth > DEEPEST:
        raise too_deep()
    if isinstance(value, _Box):
        return ["O", _skeleton(value.value, buffers, depth + 1)]
    if kind is bytes:
        buffers.append(value)
        return ["b", len(value)]
    if kind is np.ndarray and value.dtype.kind == "O":
        return [
            "o",
            list(value.shape),
            [_skeleton(v, buffers, depth + 1) for v in value.reshape(-1).tolist()],
        ]
    if kind is np.bytes_:  # in an array it would lose zeros at its end
        buffers.append(bytes(value))
        return ["B", len(buffers[-1])]
    if kind is np.str_:
        return ["U", "".join(value)]
    tag = "s" if isinstance(value, np.generic) else _ARRAYS.get(kind)
    if tag is not None and not value.dtype.hasobject:
        dtype = _written(value.dtype)
        if dtype is not None:
            buffers.append(value.tobytes())
            return [tag, dtype, list(value.shape)]
    if isinstance(value, list | tuple) and kind in (list, tuple):  # no namedtuple
        return ["l" if kind is list else "t", [_skeleton(v, buffers, depth + 1) for v in value]]
    if isinstance(value, dict) and kind is dict and all(type(k) is str for k in value):
        return ["d", [[k, _skeleton(v, buffers, depth + 1)] for k, v in value.items()]]
    raise ChainError(
        f"a cache on disk holds dicts with text keys, tuples, lists, arrays, numbers, text and "
        f"bytes, not {kind.__name__}. Convert it in .map, or cache in memory: .cache()."
    )


def _written(dtype: np.dtype[Any]) -> Any:
    """A dtype as JSON: its text, ["n", name] if ml_dtypes', or the fields of a structured one."""
    if dtype.names is not None:
        if dtype.fields is None or len(dtype.fields) > len(dtype.names):  # fields with titles
            return None
        parts = [[name, _written(held[0]), held[1]] for name, held in dtype.fields.items()]
        tag = "R" if dtype.type is np.record else "r"
        shape = [tag, dtype.itemsize, dtype.isalignedstruct, parts]
        return shape if all(part[1] for part in parts) else None
    if dtype.subdtype is not None:
        inner = _written(dtype.subdtype[0])
        return inner and ["v", inner, list(dtype.subdtype[1])]
    if dtype.type.__module__ == "numpy":
        if dtype.kind not in "biufcmMSU":
            return None
        same = np.dtype(dtype.str).type is dtype.type  # long long has the text of long
        return dtype.str if same else dtype.str[0] + dtype.char
    return ["n", dtype.name] if numeric(dtype) else None


def _dtype(written: Any) -> np.dtype[Any]:
    if isinstance(written, str):
        return np.dtype(written)
    tag, *rest = written
    if tag == "n":
        try:
            import ml_dtypes
        except ModuleNotFoundError as e:
            raise need("jax", "ml_dtypes") from e
        return np.dtype(getattr(ml_dtypes, rest[0]))
    if tag == "v":
        return np.dtype((_dtype(rest[0]), tuple(rest[1])))
    size, aligned, parts = rest
    names, formats, offsets = ([part[i] for part in parts] for i in range(3))
    layout = {"names": names, "formats": [_dtype(f) for f in formats], "offsets": offsets}
    whole: Any = {**layout, "itemsize": size}
    held = np.dtype(whole, align=aligned)
    return np.dtype((np.record, held)) if tag == "R" else held


def decode(payloads: Sequence[bytes]) -> list[tuple[Int64s, Values]]:
    """The rows that `encode` was given, as (places, rows) for each layout among them."""
    heads = [_HEAD.unpack_from(p) for p in payloads]
    ends = [_HEAD.size + size for _, size in heads]
    skeletons = [p[_HEAD.size : end] for p, end in zip(payloads, ends, strict=True)]
    alike: dict[bytes, list[int]] = {}
    rows: list[int] = []
    for i, (column, _) in enumerate(heads):
        (alike.setdefault(skeletons[i], []) if column else rows).append(i)
    pieces: list[tuple[Int64s, Values]] = []
    boxed: dict[Any, list[tuple[int, Any]]] = {}
    for skeleton, places in alike.items():
        if b'["O",' not in skeleton:
            pieces.append((np.array(places), _columns(skeleton, [payloads[i] for i in places])))
            continue
        for i in places:
            row = _decoded(skeleton, payloads[i])
            boxed.setdefault(_signature(row), []).append((i, row))
    for some in boxed.values():
        some.sort(key=lambda pair: pair[0])
        pieces.append((np.array([i for i, _ in some]), _stacked([row for _, row in some])))
    if rows:
        pieces.append((np.array(rows), [_decoded(skeletons[i], payloads[i]) for i in rows]))
    return pieces


class _Bytes:
    """Takes the bytes after the skeleton from front to back."""

    def __init__(self, data: NDArray[np.uint8]) -> None:
        self._data, self._at = data, 0

    def take(self, size: int) -> NDArray[np.uint8]:
        # uint8[size] for one row, uint8[m, size] for m rows
        self._at += size
        return np.array(self._data[..., self._at - size : self._at])  # a copy: aligned and writable

    def array(self, dtype: Any, shape: list[int]) -> NDArray[Any]:
        kind = _dtype(dtype)
        many = self._data.shape[:-1]
        raw = self.take(kind.itemsize * int(np.prod(shape, dtype=np.int64)))
        if not raw.size:
            return np.zeros((*many, *shape), kind)
        return raw.view(kind).reshape((*many, *shape))


def _decoded(skeleton: bytes, payload: bytes) -> Any:
    data = np.frombuffer(payload, np.uint8, offset=_HEAD.size + len(skeleton))
    return _value(json.loads(skeleton), _Bytes(data))


def _columns(skeleton: bytes, payloads: list[bytes]) -> Columns:
    matrix = np.frombuffer(b"".join(payloads), np.uint8).reshape(len(payloads), -1)
    return Columns(_value(json.loads(skeleton), _Bytes(matrix[:, _HEAD.size + len(skeleton) :])))


def _value(skeleton: Any, data: _Bytes) -> Any:
    if not isinstance(skeleton, list):
        return skeleton
    tag, *rest = skeleton
    if tag == "a":
        return data.array(*rest)
    if tag == "m":
        return data.array(*rest).view(np.matrix)
    if tag == "c":
        return data.array(*rest).view(np.recarray)
    if tag == "s":
        return _scalar(data, *rest)
    if tag == "B":
        return np.bytes_(data.take(rest[0]).tobytes())
    if tag == "U":
        return np.str_(rest[0])
    if tag == "b":
        return data.take(rest[0]).tobytes()
    if tag == "O":
        return _Box(_value(rest[0], data))
    if tag == "o":
        return objects([_value(v, data) for v in rest[1]]).reshape(rest[0])
    if tag == "d":
        return {k: _value(v, data) for k, v in rest[0]}
    parts = [_value(v, data) for v in rest[0]]
    return parts if tag == "l" else tuple(parts)


def _scalar(data: _Bytes, dtype: Any, shape: list[int]) -> Any:
    if shape or dtype[1] in ("S", "U"):
        raise ValueError("an earlier version wrote arrays of NumPy's other types as plain ones")
    return data.array(dtype, shape)[()]


def _signature(row: Any) -> Any:
    parts = [
        (name, None if isinstance(leaf, _Box) else (leaf.dtype, leaf.shape))
        for name, leaf in leaves(row)
    ]
    return tuple(parts)


def _stacked(rows: list[Any]) -> Columns:
    def column(*cells: Any) -> NDArray[Any]:
        boxed = isinstance(cells[0], _Box)
        if boxed:
            return objects([c.value for c in cells])
        return np.stack(cells).astype(cells[0].dtype, copy=False)

    return Columns(map_leaves(column, *rows))
