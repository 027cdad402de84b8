"""Search spaces: the `space` table of a tuner as axes, what is wrong with it, and draws from it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from fscore.component import Scalar

if TYPE_CHECKING:
    import numpy as np

Params = dict[str, Scalar]
RANGE = {"low", "high"}
KNOWN = {"low", "high", "log", "values", "when"}
FORMS = "a list, { low, high, log, when } or { values, when }"


@frozen
class Axis:
    """One dotted key and what it may be: one of `values`, or a number from `low` to `high`, both included.

    It is an integer where both bounds are. `when` names earlier keys and the values with which this key is there at all.
    """

    key: str
    values: tuple[Scalar, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    when: Mapping[str, tuple[Scalar, ...]] = field(factory=dict)

    @property
    def whole(self) -> bool:
        """Whether it is a range of integers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def holds(self, params: Mapping[str, Scalar]) -> bool:
        """Whether the key is there, given the values of the keys before it."""
        return all(params.get(key) in allowed for key, allowed in self.when.items())

    def at(self, share: float) -> Scalar:
        """Return the value at a share in [0, 1]: linear, or linear in the logarithm."""
        if self.values:
            return self.values[min(int(share * len(self.values)), len(self.values) - 1)]
        high = self.high + self.whole  # every integer gets an equal share
        if self.log:
            value = self.low * math.exp(share * (math.log(high) - math.log(self.low)))
        else:
            value = self.low + share * (high - self.low)
        value = min(max(value, self.low), self.high)
        return math.floor(value) if self.whole else float(value)

    def share(self, value: float) -> float:
        """Return the share at which `at` gives a number of the range; of an integer the middle of its shares."""
        low, high, middle = self.low, self.high + self.whole, value + self.whole / 2
        if high == low:
            return 0.5
        if self.log:
            return math.log(middle / low) / math.log(high / low)
        return (middle - low) / (high - low)

    def may_be(self, value: Any) -> bool:
        """Whether the key can have a value; of a range that is no integer only its ends are met."""
        if self.values:
            return value in self.values
        if not isinstance(value, int | float):
            return False
        return self.low <= value <= self.high if self.whole else value in (self.low, self.high)

    def corners(self) -> tuple[Scalar, ...]:
        """Return the values that show whether the course takes this axis: all of a list, the ends of a range."""
        return self.values or (self.at(0.0), self.at(1.0))


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a table by dotted key: { trainer.lr = 0.1 } is the same as { "trainer.lr" = 0.1 }.

    A table that says low, high or values stays as it is.
    """
    found: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping) and value and not set(value) & {*RANGE, "values"}:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def axes(space: Mapping[str, Any]) -> list[Axis]:
    """Return the axes of a space in which `problems` found nothing, in its order."""
    return [_axis(key, entry) for key, entry in flat(space).items()]


def _axis(key: str, entry: Any) -> Axis:
    if isinstance(entry, list):
        return Axis(key, tuple(entry))
    when = flat(entry.get("when", {}))
    when = {k: tuple(v) if isinstance(v, list) else (v,) for k, v in when.items()}
    if "values" in entry:
        return Axis(key, tuple(entry["values"]), when=when)
    return Axis(key, (), entry["low"], entry["high"], entry.get("log", False), when)


def problems(space: Mapping[str, Any], where: str = "tune.space") -> Iterator[str]:
    """Yield what is wrong with a space, one line each."""
    if not space:
        yield f"{where}: empty; name at least one dotted key of the course"
    before: dict[str, Any] = {}
    for key, entry in flat(space).items():
        found = list(_entry_problems(entry, before))
        yield from (f"{where}.{key}: {line}" for line in found)
        before[key] = None if found else _axis(key, entry)


def _entry_problems(entry: Any, before: Mapping[str, Axis | None]) -> Iterator[str]:
    if isinstance(entry, list):
        yield from _list_problems(entry)
    elif not _formed(entry):
        yield f"expected {FORMS}"
    elif "values" in entry:
        yield from (f"values: {line}" for line in _list_problems(entry["values"]))
    else:
        yield from _range_problems(entry)
    if isinstance(entry, Mapping):
        yield from _when_problems(entry.get("when", {}), before)


def _list_problems(values: Any) -> Iterator[str]:
    if not (isinstance(values, list) and values):
        yield "expected a list that is not empty"
        return
    for place, value in enumerate(values):
        if value in values[:place]:
            yield f"{value!r} stands there twice"


def _formed(entry: Any) -> bool:
    if not isinstance(entry, Mapping):
        return False
    return set(entry) <= KNOWN and (
        set(entry) <= {"values", "when"} and "values" in entry
        if "values" in entry
        else set(entry) >= RANGE
    )


def _range_problems(entry: Mapping[str, Any]) -> Iterator[str]:
    low, high = entry["low"], entry["high"]
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in (low, high)):
        yield "low and high: expected numbers"
    elif not (math.isfinite(low) and math.isfinite(high)):
        yield "low and high: expected finite numbers"
    elif low > high:
        yield f"low {low} is greater than high {high}"
    elif not isinstance(entry.get("log", False), bool):
        yield "log: expected true or false"
    elif entry.get("log") and low <= 0:
        yield f"a logarithmic range needs low > 0, got {low}"


def _when_problems(when: Any, before: Mapping[str, Axis | None]) -> Iterator[str]:
    if not isinstance(when, Mapping):
        yield 'when: expected a table, like { "trainer.use" = "prox" }'
        return
    for key, given in flat(when).items():
        if key not in before:
            yield f"when: '{key}' is no key of the space before this one"
        elif (axis := before[key]) is not None:
            for value in given if isinstance(given, list) else [given]:
                if not axis.may_be(value):
                    yield f"when: '{key}' is never {value!r}"


def draw(space: Sequence[Axis], rng: np.random.Generator) -> Params:
    """Return independent uniform values of all keys that are there."""
    params: Params = {}
    for axis in space:
        share = float(rng.random())
        if axis.holds(params):
            params[axis.key] = axis.at(share)
    return params


def grid(space: Sequence[Axis], points: int) -> list[Params]:
    """Return every combination, the last key fastest; ranges are cut into `points`, keys that are not there left out."""
    choices = [
        list(axis.values) or list(dict.fromkeys(axis.at(i / (points - 1)) for i in range(points)))
        for axis in space
    ]
    found: list[Params] = []
    for point in itertools.product(*choices):
        params: Params = {}
        for axis, value in zip(space, point, strict=True):
            if axis.holds(params):
                params[axis.key] = value
        if params not in found:
            found.append(params)
    return found


def examples(space: Sequence[Axis]) -> Iterator[tuple[str, Params]]:
    """Yield settings that together try each corner of each axis, and the key that each one tries.

    Conditions are met where a key that others depend on can take several values.
    """
    first = {axis.key: axis.corners()[0] for axis in space}
    for axis in space:
        for value in axis.corners():
            wished = {**first, axis.key: value}
            for key, allowed in _conditions(axis, space).items():
                wished[key] = allowed[0]
            params: Params = {}
            for other in space:
                if other.holds(params):
                    params[other.key] = wished[other.key]
            yield axis.key, params


def _conditions(axis: Axis, space: Sequence[Axis]) -> dict[str, tuple[Scalar, ...]]:
    """Return what must hold for an axis to be there, with what that depends on in turn."""
    known = {other.key: other for other in space}
    found: dict[str, tuple[Scalar, ...]] = {}
    for key, allowed in axis.when.items():
        found |= _conditions(known[key], space)
        found[key] = allowed
    return found
