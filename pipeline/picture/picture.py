"""A drawing of a dataset that shows itself wherever it is: terminal, notebook or file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import OptionError
from pipeline.picture.graph import Box
from pipeline.picture.html import page
from pipeline.picture.svg import svg_of
from pipeline.picture.text import lines_of


@dataclass(frozen=True, repr=False)
class Picture:
    """A dataset as a graph: `print` shows it as text, a notebook as a drawing.

    Attributes:
        top: the box of its last stage, which holds all others.
    """

    top: Box

    def __repr__(self) -> str:
        return "\n".join(lines_of(self.top))

    def svg(self) -> str:
        """The drawing as SVG, for a file or a page."""
        return svg_of(self.top)

    def html(self) -> str:
        """A page with the drawing, as HTML; it loads nothing."""
        return page("dataset", f'<div class="scroll">{self.svg()}</div>')

    def _repr_html_(self) -> str:
        return f'<div style="overflow-x:auto">{self.svg()}</div>'

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a file: .svg, .html or .txt.

        Raises:
            OptionError: the file has another suffix.
        """
        made = {".svg": self.svg, ".html": self.html, ".txt": lambda: f"{self!r}\n"}
        suffix = Path(path).suffix
        if suffix not in made:
            raise OptionError(f"save({os.fspath(path)!r}): name a file .svg, .html or .txt")
        Path(path).write_text(made[suffix](), encoding="utf-8")
