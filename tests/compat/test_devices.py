"""tunix and MaxText on 2, 4, then 1 devices: the same global batches, resumed by arithmetic."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipeline import Dataset, Loader
from pipeline.compat import maxtext
from pipeline.errors import ChainError
from tests.compat.ranks import BATCH, LENGTH, RANKS, ROOT, STEPS, dataset, expected, peer

jax = pytest.importorskip("jax", reason="needs the extra: pip install 'lockstep-data[jax]'")

FIELDS = ("tokens", "segment_ids", "positions")


def endless() -> list[Any]:
    """The global batches of all stages where a pass never ends."""
    loader = Loader(dataset(), BATCH)
    return [next(loader)["tokens"].tolist() for _ in range(STEPS * len(RANKS))]


def on_devices(code: str, env: dict[str, str], *arguments: object) -> Any:
    """What a script prints that sees four devices."""
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env=env | flags,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert not done.returncode, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


TUNIX = """
import json, sys
import jax, numpy as np, optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tunix.sft.peft_trainer import PeftTrainer, TrainingConfig
from pipeline import JaxFeed, Loader
from pipeline.compat.tunix import TrainingData
from tests.compat.ranks import BATCH, RANKS, STEPS, dataset

seen = []

class Seeing(PeftTrainer):
    def _prepare_inputs(self, x):
        seen.append(np.asarray(x.input_tokens).tolist())
        return x

class Model(nnx.Module):
    def __init__(self, mesh):
        everywhere = NamedSharding(mesh, PartitionSpec())
        self.scale = nnx.Param(jax.device_put(jax.numpy.ones(()), everywhere))

def train(devices, until):
    mesh = Mesh(np.array(jax.devices()[:devices]), ("fsdp",))
    feed = JaxFeed(NamedSharding(mesh, PartitionSpec("fsdp")), prefetch=0)
    loader = Loader(dataset(), BATCH, feed=feed)
    config = TrainingConfig(
        eval_every_n_steps=1000, max_steps=until, checkpoint_root_directory=sys.argv[1]
    )
    trainer = Seeing(Model(mesh), optax.adam(1e-6), config)
    trainer = trainer.with_loss_fn(
        lambda model, input_tokens, input_mask: (model.scale * input_mask).mean()
    )
    trainer = trainer.with_gen_model_input_fn(
        lambda x: {"input_tokens": x.input_tokens, "input_mask": x.input_mask}
    )
    with mesh:
        trainer.train(TrainingData(loader, trainer))
    trainer.close()

for stage, devices in enumerate(RANKS):
    train(devices, STEPS * (stage + 1))
print(json.dumps(seen))
"""


@pytest.mark.long
def test_tunix_goes_on_at_its_own_step_on_any_number_of_devices(tmp_path: Path) -> None:
    assert on_devices(TUNIX, peer("tunix"), tmp_path) == endless()


# ---- MaxText: against its documented seam, as its package wants a newer Python and TensorFlow

MAXTEXT = """
import asyncio, json, sys, types
from types import SimpleNamespace
import jax, numpy as np
from orbax.checkpoint.experimental import v1 as ocp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from pipeline.compat import maxtext
from tests.compat.ranks import BATCH, LENGTH, RANKS, STEPS

sharding = types.ModuleType("maxtext.utils.sharding")
sharding.get_input_data_sharding = lambda config, mesh: NamedSharding(mesh, PartitionSpec("data"))
sys.modules["maxtext.utils.sharding"] = sharding
interface = SimpleNamespace(make_grain_train_iterator=None, make_grain_eval_iterator=None)
interface.make_grain_train_iterator = interface.make_grain_eval_iterator = lambda *a: "grain's own"
maxtext.install(interface)
config = SimpleNamespace(
    grain_train_files="tests.compat.ranks:dataset", grain_eval_files="gs://eval/*.array_record",
    max_target_length=LENGTH, global_batch_size_to_load=BATCH,
)
assert interface.make_grain_eval_iterator(config, None, [0]) == "grain's own"
seen = []
for stage, devices in enumerate(RANKS):
    mesh = Mesh(np.array(jax.devices()[:devices]), ("data",))
    it = interface.make_grain_train_iterator(config, mesh, [0])
    if stage:
        ocp.load_checkpointables(f"{sys.argv[1]}/{stage - 1}", {"iter": it})
    for _ in range(STEPS):
        batch = next(it)
        assert len(batch["inputs"].sharding.device_set) == devices
        seen.append(np.concatenate([batch["inputs"], batch["targets"][:, -1:]], axis=1).tolist())
        same = np.asarray(batch["targets_segmentation"]) > 0
        assert (np.asarray(batch["inputs_segmentation"])[same] > 0).all()
    ocp.save_checkpointables(f"{sys.argv[1]}/{stage}", {"iter": it})
