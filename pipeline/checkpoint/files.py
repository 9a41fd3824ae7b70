"""A state in a file of its own, within the folder of somebody's checkpoint."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pipeline.errors import StateError


def read_state(path: str | os.PathLike[str]) -> Any:
    """The state that a JSON file holds.

    Raises:
        StateError: there is no such file, or it is not JSON.
    """
    try:
        return json.loads(Path(path).read_text())
    except (OSError, ValueError, RecursionError) as e:
        raise StateError(
            f"{os.fspath(path)} holds no loader state ({str(e)[:200]}): its checkpoint was written "
            "by something else, or cut short. Restore from an older checkpoint."
        ) from e
