"""Sessions of an OpenEnv server: JSON over a WebSocket, one connection and one environment an episode."""

import asyncio
import json
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection as WaitingConnection
from websockets.sync.client import connect as connect_and_wait

from fettle.config import OpenEnv
from fettle.config.remote import loopback
from fettle.errors import EnvironmentFault

FULL = "CAPACITY_REACHED"
INVALID = "VALIDATION_ERROR"
PAUSE = 0.25
"""Seconds before a server that was full or away is asked again."""
FAREWELL = 5.0
"""Seconds that a connection has to close."""
BROKEN = (OSError, WebSocketException, TimeoutError)


@dataclass(frozen=True, slots=True)
class Told:
    """What an environment told after a reset or a step."""

    observation: Mapping[str, Any]
    reward: float
    done: bool


class Refused(Exception):  # noqa: N818  whether it is an error is for who asked to say
    """The server's answer is that of an error."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class Session:
    """One episode at the server. Begun once, then stepped until it is over, then closed."""

    def __init__(self, config: OpenEnv) -> None:
        self._config = config
        self._connection: ClientConnection | None = None

    async def begin(self, seed: int) -> Told:
        """Connect and reset; while the server is full or away it is asked again.

        Raises:
            EnvironmentFault: it stays so, or answers with something else.
        """
        end = time.monotonic() + self._config.patience
        while True:
            try:
                self._connection = await connect(**_options(self._config))
                return await self.asked("reset", {**self._config.reset, "seed": seed})
            except (*BROKEN, Refused) as error:
                await self.close()
                _check_again(self._config, error, end)
            await asyncio.sleep(PAUSE)

    async def step(self, action: Mapping[str, Any]) -> Told:
        """What comes of an action.

        Raises:
            Refused: the server says that it is none.
            EnvironmentFault: the environment failed, the connection broke, or no answer came in time.
        """
        try:
            return await self.asked("step", action)
        except Refused as refused:
            if refused.code == INVALID:
                raise
            raise EnvironmentFault(f"the environment at {self._config.url} failed: {refused}") from refused
        except BROKEN as error:
            raise EnvironmentFault(_broken(self._config, error)) from error

    async def asked(self, kind: str, data: Mapping[str, Any]) -> Told:
        """One question, one answer."""
        if self._connection is None:
            raise EnvironmentFault(f"there is no session at {self._config.url}: begin one")
        with suppress(ConnectionClosed):  # what it said before that is still there to be read
            await self._connection.send(_question(kind, data))
        async with asyncio.timeout(self._config.call_seconds):
            return _told(self._config, await self._connection.recv())

    async def close(self) -> None:
        """End the session, whatever state it is in."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(*BROKEN):
                await connection.close()


class Beginnings:
    """First observations by their seeds, on a connection of their own that is kept, for whoever has no event loop."""

    def __init__(self, config: OpenEnv) -> None:
        self._config = config
        self._held = ExitStack()
        self._connection: WaitingConnection | None = None
        self._lock = threading.Lock()

    def of(self, seed: int) -> Told:
        """What the environment begins with.

        Raises:
            EnvironmentFault: the server stays full or away, or answers with something else.
        """
        end = time.monotonic() + self._config.patience
        with self._lock:
            while True:
                try:
                    return self._asked(seed)
                except (*BROKEN, Refused) as error:
                    self.close()
                    _check_again(self._config, error, end)
                time.sleep(PAUSE)

    def close(self) -> None:
        """End the connection."""
        self._connection = None
        with suppress(*BROKEN):
            self._held.close()

    def _asked(self, seed: int) -> Told:
        if self._connection is None:
            self._connection = self._held.enter_context(connect_and_wait(**_options(self._config)))
        with suppress(ConnectionClosed):
            self._connection.send(_question("reset", {**self._config.reset, "seed": seed}))
        return _told(self._config, self._connection.recv(self._config.call_seconds))


def _options(config: OpenEnv) -> dict[str, Any]:
    here = loopback(urlsplit(config.url).hostname or "")
    return {
        "uri": config.url,
        "open_timeout": config.call_seconds,
        "close_timeout": FAREWELL,
        "max_size": config.max_message_mib << 20,
        **({"proxy": None} if here else {}),
    }


def _question(kind: str, data: Mapping[str, Any]) -> str:
    return json.dumps({"type": kind, "data": dict(data)})


def _told(config: OpenEnv, text: str | bytes) -> Told:
    """An answer as what it tells.

    Raises:
        Refused: it tells of an error.
        EnvironmentFault: it is no answer of an OpenEnv server.
    """
    try:
        answer = json.loads(text)
        kind, data = answer["type"], answer["data"]
        if kind == "error":
            raise Refused(str(data.get("code")), str(data.get("message")))
        if kind != "observation" or not isinstance(data["observation"], dict):
            raise KeyError(kind)
        reward = data.get("reward")
        return Told(data["observation"], 0.0 if reward is None else float(reward), bool(data.get("done", False)))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        said = text[:80]
        raise EnvironmentFault(f"{config.url} answered {said!r}, which is nothing that OpenEnv servers say") from error


def _check_again(config: OpenEnv, error: Exception, end: float) -> None:
    """Nothing, where it may be asked again."""
    if isinstance(error, Refused) and error.code != FULL:
        raise EnvironmentFault(f"the environment at {config.url} cannot be begun: {error}") from error
    if time.monotonic() < end:
        return
    if isinstance(error, Refused):
        why = "allow one session more than there are episodes at once"
        raise EnvironmentFault(f"{config.url} had no room within {config.patience:g} s: {why}") from error
    raise EnvironmentFault(f"{_broken(config, error)}; it was asked for {config.patience:g} s") from error


def _broken(config: OpenEnv, error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"{config.url} did not answer within {config.call_seconds:g} s"
    return f"{config.url} cannot be reached ({type(error).__name__}: {error})"
