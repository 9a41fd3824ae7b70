"""code_digest: what a function computes is in it, how it is written is not."""

from __future__ import annotations

import functools
import json
import operator
import os
import re
import subprocess
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest

from pipeline.transforms import code_digest, code_name

PLAIN = '''
import functools, re
import numpy as np
from dataclasses import dataclass
from json import loads

SCALE = 3
WORDS = {"b": 2, "a": 1}
TABLE = np.arange(5)
PATTERN = re.compile("a+")
cache = None

def helper(x):
    """Help."""
    return x * SCALE

def even(n):
    return n == 0 or odd(n - 1)

def odd(n):
    return n != 0 and even(n - 1)

def remember(x):
    global cache
    cache = cache or x
    return cache

@dataclass
class Config:
    size: int = 4

class Cutter:
    def __init__(self, size):
        self.size = size
    def __call__(self, x):
        return self.inner(x)
    def inner(self, x):
        return x[: self.size]

CONFIG = Config()

def f(x, y=2, *, z=3):
    """Say what."""
    # a comment
    total = helper(x) + TABLE[y] + z + WORDS["a"] + CONFIG.size
    if x in {"p", "q", "r"} or PATTERN.match(x) or even(x):
        total += sum(helper(i) for i in range(3))
    return remember(total) and Cutter(2)(loads(total))
'''


def run(text: str, name: str = "mod") -> dict[str, Any]:
    module = types.ModuleType(name)
    sys.modules[name] = module  # dataclass looks its class's module up
    exec(compile(text, f"{name}.py", "exec"), module.__dict__)
    del sys.modules[name]
    return module.__dict__


def digest_of(text: str, name: str = "mod") -> str:
    return code_digest(run(text, name)["f"])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# a comment", "# another\n\n    # two"),
        ('"""Say what."""', '"""Say it otherwise."""'),
        ('"""Help."""', '"""Help more."""'),
        ("total", "summed"),
        ("SCALE = 3", "\n\n\nSCALE = 3"),
        ('{"b": 2, "a": 1}', '{"a": 1, "b": 2}'),
        ("cache = None", "cache = 5"),
        ("SCALE = 3", "SCALE = 3\nUNUSED = 4"),
    ],
)
def test_how_it_is_written_is_no_part(old, new):
    assert old in PLAIN
    assert digest_of(PLAIN.replace(old, new)) == digest_of(PLAIN)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("SCALE = 3", "SCALE = 4"),
        ("SCALE = 3", "SCALE = 3.0"),
        ("x * SCALE", "x + SCALE"),
        ("y=2", "y=3"),
        ("z=3", "z=4"),
        ("range(3)", "range(4)"),
        ('"a": 1}', '"a": 2}'),
        ("np.arange(5)", "np.arange(5)[::-1]"),
        ("np.arange(5)", "np.arange(5, dtype=np.int16)"),
        ('"a+"', '"a*"'),
        ("n != 0", "n != 1"),
        ("size: int = 4", "size: int = 5"),
        ("x[: self.size]", "x[self.size :]"),
        ("self.size = size", "self.size = size + 1"),
        ("Cutter(2)", "Cutter(3)"),
        ('"r"}', '"s"}'),
        ("from json import loads", "from ast import literal_eval as loads"),
    ],
)
def test_what_it_computes_is_part(old, new):
    assert old in PLAIN
    assert digest_of(PLAIN.replace(old, new)) != digest_of(PLAIN)


def test_main_and_module_agree():
    assert digest_of(PLAIN, "__main__x") == digest_of(PLAIN, "a.b")


def test_other_processes_agree(tmp_path):
    (tmp_path / "theirs.py").write_text(PLAIN)
    script = tmp_path / "main.py"
    tail = "\nfrom pipeline.transforms import code_digest\nprint(code_digest(f))"
    script.write_text(PLAIN + tail)
    importing = f"import theirs; f = theirs.f{tail}"
    here = Path(__file__).parents[2]
    for seed, args in [("0", [str(script)]), ("1", ["-c", importing]), ("77", [str(script)])]:
        env = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": f"{here}:{tmp_path}"}
        out = subprocess.run([sys.executable, *args], env=env, capture_output=True, text=True)
        assert out.stdout.strip() == digest_of(PLAIN), out.stderr


def test_a_pickled_copy_agrees():
    f = run(PLAIN, "unimportable")["f"]
    copy = cloudpickle.loads(cloudpickle.dumps(f))
    assert code_digest(copy) == code_digest(f)


def adder(n: Any):
    return lambda x: x + n


class Scaler:
    def __init__(self, by: Any) -> None:
        self.by = by

    def scale(self, x: Any) -> Any:
        return x * self.by

    @functools.cached_property
    def slow(self) -> Any:
        return self.by

    @classmethod
    def named(cls, x: Any) -> Any:
        return x


class Slotted:
    __slots__ = ("by",)

    def __init__(self, by: Any) -> None:
        self.by = by

    def __call__(self, x: Any) -> Any:
        return x


@dataclass(frozen=True)
class Clip:
    top: int

    def __call__(self, x: Any) -> Any:
        return min(x, self.top)


class Tokens:
    def __init__(self, version: str) -> None:
        self.version, self.lock = version, object()

    def fingerprint(self) -> str:
        return self.version

    def encode(self, x: Any) -> Any:
        return x


