"""A saved state: a position and the dataset it belongs to, as plain JSON-able data."""

from __future__ import annotations

import hashlib
import reprlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from pipeline.checkpoint.mixture import undrawn
from pipeline.checkpoint.position import Exclusion, Position, Skip
from pipeline.errors import MismatchError, StateError
from pipeline.sampling.cursor import Cursor, Lane, Parts
from pipeline.sampling.cuts import Ranges, joined
from pipeline.sampling.sizes import Rule
from pipeline.types import ENDLESS

PLAIN, FULL, WHOLE = 1, 4, 5
# fields that a state of each version must have besides those of version 1: some checkpointers
# restore only the fields of a fresh loader's state, and the loss of others must be noticed
FIELDS = {
    1: set[str](),
    2: {"since", "skips"},
    3: {"since", "skips", "excluded"},
    4: {"anchor", "rule", "skips", "excluded"},
    5: {"anchor", "rule", "skips", "excluded", "frontiers", "lanes", "taken"},
}
_LISTS = ("anchor", "excluded", "frontiers", "lanes", "rule", "skips")
_AS_TEXT = "Save json.dumps(loader.state_dict()), and restore json.loads of it."
MOST = 1 << 62  # no number of a state is larger
MANY = 64  # differences that a message lists, at most
FEW = 64  # datasets of a mix that a state tells in full; of more, it holds a digest of each
DIGEST = "digest"
DIGESTS = "digests"


@dataclass(frozen=True, slots=True)
class SavedState:
    """A decoded state.

    Attributes:
        position: where the loader stood; its lanes are those that the state knows.
        rule: how batches were cut; None if the state does not tell.
        frontiers: (name of a mix's schedule in the fingerprint, first row not drawn) of each mix.
        same: whether the dataset that restores it equals the saved one, with no allowed difference.
    """

    position: Position
    rule: Rule | None
    frontiers: tuple[tuple[str, int], ...] = ()
    same: bool = False

    def check_within(self, what: str, number: int, first: int, last: int) -> None:
        """Raise StateError if a number lies outside of the epoch that the state names.

        Nothing is checked where the dataset was changed on purpose: its epochs may be shorter now.
        """
        if self.same and not first <= number <= last:
            raise StateError(
                f"the state is damaged: {what} {number} is not of its epoch "
                f"{self.position.cursor.epoch}, which goes from {first} to {last}. Use another."
            )


def encode(
    saved: SavedState,
    dataset: Mapping[str, str],
    *,
    packages: Mapping[str, str] | None = None,
    whole: bool = False,
) -> dict[str, Any]:
    """The state as plain JSON-able data.

    Args:
        saved: the decoded state.
        dataset: the dataset's fingerprint.
        packages: versions of the installed packages that its functions use.
        whole: for checkpointers that restore only the fields, and fields in mappings, of a fresh
            loader's state: states of all datasets have the same fields, and no mappings.
    """
    position, c = saved.position, saved.position.cursor
    full = whole or bool(position.anchor.step or position.skips or position.exclusions)
    told, known = fold(dataset), dict(packages or {})
    state: dict[str, Any] = {
        "version": WHOLE if whole else FULL if full else PLAIN,
        "rows": c.rows,
        "step": c.step,
        "epoch": c.epoch,
        "batch": c.batch,
        "dataset": _items(told) if whole else told,
    }
    if not whole:
        state["keys"] = len(told)  # tells where such a checkpointer has lost some
    if known or whole:
        state["packages"] = _items(known) if whole else known
    if saved.frontiers or whole:
        state["frontiers"] = _items(dict(saved.frontiers))
    if c.lanes or whole:
        state["lanes"] = [[lane, thaw(place, lists=full)] for lane, place in c.lanes]
        state["taken"] = c.taken
    if c.lanes or full:
        state["rule"] = _plain_rule(saved.rule)
    if full:
        # no mappings in lists: some checkpointers flatten these
        state["anchor"] = _plain_cursor(position.anchor)
        state["skips"] = [
            [[list(r) for r in skip.steps], _plain_rule(skip.rule), _plain_cursor(skip.anchor)]
            for skip in position.skips
        ]
        state["excluded"] = [
            [since, name, [list(r) for r in records]]
            for since, name, records in position.exclusions
        ]
    return state


