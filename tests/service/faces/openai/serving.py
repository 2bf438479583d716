"""A real server in a thread of this process, over a tiny model."""

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import uvicorn
from fastapi import FastAPI

from fettle.broker import Broker
from fettle.config import LocalEngine, Scheduling, ServedModel, ServiceConfig
from fettle.engine.local import LocalBackend
from fettle.service.app import app_of
from fettle.service.core import Service
from fettle.service.models import Models
from fettle.service.store import Store

PATIENCE_S = 60


@dataclass
class Served:
    """The server, its keys, and a way onto its event loop."""

    url: str
    service: Service
    key: str
    other_key: str
    admin_key: str
    loop: asyncio.AbstractEventLoop

    def call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """What a coroutine comes to on the server's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(PATIENCE_S)

    def do(self, act: Callable[[], Any]) -> Any:
        """What a function gives there."""

        async def done() -> Any:
            return act()

        return self.call(done())


class Server(uvicorn.Server):
    """Says when it listens."""

    def __init__(self, app: FastAPI, listening: Callable[[], object]) -> None:
        super().__init__(uvicorn.Config(app, log_level="warning", lifespan="off"))
        self._listening = listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._listening()


@contextmanager
def serving(
    state: Path, models: Mapping[str, str], *, auth: Literal["keys", "none"] = "keys", **more: Any
) -> Iterator[Served]:
    """The server of models by name, until the block ends."""
    found: Future[tuple[Served, Server]] = Future()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            try:
                asyncio.run(_serve(state, models, {"auth": auth, **more}, listener, found))
            except BaseException as error:
                if not found.done():
                    found.set_exception(error)
                raise

        thread = threading.Thread(target=run)
        thread.start()
        served, server = found.result(PATIENCE_S)
        try:
            yield served
        finally:
            server.should_exit = server.force_exit = True
            thread.join(PATIENCE_S)


async def _serve(
    state: Path,
    models: Mapping[str, str],
    settings: dict[str, Any],
    listener: socket.socket,
    found: "Future[tuple[Served, Server]]",
) -> None:
    engine = LocalEngine(threads=1)
    served = tuple(ServedModel(name=name, path=path, aliases=(f"also-{name}",)) for name, path in models.items())
    config = ServiceConfig(models=served, state=str(state), engine=engine, **settings)
    broker = Broker(LocalBackend(engine, checkpoints=state / "checkpoints"), scheduling=Scheduling(gather="free"))
    store = await Store.opened(None, state)
    service = await Service(config, broker, store, Models(config.models)).recovered()
    keys = [(await service.keys.create(tenant, admin=admin))[1] for tenant, admin in KEYS]
    await service.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    answered = Served(url, service, *keys, asyncio.get_running_loop())
    server = Server(app_of(service), lambda: found.set_result((answered, server)))
    await server.serve(sockets=[listener])
    await service.stop(patience_s=1)
    broker.close()
    await store.close()


KEYS = (("acme", False), ("globex", False), ("acme", True))
"""Tenants and admins of the keys, in the order of the fields above."""
