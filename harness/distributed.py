"""Joining the processes that train together, and ending them when one has died."""

from __future__ import annotations

import ctypes
import logging
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

from harness.errors import ConfigError

HEARTBEAT = 10  # seconds after which a silent process counts as dead; JAX's default is 100
_SILENT = 10.0  # seconds of waiting for other processes before a message; JAX waits for 300
LOST = 75  # exit status EX_TEMPFAIL of sysexits.h: start all processes again
_NAMES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
_FLAGS = ("--coordinator", "--processes", "--process")
# names of: number of processes, index of this one, and a variable that tells whether the launcher
# is used; a Slurm job's own script is not a step of the job and has no node list
_LAUNCHERS = {
    "slurm": ("SLURM_NTASKS", "SLURM_PROCID", "SLURM_STEP_NODELIST"),
    "ompi": ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    "mpi": ("PMI_SIZE", "PMI_RANK", "PMI_SIZE"),
}
_OMPI_ADDRESS = "OMPI_MCA_orte_hnp_uri"  # set by Open MPI 4, not by later versions
# messages of collectives, barriers and the coordination service when another process is gone
_GONE = re.compile(
    r"Gloo|NCCL|coordination service|Socket closed|Connection (closed|reset)|[Bb]arrier|UNAVAILABLE"
)


class Place(NamedTuple):
    """One of the processes that train together.

    Attributes:
        coordinator: host:port at which process 0 listens; None if JAX learns it from the launcher.
        processes: number of processes, at least 2.
        process: index of this process.
    """

    coordinator: str | None
    processes: int
    process: int


def place(flags: tuple[str | None, ...], environment: Mapping[str, str]) -> Place | None:
    """This process's place; None if it trains alone.

    Flags take precedence over JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID, and
    these over the variables of Slurm, Open MPI and other MPIs.

    Args:
        flags: --coordinator, --processes and --process; None for one that is not given.
        environment: the environment variables.

    Raises:
        ConfigError: a part is missing or not a number, or `process` is not below `processes`.

    >>> place((None, None, None), {"JAX_COORDINATOR_ADDRESS": "a:1234", "JAX_NUM_PROCESSES": "2",
    ...     "JAX_PROCESS_ID": "1"})
    Place(coordinator='a:1234', processes=2, process=1)
    >>> place(("a:1234", "2", None), {})
    Traceback (most recent call last):
    harness.errors.ConfigError: --process or JAX_PROCESS_ID is missing beside the others: \
give all three, or none to train in one process.
    """
    own = [flag or environment.get(name) for flag, name in zip(flags, _NAMES, strict=True)]
    told = _by_launcher(environment)
    if not any(own) and told is None:
        return None
    launcher, filled = told or ("", [None, None])
    address, processes, process = [own[0], *(a or b for a, b in zip(own[1:], filled, strict=True))]
    if processes == "1":
        return None
    if address is None and launcher != "slurm" and _OMPI_ADDRESS not in environment:
        address = ""  # JAX cannot find it
    for value, flag, name in zip((address, processes, process), _FLAGS, _NAMES, strict=True):
        if value is None and name == _NAMES[0]:
            continue  # JAX finds it
        if not value:
            raise ConfigError(
                f"{flag} or {name} is missing beside the others: give all three, or none to train "
                "in one process."
            )
    return _checked(address, str(processes), str(process))


def _by_launcher(environment: Mapping[str, str]) -> tuple[str, list[str | None]] | None:
    for launcher, (count, rank, mark) in _LAUNCHERS.items():
        if mark in environment and environment.get(count, "1") != "1" and rank in environment:
            return launcher, [environment[count], environment[rank]]
    return None


def _checked(address: str | None, processes: str, process: str) -> Place:
    if address is not None and not re.fullmatch(r".+:\d+", address):
        raise ConfigError(f"coordinator {address!r}: give host:port, as 10.0.0.1:1234.")
    if not (processes.isdigit() and process.isdigit() and int(process) < int(processes)):
        raise ConfigError(
            f"process {process} of {processes}: give whole numbers, the process from 0 to below "
            "the number of processes."
        )
    return Place(address, int(processes), int(process))


