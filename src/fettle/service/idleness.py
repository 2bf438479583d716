"""Which runs nobody asks anything of: they can give their memory back until somebody does."""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import partial

from fettle.broker import Promise
from fettle.service.clock import Clock

IDLE = timedelta(minutes=2)
"""After which a run that nothing is under way with is idle: a loop that works on its rewards comes back sooner."""


class Idleness:
    """When each run was last asked for something. Of what an earlier process was asked, it is taken to be now."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since = clock()
        self._heard: dict[str, datetime] = {}
        self._under_way: Counter[str] = Counter()

    def asked(self, run_id: str, promise: Promise) -> None:
        """Note an operation of a run, or a draw from its weights, that was taken in."""
        self._under_way[run_id] += 1
        self._heard[run_id] = self._clock()
        promise.when_done(partial(self._answered, run_id))

    def forget(self, run_id: str) -> None:
        """A run is over."""
        self._heard.pop(run_id, None)

    def longest(self, run_ids: Iterable[str]) -> list[str]:
        """Those that are idle, whoever has been for longest first."""
        latest = self._clock() - IDLE
        idle = [run_id for run_id in run_ids if run_id not in self._under_way and self._last(run_id) <= latest]
        return sorted(idle, key=self._last)

    def _last(self, run_id: str) -> datetime:
        return self._heard.get(run_id, self._since)

    def _answered(self, run_id: str, _: Promise) -> None:
        self._under_way[run_id] -= 1
        if not self._under_way[run_id]:
            del self._under_way[run_id]
        if run_id in self._heard:
            self._heard[run_id] = self._clock()
