"""Words of the command line, read by argparse: folders, steps, windows of steps, numbers."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path


def directory(text: str) -> Path:
    """A run's folder, by a path that ends in a name: forks lie beside it.

    >>> directory("runs/a/"), directory(".").name == Path.cwd().name
    (PosixPath('runs/a'), True)
    """
    if "://" in text:
        raise argparse.ArgumentTypeError(
            f"{text}: a run lies in a local directory, which its lock and ledger need. Train in "
            f"one, and copy it to {text} when training stands still."
        )
    path = Path(text)
    return path if path.name not in ("", "..") else Path(os.path.abspath(path))


def window(text: str) -> range:
    """Steps.

    >>> window("3:5")
    range(3, 5)
    """
    start, _, stop = text.partition(":")
    if not (start.isdecimal() and stop.isdecimal() and int(start) < int(stop)):
        raise argparse.ArgumentTypeError(f"{text!r}: give first:end, such as 100:120")
    return range(int(start), int(stop))


def step(text: str) -> int:
    """The number of a step."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: give the number of a step")
    return int(text)


def positive(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number from 1 on")
    return int(text)


def temperature(text: str) -> float:
    """A finite number from 0 on."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: give 0 or more, such as 0.8")
    return value
