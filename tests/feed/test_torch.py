"""TorchFeed: tensors over the batch's own memory, dtypes that torch lacks, one state for DCP."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest

from pipeline import Dataset, Loader, TorchFeed, mix
from pipeline.debug.digest import digest
from pipeline.errors import BatchError, FeedError, MismatchError, MissingExtraError, StateError

torch = pytest.importorskip("torch", reason="needs the extra: pip install 'lockstep-data[torch]'")

DTYPES = "?bBhHiIlLefdFD"  # bool, integers of 8 to 64 bits, floats and complexes


class Pair(NamedTuple):
    a: Any
    b: Any


def test_batches_equal_those_without_a_feed() -> None:
    columns = {"x": np.arange(24, dtype=np.float32).reshape(12, 2), "y": np.arange(12)}
    ds = Dataset(columns).shuffle().repeat(2)
    for batch, plain in zip(Loader(ds, 5, feed=TorchFeed()), Loader(ds, 5), strict=True):
        assert isinstance(batch["x"], torch.Tensor)
        assert digest({k: v.numpy() for k, v in batch.items()}) == digest(plain)


@pytest.mark.parametrize("code", DTYPES)
def test_memory_is_shared_for_every_dtype(code: str) -> None:
    a = np.ones((4, 3), code)
    t = TorchFeed().put(a, np.arange(4), 4)
    assert t.data_ptr() == a.ctypes.data
    assert str(t.dtype) == f"torch.{a.dtype.name}"


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_ml_dtypes_keep_their_bits(name: str) -> None:
    a = np.array([1.5, -2.0], getattr(ml_dtypes, name))
    t = TorchFeed().put(a, np.arange(2), 2)
    assert t.data_ptr() == a.ctypes.data
    assert t.float().tolist() == [1.5, -2.0]


@pytest.mark.parametrize("kind", [torch.zeros, np.zeros])
def test_a_collate_may_fill_one_buffer_again(kind: Any) -> None:
    buffer = kind(4)

    def collate(rows: list[Any]) -> Any:
        for i, row in enumerate(rows):
            buffer[i] = row
        return {"x": buffer, "nested": [{"x": buffer}]}

    loader = Loader(Dataset(range(16)), 4, collate=collate, feed=TorchFeed(prefetch=2))
    wanted = np.arange(16).reshape(4, 4).tolist()
    assert [batch["x"].tolist() for batch in loader] == wanted
    assert [batch["nested"][0]["x"].tolist() for batch in loader] == wanted


def test_a_loaders_batches_are_writable_and_nobody_elses() -> None:
    records = np.arange(8, dtype=np.float32)
    loader = Loader(Dataset({"x": records}), 8, feed=TorchFeed())
    first = next(loader)["x"]
    first += 100
    assert next(loader)["x"].tolist() == list(range(8)) == records.tolist()


def test_what_cannot_be_shared_is_copied() -> None:
    read_only = np.arange(3)
    read_only.flags.writeable = False
    cases = [read_only, np.arange(3)[::-1], np.arange(3, dtype=">i4"), np.float64(2.5)]
    tensors = [TorchFeed().put(a, np.arange(3), 3) for a in cases]
    assert [t.tolist() for t in tensors] == [np.asarray(a).tolist() for a in cases]
    tensors[0][0] = 9
    assert read_only[0] == 0


def test_objects_become_lists_and_containers_stay() -> None:
    rows = [{"s": "a", "b": b"\0", "p": Pair(1, (2.0, None))}] * 2
    batch = next(Loader(Dataset(rows), 2, feed=TorchFeed()))
    assert batch["s"] == ["a", "a"]
    assert batch["b"] == [b"\0", b"\0"]
    assert isinstance(batch["p"], Pair)
    assert batch["p"].a.tolist() == [1, 1]
    assert batch["p"].b[1] == [None, None]
    kept = Loader(Dataset(rows), 2, feed=TorchFeed(), collate=lambda rows: {"n": len(rows)})
    assert next(kept) == {"n": 2}


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (
            np.zeros(2, "datetime64[s]"),
            r"field 't' holds datetime64\[s\], which torch lacks.*int64",
        ),
        (np.zeros(2, "timedelta64[s]"), "astype"),
        (np.zeros(2, np.longdouble), "float64"),
        (np.zeros(2, np.clongdouble), "complex128"),
        (np.zeros(2, "i4,f8"), "each of its fields"),
        (np.array(["a", "b"]), "object array"),
        (np.array([b"a", b"b"]), "object array"),
        (np.zeros(2, ml_dtypes.int4), r"int4.*Convert it"),
        (np.zeros(2, "V3"), r"\|V3.*Convert it"),
    ],
)
def test_dtypes_that_torch_lacks_are_named(values: Any, says: str) -> None:
    with pytest.raises(FeedError, match=says):
        TorchFeed().put({"x": np.zeros(2), "t": values}, np.arange(2), 2)


def test_wrong_options_are_refused() -> None:
    with pytest.raises(FeedError, match="prefetch=-1"):
        TorchFeed(prefetch=-1)
    with pytest.raises(FeedError, match="device='gpu'"):
        TorchFeed("gpu")
    with pytest.raises(FeedError, match="without mesh="):
        TorchFeed(dims="dp")


def test_missing_torch_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"lockstep-data\[torch\]"):
        TorchFeed()


def test_other_devices_get_every_tensor() -> None:
    # meta tensors have no memory, but take the way of any device
    ds = Dataset({"x": np.arange(8, dtype=np.float32), "s": list("abcdefgh")})
    batch = next(Loader(ds, 4, feed=TorchFeed("meta")))
    assert (batch["x"].device.type, batch["x"].shape) == ("meta", (4,))
    assert batch["s"] == list("abcd")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_batches_arrive_whole() -> None:
    ds = Dataset({"x": np.arange(1 << 22, dtype=np.float32).reshape(64, -1)}).shuffle().repeat()
    fed, plain = Loader(ds, 16, feed=TorchFeed("cuda", prefetch=3)), Loader(ds, 16)
    for _ in range(20):
        batch = next(fed)["x"]
        assert batch.is_cuda
        assert np.array_equal((batch * 2).cpu().numpy(), next(plain)["x"] * 2)


def test_state_is_the_consumers() -> None:
    loader = Loader(Dataset({"x": np.arange(64)}).repeat(), 4, feed=TorchFeed(prefetch=5))
    next(loader)
    assert loader.state_dict()["rows"] == 4


def checkpoint(save: Loader, load: Loader, folder: Path) -> None:
    """Through torch.distributed.checkpoint, as torchtitan saves its Stateful objects."""
    from torch.distributed.checkpoint.state_dict_loader import load as restore
    from torch.distributed.checkpoint.state_dict_saver import save as write

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        write({"loader": save}, checkpoint_id=folder)
        restore({"loader": load}, checkpoint_id=folder)


@pytest.mark.parametrize("counted", [False, True])
def test_torch_checkpoints_keep_skips(counted: bool, tmp_path: Path) -> None:
    ds = Dataset({"x": np.arange(100)}).shuffle()
    ds = ds.filter(lambda row: row["x"] % 3 > 0).repeat() if counted else ds

    def fresh() -> Loader:
        return Loader(ds, 4, feed=TorchFeed())

    loader = fresh()
    _ = [next(loader) for _ in range(3)]
    loader.skip(range(5, 7))
    restored = fresh()
    checkpoint(loader, restored, tmp_path)
    assert restored.state_dict() == loader.state_dict()
    for _ in range(5):
        assert restored.step == loader.step
        assert next(restored)["x"].tolist() == next(loader)["x"].tolist()


def test_torch_checkpoints_keep_places_in_mixes(tmp_path: Path) -> None:
    parts = {
        "a": Dataset({"x": np.arange(100)}).shuffle().filter(lambda row: bool(row["x"] % 3)),
        "b": Dataset({"x": np.arange(1000, 1100)}),
    }
    ds = mix(parts, {"a": 1, "b": 1}, "never")
    loader, restored = (Loader(ds, 4, feed=TorchFeed()) for _ in range(2))
    _ = [next(loader) for _ in range(7)]
    loader.skip(range(9, 11), records=("a", 3))
    checkpoint(loader, restored, tmp_path)
    assert restored.state_dict() == loader.state_dict()
    for _ in range(5):
        assert next(restored)["x"].tolist() == next(loader)["x"].tolist()


def test_a_state_that_lost_its_skips_is_refused(tmp_path: Path) -> None:
    # without the feed, a fresh state lacks the field, and the checkpointer asks for no other
    ds = Dataset({"x": np.arange(100)})
    loader, fresh = Loader(ds, 4), Loader(ds, 4)
    loader.skip(range(5, 7))
    with pytest.raises(StateError, match=r"lost its fields .*'skips'"):
        checkpoint(loader, fresh, tmp_path)
    assert fresh.step == 0


def _ten() -> Dataset:
    return Dataset(list(range(10)), seed=1)


OTHERS = {
    "a stage gone": (lambda: _ten().shuffle(), _ten, r"stage 0: gone \(shuffle\)"),
    "a stage added": (_ten, lambda: _ten().shuffle(), r"stage 0: added \(shuffle\)"),
    "errors": (lambda: _ten().on_error("skip"), _ten, "on_error: gone"),
    "a filter gone": (lambda: _ten().filter(bool), _ten, r"lanes: gone"),
    "a filter added": (_ten, lambda: _ten().filter(bool), r"lanes: added"),
    "a part's stage": (
        lambda: mix({"a": _ten().shuffle(), "b": _ten()}, {"a": 1, "b": 1}),
        lambda: mix({"a": _ten(), "b": _ten()}, {"a": 1, "b": 1}),
        r"a\.stage 0: gone",
    ),
}


@pytest.mark.parametrize("case", OTHERS)
def test_torch_checkpoints_of_another_dataset_are_refused(case: str, tmp_path: Path) -> None:
    # they restore only the keys of a fresh state: those that are gone since must be noticed
    was, now, told = OTHERS[case]
    loader, other = (Loader(ds(), 2, feed=TorchFeed()) for ds in (was, now))
    next(loader)
    with pytest.raises(MismatchError, match=told):
        checkpoint(loader, other, tmp_path)
    assert other.step == 0


@pytest.mark.parametrize("case", [case for case in OTHERS if "added" not in case])
def test_so_are_those_of_a_loader_without_a_feed(case: str, tmp_path: Path) -> None:
    was, now, _ = OTHERS[case]
    loader, other = Loader(was(), 2), Loader(now(), 2)
    next(loader)
    with pytest.raises(StateError, match=r"lost its fields \['dataset'.*feed=TorchFeed"):
        checkpoint(loader, other, tmp_path)


def test_torch_checkpoints_of_a_mix_that_grew_restore(tmp_path: Path) -> None:
    parts = {name: _ten().shuffle() for name in "abc"}
    two = {name: parts[name] for name in "ab"}
    loader = Loader(mix(two, {"a": 1, "b": 1}, "never"), 4, feed=TorchFeed())
    next(loader)
    later = [(0, {"a": 1, "b": 1}), (4, {"a": 1, "b": 1, "c": 2})]
    grown = Loader(mix(parts, later, "never"), 4, feed=TorchFeed())
    checkpoint(loader, grown, tmp_path)
    assert [row.component for row in grown.where(1)].count("c") == 2


def test_states_travel_between_feeds() -> None:
    ds = Dataset({"x": np.arange(32)}).shuffle()
    plain, fed = Loader(ds, 4), Loader(ds, 4, feed=TorchFeed())
    next(plain)
    fed.load_state_dict(json.loads(json.dumps(plain.state_dict())))
    assert next(fed)["x"].tolist() == next(plain)["x"].tolist()
    plain.load_state_dict(json.loads(json.dumps(fed.state_dict())))
    assert next(fed)["x"].tolist() == next(plain)["x"].tolist()


def test_torch_save_needs_no_trust(tmp_path: Path) -> None:
    loader = Loader(
        Dataset({"x": np.arange(32)}).filter(lambda row: row["x"] > 2), 4, feed=TorchFeed()
    )
    next(loader)
    torch.save(loader.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state == loader.state_dict()


class Mesh:
    """What TorchFeed asks of a DeviceMesh, standing at one coordinate."""

    def __init__(self, names: tuple[str, ...], shape: tuple[int, ...], at: tuple[int, ...]) -> None:
        self.mesh_dim_names, self._shape, self._at, self.ndim = names, shape, at, len(shape)

    def size(self, dim: int) -> int:
        return self._shape[dim]

    def get_local_rank(self, dim: int) -> int:
        return self._at[dim]


NAMES = ("pp", "dp_replicate", "dp_shard", "tp")


@pytest.mark.parametrize("other", [0, 1])
def test_a_meshs_data_dims_decide_the_rows(other: int) -> None:
    dims = ("dp_replicate", "dp_shard")
    parts = [
        TorchFeed(mesh=Mesh(NAMES, (2, 2, 3, 2), (other, r, s, other)), dims=dims).rows(12).tolist()
        for r in range(2)
        for s in range(3)
    ]
    assert [row for part in parts for row in part] == list(range(12))
    alone = TorchFeed(mesh=Mesh(("dp",), (3,), (1,)))
    assert (alone.hosts, alone.rows(6).tolist()) == (3, [2, 3])


def test_mesh_errors_name_its_dims() -> None:
    mesh = Mesh(NAMES, (2, 2, 3, 2), (0, 0, 0, 0))
    with pytest.raises(FeedError, match=r"the mesh has 4 dims .*'dp_shard'"):
        TorchFeed(mesh=mesh)
    with pytest.raises(FeedError, match="not among"):
        TorchFeed(mesh=mesh, dims="dp")
    with pytest.raises(BatchError, match="batch of 8 rows does not split over 6 torch processes"):
        TorchFeed(mesh=mesh, dims=["dp_replicate", "dp_shard"]).rows(8)
