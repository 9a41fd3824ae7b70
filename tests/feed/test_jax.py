"""JaxFeed: rows read off the sharding, on several devices of a process and on several processes."""

from __future__ import annotations

import copy
import json
import os
import socket
import subprocess
import sys
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from pipeline import Dataset, JaxFeed, Loader
from pipeline.debug.digest import digest
from pipeline.errors import BatchError, FeedError, HostsError

jax = pytest.importorskip("jax")


def feed(prefetch: int = 2) -> JaxFeed:
    return JaxFeed(jax.sharding.SingleDeviceSharding(jax.devices()[0]), prefetch=prefetch)


@pytest.mark.parametrize("wrong", [None, "data", 4])
def test_what_is_no_sharding_is_refused(wrong: Any) -> None:
    with pytest.raises(FeedError, match=r"give a sharding of jax, as NamedSharding\(mesh"):
        JaxFeed(wrong)
    assert repr(feed()).startswith("JaxFeed(SingleDeviceSharding(")


SMALL = ["float8_e4m3fn", "float8_e4m3", "float8_e8m0fnu", "float8_e5m2fnuz", "float4_e2m1fn"]


@pytest.mark.parametrize("name", ["bfloat16", *SMALL, "int4", "uint4", "int2"])
def test_small_numbers_that_jax_has_are_taken(name: str) -> None:
    rows = np.ones((4, 2), getattr(ml_dtypes, name))
    batch = next(Loader(Dataset(list(rows)), 4, feed=feed()))
    assert batch.dtype == rows.dtype
    assert np.asarray(batch).tobytes() == rows.tobytes()


@pytest.mark.parametrize("kind", ["i4,f8", "V3", "M8[s]", object, "U2"])
def test_what_no_device_takes_is_refused(kind: Any) -> None:
    with pytest.raises(FeedError, match=r"field 'x' holds .* which no device takes"):
        feed().put({"x": np.zeros(2, kind)}, np.arange(2), 2)


def test_batches_are_global_arrays() -> None:
    ds = Dataset({"x": np.arange(24, dtype=np.int32).reshape(12, 2)}).shuffle()
    fed, plain = Loader(ds, 4, feed=feed()), Loader(ds, 4)
    for batch, expected in zip(fed, plain, strict=True):
        assert isinstance(batch["x"], jax.Array)
        assert digest(jax.device_get(batch)) == digest(expected)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.arange(4) + 2**40, r"1099511627776\.\.1099511627779, but jax takes int64 as int32"),
        (np.arange(4) * 1e300, r"0\.0\.\.3e\+300, but jax takes float64 as float32"),
        (np.arange(4) * 1e300j, "but jax takes complex128 as complex64"),
    ],
)
def test_numbers_out_of_the_range_of_jax_are_refused(values: Any, said: str) -> None:
    with pytest.raises(FeedError, match=said):
        next(Loader(Dataset({"x": values}), 4, feed=feed()))


def test_numbers_that_are_not_finite_stay_so() -> None:
    batch = next(Loader(Dataset({"x": [np.inf, -np.inf, np.nan, 1e30]}), 4, feed=feed()))
    assert batch["x"].tolist()[:2] == [np.inf, -np.inf]


def test_a_loader_with_a_feed_can_be_copied() -> None:
    loader = Loader(Dataset({"x": np.arange(12)}), 4, feed=feed())
    next(loader)
    assert next(copy.deepcopy(loader))["x"].tolist() == next(loader)["x"].tolist()


def test_a_prefetch_that_is_no_number_is_refused() -> None:
    for wrong in (None, 1.5, -1, True):
        with pytest.raises(FeedError, match="give a whole number"):
            feed(wrong)  # pyright: ignore[reportArgumentType]


def test_a_batch_on_the_device_keeps_its_values() -> None:
    # jax aliases aligned NumPy buffers on CPU: nobody else may write into them
    ds = Dataset({"x": np.arange(4096, dtype=np.float32)}).repeat()
    loader = Loader(ds, 1024, feed=feed())
    batches = [next(loader) for _ in range(8)]
    for i, batch in enumerate(batches):
        assert float(batch["x"][0]) == (i * 1024) % 4096


def test_state_is_the_consumers() -> None:
    loader = Loader(Dataset({"x": np.arange(64)}).repeat(), 4, feed=feed(prefetch=5))
    next(loader)
    assert loader.state_dict()["rows"] == 4


def test_an_error_ahead_waits_for_its_batch() -> None:
    def refuse(row: Any) -> Any:
        if row["x"] == 9:
            raise ValueError("bad record")
        return row

    ds = Dataset({"x": np.arange(16)}).map(refuse)
    loader = Loader(ds, 4, feed=feed())
    assert [int(next(loader)["x"][0]) for _ in range(2)] == [0, 4]
    with pytest.raises(ValueError, match="bad record"):
        next(loader)


