"""What the pages take from the code: errors, commands, notebooks, llms.txt and SKILL.md.

MkDocs calls the functions named `on_…` (see mkdocs.yml). `python docs/generate.py` writes llms.txt
and SKILL.md, which also lie at the top of the repository.
"""

from __future__ import annotations

import ast
import contextlib
import html
import importlib
import io
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
# pages of the nav that stand where their part of the library does
OPTIONAL = {"benchmarks.md": "Benchmarks", "doctor.md": "Doctor"}


# ---- errors


class Kind(NamedTuple):
    """An error class: its name, parents, and what its docstring says: the cause, then the cure."""

    name: str
    parents: tuple[str, ...]
    cause: str
    cure: str


class Message(NamedTuple):
    """A message as the code words it, values in braces, and the file that raises it."""

    kind: str
    text: str
    file: str


def kinds(path: str = "pipeline/errors.py") -> list[Kind]:
    """The public error classes of a file, in its order."""
    found: list[Kind] = []
    for node in ast.parse((ROOT / path).read_text()).body:
        if isinstance(node, ast.ClassDef) and node.name.endswith("Error"):
            text = (ast.get_docstring(node) or "").partition("\n\n")[0].replace("\n", " ")
            cause, _, cure = text.partition(": ")
            cure = cure[:1].upper() + cure[1:]
            found.append(Kind(node.name, tuple(map(ast.unparse, node.bases)), cause, cure))
    return found


def messages(*folders: str) -> list[Message]:
    """Every message that the code raises with a public error class, in the order of its files."""
    public = {kind.name for path in _ERRORS for kind in kinds(path)}
    found: dict[tuple[str, str], Message] = {}
    for path in sorted(p for folder in folders for p in (ROOT / folder).rglob("*.py")):
        file = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args):
                continue
            kind = node.func.id
            for text in _texts(node.args[0]) if kind in public else ():
                found.setdefault((kind, text), Message(kind, text, file))
    return list(found.values())


def _texts(node: ast.expr) -> list[str]:
    # both ways of a choice; a text that is worked out elsewhere has no words here
    if isinstance(node, ast.IfExp):
        return _texts(node.body) + _texts(node.orelse)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return [a + b for a in _texts(node.left) for b in _texts(node.right)]
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.JoinedStr):
        return ["".join(_part(value) for value in node.values)]
    return []


def _part(value: ast.expr) -> str:
    if isinstance(value, ast.FormattedValue):
        return "{" + ast.unparse(value.value) + "}"
    return str(value.value) if isinstance(value, ast.Constant) else ""


_ERRORS = ("pipeline/errors.py", "harness/errors.py")


def errors_page() -> str:
    """The index of errors: each class with cause, cure, an example that runs, and its messages."""
    lines = (DOCS / "fragments" / "errors.md").read_text()
    head, *parts = re.split(r"^## ", lines, flags=re.M)
    examples = {part.partition("\n")[0].strip(): part.partition("\n")[2].strip() for part in parts}
    said = messages("pipeline", "harness")
    page = [head.strip()]
    for path in _ERRORS:
        for kind in kinds(path):
            parents = ", ".join(f"`{parent}`" for parent in kind.parents)
            page.append(f"## {kind.name}\n\n**Cause:** {kind.cause.rstrip('.')}.")
            page += [f"**Cure:** {kind.cure}"] if kind.cure else []
            page.append(f"Its parents: {parents}.")
            page += [examples[kind.name]] if kind.name in examples else []
            own = [m for m in said if m.kind == kind.name]
            if own:
                many = f"{len(own)} messages" if len(own) > 1 else "Its message"
                page.append(f'??? note "{many}"\n')
                page.append("\n".join(map(_listed, own)))
    return "\n\n".join(page) + "\n"


def _listed(message: Message) -> str:
    words = html.escape(" ".join(message.text.split()))
    words = re.sub(r"[\\`*_\[\]]", lambda m: f"&#{ord(m[0])};", words)
    return f"    - {words} <small>{message.file.replace('_', '&#95;')}</small>"


# ---- commands


def commands_page() -> str:
    """What each command prints for --help."""
    text = (DOCS / "fragments" / "commands.md").read_text().strip()
    tool = importlib.import_module("pipeline.__main__")
    for name in tool.COMMANDS:
        text += f"\n\n## {name}\n\n```text\n{_help(tool.main, name)}\n```"
    with contextlib.suppress(ImportError):
        harness = importlib.import_module("harness.__main__")
        text += f"\n\n## The trainer\n\n```text\n{_help(harness.main)}\n```"
    return text + "\n"


