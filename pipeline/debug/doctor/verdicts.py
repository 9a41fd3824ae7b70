"""The verdict on each law, from what the runs saw."""

from __future__ import annotations

from itertools import chain

from pipeline.debug.doctor import report
from pipeline.debug.doctor.compare import (
    Batches,
    Difference,
    difference,
    global_difference,
    lost_and_repeated,
    told,
)
from pipeline.debug.doctor.launch import Seen
from pipeline.debug.doctor.plan import Runs
from pipeline.debug.doctor.report import Report, Row
from pipeline.debug.doctor.rows import Record

_STATELESS = "the loader has no state"
_UNLIKE = "two runs differ already where nothing does"


def judged(runs: Runs) -> Report:
    """The twelve rows."""
    laws = (
        *(_same_order, _resume, _second, _at_edges, _unchanged, _through_json),
        *(_workers, _hosts, _once, _epochs, _killed, _nothing_left),
    )
    return Report(tuple(law(runs) for law in laws))


def _same_order(runs: Runs) -> Row:
    return _row(report.SAME, _unlike(runs))


def _unlike(runs: Runs) -> Difference | None:
    # where states were taken and the order was another, a run without tells which it was
    return difference(runs.base, runs.by_name.get("again", runs.by_name["saved"]))


def _resume(runs: Runs) -> Row:
    if not runs.base.facts["keeps"]:
        return _unclaimed(report.RESUME, _STATELESS)
    return _row(report.RESUME, _unsaved(runs), *_differences(runs, "resumed"))


def _second(runs: Runs) -> Row:
    if not runs.base.facts["keeps"]:
        return _unclaimed(report.SECOND, _STATELESS)
    second = runs.by_name.get("second")
    if second is None or "FileNotFoundError" in str(second.failure):
        none = Difference(runs.first, "no state of the resumed run", "a state to resume from")
        return _row(report.SECOND, _unsaved(runs), none)
    return _row(report.SECOND, difference(runs.saved, second))


def _at_edges(runs: Runs) -> Row:
    if not runs.base.facts["keeps"] or runs.edge is None:
        return _unclaimed(report.EDGE, _STATELESS if runs.edge else _no_end(runs))
    inside = _noted(_differences(runs, "edge-inside"), "state taken after the pass's last batch")
    after = _noted(_differences(runs, "edge-after"), "state taken after the pass had ended")
    return _row(report.EDGE, _unsaved(runs), *inside, *after)


def _unchanged(runs: Runs) -> Row:
    if not runs.base.facts["keeps"]:
        return _unclaimed(report.UNCHANGED, _STATELESS)
    if (unsaved := _unsaved(runs)) is not None:
        return _row(report.UNCHANGED, unsaved)
    for run in (runs.by_name["saved"], *runs.named("resumed")):
        if "changed" in run.facts:
            when = "after it was loaded" if run.job.load else "by the batches after it"
            came = f"a state that was changed {when}"
            return _row(report.UNCHANGED, Difference(run.facts["changed"], came, "the state"))
    if "again" in runs.by_name and not difference(runs.base, runs.by_name["again"]):
        found = [difference(runs.base, runs.by_name["saved"])]
        return _row(report.UNCHANGED, *_noted(found, "that states are taken changes the order"))
    return Row(report.UNCHANGED, "held")


def _through_json(runs: Runs) -> Row:
    if not runs.base.facts["keeps"]:
        return _unclaimed(report.JSON, _STATELESS)
    if not runs.base.facts["plain"]:
        return _unclaimed(report.JSON, "its state is a checkpoint's files")
    if refused := runs.by_name["saved"].facts.get("unjson"):
        return _row(report.JSON, Difference(runs.first, refused, "JSON"))
    return _row(report.JSON, _unsaved(runs), *_differences(runs, "json"))


def _workers(runs: Runs) -> Row:
    if "workers" not in runs.base.facts["named"]:
        return _unclaimed(report.WORKERS, "the factory names no `workers`")
    if len(set(runs.options.workers)) < 2:
        return _unclaimed(report.WORKERS, "--workers names one count")
    base, found = runs.options.workers[0], list[Difference | None]()
    for run in runs.named("workers"):
        count, _, kind = run.job.name.removeprefix("workers").partition("-")
        words = {
            "own": f"saved and restored with {count} workers",
            "restored": f"saved with {base} workers, restored with {count}",
            "back": f"saved with {count} workers, restored with {base}",
        }
        if not kind and _unlike(runs):
            continue  # it is not for its workers that a fresh run differs
        said = words.get(kind, f"{count} workers from the start")
        saver = {"": runs.base, "restored": runs.saved}.get(kind, runs.by_name[f"workers{count}"])
        found += _noted([difference(saver, run)], said)
    return _row(report.WORKERS, *found) if found else _unclaimed(report.WORKERS, _UNLIKE)


