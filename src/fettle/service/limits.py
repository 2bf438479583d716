"""How large a request may be, and how long it may take to arrive; compressed bodies are opened within the limit."""

import asyncio
import builtins
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from types import MappingProxyType
from typing import Protocol

import zstandard
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fettle.errors import DataError, TimeoutError, TooLargeError
from fettle.frames import MEDIA_TYPE
from fettle.service.intake import MIB, Intake
from fettle.service.rates import body_limit
from fettle.service.wire import BODY, LARGE, Refused

LARGEST_TEXT = 16 * MIB
"""Bytes of a body that is no arrays as bytes: while JSON is read, nobody else is answered."""
BINARY = (MEDIA_TYPE, "application/x-protobuf")
SMALL = 64 * 1024
"""Bytes of a body that never has to wait until others were read."""
AS_IT_IS = ("", "identity")
"""Content-Encodings of a body that has none."""
LARGEST_WINDOW = 8 * MIB
"""Bytes that a zstd frame may make its reader look back."""


SLICE = 256
"""Bytes of a compressed body that are opened between two looks at how much they held: a few may hold very much."""
OPENED_AT_ONCE = MIB


class Opener(Protocol):
    """Opens a compressed body, piece by piece."""

    def __call__(self, piece: bytes, most: int) -> bytes:
        """What a piece holds, or its first ``most`` bytes."""
        ...

    @property
    def is_cut_short(self) -> bool:
        """Whether more pieces would have to come."""
        ...


class Limits:
    """Wraps the reading of bodies. A body that is too large, too slow or damaged is refused where it is read."""

    def __init__(self, app: ASGIApp, *, max_body_mib: int, timeout_s: float) -> None:
        self._app = app
        self._most = max_body_mib * MIB
        self._timeout_s = timeout_s
        self._intake = Intake()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # As a mapping, which is asked five times; the first of a name counts.
        headers = {name: value.decode("latin-1") for name, value in reversed(list(scope["headers"]))}
        most = body_limit(scope["method"], scope["path"], self._most)
        kind = headers.get(b"content-type", "").partition(";")[0].strip().lower()
        most = most if kind in BINARY else min(most, LARGEST_TEXT)
        scope[BODY] = body = _Body(receive, headers, self._intake, most, self._timeout_s)
        if b"content-encoding" in headers:
            scope["headers"] = list(scope["headers"])
            opened = MutableHeaders(scope=scope)
            del opened["content-encoding"]
            del opened["content-length"]

        async def closing(message: Message) -> None:
            if message["type"] == "http.response.start" and body.is_left:
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        try:
            await self._app(scope, body.receive, closing)
        finally:
            body.let_go()