def _help(main: Any, *command: str) -> str:
    out = io.StringIO()
    with (
        mock.patch.dict(os.environ, {"COLUMNS": "88", "NO_COLOR": "1"}),
        mock.patch.object(sys, "argv", ["python -m pipeline"]),
        contextlib.redirect_stdout(out),
        contextlib.suppress(SystemExit),
    ):
        main([*command, "--help"])
    return out.getvalue().strip()


# ---- notebooks


def notebook_page(path: Path) -> str:
    """A notebook as a page: its text, its code, and what the code printed or drew."""
    parts: list[str] = []
    for cell in json.loads(path.read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        elif source.strip():
            parts.append(f"```python\n{source.strip()}\n```")
            parts += filter(None, map(_output, cell.get("outputs", [])))
    return "\n\n".join(parts) + "\n"


def _output(output: dict[str, Any]) -> str:
    data = output.get("data", {})
    if "image/svg+xml" in data:
        svg = "".join(data["image/svg+xml"])
        return f'<figure markdown="0">{svg[svg.index("<svg") :]}</figure>'
    text = "".join(output.get("text", data.get("text/plain", "")))
    return f"```text\n{text.strip()}\n```" if text.strip() else ""


# ---- for coding assistants


def _pages() -> Iterator[tuple[str, str, str]]:
    """Path, title and first paragraph of each page, in the order of the nav's folders."""
    for path in sorted(DOCS.rglob("*.md")):
        if "fragments" in path.parts:
            continue
        text = path.read_text()
        title = re.search(r"^# (.+)$", text, flags=re.M)
        first = re.search(r"^# .+\n\n((?:[^\n#`|<!].*\n)+)", text, flags=re.M)
        if title and first:
            yield path.relative_to(DOCS).as_posix(), title[1], " ".join(first[1].split())


def llms_txt() -> str:
    """The library in one file for language models: see llmstxt.org for the form."""
    intro = re.search(r"\n\n((?:[^\n#].*\n)+)", (DOCS / "index.md").read_text())
    lines = ["# Lockstep", "", f"> {' '.join(intro[1].split()) if intro else ''}", ""]
    lines += [
        "The distribution is `lockstep-data`; import `pipeline`, and `harness` (a trainer).",
        "",
    ]
    lines += ["## Docs", ""]
    for path, title, first in _pages():
        if not path.startswith(("api/", "notebooks/")) and path != "index.md":
            lines.append(f"- [{title}](docs/{path}): {first[:240]}")
    lines += ["", "## Errors", ""]
    lines += [f"- `{kind.name}`: {kind.cause}: {kind.cure}" for kind in kinds()]
    return "\n".join(lines) + "\n"


def skill_md() -> str:
    """What a coding assistant reads before it writes code with the library."""
    rules = (DOCS / "fragments" / "skill.md").read_text().strip()
    whole = (DOCS / "library.md").read_text().partition("\n")[2].strip()
    whole = re.sub(r"\]\((?!http)([^)]+)\)", r"](docs/\1)", whole)
    causes = "\n".join(f"- `{kind.name}`: {kind.cause}. {kind.cure}" for kind in kinds())
    return f"{rules}\n\n## The whole library\n\n{whole}\n\n## Errors and their cures\n\n{causes}\n"


# ---- what MkDocs calls


def on_config(config: Any) -> Any:
    """Add the pages that may be absent."""
    reference = next(entry["Reference"] for entry in config.nav if "Reference" in entry)
    for path, title in OPTIONAL.items():
        if (DOCS / path).exists():
            reference.append({title: path})
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made of code."""
    from mkdocs.structure.files import File  # pyright: ignore[reportMissingImports]

    made = {"errors.md": errors_page(), "commands.md": commands_page()}
    for path in sorted((DOCS / "notebooks").glob("*.ipynb")):
        made[f"notebooks/{path.stem}.md"] = notebook_page(path)
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Let the search prefer pages that answer a question."""
    folder = page.file.src_uri.partition("/")[0]
    page.meta.setdefault("search", {"boost": {"how": 2, "notebooks": 0.5}.get(folder, 1)})
    return markdown


def on_post_build(config: Any) -> None:
    """Lay what assistants read beside the pages."""
    site = Path(config.site_dir)
    (site / "llms.txt").write_text(llms_txt())
    (site / "SKILL.md").write_text(skill_md())


if __name__ == "__main__":
    (ROOT / "llms.txt").write_text(llms_txt())
    (ROOT / "SKILL.md").write_text(skill_md())
