"""Redoing the steps up to a spike: if they differ, the machine is to blame, not the data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from harness.doctor import differences, manifest
from harness.leaves import differing_leaves, leaf_names
from harness.ledger import Entry
from harness.past import Past, Stand, copied
from harness.replay import difference, digests_of, found_again
from harness.step import TrainState
from harness.update import prepared, update
from pipeline.debug.explain import BACK
from pipeline.debug.journal import Run

MARGIN = 100  # the replay begins at least so many steps before the spike
_HARMLESS = ("orbax-checkpoint", "numpy", "python", "pinned")
USUAL = 20  # steps before the candidates that define the usual size of updates


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The cause of a spike.

    Attributes:
        kind: "data", "hardware", "optimizer" or "undecided".
        step: the step whose data, bits or update are the cause.
        summary: one sentence.
        evidence: what the verdict is based on.
        documents: those that are the cause, the most suspicious first: name, share explained, loss,
            text.
        command: leaves the cause out, or redoes the steps; "" if undecided.
        evaluations: how often the step was computed with something left out.
    """

    kind: str
    step: int
    summary: str
    evidence: tuple[str, ...] = ()
    documents: tuple[dict[str, Any], ...] = ()
    command: str = ""
    evaluations: int = 0

    def as_json(self) -> dict[str, Any]:
        """The verdict as plain data."""
        return dataclasses.asdict(self)


@dataclass
class Recent:
    """The last steps of the replay: what is needed to compute the spike again.

    Attributes:
        stands: the candidates, by step; their batches have weights.
        changes: for the last steps, how much each leaf of the state changed, float32[leaves].
        earlier: the parameters some steps before the candidates; None only if there are none.
    """

    stands: dict[int, Stand]
    changes: dict[int, np.ndarray]
    earlier: Any = None


def recheck(
    past: Past, entries: Mapping[int, Sequence[Entry]], step: int
) -> tuple[Verdict | None, Recent]:
    """Redo the steps up to the spike. The verdict is None if they equal the run's."""
    parts, recent = past.parts, Recent({}, {})
    start, state = past.restore(step, margin=MARGIN)
    journal = Run(past.run.path)
    verdict = _other_machine(past, entries, range(start, step + 1))
    if verdict is not None:
        return verdict, recent
    with past.screen.meter("replay", total=step + 1 - start) as meter:
        for at in range(start, step + 1):
            stand = Stand(at, parts.loader.step, state, next(parts.loader))
            verdict = _other_leaves(past, at, state) if at > start else None
            if verdict is not None:
                return verdict, recent
            kept = copied(state) if at >= step - BACK - USUAL else None
            if kept is not None and recent.earlier is None:
                recent.earlier = kept.params
            batch = prepared(parts, stand.batch, stand.data_step)
            state, told = update(parts, state, stand.batch)
            lines = entries.get(at, [])
            digests = [digests_of(journal, parts, line, stand.batch) for line in lines]
            found = found_again(digests, stand.data_step, told)
            if differs := difference(lines, found):
                return _other_bits(past, lines, found, differs), recent
            if kept is not None:
                recent.changes[at] = np.asarray(_changes(kept, state))
                if at >= step - BACK and parts.edits.uses(stand.data_step):
                    recent.stands[at] = Stand(at, stand.data_step, kept, batch)
            meter.advance()
    return _other_leaves(past, step + 1, state), recent


def _other_machine(
    past: Past, entries: Mapping[int, Sequence[Entry]], steps: range
) -> Verdict | None:
    """A verdict if launches of these steps ran on another mesh, device or version; else None.

    Bits can only be compared on the same mesh, kind of device and versions.
    """
    now = _decisive(manifest(past.parts.mesh, past.parts.cfg.task))
    wanted = {e.launch for step in steps for e in entries.get(step, ())}
    for launch in past.run.all_launches():
        if launch["launch"] not in wanted:
            continue
        was = _decisive(launch["manifest"]) if "manifest" in launch else now
        found = differences(was, now)
        if found:
            return Verdict(
                kind="undecided",
                step=steps[-1],
                summary=f"launch {launch['launch']} ran elsewhere, so that its bits prove nothing "
                f"here: {'; '.join(found)}. Ask again on such a machine.",
                evidence=tuple(found),
            )
    return None


