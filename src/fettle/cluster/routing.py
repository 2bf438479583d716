"""Which sampler draws what: the same one for the same session, and few have to move when one goes."""

from collections import OrderedDict
from collections.abc import Collection, Sequence
from hashlib import blake2b

import numpy as np

from fettle.types import Tokens

SLACK = 1.25
"""How many times its fair share of new requests a sampler is given before others are preferred."""

REMEMBERED = 65536
"""How many prompts are remembered that may be gone on from."""


def ranked(key: bytes, samplers: Collection[str]) -> list[str]:
    """Samplers as a key prefers them: without one of them, the others keep their order.

    Highest random weight: Thaler and Ravishankar, 1998.
    """
    return sorted(samplers, key=lambda name: blake2b(name.encode(), key=key, digest_size=8).digest(), reverse=True)


class Sessions:
    """Where prompts were drawn: one that goes on from another goes where that was, since its beginning is cached."""

    def __init__(self) -> None:
        self._places: OrderedDict[bytes, str] = OrderedDict()
        self._lengths: dict[int, int] = {}

    def placed(self, prompts: Sequence[Tokens], costs: Sequence[int], samplers: Collection[str]) -> list[str]:
        """A sampler for each prompt; ``costs`` are what requests weigh. There must be at least one sampler."""
        fair = SLACK * sum(costs) / len(samplers)
        loads = dict.fromkeys(samplers, 0)
        found = []
        for prompt, cost in zip(prompts, costs, strict=True):
            place = self._before(prompt)
            if place not in loads:
                order = ranked(_key(prompt), loads)
                place = next((name for name in order if loads[name] + cost <= fair), min(order, key=loads.__getitem__))
            loads[place] += cost
            found.append(place)
        return found

    def remember(self, prompt: Tokens, place: str) -> None:
        """A prompt was drawn there, and others may go on from it."""
        key = _key(prompt)
        if key not in self._places:
            self._lengths[len(prompt)] = self._lengths.get(len(prompt), 0) + 1
        self._places[key] = place
        self._places.move_to_end(key)
        if len(self._places) > REMEMBERED:
            oldest, _ = self._places.popitem(last=False)
            self._forget_length(int.from_bytes(oldest[:LENGTH], "little"))

    def _before(self, prompt: Tokens) -> str | None:
        """Where the longest of the prompts was drawn that this one begins with."""
        for length in sorted((length for length in self._lengths if length <= len(prompt)), reverse=True):
            place = self._places.get(_key(prompt[:length]))
            if place is not None:
                return place
        return None

    def _forget_length(self, length: int) -> None:
        self._lengths[length] -= 1
        if not self._lengths[length]:
            del self._lengths[length]


LENGTH = 8
"""Bytes of a key that say how long its prompt is."""


def _key(prompt: Tokens) -> bytes:
    content = blake2b(np.asarray(prompt, dtype=np.int32).tobytes(), digest_size=24).digest()
    return len(prompt).to_bytes(LENGTH, "little") + content
