"""Opening a folder that Hugging Face's `save_to_disk` wrote."""

from __future__ import annotations

import os
from typing import Any

from pipeline.errors import SourceError
from pipeline.sources.arrow_ipc import ArrowIpcSource
from pipeline.sources.complaints import parsed_json, parsing
from pipeline.sources.storage.files import ListedPath, expand
from pipeline.sources.storage.location import is_url
from pipeline.sources.storage.storage import Storage

_STATE, _SPLITS = "state.json", "dataset_dict.json"


def open_saved(path: Any, storage: Storage | None = None) -> ArrowIpcSource | None:
    """The source for a folder that `save_to_disk` wrote; None if `path` is no such folder.

    Its columns are those that the dataset showed when it was saved. The URL of a folder ends in
    "/".

    Raises:
        SourceError: the folder holds several splits, or its state is damaged.
    """
    if not (isinstance(path, str) or hasattr(path, "__fspath__")):
        return None
    folder = os.path.expanduser(os.fsdecode(path))
    if not (folder.endswith("/") if is_url(folder) else os.path.isdir(folder)):
        return None
    storage = storage or Storage()
    if (splits := _contents(folder, _SPLITS, storage)) is not None:
        raise SourceError(_several(folder, splits))
    state = _contents(folder, _STATE, storage)
    if state is None:
        return None
    with parsing(_within(folder, _STATE)):
        names = [str(entry["filename"]) for entry in state["_data_files"]]
        shown = state.get("_format_columns")
        columns = None if shown is None else [str(name) for name in shown]
    files = tuple(map(ListedPath.of, expand([_within(folder, name) for name in names], storage)))
    return ArrowIpcSource(files, columns, storage=storage)


def _contents(folder: str, name: str, storage: Storage) -> Any:
    path = _within(folder, name)
    try:
        return parsed_json(storage.contents(path), path)
    except FileNotFoundError:
        return None


def _within(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}"


def _several(folder: str, said: Any) -> str:
    splits = said.get("splits") if isinstance(said, dict) else None
    names = [str(name) for name in splits] if isinstance(splits, list) else []
    first = _within(folder, names[0]) if names else folder
    return f"{folder} holds the datasets {names}, not one. Choose one: {first!r}."
