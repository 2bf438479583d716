"""The composition root of ``fettle environments serve``: settings, perhaps a model, a server, and its end."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fettle.cli.exits import INTERRUPTED
from fettle.cli.worlds import settings_named, types_of_worlds
from fettle.config import EnvironmentServerConfig
from fettle.config.load import load_as
from fettle.environments.plugins import plugins
from fettle.environments.remote.generation import Generator
from fettle.environments.remote.server import EnvironmentServer
from fettle.errors import ConfigError, did_you_mean
from fettle.service.logs import log_to

ROUTING = "routing"
"""Episodes of the routing policy's simulators, which no recipe of language models can name."""


def settings_of(names: Sequence[str], config: Path | None, given: Mapping[str, Any]) -> EnvironmentServerConfig:
    """The settings that a file, types of environments, overrides and options come to; ``ROUTING`` is none of them.

    Raises:
        ConfigError: a setting is wrong, or nothing is to be served.
    """
    kinds = [*types_of_worlds(), *plugins(), ROUTING]
    if not names and config is None:
        raise ConfigError(f"name what to serve, such as arithmetic; there are {', '.join(kinds)}")
    for name in names:
        if "=" not in name and name not in kinds:
            near = did_you_mean(name, kinds)
            raise ConfigError(f"there is no type of environments {name!r}, only {', '.join(kinds)}{near}")
    types = [
        f"environments.{name}.{key}={value}"
        for name in names
        if "=" not in name and name != ROUTING
        for key, value in (settings_named(name) or {}).items()
    ]
    overrides = [name for name in names if "=" in name]
    options = [
        f"{name}={json.dumps(str(value) if isinstance(value, Path) else value)}"
        for name, value in given.items()
        if value is not None
    ]
    settings = load_as(EnvironmentServerConfig, config, [*types, *overrides, *options])
    if not settings.environments and ROUTING not in names:
        raise ConfigError(f"nothing is to be served: name some of {', '.join(kinds)}, or fill environments")
    return settings


def run(settings: EnvironmentServerConfig, *, routing: bool = False) -> None:
    """Serve until a signal ends it: the first lets episodes end, the second ends at once. ``routing``: that as well.

    Raises:
        FettleError: an environment cannot be made, or the port cannot be had.
    """
    log_to()
    asyncio.run(_serve(settings, routing=routing))


async def _serve(settings: EnvironmentServerConfig, *, routing: bool) -> None:
    async with _generator(settings) as generator:
        server = EnvironmentServer(settings, generator=generator)
        if routing:
            from fettle.router import served as routing_episodes

            server.offer(ROUTING, routing_episodes.offer())
        port = await server.start()
        stop = asyncio.Event()
        for each in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(each, _asked_to_stop, stop)
        served = [*settings.environments, *([ROUTING] if routing else []), *(["a model"] if generator else [])]
        print(f"fettle: serving {', '.join(served)} at {settings.host}:{port}", flush=True)
        await stop.wait()
        await server.drain()


@asynccontextmanager
async def _generator(settings: EnvironmentServerConfig) -> AsyncIterator[Generator | None]:
    """The model that answers, where one is named."""
    if settings.model is None:
        yield None
        return
    from fettle.cli.engines import engine_of  # only now: torch takes seconds, and most servers have no use for it
    from fettle.cli.generation import SampledReplies

    async with engine_of(settings.engine, Path()) as engine:
        yield await SampledReplies.of(engine, settings.model)


def _asked_to_stop(stop: asyncio.Event) -> None:
    if stop.is_set():
        os._exit(INTERRUPTED)
    print("fettle: ending once the episodes under way have; again ends at once", flush=True)
    stop.set()
