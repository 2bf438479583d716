"""What a server offers: suites by name, with the settings that clients may lay over the operator's."""

import asyncio
import json
import types
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError

from fettle.config import EnvironmentConfig
from fettle.environments.base import Environment, GameSuite, Suite
from fettle.environments.remote import environment_pb2 as pb
from fettle.environments.remote import wire
from fettle.environments.remote.refusals import Refusal
from fettle.environments.table import suite
from fettle.errors import ConfigError, FettleError, did_you_mean
from fettle.types import Task

OF_THE_OPERATOR = frozenset({"type", "weight"})
"""Fields that mean nothing to a client, or are no settings."""
TASKS_KEPT = 4096
"""Tasks of a suite that are remembered between listing and playing."""
TASKS_LISTED = 1000
"""The most that one call lists."""


class Played:
    """A suite at work. Its tasks are made in a thread of their own, one after another, and some are remembered."""

    def __init__(self, made: Suite) -> None:
        self._suite = made
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fettle-tasks")
        self._tasks: OrderedDict[tuple[int, int], tuple[Task, bytes]] = OrderedDict()

    def environment(self) -> Environment:
        """A new one."""
        return self._suite.environment()

    async def task(self, split: "pb.Split", index: int) -> tuple[Task, bytes]:
        """A task and the digest of its prompt.

        Raises:
            Refusal: there is none of that index.
        """
        place = (split, index)
        if place not in self._tasks:
            made = await asyncio.get_running_loop().run_in_executor(self._thread, self._made, split, index)
            self._tasks[place] = (made, wire.prompt_digest(made.prompt))
            if len(self._tasks) > TASKS_KEPT:
                self._tasks.popitem(last=False)
        return self._tasks[place]

    @property
    def heldout(self) -> int:
        """How many tasks are held out."""
        return len(self._suite.heldout_tasks())

    def _made(self, split: "pb.Split", index: int) -> Task:
        if split == pb.SPLIT_TRAINING:
            return self._suite.training_task(index)
        tasks: Sequence[Task] = self._suite.heldout_tasks()
        if split != pb.SPLIT_HELDOUT or index >= len(tasks):
            raise Refusal(
                pb.FAULT_CODE_INVALID, f"there is no task {index} of split {split}: {len(tasks)} are held out"
            )
        return tasks[index]


@dataclass(frozen=True, slots=True)
class Offer:
    """One environment, and how its suite is made with a client's settings."""

    type: str
    settings: tuple[str, ...]
    """Names of what a client may choose."""
    make: Callable[[Mapping[str, Any]], Suite]


def offer(config: EnvironmentConfig, *, max_heldout: int) -> Offer:
    """The environment that ``config`` describes.

    A client may choose numbers, switches, one of several named things, and the system message. Other texts are
    paths, modules and addresses, or may be: those are the operator's alone.
    """
    names = tuple(
        name
        for name, field in type(config).model_fields.items()
        if name not in OF_THE_OPERATOR and (name == "system" or _harmless(field.annotation))
    )

    def make(settings: Mapping[str, Any]) -> Suite:
        if isinstance(asked := settings.get("heldout"), int) and asked > max_heldout:
            raise ConfigError(f"heldout is {asked}, and this server holds out {max_heldout} tasks at most")
        made = suite(type(config).model_validate({**config.model_dump(), **settings}))
        if isinstance(made, GameSuite):
            raise ConfigError("games of several players are not served: name it in the recipe, and it is played there")
        return made

    return Offer(config.type, names, make)


class Offers:
    """The environments of a server, and the suites that clients' settings have made of them."""

    def __init__(self, offers: Mapping[str, Offer], *, kept: int) -> None:
        self.offers = dict(offers)
        self._kept = kept
        self._suites: OrderedDict[tuple[str, str], asyncio.Future[Played]] = OrderedDict()

    async def played(self, chosen: pb.Chosen) -> Played:
        """The suite that a client asks for, made if it is not there.

        Raises:
            Refusal: there is no such environment, or a setting is not for a client to choose, or is wrong.
        """
        name, settings = chosen.environment_id, wire.settings_in(chosen)
        place = (name, json.dumps(settings, sort_keys=True))
        if place in self._suites:
            self._suites.move_to_end(place)
        else:
            self._check(name, settings)
            self._suites[place] = asyncio.ensure_future(self._made(name, settings))
            if len(self._suites) > self._kept:
                self._suites.popitem(last=False)
        try:
            return await asyncio.shield(self._suites[place])
        except Refusal:
            self._suites.pop(place, None)
            raise

    async def _made(self, name: str, settings: Mapping[str, Any]) -> Played:
        try:
            return Played(await asyncio.to_thread(self.offers[name].make, settings))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise Refusal(pb.FAULT_CODE_INVALID, f"{name}: setting {where}: {first['msg']}") from error
        except FettleError as error:
            raise Refusal(pb.FAULT_CODE_INVALID, f"{name}: {error.message}") from error

    def _check(self, name: str, settings: Mapping[str, Any]) -> None:
        if name not in self.offers:
            known = ", ".join(self.offers)
            why = f"there is no environment {name[:60]!r} here, only {known}{did_you_mean(name, self.offers)}"
            raise Refusal(pb.FAULT_CODE_UNKNOWN, why)
        allowed = self.offers[name].settings
        for each in settings:
            if each not in allowed:
                why = f"{name} has no setting {each[:60]!r} that a client may choose, only {', '.join(allowed)}"
                raise Refusal(pb.FAULT_CODE_INVALID, why + did_you_mean(each, allowed))


def _harmless(annotation: Any) -> bool:
    """Whether a field holds numbers, switches or named choices only."""
    if annotation in (int, float, bool, type(None)):
        return True
    origin = get_origin(annotation)
    if origin is Literal:
        return True
    if origin is Annotated:
        return _harmless(get_args(annotation)[0])
    return origin in (Union, types.UnionType) and all(map(_harmless, get_args(annotation)))
