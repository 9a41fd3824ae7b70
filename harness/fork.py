"""How a run begins again, in another directory, from a checkpoint and without some of its data."""

from __future__ import annotations

import dataclasses
import json
import secrets
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.checkpoint import Checkpoints
from harness.config import Config, flat, joined, make
from harness.edits import FILE, Lineage, lineage_of
from harness.errors import ConfigError, HarnessError
from harness.files import read_lines, write_json
from harness.ledger import read
from harness.metrics import Screen
from harness.past import Past, opened
from harness.plan import windows
from harness.rundir import RunDir
from harness.spikes import latest
from pipeline import Loader
from pipeline.debug.journal.states import read_states
from pipeline.debug.seen.steps import occurrences
from pipeline.errors import PipelineError, PositionError
from pipeline.provenance.records import records_of
from pipeline.types import Component

Records = tuple[tuple[str, int, int], ...]  # component, start, stop


def rewind(
    run: RunDir,
    cfg: Config,
    target: RunDir,
    screen: Screen,
    *,
    to: int,
    skip: range | None = None,
    consume: bool = False,
    without: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Fork a run from its newest checkpoint at or before step `to`; the run stays as it is.

    Args:
        run, cfg, target, screen: the run, its settings, a directory for the fork, the terminal.
        to: the step to go back to.
        skip: steps of the run whose data is left out.
        consume: draw that data and train on none of it, so that steps and data stay together;
            else it is jumped over (PaLM, section 5.1) and the steps get what comes after.
        without: records in whose place others come, see `records_named`.
        settings: other settings for the fork.

    Raises:
        ConfigError: the target holds something, the steps to skip begin before the checkpoint, or
            with the other settings it cannot be trained on.
        CheckpointError: no checkpoint stands at or before `to`.
    """
    with opened(run, cfg, screen) as past:
        records = records_named(past.parts.data.components, without)
        checkpoint, state = past.restore(to)
        skipped = _data_steps(run, skip, checkpoint) if skip else ()
        how = "consume" if consume else "jump" if skip or not records else "substitute"
        made = _lineage(run, checkpoint, how, records, skipped)
        _begin(past, state, target, cfg, made, settings or {})


def fork(
    run: RunDir,
    cfg: Config,
    target: RunDir,
    screen: Screen,
    *,
    without: Sequence[str],
    mask: bool = True,
    to: int | None = None,
) -> None:
    """Fork a run as if some records had never been trained on; the run stays as it is.

    The fork begins with the newest checkpoint before the first step that touched one of them.

    Args:
        run, cfg, target, screen: as for `rewind`.
        without: the records, see `records_named`.
        mask: their tokens keep their place with weight 0, so that all else in the batches stays
            where it is; else other records take their place, as `Loader.skip(records=)` does.
        to: begin at or before this step instead.

    Raises:
        ConfigError: the target holds something, no step touched any, or there is no such record.
        CheckpointError: no checkpoint stands early enough.
    """
    with opened(run, cfg, screen) as past:
        records = records_named(past.parts.data.components, without)
        if not records:
            raise ConfigError("--without names no record: give FILE:NUMBER or a file of them")
        touched = first_touch(past, records)
        if touched is None:
            raise ConfigError(
                f"none of the {len(records)} records was trained on in {run.path}: the run is "
                "already without them."
            )
        screen.say(f"step {touched:,} is the first that touched one of them")
        checkpoint, state = past.restore(touched if to is None else min(to, touched))
        made = _lineage(run, checkpoint, "mask" if mask else "substitute", records)
        _begin(past, state, target, cfg, made, {})


def _lineage(
    run: RunDir,
    checkpoint: int,
    how: str,
    records: Records,
    skipped: tuple[tuple[int, int], ...] = (),
) -> Lineage:
    return Lineage(
        parent=str(run.path.resolve()),
        checkpoint=checkpoint,
        how=how,
        skipped=skipped,
        without=records,
        before=lineage_of(run.path),
    )


def records_named(components: Sequence[Component], given: Iterable[str]) -> Records:
    """Records by what people write: FILE:NUMBER, COMPONENT:NUMBER, NUMBER, or a file of such lines.

    A part from `#` on is a remark. Numbers count from 0, in the file that is named.

    Raises:
        ConfigError: a word is none of these, or there is no such record.
    """
    words: list[str] = []
    for word in given:
        lines = Path(word).read_text().splitlines() if Path(word).is_file() else [word]
        words += [text for line in lines if (text := line.partition("#")[0].strip())]
    named: list[Any] = []
    for word in words:
        name, _, number = word.rpartition(":")
        if not number.strip().isdigit():
            raise ConfigError(
                f"{word!r} names no record: give FILE:NUMBER as `blame` and `inspect` print it, "
                "a number of the source, or a file of such lines."
            )
        named.append((name, int(number)) if name else int(number))
    try:
        return tuple(sorted(set(records_of(components, named))))
    except PositionError as e:
        raise ConfigError(f"--without: {e}") from e


def first_touch(past: Past, records: Records) -> int | None:
    """The first step of the run whose batch held one of some records; None where none did.

    Where rows are counted as they come, arithmetic tells the records' blocks, and only the steps
    between the journal's states around them are read again.
    """
    lines = latest(read(past.run.ledger)).values()
    steps = {data: e.step for e in lines for data in range(e.data_step, e.data_end)}
    each = [(name, record) for name, a, b in records for record in range(a, b)]
    with Loader(past.parts.data, past.parts.cfg.batch_size) as loader:
        here = loader.state_dict()
        states = [
            (noted.step, {**noted.state, "dataset": here["dataset"]})
            for noted in read_states(past.run.path / "states.jsonl")
        ]
        rising = sorted(dict(states).items())
        reached = range(max(steps, default=-1) + 1)
        found = occurrences(loader, each, reached, rising, 0)
    return min((steps[data] for data in found if data in steps), default=None)


def _data_steps(run: RunDir, skip: range, checkpoint: int) -> tuple[tuple[int, int], ...]:
    """The data steps of steps; beyond the ledger's end data goes on as it did there."""
    if skip.start < checkpoint:
        raise ConfigError(
            f"--skip {skip.start}:{skip.stop} begins before checkpoint {checkpoint}, whose state "
            "has learned from it: give --to a step at or before it."
        )
    lines = latest(read(run.ledger))
    last = max(lines, default=0)
    ahead = lines[last].data_step - last if lines else 0
    steps = [lines[s].data_step if s in lines else s + ahead for s in skip]
    return tuple((window.start, window.stop) for window in windows(steps))


def _begin(
    past: Past,
    state: Any,
    target: RunDir,
    cfg: Config,
    lineage: Lineage,
    given: Mapping[str, Any],
) -> None:
    """Write the fork beside its place, whole, then put it there.

    With other settings given, only if it can be trained on with them.
    """
    path, run, parts, checkpoint = target.path, past.run, past.parts, lineage.checkpoint
    if path.exists() and any(path.iterdir()):
        raise ConfigError(f"{path} holds something: give --fork a directory that is not there.")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    temporary.mkdir()  # not tempfile's, which nobody else may read
    try:
        _write_history(run, temporary, checkpoint)
        settings = dataclasses.asdict(_settings(run, make(joined(flat(cfg), given))))
        write_json(temporary / "config.json", settings)
        write_json(temporary / FILE, dataclasses.asdict(lineage))
        _leave_out(parts.loader, lineage)
        with Checkpoints(temporary / "checkpoints") as checkpoints:
            checkpoints.save(checkpoint, state, parts.functions, parts.loader, settings)
        if given:
            _check_fit(RunDir(temporary), past, checkpoint, given)
        if path.exists():
            path.rmdir()
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    past.screen.say(f"{path}: forked from {run.path} at checkpoint {checkpoint:,}")


def _leave_out(loader: Loader, lineage: Lineage) -> None:
    """Let the loader pass over what the fork never draws; masks and unused steps are `Edits`."""
    if lineage.how == "jump" and lineage.skipped:
        loader.skip(*(range(a, b) for a, b in lineage.skipped))
    if lineage.without and lineage.how != "mask":
        records = [(name, range(a, b)) if name else range(a, b) for name, a, b in lineage.without]
        loader.skip(records=records)


def _check_fit(fork: RunDir, past: Past, checkpoint: int, given: Mapping[str, Any]) -> None:
    try:
        with opened(fork, fork.config(), past.screen) as found:
            found.checkpoints.restore(checkpoint, found.parts.functions, found.parts.loader)
    except (HarnessError, PipelineError) as e:
        why = str(e).replace(str(fork.path.resolve()), str(past.run.path))
        words = " ".join(f"{k}={v}" for k, v in given.items())
        raise ConfigError(
            f"with --set {words} the fork could not go on from checkpoint {checkpoint:,}. {why} "
            "Nothing was made: give settings that fit this model and data."
        ) from e


def _settings(run: RunDir, cfg: Config) -> Config:
    # a relative path would be another in the fork's folder
    source = run.data(cfg)
    return make({**flat(cfg), "data.source": str(source)}) if source.exists() else cfg


def _write_history(run: RunDir, target: Path, checkpoint: int) -> None:
    """The run's journal up to the checkpoint: a fork's curve begins where the run's does."""
    stop = max((e.data_end for e in read(run.ledger) if e.step < checkpoint), default=0)
    for name in ("ledger", "states", "launches"):
        for source in sorted(run.path.glob(f"{name}*.jsonl")):
            lines = read_lines(source)
            if name != "launches":
                end = checkpoint if name == "ledger" else stop + 1
                lines = [line for line in lines if line["step"] < end]
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (target / source.name).write_text(text)
