"""A clock that jumps from event to event, and the queue that everything waits in."""

import heapq
import math
from collections import deque
from collections.abc import Callable
from typing import Any

Then = Callable[[], object]
"""What happens next."""


class Clock:
    """Events in the order of their times; of those at one time, the one that was asked for first comes first."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._asked = 0

    def after(self, seconds: float, call: Callable[..., object], *given: Any) -> None:
        """Have ``call`` called with what is ``given``, so many seconds from now."""
        heapq.heappush(self._due, (self.now + seconds, self._asked, call, given))
        self._asked += 1

    def run(self) -> None:
        """Until nothing is left to happen."""
        while self._due:
            self.now, _, call, given = heapq.heappop(self._due)
            call(*given)


class Tally:
    """Who is in a place, counted in two ways: as a number over time, and stay by stay."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since = 0.0
        self._busy = 0.0
        self.inside = 0
        self.area = 0.0
        """The number inside, over time."""
        self.stays = 0.0
        """Seconds that those who left had been inside, all together."""
        self.left = 0

    def enter(self, number: int = 1) -> float:
        """So many come in; returns when, which ``leave`` is told."""
        self._pass()
        self.inside += number
        return self._clock.now

    def leave(self, entered: float) -> None:
        """One goes, who came in then."""
        self._pass()
        self.inside -= 1
        self.left += 1
        self.stays += self._clock.now - entered

    @property
    def busy(self) -> float:
        """Seconds so far in which anybody was inside."""
        self._pass()
        return self._busy

    def _pass(self) -> None:
        passed = self._clock.now - self._since
        self.area += passed * self.inside
        self._busy += passed if self.inside else 0.0
        self._since = self._clock.now


class Line:
    """Servers with one queue before them: first come, first served. With ``math.inf`` servers nobody waits."""

    def __init__(self, clock: Clock, servers: float = 1) -> None:
        self._clock = clock
        self._servers = servers
        self._free = servers
        self._waiting: deque[tuple[float, float, Then]] = deque()
        self._served = Tally(clock)
        self.tally = Tally(clock)
        """Of those who wait and those who are served."""

    def take(self, seconds: float, then: Then) -> None:
        """Be served for so many seconds, when it is one's turn."""
        entered = self.tally.enter()
        if self._free:
            self._begin(entered, seconds, then)
        else:
            self._waiting.append((entered, seconds, then))

    @property
    def used(self) -> float:
        """Seconds so far in which a server was at work, on average over them; without end of them, in which any was."""
        if math.isinf(self._servers):
            return self._served.busy
        self._served.enter(0)
        return self._served.area / self._servers

    def _begin(self, entered: float, seconds: float, then: Then) -> None:
        self._free -= 1
        self._clock.after(seconds, self._end, entered, self._served.enter(), then)

    def _end(self, entered: float, began: float, then: Then) -> None:
        self._free += 1
        self._served.leave(began)
        self.tally.leave(entered)
        if self._waiting:
            self._begin(*self._waiting.popleft())
        then()
