"""Two processes on one machine train one run, as processes on two machines would.

    python examples/cluster/two_processes.py --run runs/two [--processes 2] [--devices 1] …

What this launcher does is what any launcher has to: tell each process the coordinator's address,
how many there are and which one it is; and when one has died, start all of them again, which
resumes. Everything after the launcher's own options goes to `python -m harness train`.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import time

_STOPPED = (0, 128 + signal.SIGTERM, 128 + signal.SIGINT)  # done, or asked to stop and saved
_REFUSED = 2  # it cannot be done as asked: starting again does not help


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start(processes: int, devices: int, words: list[str]) -> list[subprocess.Popen[bytes]]:
    """Start every process of the run; only CPUs are split into devices, GPUs are seen by all."""
    told = {
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}",
        "JAX_NUM_PROCESSES": str(processes),
    }
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    told["XLA_FLAGS"] = flags.strip()
    command = [sys.executable, "-m", "harness", "train", *words]
    return [
        # a session of its own: Ctrl-C then reaches it once, through us, and not twice
        subprocess.Popen(
            command, env={**os.environ, **told, "JAX_PROCESS_ID": str(i)}, start_new_session=True
        )
        for i in range(processes)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--devices", type=int, default=1, help="of each process, on CPUs")
    parser.add_argument("--restarts", type=int, default=3, help="how often all are started again")
    args, words = parser.parse_known_args()
    running: list[subprocess.Popen[bytes]] = []

    def forward(number: int, _: object) -> None:
        for process in running:
            process.send_signal(number)

    signal.signal(signal.SIGTERM, forward)
    signal.signal(signal.SIGINT, forward)
    for again in range(args.restarts + 1):
        running[:] = start(args.processes, args.devices, words)
        statuses = [process.wait() for process in running]
        if _REFUSED in statuses or all(status in _STOPPED for status in statuses):
            return _REFUSED if _REFUSED in statuses else max(statuses)
        print(f"ended with {statuses}; starts left: {args.restarts - again}", file=sys.stderr)
        time.sleep(1)
    return 1


if __name__ == "__main__":
    sys.exit(main())
