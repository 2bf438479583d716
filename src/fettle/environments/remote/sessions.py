"""Sessions: one environment each, a lease that ends, and answers that stay the same when asked for again."""

import asyncio
import hashlib
import logging
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from google.protobuf.message import Message as Proto

from fettle.environments.base import Environment, Observation, StepResult
from fettle.environments.remote import environment_pb2 as pb
from fettle.environments.remote import wire
from fettle.environments.remote.refusals import Refusal, failed
from fettle.types import Message, Task

logger = logging.getLogger(__name__)

Answer = pb.ResetResponse | pb.StepResponse
Fitting = TypeVar("Fitting", bound=Proto)
Found = TypeVar("Found")
Begin = Callable[[], Awaitable[tuple[Environment, Task]]]
"""Makes what a session is to play."""

SESSION_ID = re.compile(r"[A-Za-z0-9_\-]{16,64}")
CLOSING_SECONDS = 10.0
"""How long an environment may take to close before it is left behind."""
FULL_AGAIN = 1.0
BUSY_AGAIN = 0.1
"""Seconds after which it is worth asking again, for a session and for a call."""


@dataclass(frozen=True, slots=True)
class Room:
    """How much is taken in, and for how long."""

    sessions: int
    calls: int
    lease: float
    """Seconds."""
    step: float
    """Seconds."""
    message_bytes: int


@dataclass(slots=True, eq=False)
class Session:
    """An episode: its environment while it goes on, and its last turn with what was answered."""

    name: str
    content: bytes
    """A digest of the request of the last turn."""
    lease_ends: float
    turn: int = 0
    live: bool = True
    """Whether the episode goes on."""
    environment: Environment | None = None
    answer: "asyncio.Task[Answer | Refusal]" = field(init=False)


