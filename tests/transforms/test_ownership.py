"""The user's modules count by their code and data, installed ones by name."""

from __future__ import annotations

import importlib
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.transforms import ownership
from pipeline.transforms.code import Code, code_digest
from pipeline.transforms.ownership import is_users, package_of, version_of

HELPERS = """
import numpy as np
from more import deeper

SCALE = 3
TABLE = np.arange(4)

class Config:
    def __init__(self): self.size = 5

CONFIG = Config()

def helper(x):
    return x * SCALE + deeper(x)

class Cutter:
    def __call__(self, x): return x[:2]
"""
MORE = "def deeper(x):\n    return x + 1\n"
USES = {
    "by name": "from helpers import helper\ndef f(x): return helper(x)\n",
    "by module": "import helpers\ndef f(x): return helpers.helper(x)\n",
    "by alias": "import helpers as h\ndef f(x): return h.helper(x), h.CONFIG.size, h.Cutter()\n",
    "within": "def f(x):\n    from helpers import helper\n    return helper(x)\n",
    "handed on": "import helpers\ndef f(x): return getattr(helpers, 'helper')(x)\n",
    "nested": "import helpers\ndef f(x): return [helpers.helper(i) for i in x]\n",
    "class": "import helpers\nclass Mine(helpers.Cutter): pass\ndef f(x): return Mine()(x)\n",
    "object": "from helpers import CONFIG\ndef f(x): return CONFIG.size\n",
}
CHANGES = {
    "code": ("x * SCALE", "x + SCALE", ("by name", "by module", "within", "handed on", "nested")),
    "data": ("SCALE = 3", "SCALE = 4", ("by name", "by module", "within", "handed on", "nested")),
    "object": ("self.size = 5", "self.size = 6", ("by alias", "object", "handed on", "within")),
    "class": ("x[:2]", "x[:3]", ("by alias", "class")),
    "deeper": ("", "", ("by name", "by module", "within", "handed on", "nested")),
}


@pytest.fixture
def fresh_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(tmp_path))

    def digest(main: str, helpers: str = HELPERS, more: str = MORE) -> str:
        for name, text in (("helpers", helpers), ("more", more), ("using", main)):
            (tmp_path / f"{name}.py").write_text(text)
            sys.modules.pop(name, None)
            for stale in tmp_path.glob("__pycache__/*"):
                stale.unlink()
        importlib.invalidate_caches()
        return code_digest(importlib.import_module("using").f)

    yield digest
    for name in ("helpers", "more", "using"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("change", CHANGES)
def test_what_a_users_module_computes_counts(fresh_modules, use, change):
    old, new, seen_by = CHANGES[change]
    if use not in seen_by:
        return
    before = fresh_modules(USES[use])
    assert fresh_modules(USES[use]) == before
    more = MORE.replace("+ 1", "+ 2") if change == "deeper" else MORE
    assert fresh_modules(USES[use], HELPERS.replace(old, new) if old else HELPERS, more) != before


def test_what_the_function_does_not_use_is_no_part(fresh_modules):
    before = fresh_modules(USES["by module"])
    unused = HELPERS.replace("np.arange(4)", "np.arange(5)") + "\ndef another(x): return x\n"
    assert fresh_modules(USES["by module"], unused) == before


def test_values_set_at_run_time_count(fresh_modules, tmp_path):
    fresh_modules(USES["by module"])
    f, helpers = sys.modules["using"].f, sys.modules["helpers"]
    before = Code.of(f)
    vars(helpers)["SCALE"] = 8
    after = Code.of(f)
    assert before.digest != after.digest
    changed = {name for name in after.globals if after.globals[name] != before.globals[name]}
    assert "helpers.SCALE" in changed
    assert not any("deeper" in name for name in changed)


def test_a_module_of_the_function_itself_counts(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "cfg_of_test.py").write_text("SEQ = 4\ndef cut(t): return t[:SEQ]\n")
    cfg = importlib.import_module("cfg_of_test")
    before = code_digest(cfg.cut)
    vars(cfg)["SEQ"] = 8
    assert code_digest(cfg.cut) != before


def test_installed_code_counts_by_name_and_version_apart(tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="needs the extra: pip install 'lockstep-data[torch]'")
    library = tmp_path / "site-packages"
    library.mkdir()
    monkeypatch.syspath_prepend(str(library))

    def digest(version: str, body: str) -> tuple[str, tuple[str, ...]]:
        text = f"__version__ = {version!r}\ndef g(x): return {body}\nclass Model:\n"
        text += "    def __init__(self): self.w = __import__('torch').ones(2, requires_grad=True)\n"
        text += f"    def __call__(self, x): return {body}\n"
        (library / "installed_lib.py").write_text(text)
        sys.modules.pop("installed_lib", None)
        for stale in library.glob("__pycache__/*"):
            stale.unlink()
        importlib.invalidate_caches()
        lib = importlib.import_module("installed_lib")
        namespace: dict[str, Any] = {"g": lib.g, "lib": lib, "model": lib.Model()}
        exec("def f(x): return g(x), lib.g(x), model(x)", namespace)
        code = Code.of(namespace["f"])
        assert version_of("installed_lib") == version
        return code.digest, code.packages

    try:
        one, other = digest("1.0", "x + 1"), digest("2.0", "x + 2")
    finally:
        sys.modules.pop("installed_lib", None)
    assert one == other
    assert "installed_lib" in one[1]


def test_packages_installed_to_be_edited_are_the_users(tmp_path):
    project = tmp_path / "project"
    project.mkdir()
    (project / "edited.py").write_text("def g(x): return x\n")
    site = tmp_path / "site-packages"
    site.mkdir()
    (site / "edited.pth").write_text(f"{project}\n")
    here = Path(__file__).parents[2]
    script = (
        f"import site; site.addsitedir({str(site)!r}); import edited\n"
        "from pipeline.transforms.ownership import is_users\n"
        "print(is_users('edited'), is_users('numpy'), is_users('json'), is_users('pipeline.seeds'))"
    )
    out = subprocess.run(
        [sys.executable, "-c", script], cwd=here, capture_output=True, text=True, check=True
    )
    assert out.stdout.split() == ["True", "False", "False", "False"]


def test_names_of_packages():
    assert package_of("numpy.linalg") == "numpy"
    assert package_of("tests.transforms") is None
    assert is_users(__name__)
    assert version_of("numpy") == np.__version__
    assert version_of("no_such_package") == "?"


def test_versions_are_plain_text_whatever_a_package_makes_of_them(monkeypatch):
    class Version(str):
        __slots__ = ()

    module = types.ModuleType("with_a_version_of_its_own_class")
    vars(module)["__version__"] = Version("1.2")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    found = version_of(module.__name__)
    assert found == "1.2"
    assert type(found) is str


def test_the_reference_trainer_is_the_user_s_wherever_it_lies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ownership, "_is_installed", bool)
    ownership._is_users.cache_clear()
    try:
        assert [is_users(name) for name in ("harness.tokens", "pytest")] == [True, False]
    finally:
        ownership._is_users.cache_clear()
