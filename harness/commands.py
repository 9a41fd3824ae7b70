"""Commands that are more than one question: what they ask in turn, and what they print."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config import Config, parse, settle
from harness.errors import ConfigError
from harness.files import read_lines, write_json
from harness.rundir import RunDir

if TYPE_CHECKING:
    from harness.metrics import Screen


def train(
    run: RunDir,
    screen: Screen,
    *,
    given: Mapping[str, Any],
    steps: int | None,
    begin_at: int | None,
    on_spike: str | None,
    profile: range | None,
    deterministic: bool,
) -> int:
    if begin_at is not None:
        run.begun()
    if on_spike and (begin_at is not None or profile or deterministic):
        raise ConfigError("--on-spike goes without --from, --profile and --deterministic.")
    cfg = run.config(given)
    until = steps or cfg.steps
    done, asked = run.evaluation(), begin_at is not None or profile is not None
    if done is None or done["step"] < until or asked:
        if on_spike:
            from harness.policy import Policy, train_on

            run, stopped = train_on(run, given, Policy.parse(on_spike), until=until, screen=screen)
        else:
            from harness.train import train

            how: Any = {"begin_at": begin_at, "profile": profile, "deterministic": deterministic}
            stopped = train(run, cfg, until=until, screen=screen, **how)
        if stopped is not None:
            again = "the same command again" if begin_at is None else "it without --from"
            screen.say(f"{stopped.name}: saved. Run {again} to resume.")
            return 128 + stopped
        done = run.evaluation()
    else:
        screen.say(f"{run.path} stands at step {done['step']:,}: nothing left to train.")
    if done is not None:  # with several processes, only the first writes it
        _tell(run, done, "token" if cfg.task == "language" else "row", screen)
    return 0


def _tell(run: RunDir, done: dict[str, Any], unit: str, screen: Screen) -> None:
    entropy = f"; unigram entropy {done['unigram_entropy']:.4f}" if done["unigram_entropy"] else ""
    each = f"nats a {'byte' if entropy else unit}" if unit == "token" else f"a {unit}"
    loss = "is not known" if done["loss"] is None else f"{done['loss']:.4f} {each}"
    screen.say(
        f"held-out loss {loss} after step {done['step']:,} ({done['tokens']:,} {unit}s{entropy})\n"
        f"run          {run.path}\n"
        f"checkpoints  {run.checkpoints}\n"
        f"ledger       {run.ledger}\n"
        "To train on, give --steps more. To prove steps: "
        f"python -m harness replay --run {run.path} --steps 0:{min(20, done['step'])}"
    )


def settings(run: RunDir, screen: Screen) -> int:
    if not run.checkpoints.is_dir():  # which opening them would make
        raise ConfigError(
            f"there is no run in {run.path}, or its folder checkpoints is gone, which holds the "
            "settings: restore it."
        )
    from harness.checkpoint import Checkpoints

    with Checkpoints(run.checkpoints) as checkpoints:
        step = checkpoints.find(None)
        stored = checkpoints.config(step)
    if stored is None:
        raise ConfigError(f"checkpoint {step} in {run.checkpoints} holds no settings.")
    write_json(run.path / "config.json", dataclasses.asdict(settle(stored, {})))
    screen.say(f"{run.path / 'config.json'}: as of checkpoint {step:,}")
    return 0


def report(run: RunDir, screen: Screen, *, out: str, no_records: bool) -> int:
    from pipeline.__main__ import main as pipeline

    words = ["report", str(run.begun().path), "--out", out]
    words += ["--no-records"] if no_records else ["--data", "harness.opened:dataset"]
    return pipeline(words)


def goodput(run: RunDir, screen: Screen, *, as_json: bool) -> int:
    from harness.goodput import as_table, report

    told = report(read_lines(run.begun().goodput))
    print(json.dumps(told) if as_json else as_table(told))
    return 0


def doctor(run: RunDir, screen: Screen, *, cfg: Config, as_json: bool) -> int:
    from harness.doctor import compared, manifest
    from harness.sharding import make_mesh

    told = compared(run.all_launches(), manifest(make_mesh(cfg), cfg.task))
    print(json.dumps(told) if as_json else "\n".join(told["said"]))
    return 0 if told["same"] else 1


def spikes(run: RunDir, screen: Screen, *, window: int, threshold: float, as_json: bool) -> int:
    from harness.ledger import read
    from harness.spikes import latest, spikes_of

    lines = latest(read(run.begun().ledger))
    found = spikes_of(lines, window=window, threshold=threshold)
    if as_json:
        print(json.dumps([spike.as_json() for spike in found]))
        return 0
    for s in found:
        size = "not finite" if s.score is None else f"z {s.score:.1f}"
        what = ", ".join(f"{n} {s.values[n]} (median before {s.before[n]})" for n in s.fields)
        screen.say(f"step {s.step:,}  {size}  {s.lasted} steps  {what}")
    screen.say(f"{len(found)} spikes in {len(lines):,} steps")
    return 0


def inspect(
    run: RunDir, screen: Screen, *, cfg: Config, step: int, rank: str, top: int, as_json: bool
) -> int:
    from harness.inspect_step import inspect, tell

    if top < 1:
        raise ConfigError(f"--top {top} must be at least 1.")
    rows = inspect(run, cfg, step, screen, rank=rank.split(","), top=top)
    if as_json:
        print(json.dumps({"step": step, "rows": rows}))
    else:
        tell(step, rows, screen)
    return 0


def blame(run: RunDir, screen: Screen, *, cfg: Config, step: int, as_json: bool) -> int:
    from harness.blame import blame

    found = blame(run, cfg, step, screen)
    if as_json:
        print(json.dumps(found.as_json()))
    else:
        screen.say(f"{found.kind.upper()}  {found.summary}")
        for line in found.evidence:
            screen.say(f"  {line}")
        for d in found.documents:
            flag = f"  REPEATS {d['repeats']}" if d["repeats"] else ""
            screen.say(f"  {d['name']}  rows {d['rows']}  loss {d['loss']}{flag}")
            screen.say(f"    {d['text']}")
        if found.command:
            screen.say(f"next: {found.command}")
    return 1 if found.kind == "undecided" else 0


def rewind(
    run: RunDir, screen: Screen, *, cfg: Config, fork: Path, steps: int | None, **how: Any
) -> int:
    from harness.fork import rewind

    how["settings"] = parse(how["settings"])
    if how["consume"] and not how["skip"]:
        raise ConfigError("--consume says how to skip: give --skip A:B too.")
    rewind(run, cfg, RunDir(fork), screen, **how)
    return _train_fork(run, RunDir(fork), steps, screen)


def fork(
    run: RunDir,
    screen: Screen,
    *,
    cfg: Config,
    fork: Path,
    steps: int | None,
    without: Sequence[str],
    mode: str,
    to: int | None,
) -> int:
    from harness.fork import fork as begin

    begin(run, cfg, RunDir(fork), screen, without=without, mask=mode == "mask", to=to)
    return _train_fork(run, RunDir(fork), steps, screen)


def _train_fork(run: RunDir, made: RunDir, until: int | None, screen: Screen) -> int:
    """Train the fork as far as the run got, or as asked."""
    from harness.ledger import read
    from harness.train import train

    if until is None:
        until = max((entry.step for entry in read(run.ledger)), default=-1) + 1
    if not until:
        screen.say(f"to train it: python -m harness train --run {made.path}")
        return 0
    stopped = train(made, made.config(), until=until, screen=screen)
    if stopped is not None:
        screen.say(f"{stopped.name}: saved. Go on: python -m harness train --run {made.path}")
        return 128 + stopped
    screen.say(f"{made.path} stands at step {until:,}; the run {run.path} is as it was")
    return 0