@functools.lru_cache
def cached(x: Any) -> Any:
    return x + 1


MAKERS = [
    adder,
    lambda n: functools.partial(max, n),
    lambda n: functools.partial(Scaler.scale, x=n),
    lambda n: Scaler(n).scale,
    Clip,
    Slotted,
    lambda n: operator.itemgetter(n),
    lambda n: {"k": n}.get,
    lambda n: re.compile(f"a{n}").match,
    lambda n: adder(adder(n)),
    lambda n: adder(np.full(3, n)),
    lambda n: adder(np.array([n, "x"], object)),
    lambda n: adder({n, "x", "y"}),
    lambda n: adder(Clip(n)),
    lambda n: Tokens(str(n)).encode,
    lambda n: adder(Tokens(str(n))),
]


@pytest.mark.parametrize("make", MAKERS)
def test_what_it_holds_is_part(make):
    assert code_digest(make(1)) == code_digest(make(1))
    assert code_digest(make(1)) != code_digest(make(2))


def test_kinds_of_callables_differ():
    scaler = Scaler(2)
    kinds = [len, sum, np.sqrt, np.exp, str.lower, str.upper, scaler.scale, Scaler.named, Scaler]
    kinds += [cached, Clip(1), Slotted(1), np.mean, np.std, functools.partial(len), np.float32, int]
    assert len({code_digest(f) for f in kinds}) == len(kinds)
    assert all(re.fullmatch("[0-9a-f]{8}", code_digest(f)) for f in kinds)


def test_values_told_apart_by_type():
    held = [1, True, 1.0, "1", b"1", (1,), [1], {1}, -0.0, 0.0, None, ..., np.int64(1), 1j]
    assert len({code_digest(adder(v)) for v in held}) == len(held)


def test_an_object_s_class_is_part():
    def made(by: int) -> Any:
        class Add:
            def __call__(self, x: Any) -> Any:
                return x + self.by if by == 1 else x - self.by

            by = 1

        return Add()

    class Other:
        def __call__(self, x: Any) -> Any:
            return x

    Other.__qualname__ = type(made(1)).__qualname__
    assert code_digest(made(1)) == code_digest(made(1))
    assert len({code_digest(f) for f in (made(1), made(2), Other())}) == 3


def test_the_standard_library_is_only_named(monkeypatch):
    before = code_digest(adder(json.dumps))
    monkeypatch.setattr(json, "_default_encoder", None)
    assert code_digest(adder(json.dumps)) == before


def test_a_cached_property_is_no_state():
    scaler = Scaler(2)
    before = code_digest(scaler.scale)
    assert scaler.slow == 2
    assert code_digest(scaler.scale) == before


def test_opaque_objects_count_by_type():
    assert code_digest(adder(object())) == code_digest(adder(object()))


def test_depth_ends():
    chain: Any = 1
    for _ in range(5000):
        chain = [chain]
    assert code_digest(adder(chain)) == code_digest(adder(chain))
    for _ in range(500):
        chain = adder((chain,))
    assert code_digest(chain) == code_digest(chain)


def test_cycles_end():
    ring: list[Any] = [1]
    ring.append(ring)
    assert code_digest(adder(ring)) == code_digest(adder(ring))

    def again(x: Any) -> Any:
        return again(x - 1) if x else 0

    assert code_digest(again) != code_digest(adder(1))


def test_names():
    assert code_name(adder) == "adder"
    assert code_name(adder(1)) == "<lambda>"
    assert code_name(functools.partial(functools.partial(adder), 1)) == "adder"
    assert code_name(Clip(1)) == "Clip"
    assert code_name(Scaler(1).scale) == "scale"


def _by_closure(m):
    return lambda t: t[: m.SEQ]


def _by_function(m):
    return lambda t: m.cut(t)


def _by_inner(m):
    def outer(t):
        def inner():
            c = m
            return t[: c.SEQ]

        return inner()

    return outer


def _by_argument(m):
    return functools.partial(lambda c, t: t[: c.SEQ], m)


def _by_default(m):
    def cut(t, m=m):
        return t[: m.SEQ]

    return cut


class Holder:
    def __init__(self, held):
        self.held = held

    def __call__(self, t):
        return t[: self.held.SEQ]


@pytest.mark.parametrize(
    "make", [_by_closure, _by_function, _by_inner, _by_argument, _by_default, Holder]
)
def test_modules_that_functions_hold_count_by_what_is_in_them(make, tmp_path, monkeypatch):
    module = types.ModuleType("a_config_of_the_user")
    module.__file__ = str(tmp_path / "config.py")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec("SEQ = 4\ndef cut(t): return t[:SEQ]\n", vars(module))
    before = code_digest(make(module))
    assert code_digest(make(module)) == before
    vars(module)["SEQ"] = 8
    assert code_digest(make(module)) != before


def test_functions_that_dispatch_by_type_count_by_all_that_they_call():
    def made(n):
        @functools.singledispatch
        def f(x):
            return x

        f.register(int)(lambda x: x + n)
        return f

    assert code_digest(made(1)) == code_digest(made(1))
    assert code_digest(made(1)) != code_digest(made(2))
