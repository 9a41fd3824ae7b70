"""What a function's bytecode refers to: global names, attributes of modules, imports."""

from __future__ import annotations

import dis
import sys
import types
from collections.abc import Iterator
from typing import Any

OPTIMIZED, VARARGS, HAS_DOCSTRING = 0x1, 0xC, 0x4000000  # co_flags; the last from 3.14 on
_GLOBAL_READS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
_CELL_READS = ("LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF")
_ATTRIBUTES = ("LOAD_ATTR", "LOAD_METHOD")


def with_nested(code: types.CodeType) -> Iterator[types.CodeType]:
    """The code itself, and that of all functions and classes defined within it."""
    yield code
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from with_nested(inner)


def _steps(code: types.CodeType) -> Iterator[list[dis.Instruction]]:
    # the instructions of each code object, without those that only extend the next one's argument
    for each in with_nested(code):
        yield [step for step in dis.get_instructions(each) if step.opname != "EXTENDED_ARG"]


def globals_read(code: types.CodeType) -> set[str]:
    """Names of globals that code reads and does not assign; nested functions included."""
    reads, writes = set[str](), set[str]()
    for steps in _steps(code):
        reads |= {step.argval for step in steps if step.opname in _GLOBAL_READS}
        writes |= {step.argval for step in steps if step.opname == "STORE_GLOBAL"}
    return reads - writes


def attributes_of(code: types.CodeType, name: str, *, cell: bool = False) -> set[tuple[str, ...]]:
    """Chains of attributes that code looks up on a global, or on a name of its closure.

    `a.b.c` and `a` give (b, c) and ().
    """
    reads = _CELL_READS if cell else _GLOBAL_READS
    chains = set[tuple[str, ...]]()
    for steps in _steps(code):
        for i, step in enumerate(steps):
            if step.opname in reads and step.argval == name:
                chain: list[str] = []
                for following in steps[i + 1 :]:
                    if following.opname not in _ATTRIBUTES:
                        break
                    chain.append(following.argval)
                chains.add(tuple(chain))
    return chains


def imports(code: types.CodeType, package: str) -> set[str]:
    """Modules that code imports as it runs, and names that it takes from them: maybe modules."""
    found = set[str]()
    for steps in _steps(code):
        for i, step in enumerate(steps):
            if step.opname != "IMPORT_NAME":
                continue
            level, names = (before.argval for before in steps[i - 2 : i])
            parent = package.split(".")[: len(package.split(".")) - level + 1] if level else []
            module = ".".join([*parent, *([step.argval] if step.argval else [])])
            found |= {module, *(f"{module}.{name}" for name in names or ())}
    return found


def constants(code: types.CodeType) -> tuple[Any, ...]:
    """The constants of code, without its docstring."""
    consts = code.co_consts
    if sys.version_info >= (3, 14):
        documented = code.co_flags & HAS_DOCSTRING
    else:  # a def's first constant is its docstring or None
        documented = code.co_flags & OPTIMIZED and code.co_name[0] != "<" and consts
    return (None, *consts[1:]) if documented and isinstance(consts[0], str) else consts
