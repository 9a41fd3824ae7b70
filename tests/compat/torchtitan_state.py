"""torchtitan 0.3.0's own cases for a loader's state, with ours; `test_torchtitan.py` runs them.

They are those of its `test_dataset_checkpointing.py` and `test_dataloader.py`: each of 2 and of 4
ranks by itself, past the end of an epoch. Steps are fewer, as these epochs are shorter.
"""
# pyright: reportMissingImports=false

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from torchtitan.components.dataloader import BaseDataLoader, ParallelAwareDataloader

from pipeline import Dataset, mix, scan
from pipeline.compat.torchtitan import LockstepDataLoader
from pipeline.errors import ChainError, StateError

LENGTH, BATCH, ENDS = 16, 4, 2  # a document's last token


def documents(seed: int) -> Dataset:
    found = [np.array([*range(3, 4 + (i + seed) % 29), ENDS], np.int32) for i in range(150)]
    return Dataset(found, seed=seed)


@cache
def packed(seed: int) -> Dataset:
    """A scan tells where rows begin: each rank knows it alone, as torchtitan's cases want."""
    lengths = scan(documents(seed), len, workers=0)
    return documents(seed).shuffle().pack(LENGTH + 1, lengths=lengths)


def single() -> Dataset:
    return packed(1).repeat()


def interleaved() -> Dataset:
    return mix({"a": packed(1), "b": packed(2)}, {"a": 1, "b": 2}, stop="never")


def finite() -> Dataset:
    return documents(1).pack(LENGTH + 1)


def short() -> Dataset:
    return packed(1)[:6]


def built(name: str, ranks: int = 1, rank: int = 0, rows: int = BATCH, **options: Any) -> Any:
    config = LockstepDataLoader.Config(dataset=f"{__name__}:{name}", **options)
    given = {"tokenizer": None, "snapshot_every_n_steps": 1}
    return config.build(
        dp_world_size=ranks,
        dp_rank=rank,
        seq_len=LENGTH,
        local_batch_size=rows // ranks,
        **given,
    )


def assert_same(ours: Iterator[Any], expected: Iterator[Any], steps: int) -> None:
    for _ in range(steps):
        (inputs, labels), (wanted, last) = next(ours), next(expected)
        assert inputs.keys() == wanted.keys() == {"input", "positions"}
        assert all(torch.equal(inputs[name], wanted[name]) for name in wanted)
        assert torch.equal(labels, last)


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("name", ["single", "interleaved"])
def test_each_rank_resumes_past_the_end_of_an_epoch(name: str, ranks: int) -> None:
    for rank in range(ranks):
        loader = built(name, ranks, rank)
        batches = iter(loader)
        steps = 2 * len(packed(1)) // BATCH  # into the third epoch of one, the second of two
        assert len(list(islice(batches, steps + 5))) == steps + 5
        state = loader.state_dict()
        resumed = built(name, ranks, rank)
        resumed.load_state_dict(state)
        assert_same(iter(resumed), batches, 60)


def test_a_resume_inside_an_epoch_gives_what_would_have_come() -> None:
    loader = built("interleaved")
    batches = iter(loader)
    assert len(list(islice(batches, 10))) == 10
    resumed = built("interleaved")
    resumed.load_state_dict(loader.state_dict())
    assert_same(iter(resumed), batches, 50)


def test_the_next_epoch_has_another_order_that_a_resumed_run_has_too() -> None:
    loader = built("single")
    batches, epoch = iter(loader), len(packed(1)) // BATCH
    first = [inputs["input"].tolist() for inputs, _ in islice(batches, epoch)]
    state = json.loads(json.dumps(loader.state_dict()))
    second = [inputs["input"].tolist() for inputs, _ in islice(batches, epoch)]
    assert first != second
    resumed = built("single")
    resumed.load_state_dict(state)
    assert [inputs["input"].tolist() for inputs, _ in islice(iter(resumed), epoch)] == second