def plain(state: Any) -> Any:
    """A copy of a state with numbers and lists of Python's.

    Checkpoints of arrays, and functions that are mapped over them, give numbers back as arrays
    without dimensions, and lists of numbers as arrays, be they NumPy's, jax's or torch's.

    Raises:
        StateError: it is nested without end, or an array cannot be read here.

    >>> plain({"rows": np.array(8), "anchor": (np.int64(0), np.array([1, 2]))})
    {'rows': 8, 'anchor': [0, [1, 2]]}
    """
    try:
        return _plain(state)
    except (RecursionError, RuntimeError, TypeError, ValueError) as e:
        raise StateError(
            f"the state is damaged ({str(e)[:200]}): it holds what is no plain data. Use another, "
            "or restore it on the CPU."
        ) from e


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return np.asarray(value).tolist() if hasattr(value, "__array__") else value


def decode(state: Any) -> SavedState:
    """Check a state and decode it.

    Raises:
        StateError: it is not a state, is damaged, or was written by a newer version.
    """
    if not isinstance(state, Mapping) or "version" not in state:
        raise StateError(f"not a loader's state: {short(state)}. Give what state_dict() returned.")
    version = state["version"]
    if isinstance(version, int) and version > max(FIELDS):
        raise StateError(
            f"the state has version {version}, this Lockstep reads up to {max(FIELDS)}: "
            "use the Lockstep that wrote it, or newer"
        )
    _check_whole(state, version)
    try:
        return _decoded(state, version)
    except (KeyError, TypeError, ValueError, RecursionError) as e:
        raise StateError(f"the state is damaged ({short(e)}): {short(state)}. Use another.") from e


def _check_whole(state: Mapping[str, Any], version: Any) -> None:
    """Raise StateError if whoever kept the state has made something else of its fields."""
    if not isinstance(version, int) or version not in FIELDS:
        raise StateError(
            f"the state has version {short(version)}, which is no version: what kept it has "
            f"changed its numbers. {_AS_TEXT}"
        )
    lost, keys = FIELDS[version] - set(state), state.get("keys")
    if isinstance(keys, int) and isinstance(state.get("dataset"), Mapping):
        lost |= {"dataset"} if len(state["dataset"]) < keys else set[str]()
    if lost:
        raise StateError(
            f"the state has lost its fields {sorted(lost)}, or parts of them: "
            "torch.distributed.checkpoint restores only those that a fresh loader's state has. "
            "Give the loader feed=TorchFeed(), or save json.dumps(loader.state_dict())."
        )
    turned = sorted(name for name in _LISTS if isinstance(state.get(name), Mapping))
    if turned:
        raise StateError(
            f"lists of the state have become mappings: {turned}. flax.serialization makes them "
            f"so. {_AS_TEXT}"
        )


def _decoded(state: Mapping[str, Any], version: int) -> SavedState:
    lanes = tuple(sorted(map(lane_of, state.get("lanes", ()))))
    if len({lane for lane, _ in lanes}) != len(lanes):
        raise ValueError(f"a lane stands twice in {short(lanes)}")
    rows, step, epoch, batch = (_whole(state[key]) for key in ("rows", "step", "epoch", "batch"))
    cursor = Cursor(rows, step, epoch, batch, lanes, _whole(state["taken"]) if lanes else 0)
    rule = _rule(state["rule"]) if lanes or "anchor" in state else None
    anchor = Cursor()
    if "anchor" in state:
        anchor = _cursor(state["anchor"])
        skips = tuple(_skip(skip) for skip in state["skips"])
    else:
        # an older state tells whether the batch rule changed before it, but not where
        if _whole(state.get("since", 0)):
            anchor = cursor._replace(lanes=())
        steps = _ranges(state.get("skips", ()))
        skips = (Skip(steps, rule, anchor),) if steps else ()
    excluded = tuple(map(_exclusion, state.get("excluded", ())))
    return SavedState(Position(cursor, anchor, skips, excluded), rule, frontiers_of(state))


