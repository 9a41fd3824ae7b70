"""Printing on any terminal: characters that its encoding lacks must not end a command."""

from __future__ import annotations

import io
import sys


def print_anything() -> None:
    r"""Let stdout and stderr write characters that their encoding lacks as escapes, like \xb5.

    Python does so for stderr alone; a name or a unit in Latin letters ended commands on terminals
    that know ASCII only.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
