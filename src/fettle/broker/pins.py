"""Weights that are kept to be sampled: who draws from them, and when they go."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fettle.broker.promises import Promise
from fettle.errors import NotFoundError


@dataclass(slots=True, eq=False)
class Pinned:
    """One pin, from when it is asked for."""

    promise: Promise
    policy: str
    users: int = 0
    """Draws and readings that are not done."""
    released: bool = False


class Pins:
    """By the id of the promise that each was made with.

    A pin that is released goes when nothing is under way with it; ``unpin`` then lets it go on the backend. ``ready``
    sees to it that a policy is on the backend before its pins are used.
    """

    def __init__(self, unpin: Callable[[str], None], ready: Callable[[str], Awaitable[None] | None]) -> None:
        self._unpin = unpin
        self._ready = ready
        self._pins: dict[str, Pinned] = {}
        self._told: list[asyncio.Future[None]] = []

    def __len__(self) -> int:
        return len(self._pins)

    def __contains__(self, id: str) -> bool:
        return id in self._pins

    def __iter__(self) -> Iterator[Pinned]:
        return iter(list(self._pins.values()))

    def of(self, policy: str) -> list[Pinned]:
        """Those of a policy."""
        return [pin for pin in self._pins.values() if pin.policy == policy]

    def add(self, promise: Promise) -> None:
        """A pin that was asked for."""
        self._pins[promise.id] = Pinned(promise, promise.policy)

    def known(self, id: str) -> Pinned:
        """The pin.

        Raises:
            NotFoundError: it was let go.
        """
        if id not in self._pins:
            raise NotFoundError(f"the sampler {id} was released, or its policy was closed")
        return self._pins[id]

    def in_use(self, policy: str) -> bool:
        """Whether something is under way with a pin of the policy."""
        return any(pin.users for pin in self.of(policy))

    def settled(self, promise: Promise, *, failed: bool) -> None:
        """The pin was made, or was not."""
        if failed:
            self._pins.pop(promise.id, None)
        elif promise.id in self._pins:
            self._go_if_unused(promise.id)

    def release(self, id: str) -> None:
        """Let it go once nothing is under way with it."""
        if id in self._pins:
            self._pins[id].released = True
            self._go_if_unused(id)

    def close(self, policy: str) -> None:
        """A policy that is closed takes its pins with it."""
        self._pins = {id: pin for id, pin in self._pins.items() if pin.policy != policy}

    @asynccontextmanager
    async def held(self, id: str) -> AsyncIterator[str]:
        """Its weights can be used in here; yields the policy that they are of.

        Raises:
            NotFoundError: it was let go.
            FettleError: it could not be made.
        """
        self.take(id)
        try:
            yield await self.ready(id)
        finally:
            self.leave(id)

    def take(self, id: str) -> None:
        """From now on it stays, until ``leave``.

        Raises:
            NotFoundError: it was let go.
        """
        self.known(id).users += 1

    def leave(self, id: str) -> None:
        """Whoever took it is done with it."""
        if id in self._pins:
            self._pins[id].users -= 1
            self._go_if_unused(id)
        told, self._told = self._told, []
        for future in told:
            if not future.done():
                future.set_result(None)

    def next_leave(self) -> "asyncio.Future[None]":
        """A future of the next time that anybody is done with a pin."""
        self._told.append(asyncio.get_running_loop().create_future())
        return self._told[-1]

    async def ready(self, id: str) -> str:
        """Return once its weights can be used: the policy that they are of.

        Raises:
            NotFoundError: it was let go.
            FettleError: it could not be made.
        """
        pin = self.known(id)
        if not pin.promise.done:
            await pin.promise.result()
        if (coming := self._ready(pin.policy)) is not None:
            await coming
        return pin.policy

    def _go_if_unused(self, id: str) -> None:
        pin = self._pins.get(id)
        if pin is not None and pin.released and not pin.users and pin.promise.done:
            del self._pins[id]
            self._unpin(id)