def join(mine: Place | None) -> None:
    """Join the other processes, before JAX is used. Does nothing in a process that trains alone.

    On a TPU pod, processes find each other without any flags.
    """
    pod = "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")
    if mine is None and not pod:
        return
    import jax
    from absl import logging as absl

    # our own handlers of SIGTERM let the step finish and save; JAX's would take the signal first
    jax.config.update("jax_enable_preemption_service", False)
    # on CPUs, two programs running at once can mix up their messages and wait for ever; other
    # devices run their programs in order, so this changes nothing there
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    _speak_when_aborted()
    absl.get_absl_logger().addFilter(tells_no_loss)  # `say_farewell` tells it, in one line
    address, processes, process = mine or (None, None, None)
    waits = threading.Timer(_SILENT, _say_waiting, [address])
    waits.daemon = True
    waits.start()
    try:
        if address is not None and process == 0:
            with socket.socket() as probe:  # jaxlib would crash on a port in use
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("", int(address.rpartition(":")[2])))
        jax.distributed.initialize(address, processes, process, heartbeat_timeout_seconds=HEARTBEAT)
    except (RuntimeError, ValueError, OSError, OverflowError) as e:
        raise ConfigError(
            f"the processes could not be joined at {address or 'the launcher'}: "
            f"{str(e).splitlines()[0][:200]}. Start all of them with one address, whose port is "
            "free on the machine of process 0."
        ) from e
    finally:
        waits.cancel()
    _joined.set()


def check_alike(asked: Mapping[str, Any]) -> None:
    """Check that every process was asked for the same: otherwise their parts of the model differ.

    Args:
        asked: settings and options by name, as plain data.

    Raises:
        ConfigError: one was asked for something else; it is raised in all of them.
    """
    if alone():
        return
    import jax

    from pipeline import JaxFeed

    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    first, *others = JaxFeed(here).gather(dict(asked))
    for i, other in enumerate(others, 1):
        for name in first:
            if other.get(name) != first[name]:
                raise ConfigError(
                    f"process {i} was given {name}={other.get(name)!r}, process 0 {first[name]!r}: "
                    "give all processes the same settings and options; only paths may differ."
                )


def _say_waiting(address: str | None) -> None:
    place = address or "the launcher's address"
    os.write(2, f"waiting up to five minutes for the other processes at {place}\n".encode())


def alone() -> bool:
    """Whether this process trains by itself. Does not start JAX."""
    jax: Any = sys.modules.get("jax")
    return jax is None or not jax.distributed.is_initialized()


def first() -> bool:
    """Whether this is the process that prints and writes for all."""
    jax: Any = sys.modules.get("jax")
    return alone() or jax.process_index() == 0


def say_farewell(error: BaseException | None = None) -> None:
    """Tell on stderr, once in all threads, that this process ends because another one is gone."""
    if _unsaid.acquire(blocking=False):
        why = f" ({str(error).splitlines()[0][:120]})" if error is not None and str(error) else ""
        told = (
            "another process of this run has ended; this one ends too. Start all of them again to "
            f"go on from the last checkpoint{why}.\n"
        )
        os.write(2, told.encode())


_unsaid = threading.Lock()
_joined = threading.Event()


def is_loss(error: BaseException) -> bool:
    """Whether an error means that another process is gone. Always False in a process that is alone.

    >>> is_loss(ValueError("UNKNOWN: Gloo all-reduce failed: Connection closed by peer"))
    False
    """
    chain: BaseException | None = error
    while chain is not None:
        if _GONE.search(str(chain)):
            return not alone()
        chain = chain.__cause__ or chain.__context__
    return False


def tells_no_loss(record: logging.LogRecord) -> bool:
    """Whether a log record is worth reading: Orbax logs a traceback for each thread's loss."""
    error = record.exc_info[1] if record.exc_info else None
    return error is None or not is_loss(error)


def leave(status: int) -> None:
    """Exit at once if other processes may wait for this one: a normal exit would wait for them."""
    if not alone() and status:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _speak_when_aborted() -> None:
    # jaxlib aborts the process, from a thread of its own, when the coordinator is gone or reports
    # that a process is; a Python signal handler would run too late, as abort() does not return
    def last_words(_: int) -> None:
        if _joined.is_set():
            say_farewell()
        else:
            os.write(2, b"not all processes have joined: start all of them, with one address\n")
        os._exit(LOST)

    global _handler
    _handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(last_words)  # kept: C holds its address
    ctypes.CDLL(None).signal(signal.SIGABRT, _handler)


_handler: Any = None
