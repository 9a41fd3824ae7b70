"""Tiny training runs in processes of their own, to be watched and killed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.ledger import Entry, read

LIMIT = 600.0  # seconds: a process that takes longer hangs, whatever runs beside it
TINY = ("width=32", "layers=1", "hidden=64", "length=64", "warmup=4", "steps=40")
TINY += ("save_every=5", "keep=2", "keep_every=20", "evaluate.batches=8", "log.every=5")


class Workplace:
    """A directory in which runs share the converted corpus and XLA's compilation cache."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def environment(self, devices: int = 1) -> dict[str, str]:
        return {
            **os.environ,
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(self.path / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
        }

    def start(self, run: str, *, devices: int = 1) -> subprocess.Popen[str]:
        """Begin or resume training; the caller ends it."""
        command = [sys.executable, "-m", "harness", "train", "--run", str(self.path / run)]
        return subprocess.Popen(
            [*command, "--set", *TINY],
            env=self.environment(devices),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def start_several(
        self, run: str, processes: int, *more: str, devices: int = 1, apart: bool = False
    ) -> list[subprocess.Popen[str]]:
        """Begin or resume training in several processes; the caller ends them.

        Apart, each has a folder of its own, as on machines that share no file system.
        """
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        told = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": str(processes)}
        command = [sys.executable, "-m", "harness", "train", "--run"]
        return [
            subprocess.Popen(
                [*command, str(self.path / f"{run}{i * apart or ''}"), "--set", *TINY, *more],
                env={**self.environment(devices), **told, "JAX_PROCESS_ID": str(i)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for i in range(processes)
        ]

    def train(self, run: str, *, devices: int = 1) -> str:
        """Train to the end; what it printed."""
        [(status, out)] = outcomes([self.start(run, devices=devices)])
        assert status == 0, out
        return out

    def interrupt(
        self, run: str, signal: int, when: Callable[[Path], bool], *, devices: int = 1
    ) -> tuple[int, str]:
        """Train until `when(directory)` holds, send the signal; exit status and output."""
        process = self.start(run, devices=devices)
        wait_until(lambda: when(self.path / run), [process])
        process.send_signal(signal)
        return outcomes([process])[0]


def outcomes(running: Sequence[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    """Exit statuses and outputs of processes that ran at once; none may hang."""
    deadline = time.monotonic() + LIMIT
    found: list[tuple[int, str]] = []
    for process in running:
        try:
            out, _ = process.communicate(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            out = end_all(running)
            raise AssertionError(f"still there after {LIMIT:g} s:\n{out}") from None
        found.append((process.returncode, out))
    return found


def wait_until(holds: Callable[[], bool], running: Sequence[subprocess.Popen[str]]) -> None:
    """Wait for what the processes bring about, unless one has ended before or hangs."""
    deadline = time.monotonic() + LIMIT
    while not holds():
        ended = any(process.poll() is not None for process in running)
        if ended or time.monotonic() > deadline:
            out = end_all(running)
            raise AssertionError(("ended too early" if ended else "too late") + f":\n{out}")
        time.sleep(0.01)


def end_all(running: Sequence[subprocess.Popen[str]]) -> str:
    """Kill them; what they had printed, where nobody has read it yet."""
    for process in running:
        process.kill()
    unread = [p for p in running if p.stdout is not None and not p.stdout.closed]
    return "\n---\n".join(str(process.communicate()[0]) for process in unread)


def at_step(step: int) -> Callable[[Path], bool]:
    """The ledger holds a line of that step."""
    return lambda run: any(entry.step >= step for entry in read(run / "ledger.jsonl"))


def mid_save(step: int) -> Callable[[Path], bool]:
    """A checkpoint later than that step is being written."""

    def holds(run: Path) -> bool:
        return any(at > step for at in unfinished(run))

    return holds


def unfinished(run: Path) -> list[int]:
    """Steps whose checkpoint is begun and not complete."""
    temporary = (run / "checkpoints").glob("*.orbax-checkpoint-tmp*")
    return [int(path.name.partition(".")[0]) for path in temporary]


def finished(run: Path) -> list[int]:
    """Steps of the complete checkpoints."""
    return sorted(int(p.name) for p in (run / "checkpoints").iterdir() if p.name.isdigit())


def bits(entry: Entry) -> tuple[object, ...]:
    """All of a step that must not depend on how often its run was stopped."""
    return entry.loss_bits, entry.grad_norm, entry.digest, entry.data_step, entry.rows
