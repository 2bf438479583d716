"""Futures of a service's operations: one await for being taken in, one for the result; and groups of them."""

import asyncio
import builtins
from collections.abc import Awaitable, Callable, Generator, Iterator
from typing import Any, Generic, TypeVar

from fettle.client.transport import Transport
from fettle.errors import ConfigError, TimeoutError

Result = TypeVar("Result", covariant=True)


class Future(Generic[Result]):
    """One operation, which begins when this is made: ``await`` gives its result, however often.

    ``answered`` makes the result of a promise's id.

    Awaiting ``submitted`` is the first of the two awaits: from then on the service has the operation, in its place
    among the others of its run. Whoever gives up waiting cancels nothing; ``cancel`` does.
    """

    def __init__(
        self, transport: Transport, submission: Awaitable[str], answered: Callable[[str], Awaitable[Result]]
    ) -> None:
        self._transport = transport
        self._submission = asyncio.ensure_future(submission)
        self._answer = asyncio.ensure_future(self._answered(answered))
        self._answer.add_done_callback(_seen)

    @property
    def done(self) -> bool:
        """Whether its result or its error is here."""
        return self._answer.done()

    async def ended(self) -> None:
        """Returns once it is done, whatever it came to."""
        await asyncio.wait([self._answer])

    async def submitted(self) -> "Future[Result]":
        """The future itself, once the service has taken the operation in.

        Raises:
            FettleError: it was refused.
        """
        await asyncio.shield(self._submission)
        return self

    async def result(self, timeout: float | None = None) -> Result:  # noqa: ASYNC109 - cancels nothing
        """What it came to.

        Raises:
            FettleError: what it failed with.
            TimeoutError: that took longer than ``timeout`` seconds; the operation goes on.
        """
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.shield(self._answer)
        except builtins.TimeoutError as error:
            raise _late(timeout) from error

    async def cancel(self) -> bool:
        """Whether it will not be carried out, or not fully; awaiting it then raises ``CancelledError``."""
        if self.done:
            return False
        promise = await asyncio.shield(self._submission)
        told = (await self._transport.request("DELETE", f"/v1/futures/{promise}")).tree
        return bool(told["cancelled"])

    def __await__(self) -> Generator[Any, None, Result]:
        return self.result().__await__()

    async def _answered(self, answered: Callable[[str], Awaitable[Result]]) -> Result:
        return await answered(await self._submission)


class FutureGroup:
    """Futures that are waited for together, in the order in which they were added."""

    def __init__(self) -> None:
        self._futures: list[Future[Any]] = []

    def add(self, future: Future[Any]) -> None:
        """One more."""
        self._futures.append(future)

    def __len__(self) -> int:
        return len(self._futures)

    def __iter__(self) -> Iterator[Future[Any]]:
        return iter(self._futures)

    async def wait_all(self, timeout: float | None = None) -> list[Any]:  # noqa: ASYNC109 - cancels nothing
        """Every result, in order.

        Raises:
            FettleError: the first one's that failed; the others go on.
            TimeoutError: they took longer than ``timeout`` seconds; all of them go on.
        """
        try:
            async with asyncio.timeout(timeout):
                return list(await asyncio.gather(*self._futures))
        except builtins.TimeoutError as error:
            raise _late(timeout) from error

    async def wait_any(self, timeout: float | None = None) -> Future[Any]:  # noqa: ASYNC109 - cancels nothing
        """The first one that is done, whose result or error is then there at once; it leaves the group.

        Raises:
            ConfigError: the group is empty.
            TimeoutError: none was done in ``timeout`` seconds; all of them go on.
        """
        if not self._futures:
            raise ConfigError("there is nothing to wait for: add a future to the group first")
        waits = {asyncio.ensure_future(future.ended()): future for future in self._futures}
        ended, waiting = await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        for wait in waiting:
            wait.cancel()
        if not ended:
            raise _late(timeout)
        first = next(future for wait, future in waits.items() if wait in ended)
        self._futures.remove(first)
        return first

    async def cancel(self) -> int:
        """How many of them will not be carried out, or not fully."""
        return sum(await asyncio.gather(*(future.cancel() for future in self._futures)))


def _seen(answer: asyncio.Future[Any]) -> None:
    """An error that nobody asks for is not told on the console: it is told to whoever awaits the future."""
    if not answer.cancelled():
        answer.exception()


def _late(timeout: float | None) -> TimeoutError:
    return TimeoutError(f"the answer did not come in {timeout:g} s: the work goes on, and can be awaited again")
