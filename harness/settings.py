"""Reading settings: from TOML files, `key=value` words, and a run's config.json."""

from __future__ import annotations

import dataclasses
import difflib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

from harness.errors import ConfigError

T = TypeVar("T")
_SAME: Any = object()


def setting(default: T, help: str, *, free: bool = False, before: Any = _SAME) -> T:
    """A dataclass field with a description.

    Args:
        default: for new runs.
        help: its line in --help.
        free: whether it may differ between launches of a run.
        before: how runs behaved that are older than this setting; `default` if not given.
    """
    known = {"help": help, "free": free, "before": default if before is _SAME else before}
    return dataclasses.field(default=default, metadata=known)


class Setting(NamedTuple):
    """One setting: its type, the values that it allows, and the arguments of `setting`."""

    kind: Any
    allowed: Any
    default: Any
    help: str
    free: bool
    before: Any


def known_settings(kind: type, prefix: str = "") -> dict[str, Setting]:
    """All settings of a dataclass by dotted name, including those of nested dataclasses."""
    found: dict[str, Setting] = {}
    hints = get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        name, hint = prefix + field.name, hints[field.name]
        if dataclasses.is_dataclass(hint):
            found |= known_settings(hint, f"{name}.")  # pyright: ignore[reportArgumentType]
        else:
            origin, allowed = get_origin(hint), None
            if origin is Annotated:
                hint, allowed = get_args(hint)
            elif origin is Literal:
                hint, allowed = str, get_args(hint)
            found[name] = Setting(hint, allowed, field.default, **field.metadata)
    return found


def check_value(name: str, value: Any, allowed: Any) -> None:
    """Check a value against an interval such as "[0, 1)", or against all that it may be.

    Raises:
        ConfigError: it is outside.
    """
    if isinstance(allowed, str):
        low, high = map(float, allowed[1:-1].split(","))
        above = value > low if allowed[0] == "(" else value >= low
        below = value < high if allowed[-1] == ")" else value <= high
        if not (above and below):  # NaN fails too
            raise ConfigError(f"{name}={value} must lie in {allowed}.")
    elif allowed and value not in allowed:
        raise ConfigError(f"{name}={value!r} must be one of {', '.join(map(repr, allowed))}.")


def flatten(
    tables: Mapping[str, Any], known: Mapping[str, Setting], prefix: str = ""
) -> dict[str, Any]:
    """Nested tables as dotted names. A setting that is itself a table is kept whole.

    >>> flatten({"seed": 1, "data": {"text": "t"}}, {})
    {'seed': 1, 'data.text': 't'}
    """
    found: dict[str, Any] = {}
    for key, value in tables.items():
        name = prefix + key
        if isinstance(value, Mapping) and name not in known:
            found |= flatten(value, known, f"{name}.")
        else:
            found[name] = value
    return found


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names as nested tables.

    >>> nest({"seed": 1, "data.text": "t"})
    {'seed': 1, 'data': {'text': 't'}}
    """
    found: dict[str, Any] = {}
    for name, value in flat.items():
        *tables, last = name.split(".")
        at = found
        for table in tables:
            at = at.setdefault(table, {})
        at[last] = value
    return found


def read_file(path: Path) -> dict[str, Any]:
    """The tables of a TOML file, or of a run's config.json.

    Raises:
        ConfigError: there is no such file, or it cannot be parsed.
    """
    try:
        text = path.read_text()
        return json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as e:
        hint = f" To set one value: --set {path}" if "=" in str(path) else ""
        raise ConfigError(f"--config {path}: {e.strerror}; give a TOML file.{hint}") from e
    except ValueError as e:  # tomllib's and json's errors are ValueErrors
        hint = "" if path.suffix == ".json" else ' In TOML, text stands in quotes: data.text = "a".'
        raise ConfigError(f"{path} cannot be read: {e}.{hint}") from e


def typed(name: str, value: Any, known: Mapping[str, Setting]) -> Any:
    """A value converted to the type of its setting; text, as from a command line, is parsed.

    Raises:
        ConfigError: no setting has this name (the nearest is named), or the value has another type.
    """
    if name not in known:
        raise ConfigError(f"no setting is called {name!r}. {_near(name, known)}")
    kind = known[name].kind
    if value is None and known[name].default is None:
        return None
    if isinstance(value, str) and kind is bool:
        value = {"true": True, "false": False}.get(value.lower(), value)
    elif isinstance(value, str) and kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            pass
    elif kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    plain = kind if kind in (int, float, str, bool) else (str, dict)
    if not isinstance(value, plain) or (kind is not bool and isinstance(value, bool)):
        due = kind.__name__ if kind in (int, float, str, bool) else "text or a table"
        raise ConfigError(f"{name}={value!r} is not of type {due}.")
    return value


def _near(name: str, known: Mapping[str, Setting]) -> str:
    last = name.rpartition(".")[2]
    near = [key for key in known if key.rpartition(".")[2] == last]
    near += difflib.get_close_matches(name, known, n=1)
    if not near:
        tails = {key.rpartition(".")[2]: key for key in known}
        near = [tails[t] for t in difflib.get_close_matches(last, tails, n=1)]
    return f"Did you mean {near[0]!r}?" if near else "For all of them: train --help."


def split_words(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The keys and values of `key=value` words of a command line."""
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"--set {word}: give key=value.")
        yield key, value


def help_text(known: Mapping[str, Setting]) -> str:
    """A line for each setting: name, default, description."""
    names = [f"  {name}={json.dumps(s.default)}" for name, s in known.items()]
    lines = [f"{name:<30} {s.help}" for name, s in zip(names, known.values(), strict=True)]
    return "\n".join(lines)
