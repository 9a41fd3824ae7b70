"""Records that are spans of tokens, whatever says where they begin."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.block import Int64s
from pipeline.sources.framed import FramedSource
from pipeline.sources.token_files import as_tokens


class TokenRecords(FramedSource):
    """Files of tokens of one type, cut into records. A format sets `_dtype`, as it is stored."""

    _dtype: str

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of a token, in this machine's byte order."""
        return np.dtype(self._dtype).newbyteorder("=")

    def read(self, indices: Int64s) -> list[NDArray[Any]]:
        """Records by index, in the order asked, repeats included: arrays `[tokens]`.

        Raises:
            PositionError: an index below 0 or past the end.
            RecordError: a record lies past the end of its file; the others stay readable.
            SourceError: a file was removed, cut or replaced.
        """
        spans = self._fetch(self._locate(indices))
        return [as_tokens([span], self._dtype) for span in spans]

    def _codec_of(self, file: int) -> str:
        return str(self.dtype)
