"""A saved state: a position and the dataset it belongs to, as plain JSON-able data."""

from __future__ import annotations

import reprlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.checkpoint.mixture import undrawn
from pipeline.checkpoint.position import Exclusion, Position, Skip
from pipeline.errors import MismatchError, StateError
from pipeline.sampling.cursor import Cursor, Lane, Parts
from pipeline.sampling.cuts import Ranges, joined
from pipeline.sampling.sizes import Rule
from pipeline.types import ENDLESS

PLAIN, FULL = 1, 4
# what each version must hold beside the fields of version 1: some checkpointers restore only those
# fields that a fresh loader's state has, and that must not go unnoticed
FIELDS = {
    1: set[str](),
    2: {"since", "skips"},
    3: {"since", "skips", "excluded"},
    4: {"anchor", "rule", "skips", "excluded"},
}
MOST = 1 << 62  # no number of a state is larger
MANY = 64  # differences that a message lists


@dataclass(frozen=True, slots=True)
class SavedState:
    """A state taken apart.

    Attributes:
        position: where the loader stood; its lanes are those that the state knows.
        rule: how batches were cut; None if the state does not tell.
        frontiers: (a mix's schedule by its name in the fingerprint, its first row not drawn).
        same: whether it is of the very dataset that takes it over, without a difference allowed.
    """

    position: Position
    rule: Rule | None
    frontiers: tuple[tuple[str, int], ...] = ()
    same: bool = False

    def check_within(self, what: str, number: int, first: int, last: int) -> None:
        """Raises StateError where a number lies outside of the epoch that the state names.

        Of a dataset that has changed since, by intent, the pass may have become shorter.
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
    full: bool = False,
) -> dict[str, Any]:
    """The state as plain JSON-able data.

    Args:
        saved: what it says.
        dataset: the dataset's fingerprint.
        packages: versions of the installed packages that its functions use.
        full: write the optional fields too, so that every state of a dataset has the same ones.
    """
    position, c = saved.position, saved.position.cursor
    full = full or bool(position.anchor.step or position.skips or position.exclusions)
    state: dict[str, Any] = {
        "version": FULL if full else PLAIN,
        "rows": c.rows,
        "step": c.step,
        "epoch": c.epoch,
        "batch": c.batch,
        "dataset": _fold(dataset),
    }
    if packages:
        state["packages"] = dict(packages)
    if saved.frontiers:
        state["frontiers"] = [list(frontier) for frontier in saved.frontiers]
    if c.lanes:
        state["lanes"] = [[lane, thaw(place, lists=full)] for lane, place in c.lanes]
        state["taken"] = c.taken
    if c.lanes or full:
        state["rule"] = _plain_rule(saved.rule)
    if full:
        # lists alone: some checkpointers take mappings within lists apart
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


def decode(state: Any) -> SavedState:
    """Take a state apart.

    Raises:
        StateError: it is no state, is damaged, or was written by a newer version.
    """
    if not isinstance(state, Mapping) or "version" not in state:
        raise StateError(f"not a loader's state: {_short(state)}. Give what state_dict() returned.")
    version = state["version"]
    if not isinstance(version, int) or version not in FIELDS:
        raise StateError(
            f"the state has version {_short(version)}, this Lockstep reads up to {max(FIELDS)}: "
            "use the Lockstep that wrote it, or newer"
        )
    lost = FIELDS[version] - set(state)
    if lost:
        raise StateError(
            f"the state has lost its fields {sorted(lost)}: torch.distributed.checkpoint restores "
            "only those that a fresh loader's state has. Give the loader feed=TorchFeed(), or save "
            "json.dumps(loader.state_dict())."
        )
    try:
        return _decoded(state, version)
    except (KeyError, TypeError, ValueError, RecursionError) as e:
        raise StateError(
            f"the state is damaged ({_short(e)}): {_short(state)}. Use another."
        ) from e


def _decoded(state: Mapping[str, Any], version: int) -> SavedState:
    lanes = tuple(sorted(map(_lane, state.get("lanes", ()))))
    if len({lane for lane, _ in lanes}) != len(lanes):
        raise ValueError(f"a lane stands twice in {_short(lanes)}")
    rows, step, epoch, batch = (_whole(state[key]) for key in ("rows", "step", "epoch", "batch"))
    cursor = Cursor(rows, step, epoch, batch, lanes, _whole(state["taken"]) if lanes else 0)
    rule = _rule(state["rule"]) if lanes or version == FULL else None
    anchor = Cursor()
    if version == FULL:
        anchor = _cursor(state["anchor"])
        skips = tuple(_skip(skip) for skip in state["skips"])
    else:
        # an older state tells that other batches led to it, but not from where these counted
        if _whole(state.get("since", 0)):
            anchor = replace(cursor, lanes=())
        steps = _ranges(state.get("skips", ()))
        skips = (Skip(steps, rule, anchor),) if steps else ()
    excluded = tuple(map(_exclusion, state.get("excluded", ())))
    return SavedState(Position(cursor, anchor, skips, excluded), rule, _frontiers(state))


def check_dataset(state: Mapping[str, Any], now: Mapping[str, str], allow: Collection[str]) -> bool:
    """Whether the state is of the dataset `now` to the last key; some differences are no error.

    Raises:
        MismatchError: it is of another dataset; lists what differs.
    """
    if isinstance(allow, str):
        raise StateError(f"allow={allow!r}: give a collection of names, like {{{allow!r}}}")
    found = differences(state, now, allow)
    if not found:
        return _unfold(state["dataset"]) == now
    text = "; ".join(list(found.values())[:MANY])
    text += f"; and {len(found) - MANY} more" if len(found) > MANY else ""
    saved = _unfold(state["dataset"])
    remedy = _lanes_remedy("lanes" in saved, "lanes" in now)
    if "lanes" not in found:
        names = ", ".join(repr(_clipped(k)) for k in found)
        remedy = f"{_drawn(list(found), state)}Intended? load_state_dict(s, allow={{{names}}})."
    raise MismatchError(f"the state is of another dataset. {text}. {remedy}")


def differences(
    state: Mapping[str, Any], now: Mapping[str, str], allow: Collection[str] = ()
) -> dict[str, str]:
    """What differs between the dataset of a state and `now`: fingerprint field -> words.

    Raises:
        StateError: the state names no dataset.
    """
    try:
        saved = _unfold(state["dataset"])
        open_ = undrawn(saved, now, _frontiers(state)) if state.get("frontiers") else set[str]()
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as e:
        raise StateError(f"the state names no dataset: {_short(state)}. Use another.") from e
    keys = sorted({*saved, *now} - open_, key=_natural)
    wrong = [k for k in keys if saved.get(k) != now.get(k) and (k == "lanes" or k not in allow)]
    return {k: _difference(k, saved.get(k), now.get(k)) for k in wrong}


def _lanes_remedy(before: bool, after: bool) -> str:
    if before and after:
        return "Lanes cannot be changed on the way: build the dataset with the old number."
    was, now = ("by position", "as they come") if after else ("as they come", "by position")
    return (
        f"Its rows were known {was} and are now {now}: a filter, flat_map or pack came or went, "
        "here or in a dataset of a mix. What is added can filter or pack by a scan instead."
    )


def _drawn(wrong: Sequence[str], state: Mapping[str, Any]) -> str:
    # how far the mixes are drawn whose schedules differ
    rows = [row for name, row in _frontiers(state) if any(k.startswith(name) for k in wrong)]
    if not rows:
        return ""
    end = "wholly" if rows[0] == ENDLESS else f"up to row {rows[0]}"
    return f"The mix is drawn {end}: only from there on may its schedule change. "


def merge(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One state from those of all hosts, taken after the same step.

    Row-split hosts have equal states; lane-split ones each know their own lanes.

    Raises:
        StateError: none given, a host's is missing or stands twice, or they were taken at different
            steps or of different datasets.

    >>> from pipeline import Dataset, Loader
    >>> ds = Dataset(range(100)).filter(lambda x: x % 3 > 0).lanes(2).repeat()
    >>> hosts = [Loader(ds, 4, host=h, hosts=2) for h in range(2)]
    >>> _ = [next(loader) for loader in hosts]
    >>> merge([loader.state_dict() for loader in hosts])["lanes"]
    [[0, [0, 2]], [1, [0, 2]]]
    """
    if not states:
        raise StateError("merge needs the state of each host, got none")
    for state in states:
        decode(state)
    apart = ("lanes", "frontiers", "packages")
    common = [{k: v for k, v in s.items() if k not in apart} for s in states]
    for i, other in enumerate(common):
        differing = [k for k in {*common[0], *other} if common[0].get(k) != other.get(k)]
        if differing:
            shown = {k: (common[0].get(k), other.get(k)) for k in sorted(differing)}
            raise StateError(
                f"the states of hosts 0 and {i} were not taken together: {_short(shown)}. "
                "Merge states of one step."
            )
    merged = _copy(states[0])
    if any("frontiers" in s for s in states):
        known = [_frontiers(s) for s in states]
        merged["frontiers"] = [
            [k[0][0], max(row for _, row in k)] for k in zip(*known, strict=True)
        ]
    if any("lanes" in s for s in states):
        lanes = [_lane(lane) for s in states for lane in s.get("lanes", ())]
        _check_lanes([lane for lane, _ in lanes], merged["dataset"])
        full = merged["version"] == FULL
        merged["lanes"] = [[lane, thaw(place, lists=full)] for lane, place in sorted(lanes)]
    return merged


