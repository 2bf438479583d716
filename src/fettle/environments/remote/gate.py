"""How a client asks: so many at once, and again after a while that grows and is never the same."""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from random import Random


class Gate:
    """At most so many are within at once, whichever event loops they are of; the others wait in the order they came."""

    def __init__(self, width: int) -> None:
        self._free = width
        self._waiting: deque[Future[None]] = deque()
        self._lock = threading.Lock()

    @asynccontextmanager
    async def passed(self) -> AsyncIterator[None]:
        """Within it a place is held."""
        turn: Future[None] = Future()
        with self._lock:
            self._waiting.append(turn)
        self._admit()
        try:
            await asyncio.wrap_future(turn)
            yield
        finally:
            if not turn.cancel():  # a turn that came is given back
                with self._lock:
                    self._free += 1
                self._admit()

    def _admit(self) -> None:
        with self._lock:
            while self._free and self._waiting:
                if self._waiting[0].set_running_or_notify_cancel():
                    self._waiting[0].set_result(None)
                    self._free -= 1
                self._waiting.popleft()


class Backoff:
    """Seconds to wait before each further try: they double, up to a limit, and a random part keeps callers apart."""

    def __init__(self, *, first: float = 0.05, most: float = 2.0) -> None:
        self._next = first
        self._most = most
        self._random = Random()

    def seconds(self, *, least: float = 0.0) -> float:
        """The next wait; ``least`` is what the server asked for."""
        wait, self._next = self._next, min(2 * self._next, self._most)
        return max(wait, least) * (0.5 + self._random.random())
