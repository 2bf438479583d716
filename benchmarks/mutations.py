"""Sound requests made wrong: other types, huge and tiny numbers, depth, missing, doubled and unknown keys, bytes."""

import json
from collections.abc import Iterator, Mapping
from random import Random
from typing import Any

Place = tuple[str | int, ...]

DEPTH = 100_000
_DEEP, _HUGE = "@deep@", "@huge@"
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 0.5, -0.0),
    *(2**31 - 1, 2**31, -(2**31) - 1, 2**53 + 1, 2**63, -(2**63) - 1, 2**64, 10**30, 10**400, _HUGE),
    *(1e308, -1e308, 5e-324, 1e-12, float("nan"), float("inf"), float("-inf")),
    *("", " ", "a", "0", "NaN", "\0", "\ud800", "a\udfffb", "\u202e\u0301", "x" * 70_000, "../../x", "%s{0}"),
    *([], [[]], [None], [0, "a"], {}, {"": 0}, {"type": "ppo"}, {"type": []}, _DEEP),
)
"""What stands in the place of something sound."""
UNKNOWN = ("unknown", "", "type", "__class__", "data", "seq", "\ud800", "x" * 5000)
"""Keys that a body does not have."""
REPEATED = 200
"""How often an element of a list is put in again."""


class Doubled(dict[str, Any]):
    """An object that is written with one of its keys twice."""

    def __init__(self, given: Mapping[str, Any], key: str, value: Any) -> None:
        super().__init__(given)
        self._again = (key, value)

    def items(self) -> Any:
        """As they are written."""
        return [*super().items(), self._again]


def places(tree: Any, path: Place = ()) -> Iterator[Place]:
    """Every place in a tree, the whole of it first."""
    yield path
    items = dict.items(tree) if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def mutated(tree: Any, rng: Random) -> Any:
    """The tree with one to three things changed at random."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        tree = _changed(tree, rng.choice(list(places(tree))), rng)
    return tree


def _changed(tree: Any, place: Place, rng: Random) -> Any:
    """The tree with what stands at a place changed; only the way there is copied."""
    if not place:
        return _other(tree, rng)
    copy: Any = dict(tree) if isinstance(tree, dict) else list(tree)
    if len(place) == 1 and rng.random() < 0.2:
        del copy[place[0]]
    else:
        copy[place[0]] = _changed(copy[place[0]], place[1:], rng)
    return copy


def _other(value: Any, rng: Random) -> Any:
    """Something in the place of a value: most of it made of the value, where that is an object or a list."""
    if isinstance(value, dict) and rng.random() < 0.7:
        if value and rng.random() < 0.5:
            return Doubled(value, rng.choice(list(value)), rng.choice(ODD))
        return {**value, rng.choice(UNKNOWN): rng.choice(ODD)}
    if isinstance(value, list) and value and rng.random() < 0.5:
        return [*value, rng.choice(ODD)] if rng.random() < 0.5 else value + [rng.choice(value)] * REPEATED
    if rng.random() < 0.2:
        return _retyped(value)
    return rng.choice(ODD)


def _retyped(value: Any) -> Any:
    """The same in another type."""
    if isinstance(value, str):
        return [value]
    return str(value) if isinstance(value, int | float) else {"value": value}


def written(tree: Any) -> bytes:
    """A tree as JSON, with numbers and depths that Python would not write."""
    text = json.dumps(tree)
    text = text.replace(json.dumps(_DEEP), "[" * DEPTH + "]" * DEPTH)
    return text.replace(json.dumps(_HUGE), "9" * 5000).encode()


def damaged(said: bytes, rng: Random) -> bytes:
    """Bytes of which a few are changed, cut off, put in or repeated."""
    found = bytearray(said)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(found) + 1)
        kind = rng.randrange(4)
        if kind == 0 and place < len(found):
            found[place] = rng.randrange(256)
        elif kind == 1:
            del found[place:]
        elif kind == 2:
            found[place:place] = rng.randbytes(rng.randint(1, 8))
        else:
            found += found[place : place + 64]
    return bytes(found)
