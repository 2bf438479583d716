"""The last draws of every run, in memory, as far as there is room for them."""

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from fettle.engine.base import SampleRequest
from fettle.types import Completion

MOST_DRAWS = 64
"""Of each run."""
MOST_BYTES_OF_RUN = 1 << 20
MOST_BYTES = 64 << 20
"""Of all runs."""
TOKEN_BYTES = 64
"""Of a token in a list, with its log-probability."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A draw of a run, as it was; its tokens are read only by whoever wants their text."""

    at: datetime
    requests: Sequence[SampleRequest]
    completions: Sequence[Completion]
    """Request after request."""

    @property
    def nbytes(self) -> int:
        """Memory that it takes, about."""
        prompts = sum(len(request.prompt) for request in self.requests)
        return TOKEN_BYTES * (1 + prompts + sum(len(completion.tokens) for completion in self.completions))


@dataclass(slots=True)
class _Kept:
    draws: deque[Drawn] = field(default_factory=deque)
    nbytes: int = 0

    def drop_oldest(self) -> int:
        """The bytes that it had."""
        dropped = self.draws.popleft().nbytes
        self.nbytes -= dropped
        return dropped


class Recent:
    """Older draws make room for newer ones: a run's own, and then those of the run that has drawn least recently."""

    def __init__(self, *, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._runs: OrderedDict[str, _Kept] = OrderedDict()
        self.nbytes = 0

    def add(self, run_id: str, drawn: Drawn) -> None:
        """Keep a draw."""
        kept = self._runs.setdefault(run_id, _Kept())
        self._runs.move_to_end(run_id)
        kept.draws.append(drawn)
        kept.nbytes += drawn.nbytes
        self.nbytes += drawn.nbytes
        while len(kept.draws) > MOST_DRAWS or kept.nbytes > MOST_BYTES_OF_RUN:
            self.nbytes -= kept.drop_oldest()
        while self.nbytes > self._most_bytes:
            self.forget(next(iter(self._runs)))

    def of(self, run_id: str) -> list[Drawn]:
        """Those of a run, newest first."""
        kept = self._runs.get(run_id)
        return [] if kept is None else list(reversed(kept.draws))

    def forget(self, run_id: str) -> None:
        """Let go of those of a run."""
        kept = self._runs.pop(run_id, None)
        self.nbytes -= 0 if kept is None else kept.nbytes
