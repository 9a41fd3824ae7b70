"""What stages have in common that call a function for each row and give as many rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pipeline.transforms.calling import label
from pipeline.transforms.code import code_digest


@dataclass(frozen=True)
class Rowwise:
    """A function of the user's, its name, and what it computes; a stage adds `kind` and `apply`.

    Attributes:
        f: called for each row.
        name: what messages and the fingerprint call it.
        code: what f computed when the stage was made, in eight hex digits.
    """

    f: Callable[..., Any]
    name: str
    code: str = field(init=False, repr=False)
    kind = ""
    random = False
    counted = False
    block = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "code", code_digest(self.f))

    def fingerprint(self) -> str:
        return label(self.kind, self.name, self.code)