class _Body:
    """One request's body. Whole, it is parsed at once, and is then no longer here; unless it is ``kept``."""

    def __init__(
        self, receive: Receive, headers: Mapping[bytes, str], intake: Intake, most: int, timeout_s: float
    ) -> None:
        self.kept = False
        """Whether it is here until it is let go."""
        self._receive = receive
        self._intake = intake
        self._encoding = headers.get(b"content-encoding", "").strip().lower()
        self._chunked = b"transfer-encoding" in headers
        self._announced = int(length) if (length := headers.get(b"content-length", "")).isdigit() else 0
        self._most = most
        self._timeout_s = timeout_s
        self._deadline = asyncio.get_running_loop().time() + timeout_s
        self._opener: Opener | None = None
        self._taken = 0
        self._has_room = SMALL
        self._whole = False

    @property
    def is_left(self) -> bool:
        """Whether some of it has not been read: what comes after it on the connection could then wait for ever."""
        return not self._whole and (self._chunked or self._announced > 0)

    async def receive(self) -> Message:
        """The next piece.

        Raises:
            Refused: the body is larger or slower than it may be, or cannot be opened.
        """
        if self._whole:
            return await self._receive()
        if self._announced > self._most:
            raise self._too_large()
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except builtins.TimeoutError as error:
            what = f"the body did not arrive in {self._timeout_s:g} s: send it faster, or in smaller parts"
            raise Refused(TimeoutError(what)) from error
        if message["type"] != "http.request":
            return message
        self._whole = not message.get("more_body", False)
        said = message.get("body", b"")
        if self._encoding in AS_IT_IS:
            piece = await self._taken_in(said)
        else:
            piece = b"".join([part async for part in self._opened(said)])
        if self._whole and self._opener is not None and self._opener.is_cut_short:
            raise Refused(DataError(f"the body is cut short: its {self._encoding} has no end"))
        if self._whole and not self.kept:
            self.let_go()
        return {**message, "body": piece}

    def let_go(self) -> None:
        """It is no longer here."""
        self._intake.give_back(self)

    async def _taken_in(self, part: bytes) -> bytes:
        """The same, once there is room for it."""
        self._taken += len(part)
        if self._taken > self._most:
            raise self._too_large()
        await self._make_room()
        return part

    async def _make_room(self) -> None:
        """Return once what was read may be here; how long that takes is not held against the sender."""
        if self._taken > self._has_room:
            clock = asyncio.get_running_loop().time
            since = clock()
            await self._intake.take(self, self._taken - self._has_room)
            self._has_room = self._taken
            self._deadline += clock() - since

    async def _opened(self, piece: bytes) -> AsyncIterator[bytes]:
        """What a piece holds, part by part, each once there is room for it."""
        if not piece:
            return
        if self._opener is None:
            if self._encoding not in OPENERS:
                known = ", ".join(OPENERS)
                raise Refused(DataError(f"the Content-Encoding {self._encoding[:40]!r} is not known here: use {known}"))
            self._opener = OPENERS[self._encoding]()
        slices = iter([piece[at : at + SLICE] for at in range(0, len(piece), SLICE)])
        first = partial(_opened_some, self._opener, slices, self._most - self._taken + 1)
        try:
            part = first() if len(piece) < LARGE else await asyncio.to_thread(first)
            while part is not None:
                yield await self._taken_in(part)
                part = await asyncio.to_thread(_opened_some, self._opener, slices, self._most - self._taken + 1)
        except (zlib.error, zstandard.ZstdError) as error:
            raise Refused(DataError(f"the body is not what its Content-Encoding says: {error}")) from error

    def _too_large(self) -> Refused:
        return Refused(
            TooLargeError(f"the body has more than {self._most >> 20} MiB: send it in smaller parts, or as a frame")
        )


def _opened_some(opener: Opener, slices: Iterator[bytes], most: int) -> bytes | None:
    """What the next slices of a compressed body hold: about ``OPENED_AT_ONCE``; None where there is no further one."""
    parts: list[bytes] = []
    held = 0
    for one in slices:
        parts.append(opener(one, most - held))
        held += len(parts[-1])
        if held >= min(most, OPENED_AT_ONCE):
            break
    return b"".join(parts) if parts else None


class _Inflater:
    """Opens gzip and deflate."""

    def __init__(self, window: int) -> None:
        self._inflater = zlib.decompressobj(window)

    def __call__(self, piece: bytes, most: int) -> bytes:
        """What a piece holds, or its first ``most`` bytes."""
        return self._inflater.decompress(piece, most)

    @property
    def is_cut_short(self) -> bool:
        """Whether more pieces would have to come."""
        return not self._inflater.eof


class _FullError(Exception):
    """The sink has as much as it may."""


class _Sink:
    """Takes what a frame holds, up to a limit."""

    def __init__(self) -> None:
        self.room = 0
        self.parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        """Some more.

        Raises:
            _FullError: it is too much.
        """
        self.parts.append(data[: self.room])
        self.room -= len(self.parts[-1])
        if not self.room:
            raise _FullError
        return len(data)


class _Unzstd:
    """Opens zstd."""

    is_cut_short = False
    """Nothing tells; the JSON or the frame within has an end of its own."""

    def __init__(self) -> None:
        self._sink = _Sink()
        opening = zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW)
        self._writer = opening.stream_writer(self._sink)  # type: ignore[arg-type]

    def __call__(self, piece: bytes, most: int) -> bytes:
        """What a piece holds, or its first ``most`` bytes."""
        self._sink.room, self._sink.parts = most, []
        with suppress(_FullError):
            self._writer.write(piece)
        return b"".join(self._sink.parts)


OPENERS: Mapping[str, Callable[[], Opener]] = MappingProxyType(
    {"gzip": partial(_Inflater, 31), "deflate": partial(_Inflater, 15), "zstd": _Unzstd}
)
"""By Content-Encoding."""
