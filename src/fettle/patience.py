"""Requests over HTTP, repeated until one is answered or patience is at its end."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Container

import httpx


async def answer(
    ask: Callable[[], Awaitable[httpx.Response]],
    *,
    passing: Container[int],
    first: float,
    longest: float,
    seconds: float,
    attempts: float = math.inf,
) -> httpx.Response:
    """What is answered, be it a refusal; asked again where nothing is, or something of a ``passing`` status.

    The pauses are ``first`` at first, each twice the one before up to ``longest``, and no shorter than the answer asks
    for. With patience at its end, after so many ``seconds`` or ``attempts``, the last answer stands.

    Raises:
        httpx.RequestError: nobody answered the last time.
    """
    pause, until = 0.0, time.monotonic() + seconds
    while True:
        attempts -= 1
        pause = min(longest, 2 * pause or first)
        try:
            found = await ask()
        except httpx.RequestError:
            if _over(attempts, pause, until):
                raise
        else:
            pause = max(pause, _retry_after(found))
            if found.status_code not in passing or _over(attempts, pause, until):
                return found
        await asyncio.sleep(pause)


def _over(attempts: float, pause: float, until: float) -> bool:
    return attempts <= 0 or time.monotonic() + pause > until


def _retry_after(found: httpx.Response) -> float:
    try:
        if "Retry-After-Ms" in found.headers:
            return float(found.headers["Retry-After-Ms"]) / 1000
        return float(found.headers.get("Retry-After", 0))
    except ValueError:
        return 0.0
