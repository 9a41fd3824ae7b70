"""What all file sources share: their files, and which file holds each record."""

from __future__ import annotations

from typing import Any, ClassVar

from pipeline.block import Int64s
from pipeline.sources.storage.advice import Advice
from pipeline.sources.storage.files import Files


class FileSource:
    """A source over files, end to end. A format sets both attributes and adds `read`.

    Attributes:
        _files: the files, with their record counts.
        _identity: what the fingerprint depends on besides the files: the format and its options.
    """

    _files: Files
    _identity: tuple[str, ...]
    _unit: ClassVar[str] = "records"
    _advice: Advice | None = None

    def __len__(self) -> int:
        return len(self._files)

    def __repr__(self) -> str:
        paths, name = self._files.paths, type(self).__name__
        return f"{name}({len(paths)} files from {paths[0]!r}, {len(self)} {self._unit})"

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in self._not_pickled}

    _not_pickled: ClassVar[frozenset[str]] = frozenset()

    @property
    def files(self) -> Files:
        """The files, with their record counts."""
        return self._files

    @property
    def horizon(self) -> int:
        """How many records to come it wants to know of: some thousands while its files are on
        local disks and not in memory, else 0."""
        return self._advice.horizon if self._advice is not None else 0

    def ahead(self, indices: Int64s) -> None:
        """Tell the kernel of records to come: the next `horizon`, in order."""
        if self._advice is not None:
            self._advice.tell(indices)

    @property
    def chunk_bounds(self) -> Int64s:
        """int64[files + 1]: the first record of each file, and the end."""
        return self._files.bounds

    def where(self, indices: Int64s) -> list[tuple[str, int]]:
        """The path of each record's file, and the record's index in that file.

        Raises:
            PositionError: an index is negative or beyond the end.
        """
        return self._files.where(indices)

    def fingerprint(self) -> str:
        """32 hex digits from base names, sizes, counts, ends and options, not from directories."""
        return self._files.fingerprint(*self._identity)
