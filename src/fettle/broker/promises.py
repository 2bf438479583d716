"""What a broker gives for a call that it took in: the promise of an answer."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from fettle.broker.journal import Place
from fettle.calls import Call, call_digest, kind_of
from fettle.errors import FettleError, TimeoutError
from fettle.types import Completion, ForwardResult, PromptReading

ENTRY_BYTES = 256
"""What an answer costs that holds no arrays."""


@dataclass(frozen=True, slots=True)
class Keeping:
    """What a promise asks of the broker that gave it."""

    durable: Callable[["Promise"], Awaitable[None]]
    cancelled: Callable[["Promise"], bool]
    acknowledged: Callable[["Promise"], None]


class Promise:
    """An operation or a draw that was taken in, and the answer that it will have."""

    def __init__(
        self,
        id: str,
        *,
        policy: str,
        tenant: str,
        kind: str,
        tokens: int,
        said: Callable[[], str] | str,
        keeping: Keeping,
    ) -> None:
        self.id = id
        self.policy = policy
        """Whose operation it is; empty for a draw."""
        self.tenant = tenant
        self.kind = kind
        self.tokens = tokens
        """Computed or drawn, once it is done; before, what is expected."""
        self.seconds = 0.0
        """Of computing, once it is done."""
        self.position = 0
        """How many records the journal had with the last one of it."""
        self.place = Place(0, 0)
        """Where that one lies."""
        self.answered_at = 0.0
        self.acknowledged = False
        self.said = said
        """A hash of everything the call says, or how to come by it."""
        self._ticket = [None]
        self.withheld: FettleError | None = None
        """Why this process cannot tell the answer; nothing is decided, and the next one goes on with it."""
        self._loop = asyncio.get_running_loop()
        self._answer: asyncio.Future[Any] = self._loop.create_future()
        self._over = False
        self._waiting: list[asyncio.Future[None]] = []
        self._keeping = keeping

    @property
    def done(self) -> bool:
        """Whether the answer is there."""
        return self._answer.done()

    @property
    def digest(self) -> str:
        """A hash of everything the call says, worked out when it is first asked for."""
        if not isinstance(self.said, str):
            self.said = self.said()
        return self.said

    @property
    def answer(self) -> Any:
        """The result, or the error itself, of a promise that is done."""
        return self._answer.exception() or self._answer.result()

    async def durable(self) -> None:
        """Return once it is in the journal, on the disk; at once where none is kept.

        Raises:
            StorageError: the journal can no longer be written.
        """
        await self._keeping.durable(self)

    async def result(self, timeout: float | None = None) -> Any:  # noqa: ASYNC109  who gives up cancels nothing
        """The answer; an operation that failed raises its own error. Who gives up cancels nothing.

        Raises:
            TimeoutError: it did not come in ``timeout`` seconds.
            FettleError: it is withheld.
        """
        await self._end(timeout)
        if self.withheld is not None:
            raise self.withheld
        if not self._answer.done():
            raise TimeoutError(f"{self.kind} {self.id} has no answer yet after {timeout:g} s: ask again")
        return self._answer.result()

    async def settled(self) -> None:
        """Return once the answer is there, whatever it is, or is withheld."""
        await self._end(None)

    def cancel(self) -> bool:
        """Whether it will not be carried out, or not fully: its answer is then a ``CancelledError``.

        An operation that has begun runs to its end; one that waits has used up its number. A draw stops.

        Raises:
            StorageError: it is not written down yet, and a restart would carry it out.
        """
        return not self.done and self._keeping.cancelled(self)

    def acknowledge(self) -> None:
        """Say that its answer need not be kept any longer."""
        if not self.acknowledged:
            self.acknowledged = True
            self._keeping.acknowledged(self)

    def when_done(self, told: Callable[["Promise"], object]) -> None:
        """Have ``told`` called on the event loop once the answer is there."""
        self._answer.add_done_callback(lambda _: told(self))

    def taken(self) -> bool:
        """Take up the work, from any thread, or take it back; only who is first is told True."""
        try:
            self._ticket.pop()
        except IndexError:
            return False
        return True

    def withhold(self, why: FettleError) -> None:
        """Whoever waits for the answer is told why it does not come; nobody is told that it is done."""
        self.withheld = why
        self._wake()

    def settle(self, answer: Any) -> None:
        """Set the answer: a result, or an error."""
        if isinstance(answer, BaseException):
            self._answer.set_exception(answer)
            self._answer.exception()  # A caller that never asks has its error here, not on the console.
        else:
            self._answer.set_result(answer)
        self._wake()  # last: whoever is told of an answer finds what is noted of it

    async def _end(self, seconds: float | None) -> None:
        """Return once it is answered or withheld, at the latest after so many seconds."""
        if self._over:
            await asyncio.sleep(0)  # in the very turn of the loop that it was answered in, what is noted comes first
            return
        waiting = self._loop.create_future()
        alarm = None if seconds is None else self._loop.call_later(seconds, _wake, waiting)
        self._waiting.append(waiting)
        try:
            await waiting
        finally:
            if not self._over:
                self._waiting.remove(waiting)
            if alarm is not None:
                alarm.cancel()

    def _wake(self) -> None:
        """Wake whoever waits: each directly, since every step of the event loop between would be waited for as well."""
        self._over = True
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            _wake(each)

    @property
    def nbytes(self) -> int:
        """Memory of an answer that is there."""
        return ENTRY_BYTES + _size(self.answer)


def operation_id(policy: str, incarnation: int, seq: int) -> str:
    """The id of an operation's promise."""
    return f"{policy}.{incarnation}.{seq}"


def order_of(id: str) -> tuple[int, int]:
    """The incarnation and number in an operation's id."""
    _, incarnation, seq = id.rsplit(".", 2)
    return int(incarnation), int(seq)


def open_id(policy: str) -> str:
    """The id of the promise that a policy was opened with."""
    return f"{policy}.open"


def words_of(call: Call) -> tuple[str, int]:
    """The call's kind, and how many tokens it has to compute."""
    data = getattr(call, "data", ())
    return kind_of(call), sum(len(datum.tokens) for datum in data)


def bytes_of(call: Call) -> int:
    """Memory of what a call brings with it."""
    data = getattr(call, "data", ())
    return sum(datum.tokens.nbytes * (2 + len(datum.streams)) for datum in data)


def digest_of(call: Call) -> Callable[[], str]:
    """How to come by the call's hash."""
    return lambda: call_digest(call)


def _wake(waiting: "asyncio.Future[None]") -> None:
    if not waiting.done():
        waiting.set_result(None)


def _size(answer: object) -> int:
    """Bytes of what grows with a request."""
    if isinstance(answer, ForwardResult):
        return sum(row.nbytes for row in (*answer.logprobs, *answer.values)) + 8 * len(answer.scores)
    if isinstance(answer, PromptReading):
        return answer.top_logprobs.nbytes * 2 + answer.logprobs.nbytes
    if isinstance(answer, list):
        return sum(64 * len(each.tokens) for each in answer if isinstance(each, Completion))
    return len(answer.message) if isinstance(answer, FettleError) else 0
