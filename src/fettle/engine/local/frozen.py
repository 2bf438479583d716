"""Models that are only read: references, reward models, what is evaluated. The least recently used make room."""

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from itertools import chain

from fettle.engine.local.model import LanguageModel


class FrozenModels:
    """A cache bounded in bytes. The newest model always stays, whatever its size."""

    def __init__(self, limit: int) -> None:
        """``limit`` is in bytes."""
        self._limit = limit
        self._held: OrderedDict[str, tuple[LanguageModel, int]] = OrderedDict()
        self._hits = 0
        self._misses = 0

    def model(self, weights: str, opened: Callable[[str], tuple[LanguageModel, int]]) -> tuple[LanguageModel, int]:
        """The model called ``weights`` and its version; ``opened`` loads it where it is not held."""
        if weights in self._held:
            self._hits += 1
        else:
            self._misses += 1
            self._held[weights] = opened(weights)
            while len(self._held) > 1 and self._bytes() > self._limit:
                self._held.popitem(last=False)
        self._held.move_to_end(weights)
        return self._held[weights]

    @property
    def names(self) -> Collection[str]:
        """What is held, the least recently used first."""
        return self._held.keys()

    @property
    def models(self) -> list[LanguageModel]:
        """What is held."""
        return [model for model, _ in self._held.values()]

    def statistics(self) -> Mapping[str, float]:
        """How well it does: the share of askings that found their model here, and what is held."""
        asked = self._hits + self._misses
        return {
            "frozen_models": float(len(self._held)),
            "frozen_bytes": float(self._bytes()),
            "frozen_hit_rate": self._hits / asked if asked else 0.0,
        }

    def _bytes(self) -> int:
        # Models that share storage (a base that is also adapted) count once. Weights in few bits are buffers.
        tensors = {
            t.data_ptr(): t.numel() * t.element_size()
            for model in self.models
            for t in chain(model.module.parameters(), model.module.buffers())
        }
        return sum(tensors.values())
