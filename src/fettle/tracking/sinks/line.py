"""Calls that are made one after another by a thread of their own: whoever gives them in never waits for one."""

import queue
import threading
from collections.abc import Callable

PATIENCE_S = 10.0
"""At the end, for each call."""


class Line:
    """What stands in it is done in order, until it ends."""

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._moved = threading.Condition()
        self._given = self._done = 0
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def give(self, call: Callable[[], None]) -> None:
        """Let this be done after what was given before. It must not raise."""
        with self._moved:
            self._given += 1
        self._calls.put(call)

    def end(self, patience_s: float = PATIENCE_S) -> int:
        """Wait for what was given, as long as each call takes no longer than that; returns how many were left."""
        self._calls.put(None)
        with self._moved:
            while self._done < self._given and self._moved.wait(patience_s):
                pass
            return self._given - self._done

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
            with self._moved:
                self._done += 1
                self._moved.notify_all()
