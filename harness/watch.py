"""Reporting steps while they run: time by bucket, metrics, traces, and a note on the terminal."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from harness.assembly import Assembly
from harness.config import Config, flat
from harness.files import LineLog, read_lines
from harness.goodput import Clock
from harness.ledger import finite
from harness.mfu import token_flops, utilisation
from harness.rundir import RunDir
from pipeline.debug.running import reading
from pipeline.errors import need

_KEEP_EVERY = 5.0  # seconds between lines of goodput.jsonl; a kill loses at most so many


Write = Callable[[int, Mapping[str, float]], None]  # of a step: its metrics by name


@contextmanager
def json_lines(path: Path) -> Iterator[Write]:
    """Write D/metrics.jsonl, one line for each call."""
    with closing(LineLog(path)) as log:
        yield lambda step, values: log.append(
            {"step": step, "unix_time": round(time.time(), 3), **values}
        )


@contextmanager
def tensorboard(path: Path) -> Iterator[Write]:
    """Write event files for TensorBoard."""
    try:
        from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingImports]
    except ImportError as e:
        raise need("tensorboard", "tensorboardX") from e

    def write(step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    with closing(SummaryWriter(str(path))) as writer:
        yield write


@contextmanager
def wandb_run(project: str, path: Path, settings: Mapping[str, Any]) -> Iterator[Write]:
    """Write to a run at Weights & Biases, which later launches in the same directory resume."""
    try:
        import wandb  # pyright: ignore[reportMissingImports]
    except ImportError as e:
        raise need("wandb", "wandb") from e
    name, known = path.resolve().name, path / "wandb.id"
    if not known.exists():  # its own: a folder of this name elsewhere, or before, is another
        known.write_text(f"{name}-{secrets.token_hex(4)}")
    its: Any = {"name": name, "id": known.read_text(), "resume": "allow", "dir": path}
    run = wandb.init(project=project, config=dict(settings), **its)
    try:
        yield lambda step, values: run.log(dict(values), step=step)
    finally:
        run.finish()


@contextmanager
def _writers(run: RunDir, cfg: Config) -> Iterator[list[Write]]:
    """The writers that the settings ask for, on the first process; metrics.jsonl always."""
    with ExitStack() as stack:
        found: list[AbstractContextManager[Write]] = []
        if jax.process_index() == 0:
            found.append(json_lines(run.metrics))
            if cfg.log.tensorboard:
                found.append(tensorboard(run.path / "tensorboard"))
            if cfg.log.wandb:
                found.append(wandb_run(cfg.log.wandb, run.path, flat(cfg)))
        yield [stack.enter_context(writer) for writer in found]


class Watch:
    """Times the loop's steps, and reports their metrics.

    Args:
        parts: of the run.
        clock: of the launch.
        writers: destinations of metrics; empty in all processes but the first.
        known: lower steps were done by an earlier launch, so redoing them is no progress.
        trace: steps of which to write an XProf trace, and its path; None for no trace.
    """

    def __init__(
        self,
        parts: Assembly,
        clock: Clock,
        writers: list[Write],
        *,
        known: int,
        trace: tuple[range, Path] | None,
    ) -> None:
        self.clock, self._writers, self._known, self._trace = clock, writers, known, trace
        self._tracing = False
        self._every = parts.cfg.log.every
        self._devices, self._kind = jax.device_count(), jax.devices()[0].device_kind
        language = parts.cfg.task == "language"
        self._flops = token_flops(parts.cfg) if language else None
        self._first = True
        self._owed: tuple[int, Mapping[str, Any]] | None = None
        self._loader, self._looked = parts.loader, parts.loader.stats()
        # time of the last report, data wait until then, units since
        self._since: tuple[float, float, int] | None = None
        self.note = ""

    def data_wait(self, step: int) -> AbstractContextManager[Any]:
        """Wrap the wait for the batch of a step."""
        if self._trace is not None and step in self._trace[0] and not self._tracing:
            self._tracing = True
            jax.profiler.start_trace(str(self._trace[1]))
        return self._named("data_wait", jax.profiler.TraceAnnotation("data wait"))

    def step(self, step: int) -> AbstractContextManager[Any]:
        """Wrap the step itself."""
        bucket = "replayed_steps" if step < self._known else "step"
        if self._first:  # includes tracing and lowering, whose events would count twice
            self._first, bucket = False, "compile"
        return self._named(bucket, jax.profiler.StepTraceAnnotation("step", step_num=step))

    @contextmanager
    def _named(self, bucket: str, annotation: Any) -> Iterator[None]:
        with self.clock(bucket), annotation:
            yield

    def done(self, step: int, batch: Mapping[str, Any], told: Mapping[str, Any]) -> None:
        """Note that a step was dispatched. The metrics of the step before it are ready by now."""
        if self._since is None:  # the first step includes compilation: speed is of those after it
            self._since = self._now(), self.clock.seconds["data_wait"], 0
        else:
            when, waited, units = self._since
            self._since = when, waited, units + _units(batch)
        self.flush()
        self._owed = step, told
        self.clock.keep(at_most_every=_KEEP_EVERY)
        if self._tracing and self._trace is not None and step + 1 >= self._trace[0].stop:
            jax.block_until_ready(told)
            self._end_trace()

    def _now(self) -> float:
        # evaluations are no part of the speed of training
        return time.perf_counter() - self.clock.seconds["evaluation"]

    def flush(self) -> None:
        """Report the step that was dispatched last, if one is due."""
        owed, self._owed = self._owed, None
        if owed is not None and (owed[0] + 1) % self._every == 0:
            self._tell(*owed)

    def _tell(self, step: int, told: Mapping[str, Any]) -> None:
        found: dict[str, Any] = {k: finite(np.asarray(v)) for k, v in told.items()}
        assert self._since is not None
        when, waited, units = self._since
        now, wait = self._now(), self.clock.seconds["data_wait"]
        if not units:  # of the first step alone no speed is known
            self.write(step, found)
            return
        self._since = now, wait, 0
        speed = units / (now - when)
        found["tokens_per_second" if self._flops else "rows_per_second"] = round(speed, 1)
        found["data_wait"] = round((wait - waited) / (now - when), 5)
        for name in ("causal", "full") if self._flops else ():
            flops = getattr(self._flops, name)
            found[f"mfu_{name}"] = utilisation(flops, speed, self._devices, self._kind)
        self.write(step, found)
        mfu = found.get("mfu_causal")
        shown = f"  MFU {mfu:.1%} causal, {found['mfu_full']:.1%} full" if mfu is not None else ""
        stats = self._loader.stats()
        data, self._looked = reading(self._looked, stats), stats
        self.note = f"{speed:,.0f} tokens/s{shown}  " if self._flops else ""
        self.note += f"{data.rate:,.0f} rows/s  data wait {found['data_wait']:.1%}"
        self.note += f", limit: {data.limit}"

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Give metrics to every writer, except those that are unknown or not finite."""
        known = {k: v for k, v in values.items() if v is not None}
        for write in self._writers:
            write(step, known)

    def _end_trace(self) -> None:
        self._tracing, self._trace = False, None
        jax.profiler.stop_trace()

    def close(self) -> None:
        if self._tracing:
            self._end_trace()
        self.clock.keep()


def _units(batch: Mapping[str, Any]) -> int:
    """Tokens of a batch; of a batch without, its rows."""
    return batch["tokens"].size if "tokens" in batch else len(next(iter(batch.values())))


@contextmanager
def watching(run: RunDir, parts: Assembly, clock: Clock, profile: range | None) -> Iterator[Watch]:
    """A watch over the steps of this launch; a trace is written of those in `profile`.

    Steps below the highest one in the ledger were done by an earlier launch.
    """
    first = jax.process_index() == 0
    known = max((line["step"] + 1 for line in read_lines(run.ledger)), default=0) if first else 0
    trace = (profile, run.path / "profile") if profile is not None and first else None
    with (
        _writers(run, parts.cfg) as writers,
        closing(Watch(parts, clock, writers, known=known, trace=trace)) as watch,
    ):
        yield watch
