"""MaxText: a Loader in place of one of MaxText's dataset types.

Call this before training, in the script that calls MaxText's `train.main`:

    from pipeline.compat import maxtext
    maxtext.install()

and set `dataset_type=grain grain_train_files=mine:ds` (and `grain_eval_files=mine:held`) in the
config. MaxText knows a fixed set of dataset types, and trains on synthetic data for any other. So
this one uses the name "grain": file names of the form module:name are Lockstep datasets, all others
are left to Grain. MaxText's checkpoints then hold the Loader's state, through Orbax; it fits any
number of processes and devices.

`mine.ds` is a Dataset, or a function that returns one, with rows packed to `max_target_length + 1`.
"""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from pipeline.errors import ChainError
from pipeline.feed import JaxFeed
from pipeline.loader import Loader
from pipeline.tools.commands.names import dataset as dataset_of

_INTERFACE = "maxtext.input_pipeline.input_pipeline_interface"


class MaxTextIterator:
    """Global batches with MaxText's field names; a checkpointable of Orbax's v1 API.

    Args:
        loader: has a JaxFeed with the trainer's input sharding.
        one_pass: whether it ends with the loader's first pass, as MaxText wants of evaluation data
            where `eval_steps` is not set. Else passes follow one another.
    """

    def __init__(self, loader: Loader, *, one_pass: bool = False) -> None:
        self.loader, self._one_pass = loader, one_pass

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        if self._one_pass and self.loader.epoch:
            raise StopIteration
        return columns(next(self.loader))

    def reset(self) -> None:
        """Go back to the start, as each evaluation does."""
        self.loader.seek(0)

    async def save(self, directory: Any) -> Awaitable[None]:
        """Write the current state in the background, for Orbax."""
        return await self.loader.save(directory)

    async def load(self, directory: Any) -> Awaitable[None]:
        """Restore a saved state, for Orbax."""
        return await self.loader.load(directory)


def columns(batch: Any) -> dict[str, Any]:
    """Packed rows `[rows, length + 1]` as inputs and targets `[rows, length]`.

    >>> row = {"tokens": [5, 6, 7], "segment_ids": [1, 1, 2], "positions": [0, 1, 0]}
    >>> sorted(columns({name: np.array([v]) for name, v in row.items()}))[:3]
    ['inputs', 'inputs_position', 'inputs_segmentation']
    """
    tokens, segments = batch["tokens"], batch["segment_ids"]
    # the last token of a document has no next one, so its target is in no segment
    inside = segments[:, 1:] * (segments[:, 1:] == segments[:, :-1])
    return {
        "inputs": tokens[:, :-1],
        "inputs_position": batch["positions"][:, :-1],
        "inputs_segmentation": segments[:, :-1],
        "targets": tokens[:, 1:],
        "targets_position": batch["positions"][:, 1:],
        "targets_segmentation": inside,
    }


def train_iterator(config: Any, mesh: Any, processes: Any) -> MaxTextIterator:
    """The training data, for MaxText, which passes its config, mesh and the loading processes."""
    return _iterator(config, mesh, processes, config.grain_train_files)


def eval_iterator(config: Any, mesh: Any, processes: Any) -> MaxTextIterator:
    """The evaluation data, for MaxText: one pass, after which `reset` begins it anew."""
    return _iterator(config, mesh, processes, config.grain_eval_files, one_pass=True)


def install(interface: Any = None) -> None:
    """Let MaxText load data of `dataset_type=grain` from here if their files are named module:name.

    Args:
        interface: MaxText's `input_pipeline_interface`, by default the installed one.

    Raises:
        ChainError: it lacks the factories, as in another version of MaxText.
    """
    interface = importlib.import_module(_INTERFACE) if interface is None else interface
    for name, ours, field in (
        ("make_grain_train_iterator", train_iterator, "grain_train_files"),
        ("make_grain_eval_iterator", eval_iterator, "grain_eval_files"),
    ):
        theirs = getattr(interface, name, None)
        if theirs is None:
            raise ChainError(f"this MaxText has no {name}: its dataset types have moved")
        setattr(interface, name, _either(ours, theirs, field))


def _either(ours: Callable[..., Any], theirs: Callable[..., Any], field: str) -> Callable[..., Any]:
    def make(config: Any, mesh: Any, processes: Any) -> Any:
        name = str(getattr(config, field, ""))
        module, colon, attribute = name.partition(":")
        named = colon and attribute.isidentifier() and all(map(str.isidentifier, module.split(".")))
        return (ours if named else theirs)(config, mesh, processes)

    return make


def _iterator(
    config: Any, mesh: Any, processes: Any, name: str, *, one_pass: bool = False
) -> MaxTextIterator:
    import jax

    if len(processes) != jax.process_count():
        raise ChainError(
            f"{len(processes)} of {jax.process_count()} processes shall load data: each reads its "
            "own rows here. Set expansion_factor_real_data=-1."
        )
    sharding = importlib.import_module("maxtext.utils.sharding")
    feed = JaxFeed(sharding.get_input_data_sharding(config, mesh))
    ds, length = dataset_of(name), config.max_target_length
    shape = getattr(ds.spec.get("tokens"), "shape", None) if isinstance(ds.spec, dict) else None
    if shape != (length + 1,):
        raise ChainError(
            f"{name}: rows of 'tokens' have the shape {shape}; MaxText trains on {length} tokens "
            f"and wants one more, for the last target: .pack({length + 1})"
        )
    size = config.global_batch_size_to_load
    loader = Loader(ds, size, feed=feed, remainder="drop")
    return MaxTextIterator(loader, one_pass=one_pass)
