"""Environments that an OpenEnv server holds."""

import json
from collections.abc import Sequence
from random import Random
from typing import Any

from fettle.config import OpenEnv
from fettle.environments.adapters.sessions import Beginnings, Refused, Session, Told
from fettle.environments.adapters.worlds import IllegalAction, Moved, Rules, WorldEnvironment
from fettle.environments.base import Environment, Suite
from fettle.environments.generated import GeneratedTasks
from fettle.errors import ConfigError, EnvironmentFault, did_you_mean
from fettle.types import Task

SEEDS = 2**31


def suite(config: OpenEnv) -> Suite:
    """The episodes of the environment, each with a seed.

    Raises:
        ConfigError: the server stays away, or does not begin alike with one seed; an observation has no such field; or
            there are too few beginnings to hold some out.
    """
    try:
        return OpenEnvSuite(config)
    except EnvironmentFault as fault:
        raise ConfigError(fault.message) from fault


class OpenEnvSuite:
    """Satisfies ``Suite``."""

    def __init__(self, config: OpenEnv) -> None:
        self.name = config.url
        self._config = config
        self._beginnings = Beginnings(config)
        self._rules = Rules(
            system=config.system,
            instructions=config.instructions,
            asks="Say what you do, " + ("as <answer>...</answer>." if config.answer_in == "tags" else "and no more."),
            in_tags=config.answer_in == "tags",
            turns=config.turns,
            illegal_cost=config.illegal_cost,
        )
        if self._begun(1) != self._begun(1):
            raise ConfigError(
                f"{config.url} begins in two ways with one seed, so no run could be repeated: let reset(seed) decide it"
            )
        self._tasks = GeneratedTasks(self.name, self._drawn, seed=config.seed, heldout=config.heldout)

    def training_task(self, index: int) -> Task:
        """The first draw of ``index`` that is not held out.

        Raises:
            EnvironmentFault: the server stays away.
        """
        return self._tasks.training_task(index)

    def heldout_tasks(self) -> Sequence[Task]:
        """The beginnings kept for evaluation."""
        return self._tasks.heldout_tasks()

    def environment(self) -> Environment:
        """A new environment, for one episode."""
        return WorldEnvironment(OpenEnvWorld(self._config), self._rules)

    def _drawn(self, rng: Random) -> Task:
        seed = rng.randrange(SEEDS)
        return self._rules.task(self.name, seed, self._begun(seed))

    def _begun(self, seed: int) -> str:
        return _shown(self._config, self._beginnings.of(seed))


class OpenEnvWorld:
    """Satisfies ``World``: a session."""

    def __init__(self, config: OpenEnv) -> None:
        self._config = config
        self._session = Session(config)

    async def begin(self, seed: int) -> str:
        """Reset it."""
        return _shown(self._config, await self._session.begin(seed))

    async def act(self, action: str) -> Moved:
        """Step it.

        Raises:
            IllegalAction: the reply is no JSON where that is asked for, or the server says that it is no action.
            EnvironmentFault: it failed.
        """
        config = self._config
        try:
            told = await self._session.step({**config.action, config.action_field: self._value(action)})
        except Refused as refused:
            if config.reply_as == "text":
                why = f"takes no action {{{config.action_field}: TEXT}} ({refused}): mend action_field and action"
                raise EnvironmentFault(f"{config.url} {why}") from refused
            raise IllegalAction(f"{action.strip()[:60]!r} is no action here.") from refused
        return Moved(_shown(config, told), told.reward, terminated=told.done)

    async def close(self) -> None:
        """End the session."""
        await self._session.close()

    def _value(self, action: str) -> Any:
        if self._config.reply_as == "text":
            return action
        try:
            return json.loads(action)
        except (ValueError, RecursionError):
            raise IllegalAction(f"{action.strip()[:60]!r} is no JSON, and an action is.") from None


def _shown(config: OpenEnv, told: Told) -> str:
    """What is shown of an observation: a text as it is, anything else as JSON."""
    field, observation = config.observation_field, told.observation
    if field is not None and field not in observation:
        known = ", ".join(observation)
        near = did_you_mean(field, observation)
        raise EnvironmentFault(f"observations of {config.url} have no field {field!r}, only {known}{near}")
    shown = observation if field is None else observation[field]
    return shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False)