def _hosts(runs: Runs) -> Row:
    named = {"host", "hosts"} & set(runs.base.facts["named"])
    if not runs.groups:
        one = "--hosts names one count"
        return _unclaimed(report.HOSTS, one if named else "the factory names no `host`, `hosts`")
    unlike = _unlike(runs) is not None
    found = [
        _noted([global_difference(group.whole, group.ranks, group.skip)], group.words)
        for group in runs.groups
        if not (unlike and group.whole is runs.base)
    ]
    if not found:
        return _unclaimed(report.HOSTS, _UNLIKE)
    return _row(report.HOSTS, *chain.from_iterable(found))


def _once(runs: Runs) -> Row:
    if not runs.base.facts["keeps"] or runs.edge is None:
        return _unclaimed(report.ONCE, _STATELESS if runs.edge else _no_end(runs))
    whole, edge = runs.saved.batches[: runs.edge], runs.edge
    resumed, second = runs.by_name.get("resumed"), runs.by_name.get("second")
    if resumed is None or resumed.job.start >= edge:
        return _unclaimed(report.ONCE, "a pass of one batch cannot be interrupted")
    start = resumed.job.start
    parts = [("resumed once", whole[:start] + _rest_of_pass(resumed))]
    if second is not None and second.job.start < edge and second.batches:
        between = resumed.batches[: second.job.start - start]
        parts.append(("resumed twice", whole[:start] + between + _rest_of_pass(second)))
    found = [_off(words, start, whole, came) for words, came in parts]
    return _row(report.ONCE, _unsaved(runs), *found)


def _off(words: str, step: int, whole: Batches, came: Batches) -> Difference | None:
    lost, repeated = lost_and_repeated(whole, came)
    if not lost and not repeated:
        return None
    return Difference(step, told(lost, repeated), "each record of the pass", f"the pass {words}")


def _epochs(runs: Runs) -> Row:
    if not runs.options.shuffled:
        return _unclaimed(report.EPOCHS, "judged with --shuffled")
    base, edges = runs.base.batches, runs.base.edges
    if runs.edge is None or len(base) <= runs.edge:
        return _unclaimed(report.EPOCHS, _no_end(runs))
    second = base[runs.edge : edges[1] if len(edges) > 1 else None]
    if second == base[: len(second)]:
        again = Difference(runs.edge, second[0], "another order than that of the first pass")
        return _row(report.EPOCHS, again)
    return Row(report.EPOCHS, "held")


def _killed(runs: Runs) -> Row:
    run = runs.by_name["killed"]
    if "killed" not in run.facts:
        if run.failure is None or "workerless" in run.facts:
            return _unclaimed(report.KILLED, "the loader has no worker processes")
        if "error" not in run.facts:
            return _unclaimed(report.KILLED, "the run did not come as far as the kill in time")
        return _row(report.KILLED, Difference(None, run.failure, "batches before the kill"))
    if "error" in run.facts:
        return Row(report.KILLED, "held")
    if run.failure is None and _unlike(runs):
        return _unclaimed(report.KILLED, _UNLIKE)
    # with workers the order may be another: that is another law
    same = runs.by_name.get(f"workers{max(runs.options.workers)}", runs.base)
    return _row(report.KILLED, difference(same, run))


def _nothing_left(runs: Runs) -> Row:
    if not runs.leftovers:
        return Row(report.NOTHING, "held")
    first, more = runs.leftovers[0], len(runs.leftovers) - 1
    said = f"{first}, and {more} more" if more else first
    return _row(report.NOTHING, Difference(None, said, "nothing"))


# ---- helpers of several


def _row(law: str, *found: Difference | None) -> Row:
    first = next((d for d in found if d is not None), None)
    if first is None:
        return Row(law, "held")
    return Row(law, "broken", first.step, first.came, first.expected, first.note)


def _unclaimed(law: str, why: str) -> Row:
    return Row(law, "unclaimed", note=why)


def _no_end(runs: Runs) -> str:
    return f"no second pass was seen in {len(runs.base.batches)} batches"


def _differences(runs: Runs, prefix: str) -> list[Difference | None]:
    return [difference(runs.saved, run) for run in runs.named(prefix)]


def _noted(found: list[Difference | None], words: str) -> list[Difference | None]:
    return [d and d._replace(note="; ".join(filter(None, (words, d.note)))) for d in found]


def _unsaved(runs: Runs) -> Difference | None:
    # an error as a state was taken
    saved = runs.by_name["saved"]
    if saved.failure is None:
        return None
    return Difference(len(saved.batches), saved.failure, "a state")


def _rest_of_pass(run: Seen) -> list[list[Record]]:
    ends = [edge for edge in run.edges if edge > run.job.start]
    return run.batches[: ends[0] - run.job.start if ends else None]
