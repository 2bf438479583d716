"""A real server on a real port, in a thread with an event loop of its own."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from fettle.config import Arithmetic, EnvironmentServerConfig, Remote
from fettle.environments.remote.client import RemoteSuite
from fettle.environments.remote.offers import Offer
from fettle.environments.remote.server import EnvironmentServer
from fettle.errors import ConfigError
from tests.environments.remote.counting import CountingSuite

ARITHMETIC = Arithmetic(digits=2, heldout=50)


@dataclass
class Served:
    """A server, and what a test asks of it."""

    server: EnvironmentServer
    loop: asyncio.AbstractEventLoop
    port: int
    counting: list[CountingSuite] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def remote(self, environment: str = "counting", **settings) -> Remote:
        return Remote(address=self.address, environment=environment, **settings)

    def suite(self, environment: str = "counting", **settings) -> RemoteSuite:
        return RemoteSuite(self.remote(environment, **settings))

    @property
    def live(self) -> int:
        """Episodes that go on."""
        return self.server.sessions.live

    def drain(self) -> None:
        asyncio.run_coroutine_threadsafe(self.server.drain(), self.loop).result(60)


@contextmanager
def serving(*, more=None, **settings) -> Iterator[Served]:
    """A server of ``counting``, ``arithmetic`` and ``more``, until the end of the block."""
    config = EnvironmentServerConfig(environments={"arithmetic": ARITHMETIC, **(more or {})}, **{"port": 0, **settings})
    made: list[CountingSuite] = []

    def counting(chosen) -> CountingSuite:
        made.append(CountingSuite(**chosen))
        return made[-1]

    found: list[Served] = []
    broken: list[ConfigError] = []
    started, over = threading.Event(), threading.Event()

    async def served() -> None:
        server = EnvironmentServer(config)
        server.offer("counting", Offer("counting", ("turns", "seed", "heldout"), counting))
        try:
            found.append(Served(server, asyncio.get_running_loop(), await server.start(), made))
        except ConfigError as error:
            broken.append(error)
            return
        finally:
            started.set()
        await asyncio.to_thread(over.wait)
        await server.stop()

    thread = threading.Thread(target=asyncio.run, args=(served(),))
    thread.start()
    try:
        assert started.wait(60)
        if broken:
            raise broken[0]
        yield found[0]
    finally:
        over.set()
        thread.join(60)


@pytest.fixture
def served() -> Iterator[Served]:
    with serving() as found:
        yield found
