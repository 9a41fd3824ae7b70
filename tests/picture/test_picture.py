"""A dataset as a graph: every source, join and stage once, in text, SVG and HTML."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from pipeline import Dataset, Loader, mix, zip_datasets
from pipeline.errors import OptionError


def chain() -> Dataset:
    web = Dataset([np.arange(i % 7 + 1) for i in range(40)], seed=3).shuffle().pack(8)
    books = Dataset([{"tokens": np.arange(8)}] * 9).filter(lambda r: True, name="<odd> & long")
    books = books.map(lambda r: r, name="first").map(lambda r: r, name="second")
    both = mix({"web": web, "books": books}, {"web": 2, "books": 1}, stop="never")
    return both.random_map(lambda r, rng: r, name="noise")


def test_every_box_is_there_once_in_its_order() -> None:
    shown = repr(chain().visualize())
    names = ["shuffle 'shuffle'", "pack 'split'", "<odd> & long", "first", "second", "mix", "noise"]
    assert [shown.count(name) for name in names] == [1] * len(names)
    places = [shown.index(name) for name in names]
    assert places == sorted(places)
    assert "seed 3, path web" in shown
    assert "rows counted as they come" in shown
    assert "9 rows" in shown
    cached = Dataset(range(4)).map(str, name="slow").cache().shuffle().repeat()
    lines = repr(cached.visualize()).splitlines()
    assert [line.split()[1] for line in lines[1:]] == ["map", "cache", "shuffle", "repeat"]
    assert "endless" in lines[-1]
    zipped = zip_datasets({"a": Dataset(range(4)), "b": Dataset(["xyzu"] * 4)})
    assert repr(zipped.visualize()).count("MemorySource") == 2


def test_a_stage_that_fails_is_drawn_without_its_spec() -> None:
    def fails(row: object) -> object:
        raise ZeroDivisionError

    lines = repr(Dataset(range(4)).map(fails).visualize()).splitlines()
    assert lines[1].split() == ["↓", "map", "'fails'", "4", "rows"]


def test_drawings_are_whole_and_escaped(tmp_path: Path) -> None:
    picture = chain().visualize()
    root = ElementTree.fromstring(picture.svg())
    boxes = [e for e in root.iter() if e.tag.endswith("rect")]
    arrows = [e for e in root.iter() if e.tag.endswith("path") and e.get("d", "").startswith("M ")]
    assert (len(boxes), len(arrows)) == (9, 8)
    view = [float(x) for x in root.get("viewBox", "").split()]
    for box in boxes:
        x, y, w, h = (float(box.get(k, "")) for k in ("x", "y", "width", "height"))
        assert x >= 0
        assert y >= 0
        assert x + w <= view[2]
        assert y + h <= view[3]
    page = picture.html()
    assert "<odd>" not in page
    assert "&lt;odd&gt; &amp; long" in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")
    for name in ("a.svg", "a.html", "a.txt"):
        picture.save(tmp_path / name)
        assert "noise" in (tmp_path / name).read_text()
    with pytest.raises(OptionError, match=r"\.svg, \.html or \.txt"):
        picture.save(tmp_path / "a.png")


def test_notebooks_show_datasets_loaders_and_stats() -> None:
    ds = Dataset({"x": np.arange(8)}).map(lambda r: r, name="<b>")
    loader = Loader(ds, 4)
    assert "<table" not in loader._repr_html_()
    list(loader)
    for shown in (ds._repr_html_(), loader._repr_html_(), loader.stats()._repr_html_()):
        assert "&lt;b&gt;" in shown
        assert "'<b>'" not in shown
    assert "Limit:" in loader._repr_html_()


def test_prometheus_reads_stats() -> None:
    loader = Loader(Dataset(range(8)).map(lambda x: x, name='a "b"\\c'), 4)
    list(loader)
    lines = loader.stats().prometheus(run="x\ny").splitlines()
    assert 'lockstep_rows_total{run="x\\ny"} 8' in lines
    assert 'lockstep_stage_rows_total{run="x\\ny",stage="source"} 8' in lines
    stage = "stage 0: map 'a \\\"b\\\"\\\\\\\\c'"
    assert f'lockstep_stage_rows_total{{run="x\\ny",stage="{stage}"}} 8' in lines
    kinds = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(kinds) == len(set(kinds))
    assert "lockstep_rows_total 0" in Loader(Dataset(range(8)), 4).stats().prometheus()