def test_fields_that_no_device_takes_are_named() -> None:
    with pytest.raises(FeedError, match="field 'name' holds object"):
        next(Loader(Dataset([{"name": "a"}]), 1, feed=feed()))
    with pytest.raises(
        FeedError, match=r"'x' holds 0\.\.1099511627776, but jax takes int64 as int32"
    ):
        next(Loader(Dataset({"x": np.array([0, 1 << 40])}), 2, feed=feed()))
    with pytest.raises(HostsError, match="beside feed="):
        Loader(Dataset({"x": np.arange(4)}), 2, feed=feed(), host=0, hosts=1)


_DEVICES = """
import json, sys
import jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from pipeline import Dataset, JaxFeed, Loader
from pipeline.debug.digest import digest
from pipeline.errors import BatchError

out = []
ds = Dataset({"x": np.arange(96, dtype=np.int32).reshape(24, 4)}).shuffle()
plain = [digest(b) for b in Loader(ds, 8)]
mesh = jax.make_mesh((2, 2), ("data", "fsdp"))
for spec in (P("data"), P(("data", "fsdp")), P(None), P("data", "fsdp")):
    feed = JaxFeed(NamedSharding(mesh, spec))
    out.append([digest(jax.device_get(b)) for b in Loader(ds, 8, feed=feed)] == plain)
feed = JaxFeed(NamedSharding(mesh, P(("data", "fsdp"))))
odd = Dataset({"x": np.arange(26, dtype=np.int32)})
for size in (6, 20):
    try:
        list(Loader(odd, size, feed=feed))
        out.append(False)
    except BatchError as e:
        out.append("does not split" in str(e))
out.append(len(list(Loader(odd, 20, feed=feed, remainder="pad"))) == 2)
print(json.dumps(out))
"""


@pytest.mark.slow
def test_any_sharding_gives_the_same_rows_on_four_devices() -> None:
    env = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    done = subprocess.run([sys.executable, "-c", _DEVICES], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(json.loads(done.stdout)), done.stdout


_PROCESS = """
import json, sys
import jax, numpy as np
rank, count, port = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"127.0.0.1:{port}", count, rank)
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from pipeline import Dataset, JaxFeed, Loader
from pipeline.debug.digest import digest
from pipeline.errors import HostsError

def whole(batch):
    return multihost_utils.process_allgather(batch, tiled=True)

devices = np.array(jax.devices()).reshape(count, 1)
out = {}
data = NamedSharding(Mesh(devices, ("data", "tensor")), P("data"))
tensor = NamedSharding(Mesh(devices.T, ("data", "tensor")), P("data"))
rows = Dataset({"x": np.arange(64, dtype=np.int32)}).shuffle().repeat()
docs = [np.full(1 + i % 7, i, np.int32) for i in range(90)]
packed = Dataset(docs).shuffle().pack(8).lanes(2).repeat()
try:
    Loader(rows, 8)
except HostsError as e:
    out["untold"] = str(e)
for name, ds in (("indexed", rows), ("counted", packed)):
    feed = JaxFeed(data)
    out[name + " rows"] = len(feed.rows(8))
    loader = Loader(ds, 8, feed=feed)
    out[name] = [digest(whole(next(loader))) for _ in range(3)]
    out[name + " state"] = loader.state_dict()
everywhere = Loader(packed, 8, feed=JaxFeed(tensor))
out["tensor rows"] = len(JaxFeed(tensor).rows(8))
shards = [next(everywhere)["tokens"].addressable_data(0) for _ in range(3)]
out["tensor"] = [digest(jax.device_get(shard)) for shard in shards]
out["tensor state"] = everywhere.state_dict()
print(json.dumps(out))
"""


@pytest.mark.slow
def test_two_processes_share_rows_as_the_sharding_says() -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = [sys.executable, "-c", _PROCESS]
    processes = [
        subprocess.Popen(
            [*command, str(rank), "2", str(port)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for rank in range(2)
    ]
    outputs = [p.communicate(timeout=120) for p in processes]
    assert all(p.returncode == 0 for p in processes), [e.decode()[-2000:] for _, e in outputs]
    first, second = (json.loads(out.splitlines()[-1]) for out, _ in outputs)
    assert first == second
    assert "2 jax processes are running but this Loader was not told" in first["untold"]
    assert (first["indexed rows"], first["counted rows"], first["tensor rows"]) == (4, 4, 8)
    rows = Dataset({"x": np.arange(64, dtype=np.int32)}).shuffle().repeat()
    docs = [np.full(1 + i % 7, i, np.int32) for i in range(90)]
    packed = Dataset(docs).shuffle().pack(8).lanes(2).repeat()
    for name, ds in (("indexed", rows), ("counted", packed)):
        alone = Loader(ds, 8)
        assert first[name] == [digest(next(alone)) for _ in range(3)]
        assert first[f"{name} state"] == alone.state_dict()
        restored = Loader(ds, 8)
        restored.load_state_dict(first[f"{name} state"])
        assert digest(next(restored)) == digest(next(alone))
    alone = Loader(packed, 8)
    assert first["tensor"] == [digest(next(alone)["tokens"]) for _ in range(3)]
    assert first["tensor state"] == alone.state_dict()


def test_the_batch_must_split_over_the_devices() -> None:
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    assert JaxFeed(sharding).rows(5).tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(FeedError, match="prefetch"):
        JaxFeed(sharding, prefetch=-1)
    assert issubclass(BatchError, ValueError)
