"""Inspecting a step row by row: losses, gradient norms, texts and where they are from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.config import Config
from harness.errors import ConfigError
from harness.ledger import finite, read
from harness.metrics import Screen
from harness.past import opened
from harness.plan import check_known
from harness.rows import gradient_norms, token_losses
from harness.rundir import RunDir
from harness.sharding import host_arrays
from harness.task import Task
from harness.update import prepared
from pipeline.debug.documents import Document, Piece, documents_of, repetition

RANKS = ("loss", "gradnorm")


def inspect(
    run: RunDir,
    cfg: Config,
    step: int,
    screen: Screen,
    *,
    rank: Sequence[str] = RANKS,
    top: int = 20,
) -> list[dict[str, Any]]:
    """The rows of a step, those with the largest loss or gradient norm first. Writes nothing.

    Args:
        run, cfg, step, screen: the run, its settings, the step, where progress is shown.
        rank: names from `RANKS`; a row is ordered by its best rank among them.
        top: rows at most.

    Returns:
        For each row: row, loss (mean over the tokens that count), gradnorm (of that mean), and for
            each document in it file, record, tokens [start, stop), its own loss, text, and the
            n-gram that it repeats.

    Raises:
        CheckpointError: there is no checkpoint at or before the step.
        ConfigError: a rank is unknown, or the ledger has no line for the step.
    """
    unknown = [r for r in rank if r not in RANKS]
    if unknown or not rank:
        raise ConfigError(f"--rank {','.join(rank)}: give one or more of {', '.join(RANKS)}.")
    check_known(range(step, step + 1), {entry.step for entry in read(run.ledger)})
    with opened(run, cfg, screen) as past:
        stand, losses = past.stand(step), past.parts.functions.losses
        batch = prepared(past.parts, stand.batch, stand.data_step)
        each, counts = token_losses(losses, stand.state.params, batch)
        norms = gradient_norms(losses, stand.state.params, batch)
        documents = documents_of(past.parts.loader.where(stand.data_step))
    means = each.reshape(len(each), -1).sum(1) / np.maximum(counts.reshape(len(each), -1).sum(1), 1)
    values = {"loss": means, "gradnorm": norms}
    arrays = host_arrays(dict(batch))
    return [
        {
            "row": row,
            "loss": finite(means[row]),
            "gradnorm": finite(norms[row]),
            "documents": _documents(past.parts.task, documents, row, arrays, each, counts),
        }
        for row in _ranked([values[name] for name in rank])[:top]
    ]


def look(task: Task, batch: Any, pieces: Iterable[Piece]) -> tuple[str, str]:
    """(text of a document's pieces as the task shows them, the n-gram that they repeat or "").

    The batch is one of NumPy arrays.
    """
    shown: list[str] = []
    tokens: list[NDArray[Any]] = [np.zeros(0, np.int32)]
    for piece in pieces:
        row = {name: values[piece.row] for name, values in batch.items()}
        shown.append(task.show(row, max(0, piece.segment - 1)))
        if "tokens" in row:
            here = row["segment_ids"] == piece.segment if piece.segment else slice(None)
            tokens.append(row["tokens"][here])
    tokenizer = getattr(task, "tokenizer", None)
    show = (lambda gram: repr(tokenizer.decode(gram))) if tokenizer else str
    return "".join(shown), repetition(np.concatenate(tokens), show)


def excerpt(text: str, most: int = 160) -> str:
    """A text on one line; if it is long, its middle is left out."""
    flat = " ".join(text.split())
    return flat if len(flat) <= most else f"{flat[: most // 2]} … {flat[-most // 2 :]}"


def _ranked(values: Sequence[np.ndarray]) -> list[int]:
    # the best rank of each row over all values; ties are ordered by the first value
    places = [np.argsort(np.argsort(-np.nan_to_num(v, nan=np.inf), kind="stable")) for v in values]
    best = np.min(places, axis=0)
    return sorted(range(len(best)), key=lambda i: (best[i], places[0][i]))


def _documents(
    task: Task, documents: Sequence[Document], row: int, arrays: Any, losses: Any, counts: Any
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for document in documents:
        for piece in document.pieces:
            if piece.row != row:
                continue
            here: Any = slice(None)
            if piece.segment:
                here = arrays["segment_ids"][row] == piece.segment
            n = float(np.sum(counts[row][here]))
            text, repeats = look(task, arrays, [piece])
            found.append(
                {
                    "name": document.name,
                    "component": document.component,
                    "record": document.record,
                    "file": document.file,
                    "file_record": document.file_record,
                    "epoch": document.epoch,
                    "tokens": [piece.start, piece.stop],
                    "loss": finite(np.sum(losses[row][here]) / n) if n else None,
                    "repeats": repeats,
                    "text": text,
                }
            )
    return found


def tell(step: int, rows: Sequence[dict[str, Any]], screen: Screen) -> None:
    """Print the result of `inspect`."""
    screen.say(f"step {step:,}\n row    loss  gradnorm  documents")
    for row in rows:
        loss, norm = (math.nan if row[k] is None else row[k] for k in ("loss", "gradnorm"))
        screen.say(f"{row['row']:>4}  {loss:>6.3f}  {norm:>8.3f}")
        for d in row["documents"]:
            loss = "" if d["loss"] is None else f"  loss {d['loss']:.3f}"
            flag = f"  REPEATS {d['repeats']}" if d["repeats"] else ""
            span = "{}:{}".format(*d["tokens"])
            screen.say(f"      {d['name']}  tokens {span}  epoch {d['epoch']}{loss}{flag}")
            screen.say(f"        {excerpt(d['text'])}")
