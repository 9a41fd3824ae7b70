"""What the doctor examines: small loaders of other projects, as their documentation makes them."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
from __future__ import annotations

import os
import tempfile
from typing import Any

import numpy as np

N = 96


class Numbers:
    """A dataset as torch and Grain know them."""

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> dict[str, int]:
        return {"id": int(index)}

    def __repr__(self) -> str:
        return "Numbers()"  # Grain's state holds it: the default one names an address


NUMBERS: Any = Numbers()

# ---- Lockstep


def lockstep(workers: int = 0, host: int = 0, hosts: int = 1) -> Any:
    from pipeline import Dataset, Loader

    ds = Dataset({"id": np.arange(N)}, seed=1).shuffle()
    return Loader(ds, 8, workers=workers, host=host, hosts=hosts)


def lockstep_packed_mix(workers: int = 0, host: int = 0, hosts: int = 1) -> Any:
    from pipeline import Dataset, Loader, mix

    def packed(seed: int) -> Dataset:
        documents = [{"id": np.full(1 + i % 7, i, np.int32)} for i in range(4 * N)]
        return Dataset(documents, seed=seed).shuffle().pack({"id": 16})

    ds = mix({"a": packed(1), "b": packed(2)}, {"a": 2, "b": 1}, stop="never").lanes(4)
    return Loader(ds, 8, steps=30, workers=workers, host=host, hosts=hosts)


# ---- datasets


def datasets_stream() -> Any:
    import datasets

    return datasets.Dataset.from_dict({"id": list(range(N))}).to_iterable_dataset(num_shards=4)


def datasets_shuffled() -> Any:
    return datasets_stream().shuffle(seed=42, buffer_size=10)


def datasets_formatted() -> Any:
    return datasets_stream().with_format("numpy")


def datasets_filtered() -> Any:
    return datasets_stream().filter(lambda row: row["id"] % 3 > 0)


def datasets_mapped() -> Any:
    return datasets_stream().map(lambda row: {"twice": 2 * row["id"]})


def datasets_in_workers(workers: int = 0) -> Any:
    from torchdata.stateful_dataloader import StatefulDataLoader

    return StatefulDataLoader(datasets_stream(), batch_size=4, num_workers=workers)


# ---- torch


def torch_dataloader(workers: int = 0) -> Any:
    import torch
    from torch.utils.data import DataLoader

    seeded = torch.Generator().manual_seed(1)
    return DataLoader(NUMBERS, 4, shuffle=True, num_workers=workers, generator=seeded)


def torch_distributed(workers: int = 0, host: int = 0, hosts: int = 1) -> Any:
    from torch.utils.data import DataLoader, DistributedSampler

    sampler = DistributedSampler(NUMBERS, num_replicas=hosts, rank=host, seed=1)
    return DataLoader(NUMBERS, batch_size=8 // hosts, sampler=sampler, num_workers=workers)


def torchdata_stateful(workers: int = 0) -> Any:
    import torch
    from torchdata.stateful_dataloader import StatefulDataLoader

    seeded = torch.Generator().manual_seed(1)
    return StatefulDataLoader(NUMBERS, 4, shuffle=True, num_workers=workers, generator=seeded)


# ---- Accelerate


def _accelerated(**options: Any) -> tuple[Any, Any]:
    from accelerate import Accelerator
    from accelerate.utils import DataLoaderConfiguration
    from torch.utils.data import DataLoader

    shuffle = options.pop("shuffle", False)
    accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(**options))
    loader = DataLoader(NUMBERS, batch_size=4, shuffle=shuffle)
    return accelerator, accelerator.prepare(loader)


def accelerate_stateful(hosts: int = 1) -> Any:
    return _accelerated(use_stateful_dataloader=True)[1]


def accelerate_skipping(hosts: int = 1) -> Any:
    return _accelerated(use_seedable_sampler=True, shuffle=True)[1]


# ---- Grain


def grain_loader(workers: int = 0, host: int = 0, hosts: int = 1) -> Any:
    import grain.python as grain

    _parse_flags()
    sampler = grain.IndexSampler(
        N, grain.ShardOptions(host, hosts), shuffle=True, num_epochs=3, seed=1
    )
    batch = [grain.Batch(8 // hosts)]
    return grain.DataLoader(
        data_source=NUMBERS, sampler=sampler, worker_count=workers, operations=batch
    )


def grain_dataset(workers: int = 0, host: int = 0, hosts: int = 1) -> Any:
    import grain

    _parse_flags()
    ds = grain.MapDataset.source(NUMBERS).shuffle(seed=1)[host::hosts]
    ds = ds.batch(8 // hosts).to_iter_dataset()
    options = grain.MultiprocessingOptions(num_workers=workers)
    return ds.mp_prefetch(options) if workers else ds


def _parse_flags() -> None:
    # Grain's workers read absl's flags, which a program's `app.run(main)` parses
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["doctor"])


# ---- MosaicML and LitData, which keep files


def _folder(name: str) -> str:
    return os.path.join(tempfile.gettempdir(), f"lockstep-doctor-{name}-{os.getuid()}")


def _nms_declared() -> None:
    # torchvision's published wheel does not load its operators beside a torch without CUDA, and
    # then fails on these two names; `streaming` imports it, and its loader needs none of them
    import torch

    if not hasattr(torch.ops.torchvision, "nms"):
        _DECLARED.append(torch.library.Library("torchvision", "FRAGMENT"))
        for name in ("nms", "qnms"):
            _DECLARED[-1].define(f"{name}(Tensor dets, Tensor scores, float threshold) -> Tensor")


_DECLARED: list[Any] = []  # a declaration holds as long as its library lives


def mosaic(workers: int = 0) -> Any:
    _nms_declared()
    import streaming

    folder = _folder("mds")
    if not os.path.exists(os.path.join(folder, "index.json")):
        with streaming.MDSWriter(out=folder, columns={"id": "int"}, size_limit=400) as writer:
            for i in range(N):
                writer.write({"id": i})
    ds = streaming.StreamingDataset(local=folder, shuffle=True, batch_size=4)
    return streaming.StreamingDataLoader(ds, batch_size=4, num_workers=workers)


def litdata(workers: int = 0) -> Any:
    import litdata as lit
    from litdata.streaming import Cache

    folder = _folder("litdata")
    if not os.path.exists(os.path.join(folder, "index.json")):
        cache = Cache(folder, chunk_size=16)
        for i in range(N):
            cache[i] = {"id": i}
        cache.done()
        cache.merge()
    ds = lit.StreamingDataset(folder, shuffle=True)
    return lit.StreamingDataLoader(ds, batch_size=4, num_workers=workers)


# ---- Lightning


def lightning(workers: int = 0, estimates: bool = False) -> Any:
    import lightning as pl
    import torch
    from torchdata.stateful_dataloader import StatefulDataLoader

    class Model(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(1, 1)

        def training_step(self, batch: Any, index: int) -> Any:
            return self.linear(batch["id"].float()[:, None]).mean()

        def configure_optimizers(self) -> Any:
            # as learning rate schedules do that want to know how long training is
            assert not estimates or self.trainer.estimated_stepping_batches
            return torch.optim.SGD(self.parameters(), 0.1)

        def train_dataloader(self) -> Any:
            return StatefulDataLoader(NUMBERS, batch_size=4, num_workers=workers)

    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    options: dict[str, Any] = dict.fromkeys(quiet, False)
    return pl.Trainer(accelerator="cpu", max_epochs=9, **options), Model()


def lightning_estimated() -> Any:
    return lightning(estimates=True)


# ---- torchtitan


def torchtitan(host: int = 0, hosts: int = 1) -> Any:
    import torch
    from torchtitan.components.dataloader import ParallelAwareDataloader

    class Stream(torch.utils.data.IterableDataset):
        def __init__(self) -> None:
            self.at = 0

        def __iter__(self) -> Any:
            while self.at < N:
                self.at += hosts
                yield {"id": self.at - hosts + host}
            self.at = 0

        def state_dict(self) -> Any:
            return {"at": self.at}

        def load_state_dict(self, state: Any) -> None:
            self.at = state["at"]

    return ParallelAwareDataloader(Stream(), host, hosts, batch_size=8 // hosts)
