"""Ray Train: a run with two workers goes on with four, then with one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.compat.ranks import BATCH, PASS, RANKS, STEPS, dataset, expected

pytest.importorskip("torch", reason="needs the extra: pip install 'lockstep-data[torch]'")
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's, not ours


def train(config: dict[str, Any]) -> None:
    import ray.train

    from pipeline.compat.ray_train import make_loader, report

    loader = make_loader(dataset(), BATCH, steps=PASS)
    rank = ray.train.get_context().get_world_rank()
    seen = [next(loader)["tokens"].tolist() for _ in range(STEPS)]
    Path(config["folder"], f"{config['stage']}.{rank}.json").write_text(json.dumps(seen))
    report({"step": loader.step}, loader)


@pytest.mark.long
def test_ray_train_goes_on_with_another_number_of_workers(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs the extra: pip install 'lockstep-data[ray]'")
    import ray
    import ray.train
    import ray.train.torch

    joined: list[Any] = []
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    try:
        for stage, workers in enumerate(RANKS):
            trainer = ray.train.torch.TorchTrainer(
                train,
                train_loop_config={"folder": str(tmp_path), "stage": stage},
                scaling_config=ray.train.ScalingConfig(num_workers=workers),
                run_config=ray.train.RunConfig(storage_path=str(tmp_path / "ray"), name="run"),
            )
            trainer.fit()
            files = [tmp_path / f"{stage}.{rank}.json" for rank in range(workers)]
            parts = [json.loads(file.read_text()) for file in files]
            joined += [[row for part in step for row in part] for step in zip(*parts, strict=True)]
    finally:
        ray.shutdown()
    assert joined == expected()
