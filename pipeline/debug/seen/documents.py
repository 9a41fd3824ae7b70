"""What a document is: a record before any stage, as bytes; and its digest for a scan."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline.checks import shown
from pipeline.debug.seen.proof import digest_of
from pipeline.errors import ChainError
from pipeline.transforms import code_digest, code_name


@dataclass(frozen=True)
class Documents:
    """How a record becomes a document: it is text or bytes itself, has it in a field, or is asked.

    Attributes:
        field: the field of a record that is a dict.
        function: gives text or bytes of a record, for records of any other kind.

    Raises:
        ChainError: both are given.

    >>> Documents(field="text").of({"text": "to be", "id": 7})
    b'to be'
    """

    field: str | None = None
    function: Callable[[Any], str | bytes] | None = None

    def __post_init__(self) -> None:
        if self.field is not None and self.function is not None:
            raise ChainError("a document is a field or what a function gives: give one of the two")

    @property
    def described(self) -> str:
        """In words, and such that other documents are described otherwise."""
        if self.function is not None:
            return f"what {code_name(self.function)} ({code_digest(self.function)}) gives"
        return "a record" if self.field is None else f"the field {self.field!r} of a record"

    def of(self, record: Any) -> bytes:
        """The document of a record.

        Raises:
            ChainError: the record is neither text nor bytes, with the remedy.
        """
        found = record
        if self.function is not None:
            found = self.function(record)
        elif self.field is not None:
            if not isinstance(record, dict) or self.field not in record:
                what = f"fields {list(record)}" if isinstance(record, dict) else shown(record, 60)
                raise ChainError(f"seen: a record has no field {self.field!r}: it is {what}")
            found = record[self.field]
        if isinstance(found, str):
            return found.encode("utf-8", "surrogatepass")
        if isinstance(found, bytes | bytearray | memoryview):
            return bytes(found)
        if isinstance(record, dict) and self.field is None and self.function is None:
            raise ChainError(f"seen: records are dicts: name the field, one of {list(record)}")
        raise ChainError(
            f"seen: {shown(found, 60)} ({type(found).__name__}) is neither text nor bytes. Give a "
            "function that makes it one: --document module:function"
        )

    def columns(self, record: Any) -> dict[str, int]:
        """The digest of a record's document as four int64, which is what a scan can keep."""
        return dict(zip(COLUMNS, struct.unpack(">4q", digest_of(self.of(record))), strict=True))


COLUMNS = ("a", "b", "c", "d")
