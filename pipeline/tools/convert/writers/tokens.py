"""Writers of tokens: end to end in a raw file, an array, or Megatron's pair of files."""

from __future__ import annotations

import json
import os
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ChainError
from pipeline.tools.convert.writers.values import as_tokens

_MEGATRON_TYPES = {"u1": 1, "i1": 2, "i2": 3, "i4": 4, "i8": 5, "u2": 8}  # its DType.code


class Tokens:
    """Writes rows of tokens end to end, little-endian. `NAME.json` beside it states their dtype."""

    def __init__(self, path: str) -> None:
        self._path, self._kind = path, np.dtype(np.uint16)
        self._first = True
        self._file = open(path, "wb")  # noqa: SIM115

    def write(self, rows: list[Any]) -> None:
        for row in rows:
            self._put(as_tokens(row, "a token file"))

    def _put(self, tokens: NDArray[Any]) -> None:
        kind = tokens.dtype.newbyteorder("<")
        if not self._first and kind != self._kind:
            raise ChainError(
                f"{self._path} holds tokens of {self._kind}, and a row is of {kind}. Give --map "
                "module:function, which returns rows of one dtype."
            )
        self._kind, self._first = kind, False
        self._file.write(tokens.astype(kind, copy=False).tobytes())

    def close(self) -> list[str]:
        self._file.close()
        beside = f"{os.path.splitext(self._path)[0]}.json"
        with open(beside, "w") as f:
            json.dump({"dtype": self._kind.name}, f)
        return [self._path, beside]


class NumpyTokens:
    """Writes rows of tokens end to end as one `.npy` array."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._raw = Tokens(f"{path}.raw")
        self._rows = 0

    def write(self, rows: list[Any]) -> None:
        self._raw.write(rows)

    def close(self) -> list[str]:
        raw, beside = self._raw.close()
        with open(beside) as f:
            kind = np.dtype(json.load(f)["dtype"])
        size = os.path.getsize(raw)
        with open(raw, "rb") as source, open(self._path, "wb") as target:
            np.lib.format.write_array_header_1_0(
                target,
                {"descr": kind.str, "fortran_order": False, "shape": (size // kind.itemsize,)},
            )
            while piece := source.read(4 << 20):
                target.write(piece)
        os.remove(raw)
        os.remove(beside)
        return [self._path]


class MegatronTokens:
    """Writes rows of tokens as Megatron's indexed dataset: `.bin`, and the index `.idx`.

    Each row is a sequence and a document (MMapIndexedDataset, version 1).
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._bin = f"{os.path.splitext(path)[0]}.bin"
        self._raw = Tokens(self._bin)
        self._lengths: list[int] = []

    def write(self, rows: list[Any]) -> None:
        self._raw.write(rows)
        self._lengths += [len(as_tokens(row, "a Megatron file")) for row in rows]

    def close(self) -> list[str]:
        _, beside = self._raw.close()
        with open(beside) as f:
            kind = np.dtype(json.load(f)["dtype"])
        os.remove(beside)
        if kind.str[1:] not in _MEGATRON_TYPES:
            raise ChainError(
                f"Megatron files have no tokens of {kind}. Give --map module:function, which "
                "returns tokens of uint16 or int32."
            )
        lengths = np.array(self._lengths, "<i4")
        starts = np.zeros(len(lengths), "<i8")
        np.cumsum(lengths[:-1] * np.int64(kind.itemsize), out=starts[1:])
        documents = np.arange(len(lengths) + 1, dtype="<i8")
        head = struct.pack("<QBQQ", 1, _MEGATRON_TYPES[kind.str[1:]], len(lengths), len(documents))
        with open(self._path, "wb") as f:
            f.write(b"MMIDIDX\0\0" + head)
            for part in (lengths, starts, documents):
                f.write(part.tobytes())
        return [self._path, self._bin]
