"""Tokens as they are drawn, and a caller who goes away."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from fastapi import Request

from fettle.broker import Promise
from fettle.engine.base import SampleRequest, Watch
from fettle.errors import StorageError
from fettle.types import Completion


class Heard(NamedTuple):
    """One token, as it was drawn."""

    request: int
    """Which of the draw's prompts it answers."""
    member: int
    """Which of that prompt's completions it belongs to."""
    token: int


class Overheard:
    """A draw that is listened to. Once the listener has left, nothing more is drawn."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._heard: asyncio.Queue[Heard | None] = asyncio.Queue()
        self._left = False

    def on(self, place: int, request: SampleRequest) -> SampleRequest:
        """The request, listened to; ``place`` is which of the draw's it is."""
        return replace(request, watch=self._watch(place))

    def _watch(self, request: int) -> Watch:
        """What the engine tells of each token, from its own thread."""

        def told(index: int, token: int, logprob: float) -> bool:
            if not self._left:
                self._loop.call_soon_threadsafe(self._heard.put_nowait, Heard(request, index, token))
            return not self._left

        return told

    async def tokens(self, promise: Promise) -> AsyncIterator[Heard]:
        """Every token until the draw is done."""
        promise.when_done(lambda _: self._heard.put_nowait(None))
        while (heard := await self._heard.get()) is not None:
            yield heard

    def leave(self) -> None:
        """Nobody listens any more."""
        self._left = True


async def completions(promise: Promise, request: Request) -> list[Completion]:
    """What a draw came to; it is cancelled if the caller goes away first.

    Raises:
        CancelledError: the caller went away.
    """
    answer = asyncio.ensure_future(promise.result())
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            with suppress(StorageError):
                promise.cancel()
        drawn: list[Completion] = await answer
        return drawn
    finally:
        gone.cancel()
        promise.acknowledge()


async def _gone(request: Request) -> None:
    """Return once the caller has closed the connection; the body has been read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
