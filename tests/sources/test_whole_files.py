"""FilesSource: a file a record, its label, and what its fingerprint sees."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest

from pipeline import Dataset, FilesSource, Loader
from pipeline.debug.conformance import check_source
from pipeline.errors import SourceError
from pipeline.sources.storage.storage import Storage


@pytest.fixture
def images(tmp_path):
    for label in ("cat", "dog"):
        for i in range(3):
            (tmp_path / "img" / label).mkdir(parents=True, exist_ok=True)
            (tmp_path / "img" / label / f"{i}.jpg").write_bytes(f"{label} {i}".encode() * i)
    return tmp_path / "img"


def test_keeps_what_a_source_promises(images):
    source = FilesSource(images / "**/*.jpg")
    check_source(source, samples=20)
    assert source.chunk_bounds.tolist() == list(range(7))
    assert [fact["bytes"] for fact in source.layout()] == [0, 5, 10, 0, 5, 10]
    assert source.where(np.array([4])) == [(f"{images}/dog/1.jpg", 0)]


def test_a_glob_is_enough_and_where_names_the_file(images):
    shutil.copy(images / "cat" / "1.jpg", images / "dog" / "9.PNG")
    assert len(Dataset(images / "*/*.jpg")) == 6
    ds = Dataset(str(images / "**/*.*"))
    rows = list(ds)
    assert rows[1] == {"path": f"{images}/cat/1.jpg", "bytes": b"cat 1"}
    assert rows[-1] == {"path": f"{images}/dog/9.PNG", "bytes": b"cat 1"}
    loader = Loader(ds, 4, collate=list)
    assert next(loader)[2]["bytes"] == b"cat 2cat 2"
    assert f"{images}/cat/2.jpg" in str(loader.where(0))


def test_labels_are_folders(images):
    rows = FilesSource(images / "**/*.jpg", label=True).read(np.array([5, 0]))
    assert [row["label"] for row in rows] == ["dog", "cat"]
    with pytest.raises(Exception, match="label='yes': give True or False"):
        FilesSource(images / "**/*.jpg", label="yes")  # pyright: ignore[reportArgumentType]


def test_the_fingerprint_sees_names_folders_and_contents_but_no_place(images, tmp_path):
    def digest(folder, **options):
        return FilesSource(folder / "**/*.jpg", **options).fingerprint()

    first = digest(images)
    assert digest(images, label=True) != first
    moved = tmp_path / "elsewhere" / "img"
    moved.parent.mkdir()
    images.rename(moved)
    assert digest(moved) == first
    (moved / "dog").rename(moved / "wolf")
    assert digest(moved) != first
    (moved / "wolf").rename(moved / "dog")
    (moved / "dog" / "1.jpg").write_bytes(b"DOG 1")
    assert digest(moved) != first


def test_urls(images):
    for path in images.rglob("*.jpg"):
        Storage().write(f"memory://whole/{path.parent.name}/{path.name}", path.read_bytes())
    far, near = FilesSource("memory://whole/**/*.jpg"), FilesSource(images / "**/*.jpg")
    every = np.arange(6)
    assert [r["bytes"] for r in far.read(every)] == [r["bytes"] for r in near.read(every)]
    assert far.fingerprint() == near.fingerprint()


def test_what_was_replaced_or_removed_names_itself(images):
    source = FilesSource(images / "**/*.jpg")
    (images / "cat" / "1.jpg").write_bytes(b"another")
    with pytest.raises(SourceError, match=r"cat/1\.jpg has changed"):
        source.read(np.array([1]))
    os.remove(images / "cat" / "2.jpg")
    with pytest.raises(SourceError, match=r"cat/2\.jpg"):
        source.read(np.array([2]))
    assert source.read(np.array([4]))[0]["bytes"] == b"dog 1"
