"""Which rows are this process's, and how a loader notices others that would get the same."""

from __future__ import annotations

import multiprocessing
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipeline import Dataset, Loader, TorchFeed
from pipeline.batches.hosts import LAUNCHERS, HostShare
from pipeline.errors import BatchError, FeedError, HostsError

torch = pytest.importorskip("torch", reason="needs the extra: pip install 'lockstep-data[torch]'")

DS = Dataset({"x": np.arange(64)})


class Group:
    """torch.distributed or jax, as far as a loader asks them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch

    def torch(self, size: int) -> None:
        import torch.distributed as dist

        self._patch.setattr(dist, "is_initialized", lambda: True)
        self._patch.setattr(dist, "get_world_size", lambda *_: size)
        self._patch.setattr(dist, "get_rank", lambda *_: 0)

    def jax(self, size: int) -> None:
        import jax

        self._patch.setattr(jax.distributed, "is_initialized", lambda: True)
        self._patch.setattr(jax, "process_count", lambda *_: size)


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> Group:
    return Group(monkeypatch)


@pytest.mark.parametrize("library", ["jax", "torch"])
def test_a_loader_made_beside_others_is_refused_at_once(group: Group, library: str) -> None:
    getattr(group, library)(2)
    with pytest.raises(HostsError, match=f"2 {library} processes are running"):
        Loader(DS, 4)
    Loader(DS, 4, host=0, hosts=2)


@pytest.mark.parametrize("library", ["jax", "torch"])
@pytest.mark.parametrize("way", ["next", "for", "restored", "sought"])
def test_one_made_before_the_others_is_refused_at_its_first_batch(
    group: Group, library: str, way: str
) -> None:
    loader = Loader(DS, 4)
    state = loader.state_dict()
    if way in ("restored", "sought"):
        next(loader)
    getattr(group, library)(2)
    if way == "restored":
        loader.load_state_dict(state)
    if way == "sought":
        loader.seek(3)
    with pytest.raises(HostsError, match=f"2 {library} processes are running"):
        next(iter(loader)) if way == "for" else next(loader)


def test_one_that_goes_on_is_refused_at_the_next_pass(group: Group) -> None:
    loader = Loader(DS, 32)
    next(loader)
    group.torch(2)
    next(loader)
    with pytest.raises(HostsError, match="2 torch processes"):
        next(loader)


def test_a_feed_of_one_library_beside_processes_of_another_is_refused(group: Group) -> None:
    feed = TorchFeed()
    group.jax(2)
    with pytest.raises(HostsError, match="2 jax processes are running"):
        Loader(DS, 4, feed=feed)


def test_a_feed_that_knows_its_processes_is_told(group: Group) -> None:
    group.torch(2)
    assert len(next(Loader(DS, 4, feed=TorchFeed()))["x"]) == 2


def test_one_process_is_no_company(group: Group) -> None:
    group.torch(1)
    group.jax(1)
    assert len(next(Loader(DS, 4))["x"]) == 4


# ---- launchers


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_launchers_environment_alone_warns_once(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "4")
    loader = Loader(DS, 4)
    with pytest.warns(UserWarning, match=rf"{name}=4.*host=, hosts="):
        next(loader)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list(loader)) == 15
        next(Loader(DS, 4, host=0, hosts=2))
    for alone in ("1", "", "many"):
        monkeypatch.setenv(name, alone)
        next(Loader(DS, 4))


# ---- inside other people's workers


@pytest.mark.parametrize("feed", [None, TorchFeed()])
def test_torch_workers_would_each_give_the_same_rows(
    monkeypatch: pytest.MonkeyPatch, feed: Any
) -> None:
    loader = Loader(DS, 4, feed=feed)
    info = SimpleNamespace(id=1, num_workers=2)
    monkeypatch.setattr(torch.utils.data, "get_worker_info", lambda: info)
    with pytest.raises(HostsError, match="worker 1 of a torch DataLoader with num_workers=2"):
        next(loader)
    assert len(next(Loader(DS, 4, host=1, hosts=2))["x"]) == 2
    info.num_workers = 1
    assert len(next(loader)["x"]) == 4


class Streamed(torch.utils.data.IterableDataset):  # pyright: ignore[reportMissingTypeArgument, reportUntypedBaseClass]
    """A loader as torch's own loader would read it."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def __iter__(self) -> Any:
        return iter(self.loader)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_loader_in_real_torch_workers_is_refused() -> None:
    loader = Loader(DS, 4)
    next(loader)
    theirs = torch.utils.data.DataLoader(
        Streamed(loader),
        batch_size=None,
        num_workers=2,
        multiprocessing_context=multiprocessing.get_context("fork"),
    )
    batches: Any = iter(theirs)
    with pytest.raises(HostsError, match="of a torch DataLoader with num_workers=2"):
        next(batches)
    # after an error torch would wait five seconds for each; it raises wherever it misses one
    torch.utils.data._utils.signal_handling._remove_worker_pids(id(batches))
    batches._worker_pids_set = False
    for worker in batches._workers:
        worker.terminate()
        worker.join()
    assert next(loader)["x"].tolist() == [4, 5, 6, 7]


# ---- rows by hand


@pytest.mark.parametrize("hosts", [1, 2, 3, 5])
def test_rows_by_hand_are_near_equal_runs(hosts: int) -> None:
    for batch in range(hosts, 30):
        parts = [HostShare(h, hosts).rows(batch).tolist() for h in range(hosts)]
        assert [row for part in parts for row in part] == list(range(batch))
        assert {len(part) for part in parts} <= {batch // hosts, -(-batch // hosts)}


def test_a_host_without_rows_is_refused() -> None:
    with pytest.raises(BatchError, match="a pass of 9 rows ends with a batch of 1, which does not"):
        Loader(Dataset(range(9)), 8, host=0, hosts=4)
    for fine in ({"remainder": "drop"}, {"remainder": "pad"}, {"steps": 1}):
        Loader(Dataset(range(9)), 8, host=0, hosts=4, **fine)  # pyright: ignore[reportArgumentType]
    # where a resume leaves so few, it is known only then
    old = Loader(Dataset(range(16)), 3)
    next(old)
    loader = Loader(Dataset(range(16)), 4, host=0, hosts=4)
    loader.load_state_dict(old.state_dict())
    with pytest.raises(BatchError, match="a batch of 1 rows does not split over hosts=4"):
        list(loader)


def test_a_feed_is_an_object() -> None:
    with pytest.raises(FeedError, match=r"feed=TorchFeed is a class.*TorchFeed\("):
        Loader(DS, 4, feed=TorchFeed)  # pyright: ignore[reportArgumentType]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
@pytest.mark.parametrize("device", ["cuda", "cuda:1", torch.device("cuda")])
def test_a_gpu_that_is_not_here_is_named(device: Any) -> None:
    with pytest.raises(FeedError, match=r"sees no GPUs here. TorchFeed\(\) gives CPU tensors"):
        TorchFeed(device)