def check_dataset(state: Mapping[str, Any], now: Mapping[str, str], allow: Collection[str]) -> bool:
    """Check that a state is of the dataset with fingerprint `now`.

    Args:
        state: plain JSON-able data.
        now: the fingerprint.
        allow: names of it that may differ.

    Returns:
        Whether the two are equal: differences that are allowed, or not drawn yet, are no error.

    Raises:
        MismatchError: it is of another dataset; the message lists what differs.
    """
    if isinstance(allow, str):
        raise StateError(f"allow={allow!r}: give a collection of names, like {{{allow!r}}}")
    if not isinstance(allow, Collection):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise StateError(f"allow={allow!r}: give a collection of names, like {{'stages.0'}}")
    found = differences(state, now, allow)
    if not found:
        saved = unfold(state["dataset"])
        return saved == alike(now, saved)
    text = "; ".join(list(found.values())[:MANY])
    text += f"; and {len(found) - MANY} more" if len(found) > MANY else ""
    saved = unfold(state["dataset"])
    remedy = _lanes_remedy("lanes" in saved, "lanes" in now)
    if "lanes" not in found:
        names = ", ".join(repr(_clipped(k)) for k in found)
        remedy = f"{_drawn(list(found), state)}Intended? load_state_dict(s, allow={{{names}}})."
    raise MismatchError(f"the state is of another dataset. {text}. {remedy}")


def differences(
    state: Mapping[str, Any], now: Mapping[str, str], allow: Collection[str] = ()
) -> dict[str, str]:
    """What differs between a state's dataset and `now`, but for `allow`: name -> words.

    Raises:
        StateError: the state names no dataset.
    """
    try:
        saved = unfold(state["dataset"])
        now = alike(now, saved)
        open_ = undrawn(saved, now, frontiers_of(state)) if state.get("frontiers") else set[str]()
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as e:
        raise StateError(f"the state names no dataset: {short(state)}. Use another.") from e
    keys = sorted({*saved, *now} - open_, key=_natural)
    wrong = [k for k in keys if saved.get(k) != now.get(k) and (k == "lanes" or k not in allow)]
    return {k: _difference(k, saved.get(k), now.get(k)) for k in wrong}


def check_drawn(
    state: Mapping[str, Any],
    now: Mapping[str, str],
    allow: Collection[str],
    drawn: Mapping[str, int],
) -> None:
    """Check that what a state has drawn is in a dataset whose schedules were edited what it was.

    States of before a mix beneath a filter or pack was closed tell that it is open.

    Args:
        state: plain JSON-able data.
        now: the fingerprint of the edited dataset.
        allow: names of it that may differ.
        drawn: how far each mix of the edited dataset is drawn where the state stands.

    Raises:
        MismatchError: the edited dataset draws more of a mix that differs to come there.
    """
    known = frontiers_of(state)
    heads = [n.removesuffix("schedule") for n, row in known if drawn.get(n, row) == ENDLESS > row]
    # a mix may draw more since one of its own datasets is a mix that was edited
    closed = [(n, ENDLESS if any(map(n.startswith, heads)) else row) for n, row in known]
    check_dataset({**state, "frontiers": closed}, now, allow)


def _lanes_remedy(before: bool, after: bool) -> str:
    if before and after:
        return "Lanes cannot be changed on the way: build the dataset with the old number."
    was, now = ("by position", "as they come") if after else ("as they come", "by position")
    return (
        f"Its rows were known {was} and are now {now}: a filter, flat_map or pack came or went, "
        "here or in a dataset of a mix. What is added can filter or pack by a scan instead."
    )


def _drawn(wrong: Sequence[str], state: Mapping[str, Any]) -> str:
    # in words, how far the mixes with differing schedules are drawn
    rows = [row for name, row in frontiers_of(state) if any(k.startswith(name) for k in wrong)]
    if not rows:
        return ""
    if rows[0] == ENDLESS:
        return (
            "The mix is drawn wholly: its schedule is settled once a pass has ended, or a filter "
            'or pack has cut its length into blocks. With stop="never", or if each of its datasets '
            "is filtered or packed instead, it stays open. "
        )
    return f"The mix is drawn up to row {rows[0]}: only from there on may its schedule change. "