print(json.dumps(seen))
"""


@pytest.mark.long
def test_maxtext_goes_on_from_orbax_on_any_number_of_devices(tmp_path: Path) -> None:
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    assert on_devices(MAXTEXT, env, tmp_path) == endless()


def test_another_maxtext_is_named() -> None:
    with pytest.raises(ChainError, match="no make_grain_train_iterator"):
        maxtext.install(SimpleNamespace())


def test_maxtext_s_targets_stop_where_documents_do() -> None:
    batch = {
        "tokens": np.array([[5, 6, 7, 0]]),
        "segment_ids": np.array([[1, 1, 2, 0]]),
        "positions": np.array([[0, 1, 0, 0]]),
    }
    found = maxtext.columns(batch)
    assert found["targets"].tolist() == [[6, 7, 0]]
    assert found["targets_segmentation"].tolist() == [[1, 0, 0]]
    assert found["inputs_segmentation"].tolist() == [[1, 1, 2]]


def test_maxtext_s_evaluation_ends_with_a_pass_and_begins_anew() -> None:
    # where eval_steps is not set, MaxText goes on until the iterator ends
    ds = Dataset({name: np.arange(40).reshape(10, 4) for name in FIELDS}, seed=1).shuffle()
    held, trained = (maxtext.MaxTextIterator(Loader(ds, 4), one_pass=one) for one in (True, False))
    passes: list[Any] = []
    for _ in range(2):
        held.reset()
        passes.append([batch["inputs"].tolist() for batch in held])
    assert passes[0] == passes[1] == [next(trained)["inputs"].tolist() for _ in range(3)]
    assert len(next(trained)["inputs"]) == 4  # of the next pass


@pytest.mark.parametrize(("most", "steps"), [(None, 6), (8, 8)])
def test_tunix_ends_at_max_steps_or_with_a_pass(
    most: int | None, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainers = ModuleType("tunix.sft.peft_trainer")
    vars(trainers)["TrainingInput"] = SimpleNamespace
    for name in ("tunix", "tunix.sft"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "tunix.sft.peft_trainer", trainers)
    monkeypatch.delitem(sys.modules, "pipeline.compat.tunix", raising=False)
    tunix = importlib.import_module("pipeline.compat.tunix")
    monkeypatch.delitem(sys.modules, "pipeline.compat.tunix")
    ds = Dataset({name: np.arange(12).reshape(6, 2) for name in FIELDS}).repeat(2)
    done: list[Any] = []
    for begun in (0, 2, 6):  # the trainer passes over what it has trained on
        trainer = SimpleNamespace(iter_steps=begun, config=SimpleNamespace(max_steps=most))
        batches = itertools.islice(tunix.TrainingData(Loader(ds, 2), trainer), 8)
        done.append([None if b is None else b.input_tokens.tolist() for b in batches])
    assert [len(found) for found in done] == [steps] * 3
    assert done[1] == [None] * 2 + done[0][2:]
    assert done[2] == [None] * 6 + done[0][6:]


def test_the_expected_batches_are_of_many_documents() -> None:
    # the stages would agree of one document too
    tokens = np.array(expected())
    assert tokens.shape == (STEPS * len(RANKS), BATCH, LENGTH + 1)
    assert len(np.unique(tokens)) > 100
