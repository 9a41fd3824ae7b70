"""The default answers of a transform, and the base of those that call a user's function."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from pipeline.checks import shown, whole
from pipeline.errors import ChainError
from pipeline.seeds import Name, derive_seed
from pipeline.transforms.code import Code
from pipeline.types import Component, unseen


class TransformDefaults:
    """A transform that is neither random nor counted, and looks at any number of rows.

    A subclass has `kind`, `name` and `apply(block, site)`, and overrides what is different.

    Attributes:
        rowwise: whether it works row by row. `caller(origin, site)` then returns the function, and
            columns of the values that come before the row in its arguments.
    """

    rowwise = False
    seed_globals: bool = False

    kind = ""
    name: str
    random = False
    counted = False
    block: int = 0

    @property
    def codes(self) -> tuple[Code, ...]:
        """The code of the user's functions that it calls."""
        return ()

    @property
    def unseen(self) -> tuple[str, ...]:
        """Parts of its function whose content no fingerprint can see, in words."""
        return ()

    @property
    def packages(self) -> tuple[str, ...]:
        """Installed packages that its function uses; the fingerprint has no version of theirs."""
        return ()

    def __post_init__(self) -> None:
        if self.counted:
            whole(f"{self.kind} block", self.block, 1)

    def depends(self) -> tuple[Name, ...]:
        """What the data depends on besides kind and name."""
        return ()

    def fingerprint(self) -> str:
        """Kind, name, and eight hex digits over all that the data depends on."""
        return label(self.kind, self.name, *self.depends())

    def written(self) -> str:
        """The call that adds it to a dataset, as a user writes it."""
        return f".{self.kind}({self.name!r})"

    def chosen(self, *but: str) -> list[str]:
        """The options that differ from their defaults, as a user writes them.

        Args:
            but: names of fields to leave out.
        """
        found: Any = self
        options = {f.name: f.default for f in fields(found) if f.init and f.name not in but}
        return [
            f"{name}={shown(getattr(self, name), 60)}"
            for name, plain in options.items()
            if getattr(self, name) != plain
        ]


@dataclass(frozen=True)
class FunctionTransform(TransformDefaults):
    """A transform that calls a function of the user's.

    Attributes:
        f: called for each row.
        name: what messages and the fingerprint call it.
        given: a text that stands in the fingerprint for what f computes; None to look into f.

    Raises:
        ChainError: `given` is not a text.
    """

    f: Callable[..., Any]
    name: str
    given: str | None = field(default=None, kw_only=True, repr=False)
    code: Code = field(init=False, repr=False)
    """What f computed when the transform was made."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.given is not None and (not isinstance(self.given, str) or not self.given):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ChainError(
                f"{self.kind}(fingerprint={self.given!r}): give a text that you change whenever "
                "the function computes something else"
            )
        object.__setattr__(self, "code", self.code_now())

    @property
    def unseen(self) -> tuple[str, ...]:
        return self.code.unseen

    @property
    def codes(self) -> tuple[Code, ...]:
        return (self.code,)

    @property
    def packages(self) -> tuple[str, ...]:
        return self.code.packages

    def code_now(self) -> Code:
        """The code of f as it is now, which may have changed since this was made."""
        return Code.of(self.f) if self.given is None else Code.said(self.given)

    def depends(self) -> tuple[Name, ...]:
        return (self.code.digest, *self.options())

    def options(self) -> tuple[Name, ...]:
        """What the data depends on besides kind, name and function."""
        return (int(self.block),) if self.counted else ()

    def fingerprint(self) -> str:
        unseen = f"{_UNSEEN}{', '.join(self.unseen)}" if self.unseen else ""
        return super().fingerprint() + unseen

    def written(self) -> str:
        given = [] if self.given is None else [f"fingerprint={shown(self.given, 60)}"]
        options = [*self.chosen("f", "name", "given"), *given]
        return f".{self.kind}({', '.join([repr(self.name), *options])})"


_UNSEEN = " unseen: "  # in a stage's fingerprint, before what it cannot see


def refuse_unseen(
    fingerprint: Mapping[str, str], what: str, components: Iterable[Component] = ()
) -> None:
    """Refuse to keep rows by a fingerprint that does not see all that they depend on.

    Args:
        fingerprint: the fingerprint of a dataset, or of some of its stages.
        what: what would keep the rows, for the message.
        components: the sources of the dataset.

    Raises:
        ChainError: a stage's function holds something whose content cannot be seen, or a source
            has records whose content cannot be seen.
    """
    finds = f"{what} finds rows again by the fingerprint of all that makes them, but"
    for stage, said in fingerprint.items():
        shown, mark, hidden = said.partition(_UNSEEN)
        if mark:
            raise ChainError(
                f"{finds} {stage}: {shown} holds what no fingerprint can look into ({hidden}): "
                "rows made by another one would be served. Give the stage fingerprint=, a text "
                "that you change whenever its function computes something else; or give the "
                "object a fingerprint() method."
            )
    for component in components:
        if hidden := unseen(component.source):
            raise ChainError(
                f"{finds} no fingerprint looks into {', '.join(hidden)}: rows made from others "
                "would be served. Give the source a fingerprint() method, which returns a text "
                "that differs where its records do; or records of text, numbers, arrays, dicts and "
                "dataclasses."
            )


def label(kind: str, name: str, *options: Name) -> str:
    """A stage's fingerprint: kind, name, and eight hex digits over all that it depends on.

    >>> label("map", "tokenize", "1a2b3c4d")
    'map tokenize e8c7d402'
    """
    shown = name if len(name) <= 16 else name[:15] + "~"
    return f"{kind} {shown} {derive_seed(kind, name, *options) % 2**32:08x}"