def fold(dataset: Mapping[str, str]) -> dict[str, Any]:
    """A fingerprint as short JSON-able data.

    >>> fold({"root": "a", "stages.0": "map f", "stages.1": "shuffle"})
    {'root': 'a', 'stages': ['map f', 'shuffle']}
    """
    folded = _folded(tuple(dataset.items()))
    return {key: list(v) if isinstance(v, list) else v for key, v in folded.items()}


@lru_cache(16)
def _folded(dataset: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    folded: dict[str, Any] = {}
    for key, value in _digested(dict(dataset)).items():
        head, _, last = key.rpartition(".")
        if last.isdigit():
            folded.setdefault(head, []).append(value)
        elif last == DIGEST:
            mix, _, name = head.rpartition(".")
            folded.setdefault(f"{mix}.{DIGESTS}" if mix else DIGESTS, []).append(f"{name} {value}")
        else:
            folded[key] = value
    return folded


def unfold(folded: Mapping[str, Any] | Sequence[Any]) -> dict[str, str]:
    """The fingerprint that was folded, or its items; each dataset of a large mix is a digest.

    >>> unfold({"root": "a", "stages": ["map f"]}) == unfold([["root", "a"], ["stages", ["map f"]]])
    True
    """
    flat: dict[str, str] = {}
    items: list[Any] = list(folded.items() if isinstance(folded, Mapping) else folded)
    for key, value in items:
        head, _, last = key.rpartition(".")
        if not isinstance(value, list | tuple):
            flat[key] = value
        elif last == DIGESTS:
            named = [text.rpartition(" ") for text in value]
            flat |= {".".join(filter(None, (head, n, DIGEST))): found for n, _, found in named}
        else:
            flat |= {f"{key}.{i}": v for i, v in enumerate(value)}
    texts: list[Any] = [*flat, *flat.values()]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("a fingerprint holds texts")
    return flat


def alike(dataset: Mapping[str, str], saved: Mapping[str, str]) -> Mapping[str, str]:
    """A fingerprint in the detail of a saved one: older states have no digests of datasets."""
    return _digested(dataset) if any(key.endswith(f".{DIGEST}") for key in saved) else dataset


def _digested(dataset: Mapping[str, str]) -> dict[str, str]:
    found, gone = dict[str, str](), set[str]()
    for mix, names in _large(dataset):
        for name in names:
            keys = [key for key in names[name] if key not in gone]
            if any(".schedule." in key.removeprefix(mix) for key in keys):
                continue  # a mix itself: its schedule may be edited
            text = "".join(f"{len(key)} {key} {dataset[key]}" for key in sorted(keys))
            digest = hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
            found[f"{mix}{name}.{DIGEST}"] = digest
            gone.update(keys)
    return {k: v for k, v in dataset.items() if k not in gone} | found


def _large(dataset: Mapping[str, str]) -> Iterator[tuple[str, dict[str, list[str]]]]:
    # for each large mix: the prefix of its datasets' names, and the keys of each dataset by name
    heads = [k[: -len("root")] for k, v in dataset.items() if _is_root(k) and v.startswith("mix ")]
    for head in heads:
        names: dict[str, list[str]] = {}
        for key in dataset:
            name, dot, _ = key.removeprefix(head).partition(".")
            if key.startswith(head) and dot and name not in ("stages", "schedule"):
                names.setdefault(name, []).append(key)
        if len(names) > FEW:
            yield head, names


def _is_root(key: str) -> bool:
    return key == "root" or key.endswith(".root")


def freeze(place: Any) -> Any:
    """A place from plain JSON-able data.

    Raises:
        ValueError: it is not a place.

    >>> freeze([3, {"en": [0, 1]}]) == freeze([3, ["parts", ["en", [0, 1]]]])
    True
    """
    if isinstance(place, Mapping):
        return Parts(sorted((str(name), freeze(at)) for name, at in place.items()))
    if isinstance(place, list | tuple):
        if place and isinstance(place[0], str):
            return freeze(dict(place[1:]))
        return tuple(map(freeze, place))
    return _whole(place)


def thaw(place: Any, *, lists: bool = False) -> Any:
    """A place as plain JSON-able data: with `lists`, without mappings, which some would flatten."""
    if isinstance(place, Parts):
        found = [[name, thaw(at, lists=lists)] for name, at in place]
        return ["parts", *found] if lists else dict(found)
    return [thaw(at, lists=lists) for at in place] if isinstance(place, tuple) else place


def lane_of(values: Any) -> Lane:
    lane, place = values
    return _whole(lane), freeze(place)


def _cursor(values: Any) -> Cursor:
    rows, step, epoch, batch, taken = map(_whole, values)
    return Cursor(rows, step, epoch, batch, (), taken)


def _plain_cursor(c: Cursor) -> list[int]:
    return [c.rows, c.step, c.epoch, c.batch, c.taken]


def _skip(values: Any) -> Skip:
    steps, rule, anchor = values
    return Skip(_ranges(steps), _rule(rule), _cursor(anchor))


def _exclusion(values: Any) -> Exclusion:
    since, name, ranges = values
    if not isinstance(name, str):
        raise TypeError(f"{short(name)} is no component")
    return _whole(since), name, _ranges(ranges)


def _ranges(values: Any) -> Ranges:
    found = [(_whole(start), _whole(stop)) for start, stop in values]
    return joined(found) if found else ()


def _rule(values: Any) -> Rule:
    sizes, remainder, steps = values
    pairs = sizes if isinstance(sizes, list | tuple) else [(0, sizes)]
    parts = tuple((_whole(since), _whole(size, 1)) for since, size in pairs)
    if not parts or parts[0][0] or list(parts) != sorted(dict(parts).items()):
        raise ValueError(f"{short(sizes)} are no batch sizes")
    return parts, str(remainder), None if steps is None else _whole(steps, 1)


def _plain_rule(rule: Rule | None) -> list[Any]:
    # one size is a number, as in states from before there were schedules
    if rule is None:
        return []
    sizes, remainder, steps = rule
    return [sizes[0][1] if len(sizes) == 1 else [list(s) for s in sizes], remainder, steps]


def _items(values: Mapping[str, Any]) -> list[Any]:
    return [[name, value] for name, value in values.items()]


def packages_of(state: Mapping[str, Any]) -> dict[str, Any]:
    """The versions of packages that a state tells; none if what it has there tells none."""
    found: Any = state.get("packages")
    if isinstance(found, list | tuple):
        pairs = [pair for pair in found if isinstance(pair, list | tuple) and len(pair) == 2]
        return {str(pair[0]): pair[1] for pair in pairs}
    return {str(k): v for k, v in found.items()} if isinstance(found, Mapping) else {}


def frontiers_of(state: Mapping[str, Any]) -> tuple[tuple[str, int], ...]:
    return tuple((str(name), _whole(row)) for name, row in state.get("frontiers", ()))


def _whole(value: Any, least: int = 0) -> int:
    number = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not number or not least <= value <= MOST:
        raise ValueError(f"{short(value)} should be a whole number from {least} to 2**62")
    return int(value)


def _natural(key: str) -> tuple[Any, ...]:
    return tuple((part.isdigit(), int(part) if part.isdigit() else part) for part in key.split("."))


def _difference(key: str, saved: str | None, now: str | None) -> str:
    name = _clipped(key.replace("stages.", "stage "))
    if saved is None or now is None:
        return f"{name}: {'added' if saved is None else 'gone'} ({_clipped(saved or now or '')})"
    if key.rpartition(".")[0].endswith("stages"):
        (old, _, _), (new, _, _) = saved.rpartition(" "), now.rpartition(" ")
        if old == new and old:
            return f"{name}: {_clipped(old)}, code or options changed"
    other = "other records " if key.endswith("source") else ""
    change = f"{_clipped(saved)} -> {_clipped(now)}"
    return f"{name}: {other}({change})" if other else f"{name}: {change}"


def _clipped(text: str) -> str:
    return text if len(text) < 100 else text[:100] + "…"


def short(value: Any) -> str:
    text = _BRIEF.repr(value)
    return text if len(text) < 200 else text[:200] + "…"


_BRIEF = reprlib.Repr()
_BRIEF.maxdict = _BRIEF.maxlist = _BRIEF.maxother = 40
