"""How a loader's state lies in an Orbax checkpoint: one JSON file, written by the primary process.

Orbax's v1 API saves any object with `async save(directory)` and `async load(directory)`
(`StatefulCheckpointable`) beside the model, in one atomic and asynchronous step. A loader is such
an object by calling the two functions here; Orbax itself is never imported.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from pipeline.checkpoint.files import read_state

FILE = "loader.json"


class AwaitedPath(Protocol):
    """A directory that Orbax is about to create (its `PathAwaitingCreation`)."""

    async def await_creation(self) -> Any:
        """Wait until it is there, and get its path."""
        ...


async def save(
    state: Mapping[str, Any], directory: AwaitedPath, *, primary: bool = True
) -> Awaitable[None]:
    """Begin to save a state as it is now: later changes to it are not written.

    Args:
        state: plain JSON-able data; where several processes load one stream, their merged state.
        directory: the folder that Orbax creates for this state. It gets its final name only once
            the whole checkpoint is there, so a kill leaves no half-written state to find.
        primary: whether this process writes; the others only take part.

    Returns:
        The background part, which waits for the directory and then writes.

    >>> import asyncio
    >>> from types import SimpleNamespace
    >>> import tempfile
    >>> state, seen = {"rows": 8, "step": 1}, {}
    >>> async def scene(path):
    ...     async def created():
    ...         return path
    ...     writing = await save(state, SimpleNamespace(await_creation=created))
    ...     state["step"] = 2
    ...     await writing
    ...     await (await load(path, seen.update))
    >>> with tempfile.TemporaryDirectory() as path:
    ...     asyncio.run(scene(path))
    >>> seen
    {'rows': 8, 'step': 1}
    """
    text = json.dumps(state, allow_nan=False)

    async def write() -> None:
        import asyncio  # at the top it would double the time of `import pipeline`

        path = await directory.await_creation()
        if primary:
            await asyncio.to_thread((Path(path) / FILE).write_text, text)

    return write()


async def load(directory: Any, restore: Callable[[Any], None]) -> Awaitable[None]:
    """Read a saved state and hand it to `restore`, a loader's `load_state_dict`.

    All work happens here, none in the background part, whose errors Orbax hides behind its own.

    Args:
        directory: path of this state's folder in a complete checkpoint.
        restore: called with the state.

    Returns:
        A background part that is already done.

    Raises:
        StateError: there is no state, or it is not JSON.
    """
    restore(read_state(Path(directory) / FILE))

    async def done() -> None:
        pass

    return done()