def test_an_empty_state_begins_and_a_strange_one_is_refused() -> None:
    loader = built("single")
    loader.load_state_dict({})
    assert_same(iter(loader), iter(built("single")), 3)
    with pytest.raises(StateError):
        loader.load_state_dict({"dp_rank_0": b"", "world_size": 2})


def test_batches_are_those_of_the_rows_and_a_finite_pass_ends() -> None:
    rows = np.stack([row["tokens"] for row in finite()])
    batches = list(built("finite"))
    assert len(batches) == len(rows) // BATCH
    for step, (inputs, labels) in enumerate(batches):
        wanted = rows[step * BATCH : (step + 1) * BATCH]
        assert inputs["input"].tolist() == wanted[:, :-1].tolist()
        known = labels.numpy() != -100
        assert (labels.numpy()[known] == wanted[:, 1:][known]).all()
        assert known.any()
        assert inputs["input"].dtype == labels.dtype == torch.int64


def test_positions_begin_anew_after_a_document_s_end() -> None:
    for inputs, _ in islice(iter(built("single")), 30):
        for tokens, positions in zip(inputs["input"], inputs["positions"], strict=True):
            assert 0 <= int(positions.min()) <= int(positions.max()) < LENGTH + 15
            for i in range(1, LENGTH):
                after = tokens[i - 1] == ENDS
                assert int(positions[i]) == (0 if after else int(positions[i - 1]) + 1)


def test_the_trainer_s_numbers_are_those_of_the_batch() -> None:
    assert issubclass(LockstepDataLoader, BaseDataLoader)
    with_workers = built("single", workers=1)
    inputs, labels = next(iter(with_workers))
    assert inputs["input"].shape == inputs["positions"].shape == labels.shape == (BATCH, LENGTH)
    with_workers.close()
    with pytest.raises(TypeError, match="sampler"):
        LockstepDataLoader.Config(dataset="x", sampler=None)  # pyright: ignore[reportCallIssue]
    with pytest.raises(ChainError, match="shape"):
        LockstepDataLoader.Config(dataset=f"{__name__}:single").build(
            dp_world_size=1, dp_rank=0, tokenizer=None, seq_len=LENGTH + 1, local_batch_size=1
        )


class Stream(torch.utils.data.IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(100))


def test_the_change_of_degree_that_torchtitan_refuses_gives_the_same_global_batches() -> None:
    theirs = ParallelAwareDataloader(Stream(), dp_rank=0, dp_world_size=2, batch_size=2)
    next(iter(theirs))
    with pytest.raises(AssertionError, match="dp_degree is inconsistent"):
        ParallelAwareDataloader(Stream(), dp_rank=0, dp_world_size=4, batch_size=1).load_state_dict(
            theirs.state_dict()
        )

    for name in ("single", "interleaved"):
        state, reference = dict[str, Any](), iter(built(name))
        for ranks in (2, 4, 1, 4):
            loaders = [built(name, ranks, rank) for rank in range(ranks)]
            for loader in loaders:
                loader.load_state_dict(state)
            parts = [iter(loader) for loader in loaders]
            for _ in range(30):
                given, (wanted, labels) = [next(part) for part in parts], next(reference)
                assert torch.equal(torch.cat([i["input"] for i, _ in given]), wanted["input"])
                assert torch.equal(torch.cat([last for _, last in given]), labels)
            states = [loader.state_dict() for loader in loaders]
            assert all(s == states[0] for s in states)
            state = states[0]


@pytest.mark.parametrize("infinite", [True, False])
def test_a_validator_sets_whether_passes_follow_one_another(infinite: bool) -> None:
    # as torchtitan.components.validate does with the Config that it is given
    config = replace(LockstepDataLoader.Config(dataset=f"{__name__}:short"), infinite=infinite)
    given = {"dp_world_size": 1, "dp_rank": 0, "seq_len": LENGTH, "local_batch_size": 2}
    loader = config.build(**given, tokenizer=None)
    batches = [batch["input"].tolist() for batch, _ in islice(loader, 7)]
    assert len(batches) == (7 if infinite else 3)
    assert batches[3:6] == batches[:3] * infinite
