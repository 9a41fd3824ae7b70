"""The numbers of all lines of a ledger as arrays: of runs of millions, without an object a line."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json
from numpy.typing import NDArray

from pipeline.debug.journal.ledger import LedgerFile
from pipeline.errors import JournalError

_SECONDS = ("data", "step", "save")
_TYPES: dict[str, Any] = {
    **dict.fromkeys(("step", "launch", "data_step", "data_stop", "batches", "move"), pa.int64()),
    "rows": pa.list_(pa.int64()),
    "loss": pa.float64(),
    "grad_norm": pa.float64(),
    "norm_told": pa.bool_(),
    "seconds": pa.struct([(name, pa.float64()) for name in _SECONDS]),
    **dict.fromkeys(("loss_bits", "digest", "chain"), pa.string()),
}
_NEEDED = frozenset({"step", "launch", "rows", "digest", "data_step"})  # which no line lacks
_USUAL = {"batches": 1, "data_stop": -1, "norm_told": True, "chain": "", "move": 0}  # left out

_PROVED = ("step", "launch", "move", "data_step", "batches", "rows", "digest", "chain")

Arrays = dict[str, NDArray[Any]]


def numbers(ledger: LedgerFile, *, every: int = 1) -> Arrays:
    """The numbers of the steps that led to where the run stands: see `Run.columns`."""
    names = [name for name in _TYPES if name not in ("digest", "chain", "move")]
    found = _read(ledger, names, every, _numbers, {"scalars"})
    kept = ledger.lineage.leads_on(found["number"])
    return {name: column[kept] for name, column in found.items()}


def digests(ledger: LedgerFile) -> Arrays:
    """Of all lines, in the order written.

    Returns:
        "number", "step", "launch", "move", "data_step", "batches", "first_row" and "end_row"
        int64[n], "digest" and "chain" str[n].
    """
    return _read(ledger, _PROVED, 1, _plain)


# ---- reading


def _read(
    ledger: LedgerFile, names: Collection[str], every: int, made: Any, more: Collection[str] = ()
) -> Arrays:
    # `made` of each table, end to end, and "number" of each line
    schema = pa.schema([(name, _TYPES[name]) for name in names])
    parts: list[Arrays] = []
    for start, stop, first in ledger.stretches(every):
        table = _table(ledger, start, stop, schema, "infer" if more else "ignore")
        part: Arrays = made(table)
        parts.append({**part, "number": np.arange(first, first + len(table))})
    return _joined(parts) if parts else made(schema.empty_table()) | {"number": np.zeros(0, int)}


def _table(ledger: LedgerFile, start: int, stop: int, schema: Any, others: str) -> pa.Table:
    with open(ledger.file, "rb") as f:
        f.seek(start)
        data = f.read(stop - start)
    try:
        table = pyarrow.json.read_json(
            pa.BufferReader(data),
            pyarrow.json.ReadOptions(block_size=max(1 << 20, len(data) + 1)),
            pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior=others),
        )
        whole = len(table) == data.count(b"\n")
        if whole and not any(table[n].null_count for n in _NEEDED & {*schema.names}):
            return table
        told = "a line is empty, or lacks a field"
    except pa.ArrowInvalid as e:
        told = str(e)
    for _ in ledger.lines(start, stop):  # names the line that is damaged
        pass
    raise JournalError(f"{ledger.file} holds a value of a type that a Journal never writes: {told}")


def _joined(parts: list[Arrays]) -> Arrays:
    names = {name: None for part in parts for name in part}
    sizes = [len(part["number"]) for part in parts]
    return {
        name: np.concatenate(
            [part.get(name, np.full(n, np.nan)) for part, n in zip(parts, sizes, strict=True)]
        )
        for name in names
    }


# ---- a table's columns as arrays


def _plain(table: pa.Table) -> Arrays:
    names = [name for name in table.column_names if name in _TYPES and name != "rows"]
    rows = _rows(table)
    found = {name: _column(table, name) for name in names}
    return found | {"first_row": rows[::2], "end_row": rows[1::2]}


def _column(table: pa.Table, name: str) -> NDArray[Any]:
    column = table[name].combine_chunks()
    if name in _USUAL:
        column = column.fill_null(_USUAL[name])
    return column.to_numpy(zero_copy_only=False)


def _numbers(table: pa.Table) -> Arrays:
    found = {name: _column(table, name) for name in ("step", "launch", "data_step")}
    stop, batches = _column(table, "data_stop"), _column(table, "batches")
    found["data_end"] = np.where(stop >= 0, stop, found["data_step"] + batches)
    rows = _rows(table)
    found["rows"] = rows[1::2] - rows[::2]
    for name in ("loss", "grad_norm"):
        found[name] = _floats(table[name].combine_chunks())
    found["loss_told"] = ~table["loss_bits"].combine_chunks().is_null().to_numpy(False)
    found["grad_norm_told"] = _column(table, "norm_told").astype(bool)
    seconds = table["seconds"].combine_chunks()
    for name, key in (("data", "data"), ("step_seconds", "step"), ("save", "save")):
        found[name] = _floats(seconds.field(key))
    return found | {k: v for k, v in _scalars(table) if k not in found}


def _rows(table: pa.Table) -> NDArray[np.int64]:
    # the first row and the end of each line's, in turn
    rows = table["rows"].combine_chunks().flatten().to_numpy()
    if len(rows) != 2 * len(table):
        raise JournalError("a line's rows are not [start, stop)")
    return rows


def _scalars(table: pa.Table) -> Iterator[tuple[str, NDArray[np.float64]]]:
    if "scalars" not in table.column_names:
        return
    scalars = table["scalars"].combine_chunks()
    for each in sorted(scalars.type, key=lambda f: f.name):
        yield each.name, _floats(scalars.field(each.name))


def _floats(column: Any) -> NDArray[np.float64]:
    # NaN where there is none
    return np.asarray(column.to_numpy(zero_copy_only=False), np.float64)