def _check_lanes(found: list[int], dataset: Any) -> None:
    every = range(int(dataset["lanes"])) if isinstance(dataset, Mapping) else range(0)
    missing = sorted({*every} - {*found})
    twice = sorted({lane for lane in found if found.count(lane) > 1})
    if missing or twice:
        shown = f"{_short(missing)} are missing" if missing else f"{_short(twice)} stand twice"
        raise StateError(
            f"these are not the states of all hosts, each once: of {len(every)} lanes, {shown}. "
            "Give merge the state_dict() of each host."
        )


def _fold(dataset: Mapping[str, str]) -> dict[str, Any]:
    # {"stages.0": a, "stages.1": b} as {"stages": [a, b]}: states stay short
    folded: dict[str, Any] = {}
    for key, value in dataset.items():
        head, _, last = key.rpartition(".")
        if last.isdigit():
            folded.setdefault(head, []).append(value)
        else:
            folded[key] = value
    return folded


def _unfold(folded: Mapping[str, Any]) -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in folded.items():
        many = isinstance(value, list | tuple)
        flat |= {f"{key}.{i}": v for i, v in enumerate(value)} if many else {key: value}
    texts: list[Any] = [*flat, *flat.values()]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("a fingerprint holds texts")
    return flat


def freeze(place: Any) -> Any:
    """A place from plain JSON-able data.

    Raises:
        ValueError: it is none.

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
    """A place as plain JSON-able data; only in lists, where mappings in lists are taken apart."""
    if isinstance(place, Parts):
        found = [[name, thaw(at, lists=lists)] for name, at in place]
        return ["parts", *found] if lists else dict(found)
    return [thaw(at, lists=lists) for at in place] if isinstance(place, tuple) else place


def _copy(state: Any) -> Any:
    if isinstance(state, Mapping):
        return {k: _copy(v) for k, v in state.items()}
    return [_copy(v) for v in state] if isinstance(state, list | tuple) else state


def _lane(values: Any) -> Lane:
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
        raise TypeError(f"{_short(name)} is no component")
    return _whole(since), name, _ranges(ranges)


def _ranges(values: Any) -> Ranges:
    found = [(_whole(start), _whole(stop)) for start, stop in values]
    return joined(found) if found else ()


def _rule(values: Any) -> Rule:
    sizes, remainder, steps = values
    pairs = sizes if isinstance(sizes, list | tuple) else [(0, sizes)]
    parts = tuple((_whole(since), _whole(size, 1)) for since, size in pairs)
    if not parts or parts[0][0] or list(parts) != sorted(dict(parts).items()):
        raise ValueError(f"{_short(sizes)} are no batch sizes")
    return parts, str(remainder), None if steps is None else _whole(steps, 1)


def _plain_rule(rule: Rule | None) -> list[Any]:
    # one size is a number, as in states from before there were schedules
    if rule is None:
        return []
    sizes, remainder, steps = rule
    return [sizes[0][1] if len(sizes) == 1 else [list(s) for s in sizes], remainder, steps]


def _frontiers(state: Mapping[str, Any]) -> tuple[tuple[str, int], ...]:
    return tuple((str(name), _whole(row)) for name, row in state.get("frontiers", ()))


def _whole(value: Any, least: int = 0) -> int:
    number = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not number or not least <= value <= MOST:
        raise ValueError(f"{_short(value)} should be a whole number from {least} to 2**62")
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


def _short(value: Any) -> str:
    text = _BRIEF.repr(value)
    return text if len(text) < 200 else text[:200] + "…"


_BRIEF = reprlib.Repr()
_BRIEF.maxdict = _BRIEF.maxlist = _BRIEF.maxother = 40
