"""A client's connections to one server: calls that are made again while it is away, and leases that are kept."""

import asyncio
import threading
import time
import weakref
from collections import defaultdict
from typing import TypeVar

import grpc
from google.protobuf.message import Message as Proto

from fettle.config import Remote
from fettle.environments.remote import environment_pb2 as pb
from fettle.environments.remote import wire
from fettle.environments.remote.company import Companies
from fettle.environments.remote.gate import Gate
from fettle.environments.remote.line import Broken, Frame, Line
from fettle.environments.remote.refusals import refusal
from fettle.environments.remote.security import channel_credentials, credentials
from fettle.environments.remote.troubles import Again, Trouble, ended, refused

Response = TypeVar("Response", bound=Proto)

OPENS = 200
"""Sessions that are being opened at once."""
SESSIONS_A_LINE = 500
"""Sessions that share a connection."""
LARGEST = 512 * 2**20
"""Bytes of a message that are ever taken in; servers set limits of their own below that."""
GRACE = 5.0
"""Seconds that a server has beyond a call's, to say that it has no answer yet."""
RENEWALS = 4
"""How often within a lease it is said that its session is wanted still."""
CHANNEL = (
    ("grpc.max_receive_message_length", LARGEST),
    ("grpc.max_send_message_length", LARGEST),
    ("grpc.use_local_subchannel_pool", 1),  # a connection of its own
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)


class Connection:
    """One server, reached from any thread and any event loop. Calls raise ``Trouble`` where they are not answered."""

    def __init__(self, settings: Remote) -> None:
        self.address = settings.address
        self.largest = LARGEST
        """Bytes of a message that the server takes."""
        self._patience, self._seconds = settings.patience, settings.call_seconds
        self._tls = channel_credentials(settings)
        self._metadata = tuple(credentials(settings))
        self._gate = Gate(OPENS)
        self._companies = Companies()
        self._lock = threading.Lock()
        self.lines: list[Line] = []
        self._playing: dict[str, Line] = {}
        self._asking = self._channel()
        self._over = threading.Event()
        self._renewing = False
        weakref.finalize(self, _end, self._over, self.lines, self._asking)

    def ask(self, method: str, request: Proto, answer: type[Response], *, patience: float | None = None) -> Response:
        """A call of its own, for which this thread waits; ``patience`` stands in for that of the settings."""
        path = f"/{wire.ENVIRONMENTS}/{method}"
        call = self._asking.unary_unary(path, type(request).SerializeToString, answer.FromString)
        again = Again(self._patience if patience is None else patience)
        while True:
            try:
                found: Response = call(request, timeout=self._seconds, metadata=self._metadata)
            except grpc.RpcError as error:
                told = {key: value for key, value in error.trailing_metadata() or () if isinstance(value, str)}
                time.sleep(again.after(ended(self.address, error.code(), error.details() or "", told)))
            else:
                return found

    async def open(self, request: pb.ResetRequest) -> pb.ResetResponse:
        """Begin a session. Until it is let go, the server is told that it is wanted."""
        line = self._least_used()
        with self._lock:
            self._playing[request.session_id] = line
        again = Again(self._patience)
        while True:
            try:
                async with self._gate.passed():
                    response = (await self._companies.answer(self._once(line, Frame(reset=request)))).reset
            except Trouble as trouble:
                await asyncio.sleep(again.after(trouble))
            else:
                self._keep_leases(response.lease_ms / 1000)
                return response

    async def step(self, request: pb.StepRequest) -> pb.StepResponse:
        """Play a turn. Made again, the call has the same answer."""
        line = self._playing.get(request.session_id)
        if line is None:
            raise Trouble("the episode is over, and was closed: make another environment")
        again = Again(self._patience)
        while True:
            try:
                return (await self._companies.answer(self._once(line, Frame(step=request)))).step
            except Trouble as trouble:
                await asyncio.sleep(again.after(trouble))

    def let_go(self, session: str) -> None:
        """End a session. Nobody waits for that."""
        with self._lock:
            line = self._playing.pop(session, None)
            if line is None:
                return
            line.sessions -= 1
        line.call(Frame(close=pb.CloseRequest(session_id=session)))

    def renew(self) -> None:
        """Tell the server that the sessions here are wanted. Nobody waits for that."""
        by_line: defaultdict[Line, list[str]] = defaultdict(list)
        with self._lock:
            for session, line in self._playing.items():
                by_line[line].append(session)
        for line, sessions in by_line.items():
            line.call(Frame(renew=pb.RenewRequest(session_ids=sessions)))

    async def _once(self, line: Line, frame: Frame) -> pb.StreamStepResponse:
        if (size := frame.ByteSize() + wire.FRAMING) > self.largest:
            raise Trouble(
                f"what was said takes {size} bytes, and the server at {self.address} takes {self.largest} at most: "
                "lower sampling.max_tokens, or raise the server's max_message_mib"
            )
        frame.deadline_ms = round(1000 * self._seconds)
        try:
            async with asyncio.timeout(self._seconds + GRACE):
                response = await asyncio.wrap_future(line.call(frame))
        except TimeoutError as error:
            why = f"the server at {self.address} did not answer within {self._seconds:g} s: raise call_seconds"
            raise Trouble(why) from error
        except Broken as broken:
            raise ended(self.address, broken.status, broken.details, {}) from broken
        if response.WhichOneof("response") == "fault":
            raise refused(self.address, refusal(response.fault))
        return response

    def _least_used(self) -> Line:
        with self._lock:
            line = min(self.lines, key=lambda each: each.sessions, default=None)
            if line is None or line.sessions >= SESSIONS_A_LINE:
                line = Line(self._channel(), self._metadata)
                self.lines.append(line)
            line.sessions += 1
            return line

    def _channel(self) -> grpc.Channel:
        if self._tls is None:
            return grpc.insecure_channel(self.address, options=CHANNEL)
        return grpc.secure_channel(self.address, self._tls, options=CHANNEL)

    def _keep_leases(self, lease: float) -> None:
        with self._lock:
            if self._renewing:
                return
            self._renewing = True
        told = (weakref.ref(self), self._over, lease / RENEWALS)
        threading.Thread(target=_renew, args=told, name="fettle-leases", daemon=True).start()


def _renew(connection: "weakref.ref[Connection]", over: threading.Event, every: float) -> None:
    """What the thread does that keeps leases, as long as anybody has the connection."""
    while not over.wait(every):
        there = connection()
        if there is not None:
            there.renew()
        del there


def _end(over: threading.Event, lines: list[Line], channel: grpc.Channel) -> None:
    over.set()
    for line in lines:
        line.close()
    channel.close()
