"""The composition root of the service: engine, journal, catalogue and HTTP, from start to end."""

import asyncio
import os
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

import uvloop
from starlette.types import ASGIApp

from fettle.broker import Broker
from fettle.cli.engines import Held, backend_of, check_gpus
from fettle.cli.exits import INTERRUPTED
from fettle.config import PolicySpec, ServiceConfig
from fettle.config.devices import narrow
from fettle.errors import ConfigError, StateError, StorageError
from fettle.service.app import app_of
from fettle.service.capacity import Room
from fettle.service.checkpoints import FOLDER
from fettle.service.connections import bound, server_of
from fettle.service.core import Service
from fettle.service.models import Models
from fettle.service.store import Store
from fettle.tracking.atomic import unwritable
from fettle.tracking.claim import claim, is_claimed

JOURNAL = "journal"
"""In the state folder."""
TURN_S = 0.001
"""How long a thread computes in Python before another may: an answer passes three on its way, with tokens being drawn
beside it, and the interpreter's usual 5 ms add up."""
FIRST_TENANT = "admin"
FIRST_KEY = "first-key"
"""In the state folder, where nobody reads what is printed."""


def run(settings: ServiceConfig) -> None:
    """Serve until a signal ends it: the first lets what is under way end, the second ends at once.

    Raises:
        FettleError: something that it stands on is not there.
    """
    _check_files(settings)
    narrow([settings.engine])
    check_gpus(settings.engine)
    sys.setswitchinterval(TURN_S)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings, bound(settings.host, settings.port)))


@asynccontextmanager
async def opened(settings: ServiceConfig) -> AsyncIterator[Service]:
    """The service as it was left, or a new one; it is not listening yet.

    Raises:
        ModelError: a model cannot be read.
        StateError: another service has the state folder.
        StorageError: the state folder or the database cannot be used.
    """
    state = await asyncio.to_thread(Path(settings.state).resolve)
    models = Models(settings.models)  # a slip in their names leaves no folder
    with _claimed(state):
        store = await Store.opened(settings.database_url, state)
        try:
            with backend_of(settings.engine, state / FOLDER) as backend:
                broker = await Broker.recovered(backend, state / JOURNAL, settings.journal, settings.scheduling)
                try:
                    room = _room(settings, backend, models)
                    yield await Service(settings, broker, store, models, room).recovered()
                finally:
                    await asyncio.to_thread(broker.close)
        finally:
            await store.close()


async def _serve(settings: ServiceConfig, listening: socket.socket) -> None:
    async with opened(settings) as service:
        await _make_first_key(service)
        await service.start()
        layers, end_traces = _traced(service)
        server = server_of(app_of(service, *layers), settings)
        answering = asyncio.create_task(server.serve([listening]))
        stop = asyncio.Event()
        await asyncio.sleep(0)  # the server's own handlers come first, and are replaced
        for each in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(each, _asked_to_stop, stop)
        _say_where(settings, listening)
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait([answering, stopped], return_when=asyncio.FIRST_COMPLETED)
        await service.stop()
        server.should_exit = True
        await answering
        await asyncio.to_thread(end_traces)


def _room(settings: ServiceConfig, backend: Held, models: Models) -> Room:
    """The device's memory; without keys there is one tenant, whose it all is."""
    share = settings.memory_share if settings.auth == "keys" else 1.0
    return Room(backend.capabilities(), lambda spec: backend.policy_bytes(_of_path(spec, models)), share=share)


def _of_path(spec: PolicySpec, models: Models) -> PolicySpec:
    """A run's spec as the engine takes it: with the model's folder in the place of its name."""
    return spec.model_copy(update={"model": models.named(str(spec.model)).path})


def _asked_to_stop(stop: asyncio.Event) -> None:
    if stop.is_set():
        os._exit(INTERRUPTED)
    print("fettle: stopping once what is under way has ended; again ends at once", flush=True)
    stop.set()


async def _make_first_key(service: Service) -> None:
    """Somebody must be able to make the others."""
    if service.settings.auth == "none" or await service.keys.keys():
        return
    _, text = await service.keys.create(FIRST_TENANT, name="made at the first start", admin=True)
    if sys.stdout.isatty():
        print(f"fettle: the first key, an admin's, which is not shown again: {text}", flush=True)
        return
    path = Path(service.settings.state) / FIRST_KEY
    await asyncio.to_thread(_write_secret, path, text)
    print(f"fettle: the first key, an admin's, is in {path}: take it from there, and delete the file", flush=True)


def _write_secret(path: Path, text: str) -> None:
    """Into a file that only its owner can read; what is printed goes into logs, which others read."""
    try:
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"{text}\n")
    except OSError as error:
        raise StorageError(unwritable(path, error)) from error


def _traced(service: Service) -> tuple[list[Callable[[ASGIApp], ASGIApp]], Callable[[], None]]:
    """The layer that sends traces, where they are wanted, and what ends it."""
    if service.settings.otlp_endpoint is None:
        return [], lambda: None
    try:
        from fettle.service.telemetry import Traced, Traces
    except ImportError as error:
        raise ConfigError("otlp_endpoint needs OpenTelemetry: pip install fettle[otel], or leave it out") from error
    traces = Traces(service.settings.otlp_endpoint)
    service.when_submitted(traces.submitted)
    return [partial(Traced, traces=traces)], traces.close


def _say_where(settings: ServiceConfig, listening: socket.socket) -> None:
    scheme = "https" if settings.tls_cert else "http"
    host, port = listening.getsockname()[:2]
    name = f"[{host}]" if ":" in host else host
    models = ", ".join(model.name for model in settings.models)
    print(f"fettle: serving {models} at {scheme}://{name}:{port}, with its state in {settings.state}", flush=True)


def _check_files(settings: ServiceConfig) -> None:
    if settings.tls_cert is None or settings.tls_key is None:
        return
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(settings.tls_cert, settings.tls_key)
    except OSError as error:  # ssl's own errors are such
        files = f"tls_cert {settings.tls_cert} and tls_key {settings.tls_key}"
        raise ConfigError(
            f"{files} are no certificate and its key in PEM ({error.strerror or error}): name two files that are"
        ) from error


def _claimed(state: Path) -> BinaryIO:
    """Held until it is closed."""
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        return claim(state)
    except OSError as error:
        raise StorageError(unwritable(state, error)) from error
    except StorageError as error:
        if is_claimed(state):
            raise StateError(
                f"the state folder {state} is in use by another service: stop that one, or choose another with --state"
            ) from error
        raise
