"""Records that are spans of tokens, for every format that has such records."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.block import Int64s
from pipeline.sources.framed import FramedSource
from pipeline.sources.token_files import as_tokens


class TokenRecords(FramedSource):
    """Files of tokens, divided into records. A format sets `_dtype`, the dtype as stored."""

    _dtype: str

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of a token, in this machine's byte order."""
        return np.dtype(self._dtype).newbyteorder("=")

    def read(self, indices: Int64s) -> list[NDArray[Any]]:
        """Records by index, in the order given, repeats included: arrays `[tokens]`.

        Raises:
            PositionError: an index is negative or beyond the end.
            RecordError: a record extends beyond the end of its file; the others stay readable.
            SourceError: a file was removed, truncated or replaced.
        """
        spans = self._fetch(self._locate(indices))
        return [as_tokens([span], self._dtype) for span in spans]

    def _codec_of(self, file: int) -> str:
        return str(self.dtype)
