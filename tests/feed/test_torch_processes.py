"""TorchFeed among processes: gloo, DDP and device meshes; states whole on every rank."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import Dataset, Loader, TorchFeed
from pipeline.errors import HostsError

torch = pytest.importorskip("torch", reason="needs the extra: pip install 'lockstep-data[torch]'")

_PROCESS = """
import json, sys
import numpy as np, torch
from pipeline import Dataset, Loader, TorchFeed
from pipeline.errors import HostsError, BatchError, LanesError
from tests.feed.test_torch_processes import packed, plain
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

rank, rendezvous = int(sys.argv[1]), sys.argv[2]
out = {}
def refused(key, kind, call):
    try:
        call()
    except kind as e:
        out[key] = str(e)
early = TorchFeed()
before = Loader(plain(), 8, feed=early)
dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=2)
torch.manual_seed(0)
refused("untold", HostsError, lambda: Loader(plain(), 8))
refused("early", HostsError, lambda: next(before))
refused("odd", BatchError, lambda: Loader(plain(), 7, feed=TorchFeed()))
refused("lanes", LanesError, lambda: Loader(packed().lanes(1), 8, feed=TorchFeed()))

for name, ds in (("indexed", plain()), ("counted", packed())):
    loader = Loader(ds, 8, feed=TorchFeed())
    out[name] = [next(loader)["tokens"].tolist() for _ in range(5)]
    out[f"{name} state"] = loader.state_dict()
out["primary"] = TorchFeed().primary

# tensor-parallel ranks read the same rows, data-parallel ones their own
wide = init_device_mesh("cpu", (1, 2), mesh_dim_names=("dp", "tp"))
deep = init_device_mesh("cpu", (1, 2, 1), mesh_dim_names=("replicate", "shard", "tp"))
for name, feed in (
    ("tensor", TorchFeed(mesh=wide["dp"])),
    ("shard", TorchFeed(mesh=deep, dims=("replicate", "shard"))),
):
    loader = Loader(packed(), 8, feed=feed)
    out[name] = [next(loader)["tokens"].tolist() for _ in range(3)]
    out[f"{name} state"] = loader.state_dict()

# DDP averages gradients of equal parts: the global batch's own gradient
model = DistributedDataParallel(torch.nn.Linear(8, 1, dtype=torch.float64))
optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
loader = Loader(packed(), 8, feed=TorchFeed())
for _ in range(4):
    optimizer.zero_grad()
    model(next(loader)["tokens"].double()).pow(2).mean().backward()
    optimizer.step()
out["weights"] = model.module.weight.tolist()
dist.destroy_process_group()
print(json.dumps(out))
"""


def plain() -> Dataset:
    return Dataset({"tokens": np.arange(192).reshape(64, 3)}).shuffle().repeat()


def packed() -> Dataset:
    docs = [{"tokens": np.full(1 + i % 7, i, np.int32)} for i in range(90)]
    return Dataset(docs).shuffle().pack({"tokens": 8}).lanes(2).repeat()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two processes of one gloo group saw."""
    rendezvous = f"file://{tmp_path_factory.mktemp('gloo') / 'store'}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", _PROCESS, str(rank), rendezvous],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    outputs = [p.communicate(timeout=120) for p in processes]
    assert all(p.returncode == 0 for p in processes), [e.decode()[-2000:] for _, e in outputs]
    return [json.loads(out.splitlines()[-1]) for out, _ in outputs]


DATASETS = {"indexed": plain, "counted": packed}


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("name", DATASETS)
def test_rows_are_split_and_together_the_serial_batch(name: str, ranks: Any) -> None:
    alone = Loader(DATASETS[name](), 8)
    for first, second in zip(ranks[0][name], ranks[1][name], strict=True):
        assert len(first) == len(second) == 4
        assert first + second == next(alone)["tokens"].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("name", DATASETS)
def test_every_rank_holds_the_whole_state(name: str, ranks: Any) -> None:
    state = ranks[0][f"{name} state"]
    assert state == ranks[1][f"{name} state"]
    alone, resumed = (Loader(DATASETS[name](), 8, feed=TorchFeed()) for _ in range(2))
    _ = [next(alone) for _ in range(5)]
    assert alone.state_dict() == state
    resumed.load_state_dict(state)
    for _ in range(12):
        assert torch.equal(next(resumed)["tokens"], next(alone)["tokens"])


@pytest.mark.slow
def test_mesh_dims_that_do_not_split_data_share_rows(ranks: Any) -> None:
    alone = Loader(packed(), 8, feed=TorchFeed())
    expected = [next(alone)["tokens"].tolist() for _ in range(3)]
    assert ranks[0]["tensor"] == ranks[1]["tensor"] == expected
    both = zip(ranks[0]["shard"], ranks[1]["shard"], strict=True)
    assert [a + b for a, b in both] == expected
    states = [rank[f"{name} state"] for rank in ranks for name in ("tensor", "shard")]
    assert states == [alone.state_dict()] * 4


@pytest.mark.slow
def test_only_rank_0_is_primary(ranks: Any) -> None:
    assert [rank["primary"] for rank in ranks] == [True, False]


@pytest.mark.slow
def test_mistakes_are_named(ranks: Any) -> None:
    for rank in ranks:
        assert "2 torch processes are running" in rank["untold"]
        assert "Use feed=TorchFeed()" in rank["untold"]
        assert "was process 0 of 1 when its Loader was made" in rank["early"]
        assert "batch of 7 rows does not split over 2 torch processes" in rank["odd"]
        assert "lanes" in rank["lanes"]
        assert "2" in rank["lanes"]


@pytest.mark.slow
def test_ddp_steps_as_one_process_would(ranks: Any) -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(8, 1, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    loader = Loader(packed(), 8, feed=TorchFeed())
    for _ in range(4):
        optimizer.zero_grad()
        model(next(loader)["tokens"].double()).pow(2).mean().backward()
        optimizer.step()
    assert ranks[0]["weights"] == ranks[1]["weights"]
    np.testing.assert_allclose(ranks[0]["weights"], model.weight.tolist(), rtol=1e-12)


def test_a_feed_that_changes_its_place_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = TorchFeed()
    feed.rows(8)
    monkeypatch.setattr(feed, "_place", lambda: (1, 2))
    with pytest.raises(HostsError, match="process 0 of 1 when its Loader was made, and is 1 of 2"):
        feed.rows(8)
