"""torchtitan: a `BaseDataLoader.Config` for its setting `dataloader`.

In a torchtitan config:

    dataloader=LockstepDataLoader.Config(dataset="mine:ds")

`mine.ds` is a Dataset, or a function that returns one, of token rows made by `pack(seq_len + 1)`.
The trainer gets `({"input", "positions"}, labels)`. It ends with a pass, unless `infinite=True` is
set or the dataset is `ds.repeat()`; its Validator sets `infinite` itself. Its checkpoints (DCP)
hold one string that is the same on all ranks, so a run may resume with another data-parallel
degree. Keep the product of local batch size and degree, and the global batches are the same.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipeline.errors import ChainError
from pipeline.feed import TorchFeed
from pipeline.loader import Loader
from pipeline.tools.commands.names import dataset as dataset_of
from pipeline.workers import Workers

_IGNORED = -100  # torchtitan's IGNORE_INDEX, and torch's


def _base() -> Any:
    # it moved in August 2026
    for name in ("torchtitan.components.dataloader", "torchtitan.components.data.loader"):
        try:
            return importlib.import_module(name).BaseDataLoader
        except ModuleNotFoundError as e:
            if not str(e.name).startswith("torchtitan."):
                raise
    raise ImportError("torchtitan has no BaseDataLoader: its loaders have moved")


_Base: Any = _base()


class RankFeed(TorchFeed):
    """A TorchFeed whose rank the trainer gives, as its mesh decides which ranks share rows."""

    def __init__(self, rank: int, ranks: int) -> None:
        super().__init__()
        self._given = rank, ranks

    def _place(self) -> tuple[int, int]:
        return self._given


class LockstepDataLoader(_Base):
    """A Loader with the interface of torchtitan's dataloaders.

    Args:
        config: which dataset, and who evaluates it.
        dp_world_size, dp_rank: the data-parallel degree, and this rank's index.
        seq_len, local_batch_size: tokens in a row, and rows on a rank.
        max_context_length, num_tokens_per_batch: the same in torchtitan since August 2026, whose
            batches are flattened.

    Raises:
        ChainError: the length of rows differs from the trainer's.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(_Base.Config):
        """The loader's part of a torchtitan config.

        Attributes:
            dataset: "module:name", or a path or glob.
            dataset_path: replaces `dataset` if given.
            tokens: name of the packed field.
            workers: as for `Loader`.
            infinite: whether passes follow one another; a Validator sets it.
        """

        dataset: str = ""
        dataset_path: str | None = None
        tokens: str = "tokens"
        workers: int | str = 0
        infinite: bool = False

    def __init__(
        self,
        config: Any,
        *,
        dp_world_size: int,
        dp_rank: int,
        seq_len: int | None = None,
        local_batch_size: int | None = None,
        max_context_length: int | None = None,
        num_tokens_per_batch: int | None = None,
        **_: Any,
    ) -> None:
        length = seq_len if seq_len is not None else max_context_length
        if length is None:
            raise ChainError("torchtitan gave neither seq_len nor max_context_length")
        self._flat, self._infinite = local_batch_size is None, config.infinite
        rows = local_batch_size or (num_tokens_per_batch or length) // length
        ds = dataset_of(config.dataset_path or config.dataset)
        self._names = _fields(ds.spec, config.tokens, length)
        feed = RankFeed(dp_rank, dp_world_size)
        workers: int | Workers | Any = config.workers
        self.loader = Loader(ds, rows * dp_world_size, feed=feed, workers=workers, remainder="drop")

    def __iter__(self) -> Iterator[tuple[dict[str, Any], Any]]:
        batches = iter(partial(next, self.loader), None) if self._infinite else self.loader
        for batch in batches:
            yield self._trainers(batch)

    def _trainers(self, batch: Any) -> tuple[dict[str, Any], Any]:
        # the label of a token is the next token of its document
        tokens, segments, positions = (batch[name] for name in self._names)
        labels = tokens[:, 1:].long()
        ends = (segments[:, 1:] != segments[:, :-1]) | (segments[:, 1:] == 0)
        labels = labels.masked_fill(ends, _IGNORED)
        inputs = {"input": tokens[:, :-1].long(), "positions": positions[:, :-1].long()}
        if self._flat:
            return {name: t.reshape(-1) for name, t in inputs.items()}, labels.reshape(-1)
        return inputs, labels

    def state_dict(self) -> dict[str, Any]:
        """One string, the same on every rank, which DCP neither splits nor merges."""
        return {"lockstep": json.dumps(self.loader.state_dict())}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on at a saved position. An empty state is that of a checkpoint without data.

        Raises:
            MismatchError: it is of another dataset.
            StateError: it is not a Lockstep state.
        """
        if state_dict:
            self.loader.load_state_dict(json.loads(state_dict.get("lockstep", "{}")))

    def close(self) -> None:
        """End the workers."""
        self.loader.close()


def _fields(spec: Any, field: str, length: int) -> tuple[str, str, str]:
    # with several packed fields, each has segments and positions of its own
    own = f"{field}_segment_ids", f"{field}_positions"
    extra = own if isinstance(spec, dict) and own[0] in spec else ("segment_ids", "positions")
    if not isinstance(spec, dict) or field not in spec or extra[0] not in spec:
        raise ChainError(
            f"torchtitan wants packed rows with a field {field!r}: .pack({length + 1}); the "
            f"dataset's rows are {spec!r:.200}"
        )
    if spec[field].shape != (length + 1,):
        raise ChainError(
            f"rows of {field!r} have the shape {spec[field].shape}; torchtitan trains on {length} "
            f"tokens and wants one more, for the last label: .pack({length + 1})"
        )
    return field, extra[0], extra[1]
