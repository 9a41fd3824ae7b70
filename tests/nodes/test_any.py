"""Every node, under and over every other one: datasets at random."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings

from pipeline.errors import StreamEndError
from tests import datasets
from tests.nodes.checks import check_indexed, check_streamed


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> datasets.Files:
    return datasets.Files(tmp_path_factory.mktemp("files"))


@pytest.mark.long
@settings(max_examples=150, deadline=None)
@given(recipe=datasets.indexed())
def test_indexed_datasets(files: datasets.Files, recipe: Any) -> None:
    ds = datasets.build(files, recipe)
    if len(ds):
        check_indexed(ds)


@pytest.mark.long
@settings(max_examples=100, deadline=None)
@given(recipe=datasets.counted())
def test_streamed_datasets(files: datasets.Files, recipe: Any) -> None:
    ds = datasets.build(files, recipe)
    if ds.top.streamed:
        try:
            check_streamed(ds, rows=30)
        except StreamEndError:
            assert not datasets.gives_rows(ds)
