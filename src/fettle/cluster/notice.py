"""Machines that are about to be taken away, such as spot instances: Ray is told of them, and tells."""

import logging
import threading
from collections.abc import Callable

from ray._private import state

logger = logging.getLogger(__name__)

EVERY_S = 1.0
"""Between looks."""


class Notice:
    """Asks Ray, beside everything else, which machines drain, and tells of each once.

    Ray has no public name for this outside of Ray Train's own workers; it is asked as they ask.
    """

    def __init__(self, told: Callable[[frozenset[str]], None], *, every: float = EVERY_S) -> None:
        """``told`` is called with the ids of machines that were not draining before, on a thread of its own."""
        self._told = told
        self._every = every
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="notice", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ask no more; what is being told is told to its end."""
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        known: frozenset[str] = frozenset()
        while not self._ended.wait(self._every):
            try:
                draining = frozenset(state.state.get_draining_nodes())
                if draining - known:
                    self._told(draining - known)
                known = draining
            except Exception as error:  # noqa: BLE001  whatever it is, the run goes on as it does without notices
                logger.warning("machines that drain are not looked for any more: %s", error)
                return
