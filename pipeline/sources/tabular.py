"""What sources of columns have in common whose files are read chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar

from pipeline.block import Int64s
from pipeline.sources.chunks import Chunks
from pipeline.sources.indices import inside
from pipeline.sources.storage.files import Files
from pipeline.sources.storage.storage import Range

if TYPE_CHECKING:
    import pyarrow as pa


class TabularSource:
    """Files of columns, chunk after chunk; a format adds `read`, and how a chunk is decoded."""

    _format: ClassVar[str]  # names it in fingerprints
    _files: Files
    _schema: pa.Schema  # of the columns wanted
    _chunks: Chunks

    def __len__(self) -> int:
        return len(self._files)

    def __repr__(self) -> str:
        files, name = self._files.paths, type(self).__name__
        return f"{name}({len(files)} files from {files[0]!r}, {len(self)} rows)"

    @property
    def files(self) -> Files:
        """Which files these are, as they were counted."""
        return self._files

    @property
    def schema(self) -> pa.Schema:
        """Names and plain types of the columns wanted."""
        return self._schema

    def where(self, indices: Int64s) -> list[tuple[str, int]]:
        """Each row's file, and its index in that file."""
        return self._files.where(indices)

    def fingerprint(self) -> str:
        """Hex digest of base names, sizes, counts, columns and types; directories do not enter."""
        types = [f"{field.name}: {field.type}" for field in self._schema]
        return self._files.fingerprint(self._format, *types)

    @property
    def chunk_bounds(self) -> Int64s:
        """int64[chunks + 1]: the first row of each row group or batch of all files, and the end."""
        return self._chunks.bounds

    @property
    def horizon(self) -> int:
        """How many records ahead are worth knowing; 0 for local files."""
        return self._chunks.horizon

    def ahead(self, indices: Int64s) -> None:
        """Read ahead, in the background: a sample of the next `horizon` records, in order.

        What is read ahead takes a quarter of the cache at most.
        """
        self._chunks.ahead(inside(indices, len(self)))

    def _fetched(self, files: Iterable[int], ranges: Sequence[Range]) -> list[bytes]:
        # ranges of some files; where these cannot be read, perhaps as they were replaced or cut
        try:
            return self._files.storage.read(ranges)
        except OSError:
            for file in sorted(set(files)):
                self._files.check_unchanged(file)
            raise
