"""The header of a token file: dtype of the tokens, where they begin and how many there are."""

from __future__ import annotations

import io
import math
import os
import threading
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pipeline.errors import SourceError
from pipeline.sources.complaints import parsed_json, parsing, unreadable
from pipeline.sources.storage.gather import refuse_packed
from pipeline.sources.storage.location import beside, named
from pipeline.sources.storage.storage import Stat, Storage

_SUFFIXES = {
    f".{written}{width}": f"{name}{width}"
    for width in (8, 16, 32, 64)
    for written, name in (("uint", "uint"), ("u", "uint"), ("int", "int"), ("i", "int"))
}
_NPY = b"\x93NUMPY"
_HEADERS = threading.Lock()  # filters of warnings are the process's; files are opened in threads
_SIDECAR = 1 << 20  # bytes of a sidecar file at most
_LLM_C = {20240520: "<u2", 20240801: "<u4"}  # llm.c: 256 int32: magic, version, tokens, zeros


class TokenFile(NamedTuple):
    """What a file holds: tokens of `dtype` in one or two dimensions, from byte `offset` on."""

    dtype: str
    offset: int
    shape: tuple[int, ...]

    @property
    def tokens(self) -> int:
        return math.prod(self.shape)  # NumPy's product would overflow


def token_file(stat: Stat, storage: Storage, dtype: str | None) -> TokenFile:
    """What a file holds, by its name, first bytes and, if need be, sidecar file.

    Args:
        stat: the file. An empty one may be of any dtype.
        storage: how it is read.
        dtype: what plain files hold, as `stored` returns it; None to find out.

    Raises:
        SourceError: the dtype is unknown, or the file is compressed, truncated or not an array of
            integers.
    """
    head = storage.read([stat.range(0, min(4096, stat.size))])[0] if stat.size else b""
    refuse_packed(stat.path, head)
    if head.startswith(_NPY):
        return _npy(stat, head, dtype)
    if len(head) >= 1024 and (magic := int.from_bytes(head[:4], "little")) in _LLM_C:
        count = int.from_bytes(head[8:12], "little")
        return _checked(stat, TokenFile(_LLM_C[magic], 1024, (count,)), dtype)
    kind = dtype or _by_suffix(stat.path) or _by_sidecar(stat, storage)
    if stat.size == 0:
        return TokenFile(kind or "", 0, (0,))
    if kind is None:
        raise SourceError(
            f"{stat.path} does not say of which type its tokens are. Give dtype= (nanoGPT writes "
            '"uint16"), a suffix such as .u16, or {"dtype": "uint16"} in '
            f"{beside(stat.path, '.json')}."
        )
    size = np.dtype(kind).itemsize
    if stat.size % size:
        raise unreadable(
            stat.path, f"{stat.size} bytes are no whole number of {kind} tokens: is the dtype right"
        )
    return TokenFile(kind, 0, (stat.size // size,))


def stored(dtype: DTypeLike) -> str:
    """The code of an integer dtype as stored in files: little-endian unless it says otherwise.

    >>> stored("uint16"), stored(np.int32), stored(">u4")
    ('<u2', '<i4', '>u4')
    """
    try:
        kind = np.dtype(dtype)
    except TypeError as e:
        raise SourceError(f'dtype={dtype!r}: give an integer type, such as "uint16"') from e
    if kind.kind not in "iu":
        raise SourceError(f'dtype={dtype!r}: tokens are integers; give for instance "uint16"')
    return kind.str if kind.str[0] == ">" else kind.newbyteorder("<").str


def one_type(paths: Sequence[str], found: Sequence[TokenFile]) -> str:
    """The dtype that all files share, ignoring empty ones of unknown dtype.

    Raises:
        SourceError: two files differ, or no file has a dtype.
    """
    known = {f.dtype: path for path, f in zip(paths, found, strict=True) if f.dtype}
    if len(known) > 1:
        (a, first), (b, second) = list(known.items())[:2]
        raise SourceError(
            f"tokens are {np.dtype(a)} in {first} but {np.dtype(b)} in {second}. Rewrite one, or "
            "join two sources by concatenate."
        )
    if not known:
        raise SourceError(f"{paths[0]} is empty and does not say of which type. Give dtype=.")
    return next(iter(known))


def as_tokens(spans: list[bytes], dtype: str) -> NDArray[Any]:
    """The tokens of spans end to end, as a writable array in this machine's byte order."""
    # arrays over a bytes object would be read-only
    found = np.frombuffer(bytearray().join(spans), dtype)
    return found.astype(found.dtype.newbyteorder("="), copy=False)


def _npy(stat: Stat, head: bytes, dtype: str | None) -> TokenFile:
    f, header = io.BytesIO(head), np.lib.format
    with parsing(stat.path, 0), _HEADERS, warnings.catch_warnings():
        warnings.simplefilter("error")  # about headers that only Python 2 wrote
        new = header.read_magic(f) != (1, 0)
        read: Any = header.read_array_header_2_0 if new else header.read_array_header_1_0
        shape, by_columns, kind = read(f)
        if not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError(f"its shape is {shape}")
    if kind.kind not in "iu" or len(shape) not in (1, 2) or (by_columns and len(shape) == 2):
        order = "column by column" if by_columns and len(shape) == 2 else "row by row"
        raise unreadable(
            stat.path,
            f"it holds {kind} of shape {shape}, {order}, but tokens are integers of one or two "
            "dimensions, row by row. Other arrays are columns: Dataset(np.load(path, "
            'mmap_mode="r"))',
        )
    return _checked(stat, TokenFile(kind.str, f.tell(), shape), dtype)


def from_manifest(stat: Stat, tokens: int, facts: Any) -> TokenFile:
    """What a manifest says that a file holds, compared with the file's size.

    Raises:
        SourceError: the two do not fit together.
    """
    with parsing(f"the manifest of {stat.path}"):
        dtype, offset, shape = facts
        found = TokenFile(_known(dtype) if tokens else str(dtype), offset, tuple(shape))
        sizes = [tokens, found.offset, *found.shape]
        if not all(type(n) is int and n >= 0 for n in sizes) or found.tokens != tokens:
            raise ValueError(f"{tokens} tokens, {facts}")
    return _checked(stat, found, None) if found.dtype else found


def _known(dtype: Any) -> str:
    """The code of a dtype that a file gives by name."""
    try:
        return stored(dtype)
    except SourceError as e:  # its message does not name the file
        raise ValueError(str(e)) from e


def _checked(stat: Stat, found: TokenFile, dtype: str | None) -> TokenFile:
    if dtype is not None and np.dtype(dtype) != np.dtype(found.dtype):
        raise SourceError(
            f"dtype={np.dtype(dtype)} was asked for, but {stat.path} says that it holds "
            f"{np.dtype(found.dtype)}. Leave dtype out."
        )
    size = found.offset + found.tokens * np.dtype(found.dtype).itemsize
    if size != stat.size:
        raise unreadable(
            stat.path,
            f"its header promises {found.tokens} tokens, {size} bytes in all, but it has "
            f"{stat.size}",
        )
    return found


def _by_suffix(path: str) -> str | None:
    stem, last = os.path.splitext(named(path).lower())
    name = _SUFFIXES.get(last) or _SUFFIXES.get(os.path.splitext(stem)[1])
    return None if name is None else stored(name)


def _by_sidecar(stat: Stat, storage: Storage) -> str | None:
    try:
        side = storage.stat(beside(stat.path, ".json"))
    except FileNotFoundError:
        return None
    with parsing(f'{side.path} as JSON such as {{"dtype": "uint16"}}'):
        if side.size > _SIDECAR:
            raise ValueError(f"it has {side.size} bytes")
        said = parsed_json(storage.read([side.range(0, side.size)])[0], side.path)
        return _known(said["dtype"])