def _decisive(facts: Mapping[str, Any]) -> dict[str, Any]:
    # without the facts that do not affect steps
    return {k: v for k, v in facts.items() if k not in _HARMLESS}


def _other_leaves(past: Past, step: int, state: TrainState) -> Verdict | None:
    if step not in past.checkpoints.steps:
        return None
    saved = past.checkpoints.digests(step)
    names = leaf_names(state)
    if saved is None:
        return None
    wrong = differing_leaves(saved, names, past.parts.functions.digest(state))
    if not wrong:
        return None
    return _hardware(
        past,
        step - 1,
        f"the state after step {step - 1:,} is not the one that checkpoint {step:,} was saved from",
        (f"leaves that differ: {', '.join(wrong[:5])}{' …' if len(wrong) > 5 else ''}",),
    )


def _other_bits(
    past: Past, entries: Sequence[Entry], found: Mapping[str, Any], differs: str
) -> Verdict:
    step = entries[0].step
    moved = any(e.data_step != found["data_step"] for e in entries)
    if moved or any(then != now for then, now in found["digests"]):
        return Verdict(
            kind="undecided",
            step=step,
            summary=f"step {step:,} got other data than now, so that nothing can be computed "
            "again: the files, the code or the settings of the data changed since.",
            evidence=(differs,),
        )
    return _hardware(
        past, step, f"step {step:,} got the same batch and gave other bits", (differs,)
    )


def _hardware(past: Past, step: int, summary: str, evidence: tuple[str, ...]) -> Verdict:
    before = max((s for s in past.checkpoints.steps if s <= step), default=0)
    return Verdict(
        kind="hardware",
        step=step,
        summary=f"hardware or software: {summary}. Data and settings are not to blame.",
        evidence=evidence,
        command=command(past, f"rewind --to {before}"),
    )


def command(past: Past, what: str) -> str:
    run = past.run.path
    verb, _, rest = what.partition(" ")
    return f"python -m harness {verb} --run {run} {rest} --fork {run}-fork"


def standing_out(recent: Recent) -> list[str]:
    """The parameters whose update and second moment changed most, compared to what is usual."""
    steps = sorted(recent.changes)
    usual, last = steps[: -BACK - 1], steps[-BACK - 1 :]
    if len(usual) < BACK:
        return []
    median = np.median([recent.changes[s] for s in usual], axis=0)
    ratios = np.stack([recent.changes[s] for s in last]) / np.maximum(median, 1e-30)
    names = leaf_names(next(iter(recent.stands.values())).state)
    found: list[str] = []
    for what, inside in (("update", "params"), ("second moment", "nu")):
        here = [i for i, name in enumerate(names) if inside in name.split("/")]
        if what == "update":
            here = [i for i in here if names[i].split("/")[0] == inside]
        if here:
            at, i = np.unravel_index(np.argmax(ratios[:, here]), (len(last), len(here)))
            name, ratio = names[here[int(i)]], ratios[at, here[int(i)]]
            found.append(f"{what} of {name}: {ratio:.1f} times its usual size at step {last[at]:,}")
    return found


@cache
def _compiled_changes() -> Any:
    def sizes(before: TrainState, after: TrainState) -> jax.Array:
        pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
        return jnp.stack([jnp.linalg.norm((b - a).astype(jnp.float32).ravel()) for a, b in pairs])

    return jax.jit(sizes)


def _changes(before: TrainState, after: TrainState) -> jax.Array:
    return _compiled_changes()(before, after)
