"""Samples under way: what is read of their prompts beside them, and which of them are done.

A client asks for the completions of one clone of a sampler at a time, from a cursor on. Cursors begin with the time at
which this process started, so that they go up over restarts.
"""

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from fettle.errors import BusyError, FettleError
from fettle.service.faces.tinker.answers import Asked
from fettle.types import PromptReading

CLONE = 1_000_000_000
"""Each clone of a sampling client numbers its requests from a multiple of it."""

READINGS_S = 3600.0
"""How long what was read of a prompt is kept."""

CHANNELS = 1024
"""Clones of one tenant whose completions are remembered; beyond it, the oldest that have nothing to tell go."""


@dataclass(frozen=True, slots=True, eq=False)
class Extra:
    """What is read of a prompt beside the draw."""

    asked: Asked
    reading: "asyncio.Task[PromptReading]"
    since: float = field(default_factory=time.monotonic)

    async def read(self) -> PromptReading:
        """What is read; who gives up waiting stops nothing."""
        return await asyncio.shield(self.reading)


Part = Callable[[], Awaitable[object]]
"""Begins to wait for something."""


class Channel:
    """The completions of one clone of a sampler."""

    def __init__(self, cursors: "itertools.count[int]") -> None:
        self._cursors = cursors
        self._known: set[str] = set()
        self._told: deque[tuple[int, dict[str, str]]] = deque()
        self._news = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._cursor = 0

    @property
    def idle(self) -> bool:
        """Whether nothing is under way, and nothing is left to tell."""
        return not self._tasks and not self._told

    def watch(self, request: str, *parts: Part) -> None:
        """Tell of a request once all of its parts are there."""
        if request not in self._known:
            self._known.add(request)
            task = asyncio.get_running_loop().create_task(self._tell(request, *parts))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def since(self, cursor: int, seconds: float) -> tuple[list[dict[str, str]], int]:
        """The completions after a cursor, and the newest one; waits for the first of them, up to a limit."""
        while self._told and self._told[0][0] <= cursor:
            _, event = self._told.popleft()
            self._known.discard(event["request_id"])
        if not self._told:
            self._news.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), seconds)
        return [event for _, event in self._told], max(self._cursor, cursor)

    async def _tell(self, request: str, *parts: Part) -> None:
        state = "finished"
        for part in parts:
            try:
                await part()
            except FettleError:
                state = "failed"
        self._cursor = next(self._cursors)
        self._told.append((self._cursor, {"state": state, "request_id": request}))
        self._news.set()


class Samples:
    """The samples of every client."""

    def __init__(self) -> None:
        self._extras: dict[str, Extra] = {}
        self._channels: dict[str, dict[tuple[str, int], Channel]] = {}
        """By tenant, and there by sampler and clone."""
        self._cursors = itertools.count(time.time_ns() // 1000)
        self._clones: dict[str, int] = {}
        self._first_clone = int(time.time())

    def channel(self, tenant: str, sampler: str, clone: int) -> Channel | None:
        """The completions of a clone, where they were asked for in this process before."""
        return self._channels.get(tenant, {}).get((sampler, clone))

    def new_channel(self, tenant: str, sampler: str, clone: int) -> Channel:
        """A place for the completions of a clone.

        Raises:
            BusyError: the tenant has as many as it may, and each has something to tell.
        """
        own = self._channels.setdefault(tenant, {})
        if len(own) >= CHANNELS:
            idle = next((key for key, channel in own.items() if channel.idle), None)
            if idle is None:
                raise BusyError(f"{CHANNELS} sampling clients have completions to fetch: fetch some", retry_after=1.0)
            del own[idle]
        made = own[sampler, clone] = Channel(self._cursors)
        return made

    def keep(self, request: str, extra: Extra) -> None:
        """What is read for a request; older readings go."""
        oldest = next(iter(self._extras.values()), None)
        while oldest is not None and oldest.since < time.monotonic() - READINGS_S:
            self._extras.pop(next(iter(self._extras)))
            oldest = next(iter(self._extras.values()), None)
        self._extras[request] = extra

    def extra(self, request: str) -> Extra | None:
        """What is read for a request; None where it is no longer kept."""
        return self._extras.get(request)

    def drop(self, request: str) -> None:
        """It has been retrieved."""
        self._extras.pop(request, None)

    def joined(self, sampler: str) -> int:
        """The number of a further clone of a sampler; numbers begin with the time, and so are new after a restart."""
        self._clones[sampler] = self._clones.get(sampler, self._first_clone) + 1
        return self._clones[sampler]
