"""The writer of WebDataset shards: a tar whose members are the fields, named by the row's key."""

from __future__ import annotations

import io
import tarfile
from typing import Any

from pipeline.errors import ChainError
from pipeline.tools.convert.writers.values import as_json, in_utf8

_WHAT = "a WebDataset shard"


class WebDataset:
    """Writes rows as members `KEY.FIELD`: bytes and text as they are, anything else as JSON.

    The key of a row is its field "__key__", or else its number in the file.
    """

    def __init__(self, path: str) -> None:
        self._path, self._rows = path, 0
        self._tar = tarfile.open(path, "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115

    def write(self, rows: list[Any]) -> None:
        for row in rows:
            fields = dict(row) if isinstance(row, dict) else {_suffix(row): row}
            key = fields.pop("__key__", f"{self._rows:09d}")
            for name, value in _members(fields).items():
                data = in_utf8(value, _WHAT) if isinstance(value, str) else value
                self._member(f"{key}.{name}", data)
            self._rows += 1

    def _member(self, name: str, data: bytes) -> None:
        info = tarfile.TarInfo(name)  # owner, mode and time are the same for all writers
        info.size = len(data)
        self._tar.addfile(info, io.BytesIO(data))

    def close(self) -> list[str]:
        self._tar.close()
        return [self._path]


def _members(fields: dict[str, Any]) -> dict[str, bytes | str]:
    members = {k: v for k, v in fields.items() if isinstance(v, bytes | str)}
    plain = {k: v for k, v in fields.items() if k not in members}
    if plain and "json" in members:
        raise ChainError(
            f"a WebDataset row has a member 'json' and the fields {sorted(plain)}, which would go "
            "there. Give --map module:function to rename it."
        )
    return {**members, "json": as_json(plain, _WHAT)} if plain else members


def _suffix(row: Any) -> str:
    return "bin" if isinstance(row, bytes) else "txt" if isinstance(row, str) else "value"
