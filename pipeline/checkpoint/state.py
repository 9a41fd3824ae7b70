"""What a saved state says: where the stream stands, of which dataset; plain JSON, never shared."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.checkpoint.mixture import undrawn
from pipeline.errors import MismatchError, StateError
from pipeline.sampling.passes import Cursor, Lane, freeze, thaw
from pipeline.types import ENDLESS

VERSION = 1
WHOLE = 2  # of a state with the fields LATER[2]: restoring only some must not go unnoticed
EXCLUDING = 3
LATER = {1: set[str](), 2: {"since", "skips"}, 3: {"since", "skips", "excluded"}}
Ranges = tuple[tuple[int, int], ...]
Skips = Ranges
Rule = tuple[Ranges, str, int | None]  # (from_step, batch size) each, remainder, steps
Exclusion = tuple[int, str, Ranges]  # from which step on, of which component, which records


@dataclass(frozen=True, slots=True)
class Saved:
    """A state taken apart.

    Attributes:
        cursor: where the stream stands; its lanes are those that the state knows.
        rule: (batch sizes, remainder, steps) it was saved under; None if the rows tell.
        since: where other batches than these led to it, the step at which these began; else 0.
        skips: rising, disjoint half-open step ranges.
        excluded: records that are left out.
        frontiers: (a mix's schedule by its name in the fingerprint, its first row not drawn).
    """

    cursor: Cursor
    rule: Rule | None
    since: int
    skips: Skips
    excluded: tuple[Exclusion, ...] = ()
    frontiers: tuple[tuple[str, int], ...] = ()


def encode(saved: Saved, dataset: Mapping[str, str], *, whole: bool = False) -> dict[str, Any]:
    """The state as plain JSON-able data.

    Args:
        saved: what it says.
        dataset: the dataset's fingerprint.
        whole: write the optional fields too, so that every state of a dataset has the same ones.
    """
    c = saved.cursor
    excluding = whole or bool(saved.excluded)
    whole = excluding or bool(saved.since or saved.skips)
    state: dict[str, Any] = {
        "version": EXCLUDING if excluding else WHOLE if whole else VERSION,
        "rows": c.rows,
        "step": c.step,
        "epoch": c.epoch,
        "batch": c.batch,
        "dataset": _fold(dataset),
    }
    if whole:
        state |= {"since": saved.since, "skips": [list(s) for s in saved.skips]}
    if saved.frontiers:
        state["frontiers"] = [list(frontier) for frontier in saved.frontiers]
    if excluding:
        state["excluded"] = [[s, name, [list(r) for r in rs]] for s, name, rs in saved.excluded]
    if c.lanes:
        state["lanes"] = [[lane, thaw(place)] for lane, place in c.lanes]
        state["taken"] = c.taken
        state["rule"] = _plain(saved.rule) if saved.rule else []
    return state


def decode(state: Any) -> Saved:
    """Take a state apart.

    Raises:
        StateError: it is no state, is damaged, or was written by a newer version.
    """
    if not isinstance(state, Mapping) or "version" not in state:
        raise StateError(f"not a loader's state: {_short(state)}. Give what state_dict() returned.")
    if state["version"] not in LATER:
        raise StateError(
            f"the state has version {state['version']}, this Lockstep reads up to {max(LATER)}: "
            "use the Lockstep that wrote it, or newer"
        )
    lost = LATER[state["version"]] - set(state)
    if lost:
        raise StateError(
            f"the state has lost its fields {sorted(lost)}: torch.distributed.checkpoint restores "
            "only those that a fresh loader's state has. Give the loader feed=TorchFeed(), or save "
            "json.dumps(loader.state_dict())."
        )
    try:
        lanes = tuple(sorted(_lane(lane) for lane in state.get("lanes", ())))
        cursor = Cursor(
            rows=_count(state, "rows"),
            step=_count(state, "step"),
            epoch=_count(state, "epoch"),
            batch=_count(state, "batch"),
            lanes=lanes,
            taken=_count(state, "taken") if lanes else 0,
        )
        skips = merge_skips((_whole(a), _whole(b)) for a, b in state.get("skips", ()))
        since = _whole(state.get("since", 0))
        excluded = tuple(_exclusion(e) for e in state.get("excluded", ()))
        if len({lane[0] for lane in lanes}) != len(lanes):
            raise ValueError(f"a lane stands twice in {lanes}")
        rule = _rule(state["rule"]) if lanes else None
        return Saved(cursor, rule, since, skips, excluded, _frontiers(state))
    except (KeyError, TypeError, ValueError) as e:
        raise StateError(f"the state is damaged ({e!r}): {_short(state)}. Use another.") from e


def check_dataset(state: Mapping[str, Any], now: Mapping[str, str], allow: Collection[str]) -> None:
    """Raises MismatchError, listing what differs, if the state is of another dataset than `now`."""
    if isinstance(allow, str):
        raise StateError(f"allow={allow!r}: give a collection of names, like {{{allow!r}}}")
    try:
        saved = _unfold(state["dataset"])
    except (KeyError, AttributeError, TypeError) as e:
        raise StateError(f"the state names no dataset: {_short(state)}. Use another.") from e
    open_ = undrawn(saved, now, _frontiers(state))
    keys = sorted({*saved, *now} - open_, key=_natural)
    wrong = [k for k in keys if saved.get(k) != now.get(k) and (k == "lanes" or k not in allow)]
    if not wrong:
        return
    differences = "; ".join(_difference(k, saved.get(k), now.get(k)) for k in wrong)
    remedy = _lanes_remedy("lanes" in saved, "lanes" in now)
    if "lanes" not in wrong:
        names = ", ".join(repr(k) for k in wrong)
        remedy = f"{_drawn(wrong, state)}Intended? load_state_dict(s, allow={{{names}}})."
    raise MismatchError(f"the state is of another dataset. {differences}. {remedy}")


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
        StateError: none given, or they were taken at different steps or of different datasets.

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
    common = [{k: v for k, v in s.items() if k not in ("lanes", "frontiers")} for s in states]
    for i, other in enumerate(common):
        differing = [k for k in {*common[0], *other} if common[0].get(k) != other.get(k)]
        if differing:
            shown = {k: (common[0].get(k), other.get(k)) for k in sorted(differing)}
            raise StateError(
                f"the states of hosts 0 and {i} were not taken together: {shown}. "
                "Merge states of one step."
            )
    merged = _copy(states[0])
    if any("frontiers" in s for s in states):
        known = [_frontiers(s) for s in states]
        merged["frontiers"] = [
            [k[0][0], max(row for _, row in k)] for k in zip(*known, strict=True)
        ]
    if any("lanes" in s for s in states):
        lanes = {_lane(lane) for s in states for lane in s.get("lanes", ())}
        merged["lanes"] = [[lane, thaw(place)] for lane, place in sorted(lanes)]
        decode(merged)
    return merged


def merge_skips(ranges: Iterable[tuple[int, int]]) -> Skips:
    """Half-open ranges, sorted and joined.

    >>> merge_skips([(5, 8), (1, 3), (2, 4)])
    ((1, 4), (5, 8))
    """
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(r for r in ranges if r[0] < r[1]):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
        else:
            joined.append((start, stop))
    return tuple(joined)


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
    return flat


def _copy(state: Any) -> Any:
    if isinstance(state, Mapping):
        return {k: _copy(v) for k, v in state.items()}
    return [_copy(v) for v in state] if isinstance(state, list | tuple) else state


def _lane(values: Any) -> Lane:
    lane, place = values
    return _whole(lane), freeze(place)


def _exclusion(values: Any) -> Exclusion:
    since, name, ranges = values
    return _whole(since), str(name), merge_skips((_whole(a), _whole(b)) for a, b in ranges)


def _rule(values: Any) -> Rule:
    sizes, remainder, steps = values
    pairs = sizes if isinstance(sizes, list | tuple) else [(0, sizes)]
    parts = tuple((_whole(since), _whole(size)) for since, size in pairs)
    return parts, str(remainder), None if steps is None else _whole(steps)


def _plain(rule: Rule) -> list[Any]:
    # one size is a number, as in states from before there were schedules
    sizes, remainder, steps = rule
    return [sizes[0][1] if len(sizes) == 1 else [list(s) for s in sizes], remainder, steps]


def _frontiers(state: Mapping[str, Any]) -> tuple[tuple[str, int], ...]:
    return tuple((str(name), _whole(row)) for name, row in state.get("frontiers", ()))


def _count(state: Mapping[str, Any], key: str) -> int:
    return _whole(state[key])


def _whole(value: Any) -> int:
    number = int(value)
    if isinstance(value, bool) or number != value or number < 0:
        raise ValueError(f"{value!r} should be a whole number from 0 on")
    return number


def _natural(key: str) -> tuple[Any, ...]:
    return tuple((part.isdigit(), int(part) if part.isdigit() else part) for part in key.split("."))


def _difference(key: str, saved: str | None, now: str | None) -> str:
    name = key.replace("stages.", "stage ")
    if saved is None or now is None:
        return f"{name}: {'added' if saved is None else 'gone'} ({saved or now})"
    if key.rpartition(".")[0].endswith("stages"):
        (old, _, _), (new, _, _) = saved.rpartition(" "), now.rpartition(" ")
        if old == new and old:
            return f"{name}: {old}, code or options changed"
    if key.endswith("source"):
        return f"{name}: other records ({saved} -> {now})"
    return f"{name}: {saved} -> {now}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 200 else text[:200] + "…"
