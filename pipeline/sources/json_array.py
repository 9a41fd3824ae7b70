"""Finding where the elements of a JSON array lie in its file."""

from __future__ import annotations

import json
import re

import numpy as np

from pipeline.errors import SourceError
from pipeline.sources.complaints import unreadable
from pipeline.sources.storage.arrays import Arrays
from pipeline.sources.storage.gather import pieces
from pipeline.sources.storage.storage import Stat, Storage

_MOST = 1 << 30  # bytes of an array, which is parsed as a whole
_BLANK = re.compile(r"[ \t\r\n]*")


def element_spans(stat: Stat, storage: Storage) -> Arrays | None:
    """Start, stop and line of each element if the file is a single array, else None.

    A file with an array on each line is not a single array: more follows the first one.

    Raises:
        SourceError: the array is damaged, or larger than 1 GiB.
    """
    for head in pieces(stat, storage):
        if not head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
            return None
        break
    if stat.size > _MOST:
        raise SourceError(
            f"{stat.path} is a JSON array of {stat.size} bytes, too large to be taken apart. Write "
            "a line for each element: jq -c '.[]' FILE."
        )
    raw = b"".join(pieces(stat, storage))
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as e:
        raise unreadable(stat.path, f"its JSON array is not UTF-8: {e}") from e
    try:
        spans, end = _elements(text)
    except (ValueError, RecursionError) as e:
        if _is_line(text):
            return None
        raise unreadable(stat.path, f"its JSON array is damaged: {e}") from e
    if _skip(text, end) < len(text):
        return None
    return _in_bytes(text, raw, spans)


def _elements(text: str) -> tuple[list[tuple[int, int]], int]:
    """[first, last + 1) of each element, in characters; and the position after the array."""
    decode = json.JSONDecoder().raw_decode
    at = _skip(text, text.index("[") + 1)
    found: list[tuple[int, int]] = []
    if text.startswith("]", at):
        return found, at + 1
    while True:
        try:
            _, end = decode(text, at)
        except RecursionError:
            raise ValueError(f"character {at} begins what is nested too deeply") from None
        found.append((at, end))
        at = _skip(text, end)
        if text.startswith("]", at):
            return found, at + 1
        if not text.startswith(",", at):
            raise ValueError(f"no comma after the element that ends at character {end}")
        at = _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    found = _BLANK.match(text, at)
    return found.end() if found else at


def _is_line(text: str) -> bool:
    """Whether the first line is valid JSON by itself. If so, a later line is the damaged one."""
    try:
        json.loads(text.lstrip("\ufeff").lstrip().partition("\n")[0])
    except (ValueError, RecursionError):
        return False
    return True


def _in_bytes(text: str, raw: bytes, spans: list[tuple[int, int]]) -> Arrays:
    places = np.array(spans, np.int64).reshape(-1, 2)
    if len(text) < len(raw):  # some characters take several bytes: translate positions
        begins = np.frombuffer(raw, np.uint8) & 0xC0 != 0x80
        places = np.append(np.flatnonzero(begins), len(raw))[places]
    newlines = np.flatnonzero(np.frombuffer(raw, np.uint8) == ord("\n"))
    line = np.searchsorted(newlines, places[:, 0])
    return {"start": places[:, 0], "stop": places[:, 1], "line": line.astype(np.int64)}
