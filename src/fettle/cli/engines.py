"""The engine that a recipe asks for, in this process or at a service, and what else depends on which it is."""

import hashlib
import importlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Protocol

import torch

from fettle.broker import Broker
from fettle.cli import launching
from fettle.client import HTTPEngine, once
from fettle.client.kept import kept
from fettle.cluster.needs import of_rank
from fettle.config import (
    EngineConfig,
    EnvironmentConfig,
    LaunchedEngine,
    LocalEngine,
    PolicySpec,
    RayEngine,
    RayWorkers,
    RLRun,
    ServiceEngine,
    StageConfig,
    TinyModel,
    TorchEngine,
    VLLMSamplers,
)
from fettle.config.keys import key_from
from fettle.engine import Backend, Capabilities, Engine
from fettle.engine.local import LocalBackend
from fettle.engine.local import capabilities as local_capabilities
from fettle.environments import GameSuite, Suite
from fettle.errors import ConfigError

CACHE = Path("~/.cache/fettle/tokenizers")
"""Tokenizers of models that are at a service."""


class Held(Backend, Protocol):
    """A backend that can tell what a policy would take of its memory."""

    def policy_bytes(self, spec: PolicySpec) -> int:
        """Of one rank, where it has several."""
        ...


@asynccontextmanager
async def engine_of(settings: EngineConfig, checkpoints: Path, *, name: str = "") -> AsyncIterator[Engine]:
    """The engine, ended with the block; it saves into ``checkpoints``. A service calls the run by its ``name``."""
    if isinstance(settings, ServiceEngine):
        remote = HTTPEngine(
            settings.url, key_of(settings), name=name, checkpoints=checkpoints, patience=settings.patience
        )
        try:
            yield remote
        finally:
            await remote.close()
    else:
        with backend_of(settings, checkpoints) as backend:
            broker = Broker(backend)
            try:
                yield broker
            finally:
                broker.close()


@contextmanager
def backend_of(settings: TorchEngine, checkpoints: Path) -> Iterator[Held]:
    """The backend in this process, or of ranks, and samplers beside them, that are ended with the block."""
    if isinstance(settings, RayEngine):
        with _on_ray("opened", "engine").opened(settings, checkpoints) as backend:
            yield backend
    elif isinstance(settings, LaunchedEngine):
        yield launching.backend(settings, checkpoints)
    else:
        assert isinstance(settings, LocalEngine)
        yield LocalBackend(settings, checkpoints=checkpoints)


@contextmanager
def played_at(
    settings: RayWorkers | None, worlds: Sequence[EnvironmentConfig], suites: Sequence[Suite | GameSuite]
) -> Iterator[Sequence[Suite | GameSuite]]:
    """The suites of the worlds, with their episodes played by workers where a run has some; these end with the block.

    Raises:
        ConfigError: Ray is not installed.
    """
    if settings is None:
        yield suites
        return
    workers = _on_ray("environments", "environment_workers").EnvironmentWorkers(settings, worlds)
    try:
        yield [workers.suite(world, suite) for world, suite in enumerate(suites)]
    finally:
        workers.close()


def capabilities(settings: EngineConfig, policy: PolicySpec | None = None) -> Capabilities:
    """What the engine can do, and, where it is here, how it would run the policy.

    Raises:
        UnreachableError: it is a service's, and there is none at that address.
    """
    if isinstance(settings, ServiceEngine):
        return once.capabilities(settings.url, key_of(settings))
    if isinstance(settings, LaunchedEngine):
        return launching.capabilities(settings, policy)
    return local_capabilities(settings, policy) if isinstance(settings, LocalEngine) else _of_ranks(settings, policy)


def threads_of(settings: EngineConfig) -> int | None:
    """The threads for arithmetic on which a run's bits hang; None where they are a service's."""
    return capabilities(settings).threads if isinstance(settings, TorchEngine) else None


def _of_ranks(settings: RayEngine, policy: PolicySpec | None) -> Capabilities:
    """What each rank can do, if the machines of the cluster are like this one."""
    _on_ray("opened", "engine")
    own = local_capabilities(of_rank(settings, beside=settings.workers), policy)
    where = "started for the run" if settings.address is None else f"at {settings.address}"
    ranks = f"{settings.workers}, each with {own.threads} threads on {own.device}, on a Ray cluster {where}"
    if settings.sharded:
        ranks += "; layers are parted among them"
    paths = {"ranks": ranks, **_of_samplers(settings), **own.paths} if own.paths else {}
    beside = own.sampling_beside or settings.samplers is not None
    return replace(own, engine="ray", sampling_beside=beside, paths=paths)


def _of_samplers(settings: RayEngine) -> dict[str, str]:
    beside = settings.samplers
    if isinstance(beside, VLLMSamplers):
        return {"samplers": f"servers of vLLM at {', '.join(beside.urls)}"}
    return {} if beside is None else {"samplers": f"{beside.count}, each with {beside.threads} threads on cpu"}


def check_players(stage: StageConfig) -> None:
    """Refuses environments on workers where those cannot be begun.

    Raises:
        ConfigError: Ray is not installed.
    """
    if isinstance(stage, RLRun) and stage.environment_workers is not None:
        _on_ray("environments", "environment_workers")


def _on_ray(room: str, setting: str) -> ModuleType:
    """A room of the cluster, which needs Ray, for the setting that asks for it.

    Raises:
        ConfigError: Ray is not installed.
    """
    try:
        return importlib.import_module(f"fettle.cluster.{room}")
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise ConfigError(f"{setting}.type is ray, and Ray is not installed: pip install 'fettle[cluster]'") from error


def tokenizer_of(settings: EngineConfig, model: str) -> str:
    """Where the tokenizer of a model is to be had: with the model where that is here, or else from the service."""
    if isinstance(settings, TorchEngine) or (Path(model).is_dir() and kept(model) is None):
        return model
    address = f"{settings.url}\n{kept(model) or model}"
    folder = CACHE.expanduser() / hashlib.sha256(address.encode()).hexdigest()[:24]
    if not folder.is_dir():
        once.copy_tokenizer(settings.url, key_of(settings), model, to=folder)
    return str(folder)


def check_for_service(name: str, stage: StageConfig) -> None:
    """Refuses what a service cannot do for a run.

    Raises:
        ConfigError: the run asks for it.
    """
    if isinstance(stage.policy.model, TinyModel):
        raise ConfigError(
            f"{name}: policy.model describes a tiny model, and a service trains the models that it serves: name one"
        )
    if stage.profile:
        raise ConfigError(
            f"{name}: profile looks into the engine of this process, and engine.type is service: unset it"
        )


def check_gpus(engine: TorchEngine) -> None:
    """Refuses GPUs that are not here; this process sees the chosen ones alone.

    Raises:
        ConfigError: one is not.
    """
    if not engine.gpu_ids:
        return
    asked, seen = 1 if isinstance(engine, LaunchedEngine) else len(engine.gpu_ids), torch.cuda.device_count()
    if seen < asked:
        named = ", ".join(map(str, engine.gpu_ids))
        raise ConfigError(f"engine.gpu_ids names {named}, and of these torch sees {seen} here: see nvidia-smi -L")


def key_of(settings: ServiceEngine) -> str | None:
    """The key that a recipe says where to find.

    Raises:
        ConfigError: it is not there.
    """
    if settings.key_file is None:
        return key_from(settings.key_env, named="engine.key_env")
    try:
        return Path(settings.key_file).expanduser().read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"engine.key_file is {settings.key_file}, which cannot be read: {error}") from error
