"""What made a step's loss or gradient norm spike: its data, the machine, or the optimizer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from harness.config import Config
from harness.inspect_step import excerpt, look
from harness.ledger import finite
from harness.metrics import Screen
from harness.past import Past, Stand, copied, entries_by_step, opened
from harness.recheck import Recent, Verdict, command, recheck, standing_out
from harness.rows import document_losses, token_losses
from harness.rundir import RunDir
from harness.sharding import host_arrays
from harness.spikes import excess, latest
from harness.step import TrainState
from harness.task import Batch, Task
from harness.update import times
from pipeline.debug.documents import Document, documents_of, weights_without
from pipeline.debug.explain import Explanation, search

ODD = 6.0  # z-score of a document's loss, above which it is no ordinary one
LEAST_SCORE = 2.5  # below it a step is noise, and any explanation would be too


def blame(run: RunDir, cfg: Config, step: int, screen: Screen) -> Verdict:
    """Find out what made a step spike. Nothing is written.

    A replay from at least 100 steps before compares each step with the ledger, and each state with
    the digests of checkpoints on the way. If all bits are equal, the spike is computed again with
    parts of the data left out, at most 5 + 2 log2(batch size) times.

    Raises:
        ConfigError: the ledger has no line for the step.
        CheckpointError: no checkpoint stands before it.
    """
    entries = entries_by_step(run)
    field, value, before, score = excess(
        latest(e for found in entries.values() for e in found), step
    )
    with opened(run, cfg, screen) as past:
        other, recent = recheck(past, entries, step)
        if other is not None:
            return other
        if not score >= LEAST_SCORE:
            return Verdict(
                kind="undecided",
                step=step,
                summary=f"step {step:,} does not stand out: its {field} is {value:.4g}, the "
                f"median before it {before:.4g} (z {score:.1f}). Its replay is bit-equal.",
            )
        return _explained(past, recent, step, field, value, before)


def _explained(
    past: Past, recent: Recent, step: int, field: str, value: float, before: float
) -> Verdict:
    losses: dict[int, dict[Document, float]] = {}

    def documents(at: int) -> Sequence[Document]:
        losses[at] = _document_losses(past, recent.stands[at])
        return sorted(losses[at], key=lambda d: -_suspicion(losses[at][d]))

    def measure(at: int, without: Sequence[Document] | None) -> float:
        functions, stand = past.parts.functions, recent.stands[at]
        if at == step and without is None:
            # nothing would be left: the earliest batch stands in, as the documents of this one may
            # go on in those beside it
            other = recent.stands[min(recent.stands)].batch
            return float(functions.train(copied(stand.state), other)[1][field])
        shape = stand.batch["weights"].shape
        weights = np.zeros(shape, np.float32)
        if without is not None:
            weights = weights_without(shape, without, _segments(stand.batch))
        state, told = functions.train(copied(stand.state), times(stand.batch, weights))
        for later in range(at + 1, step + 1):
            if later in recent.stands:
                state, told = functions.train(state, recent.stands[later].batch)
        return float(told[field])

    found: Explanation[Document] = search(
        measure,
        documents,
        steps=sorted(recent.stands, reverse=True),
        value=value,
        before=before,
        rows=past.parts.cfg.batch_size,
    )
    evidence = [f"{field} {value:.4g} at step {step:,}, median before it {before:.4g}"]
    evidence.append(_shares(found))
    if not found.units:
        return _optimizer(past, recent, found, step, evidence)
    score = _oddness(past, recent, found.units)
    names = " ".join(d.name for d in found.units)
    evidence.append(
        f"{names}: {found.share:.0%} of the excess; to the parameters before step "
        f"{min(recent.changes):,} its loss has z {score:.1f} among the documents of these steps"
    )
    if not score >= ODD:
        return _optimizer(past, recent, found, step, evidence)
    return _data(past, recent, found, losses[found.step], evidence)


def _oddness(past: Past, recent: Recent, units: Sequence[Document]) -> float:
    """How far the worst of some documents lies above all of the candidates', by loss.

    The parameters are those of before all that may have gone wrong: where the optimizer diverges,
    some document or other is always what it diverges on, but an ordinary one.
    """
    every: dict[Document, float] = {}
    for stand in recent.stands.values():
        state = TrainState(recent.earlier, None)
        every |= _document_losses(past, stand._replace(state=state))
    losses = np.array([loss for loss in every.values() if math.isfinite(loss)])
    middle = np.median(losses)
    scale = max(1.4826 * np.median(np.abs(losses - middle)), 1e-3 * abs(middle))
    return float((max(_suspicion(every[unit]) for unit in units) - middle) / scale)


def _suspicion(loss: float) -> float:
    return math.inf if math.isnan(loss) else loss


def _document_losses(past: Past, stand: Stand) -> dict[Document, float]:
    documents = documents_of(past.parts.loader.where(stand.data_step))
    each = token_losses(past.parts.functions.losses, stand.state.params, stand.batch)
    means = document_losses(documents, *each, _segments(stand.batch))
    return dict(zip(documents, means, strict=True))


def _segments(batch: Batch) -> Any:
    return host_arrays(batch["segment_ids"]) if "segment_ids" in batch else None


def _data(
    past: Past,
    recent: Recent,
    found: Explanation[Document],
    losses: Mapping[Document, float],
    evidence: Sequence[str],
) -> Verdict:
    batch = host_arrays(dict(recent.stands[found.step].batch))
    documents = tuple(_shown(past.parts.task, d, losses[d], batch) for d in found.units)
    what = f"document {found.units[0].name} explains"
    if len(found.units) > 1:
        what = f"{len(found.units)} documents together explain"
    names = " ".join(d.name for d in found.units)
    return Verdict(
        kind="data",
        step=found.step,
        summary=f"{what} {found.share:.0%} of the excess at step {found.step:,}.",
        evidence=tuple(evidence),
        documents=documents,
        command=command(past, f"fork --without {names}"),
        evaluations=found.evaluations,
    )


def _shown(task: Task, document: Document, loss: float, batch: Any) -> dict[str, Any]:
    text, repeats = look(task, batch, document.pieces)
    return {
        "name": document.name,
        "component": document.component,
        "record": document.record,
        "epoch": document.epoch,
        "loss": finite(loss),
        "rows": sorted({piece.row for piece in document.pieces}),
        "repeats": repeats,
        "text": excerpt(text),
    }


def _shares(found: Explanation[Document]) -> str:
    shares = ", ".join(f"{step:,}: {share:.0%}" for step, share in found.steps.items())
    return f"without all of a step's data the excess shrinks by ({shares})"


def _optimizer(
    past: Past,
    recent: Recent,
    found: Explanation[Document],
    step: int,
    evidence: Sequence[str],
) -> Verdict:
    before = max((s for s in past.checkpoints.steps if s < step), default=0)
    rate = past.parts.cfg.learning_rate
    return Verdict(
        kind="optimizer",
        step=step,
        summary="the optimizer or the configuration: the replay repeats the spike, and nothing "
        f"unusual in the data of steps {min(recent.stands):,} to {step:,} explains it.",
        evidence=(*evidence, *standing_out(recent)),
        command=command(past, f"rewind --to {before} --set learning_rate={rate / 2:g}"),
        evaluations=found.evaluations,
    )
