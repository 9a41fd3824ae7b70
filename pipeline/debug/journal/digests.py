"""What a batch's rows were, as one number: XXH3-128 of each row, added up with its position.

Rows are hashed as they are made, before collate, padding and feed: jax narrows int64, so that
batches of torch and JAX differ after it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from pipeline.block import Columns, Int64s, Values
from pipeline.checks import numeric
from pipeline.debug.digest import array_head, field_head, little, update
from pipeline.debug.journal.xxh3 import summed
from pipeline.errors import CollateError
from pipeline.transforms.collate import collate
from pipeline.tree import leaves

KIND = "rows-xxh3-128"  # of digests that this file makes: 32 hex digits
_MODULUS = 1 << 128
_FEW = 256  # rows below which a call for each is faster than arrays


def row_digests(values: Values) -> list[bytes]:
    """XXH3-128 of each row: names, dtypes, shapes and bytes of its fields.

    A field's digest is XXH3-128 of its bytes, seeded by XXH3-64 of its name, dtype and shape. A row
    of one field has that field's; of several, that of their digests, end to end in the order of
    names. A row has the same digest in columns as alone: what collate would make of it is hashed.

    Args:
        values: n rows.

    Returns:
        n digests of 16 bytes.

    Raises:
        FeedError: a field holds objects other than str, bytes, numbers, None, arrays and
            containers of these.

    >>> rows = [{"x": 1, "s": "a"}, {"x": 2, "s": "b"}]
    >>> row_digests(rows) == row_digests(Columns({"x": [1, 2], "s": ["a", "b"]}))
    True
    """
    if isinstance(values, Columns):
        return _of_columns(values)
    return [_of_row(row) for row in values]


def batch_digest(rows: Sequence[bytes], positions: Sequence[int] | Int64s) -> int:
    """The sum modulo 2^128 of hash(position in the global batch, row digest).

    Hosts add theirs up: the sum over all rows is the same however they are split.

    >>> rows = row_digests(Columns(np.arange(4)))
    >>> whole = batch_digest(rows, range(4))
    >>> whole == add_up([batch_digest(rows[:1], [0]), batch_digest(rows[1:], [1, 2, 3])])
    True
    """
    seeds = np.asarray(positions, np.int64)  # the position is the hash's seed
    if len(rows) < _FEW:
        return sum(map(xxhash.xxh3_128_intdigest, rows, seeds.tolist())) % _MODULUS
    return summed(b"".join(rows), seeds)


def add_up(digests: Iterable[int]) -> int:
    """The digest of a batch from those of its parts, one a host."""
    return sum(digests) % _MODULUS


def of_step(batches: Iterable[int]) -> int:
    """The digest of a training step: of its one batch, or of several whose gradients it added.

    It is linear, so that hosts' numbers still add up, and tells the order of the batches.
    """
    return sum([digest * (2 * i + 1) for i, digest in enumerate(batches)]) % _MODULUS


def chained(chain: str, digest: str) -> str:
    """chain(N) of chain(N-1) and digest(N): BLAKE2b, 32 hex digits; it vouches for all before.

    >>> chained("", "00" * 16)
    'ff0f22492f44bac4c4b30ae58d0e8daa'
    """
    data = bytes.fromhex(chain or "00" * 16) + bytes.fromhex(digest)
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def follows(before: str, digest: str, chain: str) -> bool:
    """Whether a chain is that of the chain before it and a digest.

    >>> follows("", "00" * 16, "ff0f22492f44bac4c4b30ae58d0e8daa"), follows("", "no hex", "")
    (True, False)
    """
    try:
        return chained(before, digest) == chain
    except ValueError:  # no hex digits
        return False


def written(digest: int) -> str:
    """A digest as a ledger has it: 32 hex digits."""
    return f"{digest:032x}"


def _of_columns(values: Columns) -> list[bytes]:
    fields = [_of_field(*field) for field in sorted(leaves(values.tree), key=lambda f: f[0])]
    if len(fields) == 1:
        return fields[0]
    return [_of_fields(row) for row in zip(*fields, strict=True)] or [_of_fields(())] * len(values)


def _of_field(name: str, column: NDArray[Any]) -> list[bytes]:
    if column.dtype.names or not numeric(column.dtype):
        return [_of_leaf(name, value) for value in column]
    seed = _seed(name, column.dtype, column.shape[1:])
    data = memoryview(_bytes(column))
    size = len(data) // max(1, len(column))
    if not size:
        return [xxhash.xxh3_128_digest(b"", seed)] * len(column)
    of = xxhash.xxh3_128_digest
    return [of(data[i : i + size], seed) for i in range(0, len(data), size)]


def _of_row(row: Any) -> bytes:
    fields = [_of_leaf(*field) for field in sorted(leaves(row), key=lambda f: f[0])]
    return fields[0] if len(fields) == 1 else _of_fields(fields)


def _of_fields(digests: Iterable[bytes]) -> bytes:
    return xxhash.xxh3_128_digest(b"".join(digests))


def _of_leaf(name: str, leaf: Any) -> bytes:
    leaf = _as_collated(leaf)
    if isinstance(leaf, np.ndarray | np.generic) and numeric(leaf.dtype):
        seed = _seed(name, leaf.dtype, leaf.shape)
        return xxhash.xxh3_128_digest(_bytes(np.asarray(leaf)), seed)
    parts = _Parts()
    update(parts, leaf, name)
    return xxhash.xxh3_128_digest(b"".join(parts), xxhash.xxh3_64_intdigest(field_head(name)))


def _bytes(a: NDArray[Any]) -> Any:
    return np.ascontiguousarray(little(a)).reshape(-1).view(np.uint8)


@lru_cache(4096)
def _seed(name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
    return xxhash.xxh3_64_intdigest(field_head(name) + array_head(dtype, shape))


class _Parts(list[bytes]):
    update = list.append


def _as_collated(value: Any) -> Any:
    # the row's part of what collate would make: of 1 an int64, of a list of numbers an array
    if type(value) is np.ndarray and numeric(value.dtype):
        return value
    try:
        return collate([value])[0]
    except CollateError:  # it stacks with no row: whoever collates by hand makes something of it
        return value