class Sessions:
    """All sessions of a server. Used from one event loop."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.draining = False
        self.live = 0
        """Episodes that go on."""
        self._sessions: dict[str, Session] = {}
        self._over: OrderedDict[str, None] = OrderedDict()  # of those, the ones kept for their last answer only
        self._calls = 0
        self._closing: set[asyncio.Task[None]] = set()
        self._quiet = asyncio.Event()
        self._quiet.set()

    async def reset(self, request: pb.ResetRequest, begin: Begin) -> pb.ResetResponse:
        """Begin a session, or give the answer that it began with.

        Raises:
            Refusal: there is no room, or the session began with something else.
        """
        name, content = request.session_id, _digest(request)
        if not SESSION_ID.fullmatch(name):
            raise Refusal(
                pb.FAULT_CODE_INVALID, "session_id must be 16 to 64 letters, digits, dashes or underscores, at random"
            )
        session = self._sessions.get(name)
        if session is None:
            self._check_room()
            session = self._sessions[name] = Session(name, content, self._lease())
            self.live += 1
            self._quiet.clear()
            session.answer = asyncio.create_task(self._told(self._begun(session, begin)))
        elif (session.turn, session.content) != (0, content):
            raise Refusal(pb.FAULT_CODE_TURN, "the session has begun, and with something else: choose another id")
        found = await self._answered(session)
        assert isinstance(found, pb.ResetResponse)  # the answer of turn 0
        return found

    async def step(self, request: pb.StepRequest) -> pb.StepResponse:
        """Play the next turn, or give the answer of the last one if it is asked for again.

        Raises:
            Refusal: no such session, a turn out of order, another content for a turn that was played, or a fault.
        """
        session, content = self._session(request.session_id), _digest(request)
        if request.turn == session.turn + 1 and session.answer.done():
            if not session.live:
                raise Refusal(pb.FAULT_CODE_TURN, f"the episode was over after turn {session.turn}: reset another")
            self._check_calls()
            action = wire.message_in(request.action)
            session.turn, session.content = request.turn, content
            session.answer = asyncio.create_task(self._told(self._played(session, action)))
        elif request.turn != session.turn or not session.turn:
            raise Refusal(
                pb.FAULT_CODE_TURN, f"turn {request.turn} does not follow turn {session.turn} once that is answered"
            )
        elif content != session.content:
            raise Refusal(
                pb.FAULT_CODE_TURN, f"turn {request.turn} was played with another content: send the same, or the next"
            )
        found = await self._answered(session)
        assert isinstance(found, pb.StepResponse)  # the answer of a turn above 0
        return found

    def renew(self, names: Sequence[str]) -> list[str]:
        """Begin the leases of sessions anew; those that are not there are named."""
        lease, lost = self._lease(), []
        for name in names:
            if name in self._sessions:
                self._sessions[name].lease_ends = lease
            else:
                lost.append(name)
        return lost

    def close(self, name: str) -> None:
        """Let go of a session; one that is not there is no matter."""
        session = self._sessions.pop(name, None)
        if session is not None:
            session.answer.cancel()
            self._ended(session)
            self._over.pop(name, None)

    def reap(self) -> int:
        """Close sessions whose lease has ended; how many there were."""
        now = time.monotonic()
        ended = [name for name, session in self._sessions.items() if session.lease_ends < now]
        for name in ended:
            logger.info("the lease of a session has ended: %s...", name[:4])
            self.close(name)
        return len(ended)

    async def none_live(self) -> None:
        """Wait until every episode is over."""
        await self._quiet.wait()

    async def close_all(self) -> None:
        """Close every session, and wait until their environments are."""
        for name in list(self._sessions):
            self.close(name)
        await asyncio.gather(*self._closing)

    async def _begun(self, session: Session, begin: Begin) -> pb.ResetResponse:
        try:
            async with asyncio.timeout(self.room.step):
                session.environment, task = await begin()
                first = _of_kind(await session.environment.reset(task), Observation)
            lease = round(1000 * self.room.lease)
            return self._fitting(pb.ResetResponse(observation=wire.observation_out(first), lease_ms=lease))
        except BaseException:
            self._ended(session)
            raise

    async def _played(self, session: Session, action: Message) -> pb.StepResponse:
        environment = session.environment
        assert environment is not None  # of every session that is live and has answered
        try:
            async with asyncio.timeout(self.room.step):
                result = _of_kind(await environment.step(action), StepResult)
            response = self._fitting(wire.step_out(result))
        except BaseException:
            self._ended(session)
            raise
        if result.terminated or result.truncated:
            self._ended(session)
        return response

    async def _told(self, call: Awaitable[Answer]) -> Answer | Refusal:
        """The answer, or why there is none."""
        self._calls += 1
        try:
            return await call
        except Refusal as refused:
            return refused
        except TimeoutError:
            why = f"the environment did not answer within the {self.room.step:g} s that the server gives it"
            return Refusal(pb.FAULT_CODE_ENVIRONMENT, why)
        except Exception as error:  # noqa: BLE001  whatever an environment raises is its fault, which is told
            return failed("the environment", error)
        finally:
            self._calls -= 1

    async def _answered(self, session: Session) -> Answer:
        """The answer of the last turn; who stops waiting for it does not stop it."""
        session.lease_ends = self._lease()
        await asyncio.wait((session.answer,))
        if session.answer.cancelled():
            raise Refusal(pb.FAULT_CODE_SESSION, "the session was closed meanwhile")
        found = session.answer.result()
        session.lease_ends = self._lease()
        if isinstance(found, Refusal):
            raise found
        return found

    def _ended(self, session: Session) -> None:
        """The episode is over: its environment is closed, and its last answer kept for a while."""
        if not session.live:
            return
        session.live = False
        self.live -= 1
        if not self.live:
            self._quiet.set()
        self._over[session.name] = None
        if len(self._over) > self.room.sessions:
            del self._sessions[self._over.popitem(last=False)[0]]
        if session.environment is not None:
            closing = asyncio.create_task(_closed(session.environment))
            session.environment = None
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    def _session(self, name: str) -> Session:
        if name not in self._sessions:
            raise Refusal(
                pb.FAULT_CODE_SESSION,
                f"there is no such session: its lease of {self.room.lease:g} s has ended, it was closed, or the server "
                "was started anew",
            )
        return self._sessions[name]

    def _check_room(self) -> None:
        if self.draining:
            raise Refusal(pb.FAULT_CODE_DRAINING, "the server is ending and begins no episode", retry_after=FULL_AGAIN)
        if self.live >= self.room.sessions:
            why = f"all {self.room.sessions} sessions are taken: wait, or raise max_sessions"
            raise Refusal(pb.FAULT_CODE_FULL, why, retry_after=FULL_AGAIN)
        self._check_calls()

    def _check_calls(self) -> None:
        if self._calls >= self.room.calls:
            raise Refusal(pb.FAULT_CODE_FULL, f"{self._calls} calls are being worked on: wait", retry_after=BUSY_AGAIN)

    def _lease(self) -> float:
        return time.monotonic() + self.room.lease

    def _fitting(self, response: Fitting) -> Fitting:
        size, most = response.ByteSize() + wire.FRAMING, self.room.message_bytes
        if size > most:
            raise Refusal(
                pb.FAULT_CODE_TOO_LARGE,
                f"what the environment says takes {size} bytes, and a message has {most} at most: raise "
                "max_message_mib, or let it say less",
            )
        return response


async def _closed(environment: Environment) -> None:
    try:
        async with asyncio.timeout(CLOSING_SECONDS):
            await environment.close()
    except Exception as error:  # noqa: BLE001  the episode is over, and the next ones go on
        failed("closing an environment", error)


def _of_kind(found: Found, kind: type[Found]) -> Found:
    if not isinstance(found, kind):
        raise TypeError(f"the environment answered with {type(found).__name__}, and not with {kind.__name__}")
    return found


def _digest(request: Proto) -> bytes:
    return hashlib.sha256(request.SerializeToString(deterministic=True)).digest()
